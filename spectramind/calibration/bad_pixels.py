"""Dead and hot pixels: which they are, and what their neighbours say in their place."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from spectramind.calibration.samples import Samples
from spectramind.calibration.statistics import robust_std
from spectramind.types import Floats

_FURTHEST = 3
"""Pixels; a good neighbour further away says little about a missing pixel."""


class Repair(NamedTuple):
    """Linear interpolation of bad pixels, all by index into the flattened frame: pixel `bad` (N,) becomes
    sum_k `weights` (N, 4) x pixel `sources` (N, 4)."""

    bad: NDArray[np.intp]
    sources: NDArray[np.intp]
    weights: Floats


def hot_pixels(dark: Floats, dead: NDArray[np.bool_], sigma: float) -> NDArray[np.bool_]:
    """Pixels (R, C) whose dark current lies over `sigma` robust standard deviations above the median of the others."""
    usable = dark[~dead]
    middle = np.median(usable)
    spread = robust_std(usable - middle)
    return np.asarray(dark > middle + sigma * spread) & ~dead


def plan_repair(bad: NDArray[np.bool_], along_rows_only: bool) -> Repair:
    """How to interpolate the `bad` pixels (R, C) between the nearest good ones.

    Along a row (the dispersion, where light varies slowly) for a spectrometer, along row and column for an imager. A
    pixel without a good one nearby keeps zero weights.
    """
    columns = bad.shape[1]
    pixels = np.argwhere(bad)
    sources = np.zeros((len(pixels), 4), np.intp)
    weights = np.zeros((len(pixels), 4))
    for number, (row, column) in enumerate(pixels):
        lines = [(_neighbours(bad[row], column), row * columns, 1)]
        if not along_rows_only:
            lines.append((_neighbours(bad[:, column], row), column, columns))
        found = [(origin + step * place, share) for near, origin, step in lines for place, share in near]
        total = sum(share for _, share in found)
        for slot, (source, share) in enumerate(found):
            sources[number, slot], weights[number, slot] = source, share / total
    return Repair(np.flatnonzero(bad), sources, weights)


def _neighbours(line: NDArray[np.bool_], place: int) -> list[tuple[int, float]]:
    """Nearest good places on both sides of `place` with linear-interpolation shares; one alone counts in full."""
    sides = []
    for direction in (-1, 1):
        for distance in range(1, _FURTHEST + 1):
            other = place + direction * distance
            if 0 <= other < line.size and not line[other]:
                sides.append((other, distance))
                break
    total = sum(1.0 / distance for _, distance in sides)
    return [(other, 1.0 / distance / total) for other, distance in sides]


def fill_in(samples: Samples, repair: Repair) -> Samples:
    """Samples with the bad pixels interpolated; unrepairable ones become zero."""
    flat = samples.signal.reshape(len(samples.signal), -1).copy()
    flat[:, repair.bad] = sum(flat[:, repair.sources[:, slot]] * repair.weights[:, slot] for slot in range(4))
    return samples._replace(
        signal=flat.reshape(samples.signal.shape),
        noise=_interpolated_variance(samples.noise, repair),
        shot=_interpolated_variance(samples.shot, repair),
    )


def _interpolated_variance(variance: Floats, repair: Repair) -> Floats:
    filled = variance.ravel().copy()
    filled[repair.bad] = (filled[repair.sources] * repair.weights**2).sum(axis=1)
    return filled.reshape(variance.shape)


def fold_weights(weights: Floats, repair: Repair) -> Floats:
    """Weights (R, C) on measured pixels alone that give the same sum as `weights` on repaired frames.

    A repaired pixel repeats its neighbours' noise; their squares taken with these weights count it exactly once.
    """
    folded = weights.ravel().copy()
    borrowed = folded[repair.bad]
    folded[repair.bad] = 0.0
    np.add.at(folded, repair.sources, borrowed[:, None] * repair.weights)
    return folded.reshape(weights.shape)
