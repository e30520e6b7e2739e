"""Counts of the analog-to-digital converter to electrons."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spectramind.calibration.samples import Samples
from spectramind.types import Adc, Floats


def to_electrons(counts: NDArray[np.uint16], adc: Adc, read_noise: Floats, bad: NDArray[np.bool_]) -> Samples:
    """Electrons (n, R, C) = counts / gain + offset.

    Each read carries the read noise (R, C) and the rounding to whole counts, of variance 1 / (12 gain^2).
    """
    signal = counts.astype(np.float64)
    signal /= adc.gain
    signal += adc.offset
    noise = np.square(read_noise) + 1.0 / (12.0 * adc.gain**2)
    return Samples(signal, np.stack([noise, noise]), np.zeros_like(noise), bad)
