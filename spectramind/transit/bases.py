"""Smooth functions of time and of wavelength in which drift and limb darkening are written."""

from __future__ import annotations

import numpy as np
from numpy.polynomial import chebyshev, legendre

from spectramind.types import Floats


def time_basis(time_h: Floats, degree: int) -> Floats:
    """Chebyshev polynomials T_1..T_degree over the visit, scaled to [-1, 1]: (T, degree)."""
    return np.asarray(chebyshev.chebvander(_to_unit_interval(time_h), degree)[:, 1:], dtype=np.float64)


def wavelength_basis(wavelength_um: Floats, count: int) -> Floats:
    """Legendre polynomials P_0..P_(count-1) in the logarithm of the wavelength, scaled to [-1, 1]: (B, count)."""
    return np.asarray(legendre.legvander(_to_unit_interval(np.log(wavelength_um)), count - 1), dtype=np.float64)


def _to_unit_interval(values: Floats) -> Floats:
    low, high = values.min(), values.max()
    return np.zeros_like(values) if high == low else 2 * (values - low) / (high - low) - 1
