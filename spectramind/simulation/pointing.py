"""Pointing jitter: a first-order autoregressive walk about the mean pointing, independent on the two axes."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from spectramind.instruments import AIRS, FGS1
from spectramind.types import Floats

CORRELATION_TIME_S = {FGS1.name: 0.6, AIRS.name: 4.0}
"""Real FGS1 centroids lose their memory over about two 0.4 s pairs; on AIRS-CH0 a 4.5 s read averages over that."""


def draw_jitter(rng: Generator, time_h: Floats, rms_px: float, instrument_name: str) -> Floats:
    """Displacement in pixels (T, 2) along columns and rows; stationary, exponential autocorrelation."""
    from scipy.signal import lfilter

    n = time_h.size
    step_s = float(np.diff(time_h).mean() * 3600.0) if n > 1 else np.inf
    memory = np.exp(-step_s / CORRELATION_TIME_S[instrument_name])
    innovation = rng.normal(size=(n, 2)) * np.sqrt(1.0 - memory**2)
    innovation[0] = rng.normal(size=2)
    walk: Floats = lfilter([1.0], [1.0, -memory], innovation, axis=0)
    return rms_px * walk
