"""Samples that stand out from their neighbours in time."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectramind.calibration.statistics import robust_std
from spectramind.types import Floats

HALF_WINDOW = 2
"""The running median spans five samples: it follows an ingress, and two hits in a row do not move it."""


def running_median(series: NDArray[Any]) -> NDArray[Any]:
    """Median of five consecutive samples along the first axis, mirrored at both ends."""
    padding = [(HALF_WINDOW, HALF_WINDOW)] + [(0, 0)] * (series.ndim - 1)
    padded = np.pad(series, padding, mode="reflect" if len(series) > HALF_WINDOW else "edge")
    a, b, c, d, e = (padded[shift : shift + len(series)] for shift in range(2 * HALF_WINDOW + 1))
    low, high = np.minimum(a, b), np.maximum(a, b)
    low_other, high_other = np.minimum(c, d), np.maximum(c, d)
    low, high = np.maximum(low, low_other), np.minimum(high, high_other)
    return np.asarray(np.maximum(np.minimum(low, high), np.minimum(np.maximum(low, high), e)))


def scatter(series: NDArray[Any]) -> Floats:
    """Robust standard deviation of one sample from the differences of neighbours along the first axis.

    Slow changes such as a transit hardly enter; fast ones such as pointing jitter do, as they should.
    """
    return np.asarray(robust_std(np.diff(series, axis=0), axis=0) / np.sqrt(2.0))


def reject(
    series: NDArray[Any], threshold: NDArray[Any], invalid: NDArray[np.bool_] | None = None
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Replace outliers and `invalid` samples by the running median; returns the cleaned series and what was replaced.

    An outlier differs from the running median by over `threshold`, which is broadcast against one sample. Values on
    both sides are rejected alike, so that noise alone is not biased.
    """
    expected = running_median(series)
    outlier = np.abs(series - expected) > threshold
    if invalid is not None:
        outlier |= invalid
    return np.where(outlier, expected, series), outlier
