"""Slow drift of the instruments' response: 1 + f(t) g(w), smooth in time and in wavelength."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.polynomial import chebyshev, legendre
from numpy.random import Generator

from spectramind.types import Floats

TIME_DEGREE_WEIGHTS = (0.0, 1.0, 0.6, 0.35, 0.2)
"""Standard deviation of the Chebyshev coefficients of f: smooth, with most power in slope and curvature."""

COLUMN_DEGREE_WEIGHTS = (0.5, 1.0, 0.35, 0.15)
"""The same for the Legendre coefficients of g: the strongest real term runs nearly linearly along the detector."""


@dataclass(frozen=True)
class Drift:
    """`time` Chebyshev coefficients of f on the window, `column` Legendre coefficients of g on the detector's columns;
    f is scaled to the peak amplitude, g to rms 1."""

    amplitude: float
    time: tuple[float, ...]
    column: tuple[float, ...]


def draw_drift(rng: Generator, minimum: float, maximum: float, dispersed: bool) -> Drift:
    """A drift whose peak amplitude is log-uniform between `minimum` and `maximum`."""
    uniform = rng.random()
    amplitude = minimum * (maximum / minimum) ** uniform if minimum > 0 else maximum * uniform
    time = rng.normal(size=len(TIME_DEGREE_WEIGHTS)) * TIME_DEGREE_WEIGHTS
    peak = np.abs(chebyshev.chebval(np.linspace(-1, 1, 201), time)).max()
    column = rng.normal(size=len(COLUMN_DEGREE_WEIGHTS)) * COLUMN_DEGREE_WEIGHTS
    rms = np.sqrt(np.mean(legendre.legval(np.linspace(-1, 1, 201), column) ** 2))
    shape = column / rms if dispersed else np.array([1.0])
    return Drift(float(amplitude), tuple((amplitude * time / peak).tolist()), tuple(shape.tolist()))


def drift_factor(drift: Drift, time_h: Floats, window_h: float, n_columns: int) -> Floats:
    """1 + f(t) g(w): (columns, T)."""
    phase = np.clip(2.0 * time_h / window_h - 1.0, -1.0, 1.0)
    position = np.linspace(-1.0, 1.0, n_columns) if n_columns > 1 else np.zeros(1)
    shape = legendre.legval(position, np.array(drift.column))
    factor: Floats = 1.0 + shape[:, None] * chebyshev.chebval(phase, np.array(drift.time))[None, :]
    return factor
