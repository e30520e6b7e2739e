"""Numbers that tell what a step did and how good a light curve is."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectramind.types import Floats, StepStatistics

_GAUSSIAN_MEDIAN = 1.4826
"""Standard deviation of a Gaussian over the median size of its deviations."""


def robust_std(deviations: NDArray[Any], axis: int | None = None) -> Floats:
    """Standard deviation of `deviations` from zero, from their median size: a few outliers do not matter."""
    return np.asarray(_GAUSSIAN_MEDIAN * np.median(np.abs(deviations), axis=axis), dtype=np.float64)


def step_statistics(
    step: str, before: NDArray[Any], after: NDArray[Any], changed_fraction: float | None = None
) -> StepStatistics:
    """Mean and standard deviation before and after a step, and the share of samples that it changed (all, where the
    shape changed)."""
    if changed_fraction is None:
        same_shape = before.shape == after.shape
        changed_fraction = float(np.count_nonzero(before != after) / before.size) if same_shape else 1.0
    return StepStatistics(
        step, float(before.mean()), float(after.mean()), float(before.std()), float(after.std()), changed_fraction
    )


def point_to_point(series: Floats) -> float:
    """Robust standard deviation of a series (T,) from second differences, blind to slow changes; NaN if too short."""
    values = series[np.isfinite(series)]
    if values.size < 3:
        return float("nan")
    curvature = values[2:] - 2.0 * values[1:-1] + values[:-2]
    return float(robust_std(curvature) / np.sqrt(6.0))
