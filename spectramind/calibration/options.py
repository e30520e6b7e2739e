"""Knobs of the calibration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from spectramind.options import option


@dataclass(frozen=True)
class CalibrationOptions:
    """How raw frames become light curves."""

    order: Literal["linearity_dark", "dark_linearity"] = option(
        "linearity_dark", "Whether linearity is corrected before the dark current or after it."
    )
    hot_sigma: float = option(
        5.0, "Pixels whose dark current lies this many sigma above the others are hot.", ge=3, le=50
    )
    cosmic_ray_sigma: float = option(
        6.0, "Samples of a pixel this many sigma from the running median are replaced.", ge=4, le=100
    )
    series_sigma: float = option(
        6.0, "Samples of an extracted series this many sigma from the running median are replaced.", ge=4, le=100
    )
    weighting: Literal["optimal", "sum"] = option(
        "optimal", "Optimal weights from the spatial profile, or the plain sum of all pixels."
    )
    profile_columns: int = option(9, "Columns over which the AIRS spatial profile is averaged.", ge=1, le=101)
    correct_jitter: bool = option(True, "Remove what the star's position on the detector explains of the flux.")
    edge_pixels: int = option(5, "Width of the border from which the foreground is measured.", ge=1, le=8)
    wing_share: float = option(0.5, "Expected share of starlight in the light of the border.", ge=0, le=1)
    wing_share_sigma: float = option(0.3, "How far that share may be off; the light curve itself decides.", gt=0, le=10)
    fgs1_bin_seconds: float = option(96.0, "Length of an FGS1 time bin; 0 keeps every CDS pair.", ge=0, le=3600)
    airs_bin_seconds: float = option(96.0, "Length of an AIRS time bin; 0 keeps every CDS pair.", ge=0, le=3600)
