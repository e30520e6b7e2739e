"""Numbers that tell what a step did and how good a light curve is."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectramind.types import Floats, StepStatistics

GAUSSIAN_MEDIAN = 1.4826
"""Standard deviation of a Gaussian over the median size of its deviations."""


def robust_std(deviations: NDArray[Any], axis: int | None = None) -> Floats:
    """Standard deviation of `deviations` from zero, from their median size: a few outliers do not matter."""
    return np.asarray(GAUSSIAN_MEDIAN * np.median(np.abs(deviations), axis=axis), dtype=np.float64)


def step_statistics(
    step: str,
    before: NDArray[Any],
    after: NDArray[Any],
    changed_fraction: float,
    scatter_ppm_in: float,
    scatter_ppm_out: float,
) -> StepStatistics:
    """The statistics of a step from the samples `before` and `after` it."""
    (mean_in, std_in), (mean_out, std_out) = _moments(before), _moments(after)
    return StepStatistics(step, mean_in, mean_out, std_in, std_out, changed_fraction, scatter_ppm_in, scatter_ppm_out)


def _moments(values: NDArray[Any]) -> tuple[float, float]:
    """Mean and standard deviation, in the two passes that suffice where values scatter as much as they are large."""
    flat: Floats = values.ravel().astype(np.float64, copy=False)
    mean, square = float(flat.mean()), float(flat @ flat) / flat.size
    return mean, math.sqrt(max(square - mean**2, 0.0))


def scatter_ppm(white: Floats, follows: NDArray[np.bool_]) -> float:
    """Scatter of a white light curve (n,) in parts per million of its median, robust and blind to slow changes.

    From differences of neighbours, of those that `follows` (n - 1,) marks.
    """
    jumps = np.diff(white)[follows]
    level = float(np.median(white))
    return float(1e6 * robust_std(jumps) / np.sqrt(2.0) / level) if jumps.size and level > 0 else float("nan")


def point_to_point(series: Floats) -> float:
    """Robust standard deviation of a series (T,) from second differences, blind to slow changes; NaN if too short."""
    values = series[np.isfinite(series)]
    if values.size < 3:
        return float("nan")
    curvature = values[2:] - 2.0 * values[1:-1] + values[:-2]
    return float(robust_std(curvature) / np.sqrt(6.0))
