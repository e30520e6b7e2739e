"""Are the stated sigmas honest? z = (truth - mean) / sigma is then normal with standard deviation 1. Arrays are
(planets, bins)."""

from __future__ import annotations

import numpy as np

from spectramind.metrics.statistics import COVERAGE_LEVELS
from spectramind.types import Floats

LEVELS = np.linspace(0.01, 0.99, 99)
"""Nominal levels of a reliability curve."""
_Z_EDGES = np.linspace(-5.0, 5.0, 51)


def half_width(level: float | Floats) -> Floats:
    """Sigmas on either side of the mean that hold the share `level` of a normal law."""
    from scipy.special import ndtri

    width: Floats = ndtri(0.5 + 0.5 * np.asarray(level))
    return width


def reliability_curve(z: Floats, levels: Floats = LEVELS) -> Floats:
    """Share of all z (levels,) within the central interval of each nominal level: the diagonal if honest."""
    return np.searchsorted(np.sort(np.abs(z), axis=None), half_width(levels), side="right") / z.size


def coverage_by_bin(z: Floats, levels: tuple[float, ...] = COVERAGE_LEVELS) -> Floats:
    """Share of planets (levels, bins) whose truth is within the interval of each level."""
    return np.stack([(np.abs(z) <= half_width(level)).mean(axis=0) for level in levels])


def z_histogram(z: Floats) -> tuple[Floats, Floats, Floats]:
    """Centres (n,) of classes of z from -5 to 5, their density (n,), and that of the standard normal law there. What
    lies beyond counts in the outermost classes."""
    counts, _ = np.histogram(np.clip(z, _Z_EDGES[0], _Z_EDGES[-1]), bins=_Z_EDGES)
    centres = 0.5 * (_Z_EDGES[1:] + _Z_EDGES[:-1])
    width = _Z_EDGES[1] - _Z_EDGES[0]
    return centres, counts / (z.size * width), np.exp(-0.5 * centres**2) / np.sqrt(2 * np.pi)


def distance_from_normal(z: Floats) -> float:
    """Largest difference between the distribution of all z and the standard normal one (Kolmogorov's D): 0 is best."""
    from scipy.special import ndtr

    ordered = np.sort(z, axis=None)
    expected = ndtr(ordered)
    steps = np.arange(ordered.size + 1) / ordered.size
    return float(max(np.max(steps[1:] - expected), np.max(expected - steps[:-1])))
