"""Knobs of the calibration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from spectramind.options import option


@dataclass(frozen=True)
class CalibrationOptions:
    """How raw frames become light curves."""

    engine: Literal["fused", "plain"] = option(
        "fused",
        "One compiled pass over the frames, or NumPy step by step: the same light curves to 1e-8, far slower and with "
        "more memory.",
    )
    reset_pairs: int = option(
        0, "CDS pairs cut from the start of a visit, while the detector settles after its reset.", ge=0, le=100_000
    )
    order: Literal["linearity_dark", "dark_linearity"] = option(
        "linearity_dark", "Whether linearity is corrected before the dark current or after it."
    )
    correct_linearity: bool = option(True, "Undo the detector's non-linear response.")
    subtract_dark: bool = option(True, "Subtract the dark current.")
    divide_flat: bool = option(True, "Divide by the flat field.")
    hot_pixels: Literal["repair", "keep"] = option(
        "repair", "Fill hot pixels in from their neighbours like dead ones, or use them as they are."
    )
    hot_sigma: float = option(
        5.0, "Pixels whose dark current lies this many sigma above the others are hot.", ge=3, le=50
    )
    reject_cosmic_rays: bool = option(True, "Replace samples of a pixel that stand out from their neighbours in time.")
    cosmic_ray_sigma: float = option(
        6.0, "Samples of a pixel this many sigma from the running median are replaced.", ge=4, le=100
    )
    reject_outliers: bool = option(True, "Replace samples of an extracted series that stand out in time.")
    series_sigma: float = option(
        6.0, "Samples of an extracted series this many sigma from the running median are replaced.", ge=4, le=100
    )
    weighting: Literal["optimal", "sum"] = option(
        "optimal", "Optimal weights from the spatial profile, or the plain sum of all pixels."
    )
    profile_columns: int = option(9, "Columns over which the AIRS spatial profile is averaged.", ge=1, le=101)
    jitter: Literal["position", "pca", "keep"] = option(
        "position",
        "What of the flux is explained and removed as pointing jitter: the part that follows the star's position, or "
        "also the leading changes of its image's shape (principal components); or nothing.",
    )
    jitter_components: int = option(3, "Principal components of the image with calibration.jitter=pca.", ge=1, le=10)
    subtract_foreground: bool = option(True, "Subtract the light that does not follow the star.")
    edge_pixels: int = option(5, "Width of the border from which the foreground is measured.", ge=1, le=8)
    wing_share: float = option(0.5, "Expected share of starlight in the light of the border.", ge=0, le=1)
    wing_share_sigma: float = option(0.3, "How far that share may be off; the light curve itself decides.", gt=0, le=10)
    fgs1_bin_seconds: float = option(96.0, "Length of an FGS1 time bin; 0 keeps every CDS pair.", ge=0, le=3600)
    airs_bin_seconds: float = option(96.0, "Length of an AIRS time bin; 0 keeps every CDS pair.", ge=0, le=3600)
