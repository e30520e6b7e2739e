"""The detector's non-linear response, undone by the polynomial measured for each pixel."""

from __future__ import annotations

import numpy as np

from spectramind.calibration.samples import Samples
from spectramind.types import Floats


def linearise(samples: Samples, coefficients: Floats) -> Samples:
    """Linear electrons from measured ones: sum_k coefficients[k] x^k per pixel, coefficients (K, R, C) ascending.

    The read noise, which arises after the non-linear response, scales with the polynomial's slope at the mean level of
    the even and of the odd reads.
    """
    level = np.stack([samples.signal[parity::2].mean(axis=0) for parity in (0, 1)])
    powers = np.arange(1, len(coefficients))[:, None, None]
    slope = horner(level, coefficients[1:] * powers)
    return samples._replace(signal=horner(samples.signal, coefficients), noise=samples.noise * slope**2)


def horner(x: Floats, coefficients: Floats) -> Floats:
    """The polynomials with ascending `coefficients` (K, R, C) at `x` (n, R, C)."""
    result: Floats = x * coefficients[-1]
    for coefficient in coefficients[-2:0:-1]:
        result += coefficient
        result *= x
    result += coefficients[0]
    return result
