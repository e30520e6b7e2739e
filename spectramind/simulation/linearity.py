"""The detector's non-linearity: the inverse of the map that `linear_corr` gives.

linear = c0 + c1 m + ... + c5 m^5 turns measured electrons m into linear ones; a simulated pixel needs m for a known
linear charge.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectramind.types import Floats

NEWTON_STEPS = 12
SMALLEST_SLOPE = 0.2
RESIDUAL_TOLERANCE = 1e-9


def linearise(measured: ArrayLike, coefficients: Floats) -> NDArray[np.float64]:
    """Linear electrons for measured ones; `coefficients` (6, ...) ascending powers, broadcast against `measured`."""
    value, _ = _value_and_slope(np.asarray(measured, dtype=np.float64), coefficients)
    return value


def delinearise(linear: ArrayLike, coefficients: Floats) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Measured electrons for linear ones by Newton's method, and where that converged on a rising branch.

    Real coefficient files hold a few pixels whose polynomial turns over below the level asked for.
    """
    target = np.asarray(linear, dtype=np.float64)
    with np.errstate(all="ignore"):
        measured = (target - coefficients[0]) / coefficients[1]
        for _ in range(NEWTON_STEPS):
            value, slope = _value_and_slope(measured, coefficients)
            measured = measured - (value - target) / slope
        value, slope = _value_and_slope(measured, coefficients)
        residual = np.abs(value - target) / np.maximum(np.abs(target), 1.0)
        converged = (residual < RESIDUAL_TOLERANCE) & (slope > SMALLEST_SLOPE)
    return measured, np.asarray(converged, dtype=np.bool_)


def _value_and_slope(m: Floats, coefficients: Floats) -> tuple[Floats, Floats]:
    value = np.zeros(np.broadcast_shapes(m.shape, coefficients[0].shape))
    slope = np.zeros_like(value)
    for c in coefficients[::-1]:
        slope = slope * m + value
        value = value * m + c
    return value, slope
