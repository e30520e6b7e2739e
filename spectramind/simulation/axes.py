"""Wavelength and time axes as the challenge's files give them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spectramind.instruments import AIRS, FGS1, Instrument
from spectramind.types import Floats, TimeAxis

FGS1_WAVELENGTH_UM = 0.7
AIRS_DISPERSION = (-6.913472144801733e-06, -0.0044336340659296555, 4.078463140898871)
"""Wavelength in um of AIRS-CH0 column c: the challenge's axis is this parabola in c, to rounding."""

SECONDS_PER_HOUR = 3600.0
STAMP_S = 0.1
"""Time stamp of a pair's first read after the pair's start; the second read is stamped as much later."""


@dataclass(frozen=True)
class Sampling:
    """Seconds between reset and the first read, and between the first and the second read of a pair."""

    first_read_s: float
    cds_s: float


SAMPLING = {FGS1.name: Sampling(0.1, 0.1), AIRS.name: Sampling(0.1, 4.5)}
"""From the ratio of first read to CDS signal in real frames: 0.998 for FGS1, 0.0222 for AIRS-CH0."""


def column_wavelengths_um(instrument: Instrument) -> Floats:
    """Wavelength of each detector column (columns,); for FGS1 one value."""
    if not instrument.dispersed:
        return np.array([FGS1_WAVELENGTH_UM])
    return np.asarray(np.polyval(AIRS_DISPERSION, np.arange(instrument.columns)), dtype=np.float64)


def spectrum_wavelengths_um() -> Floats:
    """The 283 bins of a spectrum: FGS1 first, then AIRS-CH0 ascending."""
    airs = column_wavelengths_um(AIRS)[AIRS.first : AIRS.last + 1][::-1]
    return np.concatenate([column_wavelengths_um(FGS1), airs])


def time_axis(instrument: Instrument, n_pairs: int, window_h: float) -> TimeAxis:
    """Stamps of `n_pairs` CDS pairs that are spread evenly over the window: two frames per pair."""
    sampling = SAMPLING[instrument.name]
    start_s = np.arange(n_pairs) * (window_h * SECONDS_PER_HOUR / n_pairs)
    time_s = (start_s[:, None] + STAMP_S * np.array([1.0, 2.0])).ravel()
    integration = np.tile([sampling.first_read_s, sampling.cds_s], n_pairs)
    return TimeAxis(time_h=time_s / SECONDS_PER_HOUR, integration_s=integration)


def pair_times_h(axis: TimeAxis) -> Floats:
    """One time per CDS pair (pairs,): the mean of its two stamps."""
    return np.asarray(axis.time_h.reshape(-1, 2).mean(axis=1))
