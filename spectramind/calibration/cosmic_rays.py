"""Samples that stand out from their neighbours in time."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectramind.calibration.statistics import robust_std
from spectramind.types import Floats

HALF_WINDOW = 2
"""The running median spans five samples: it follows an ingress, and two hits in a row do not move it."""
_NEIGHBOURS = np.array([-2, -1, 1, 2])
_SCATTER_SAMPLE = 1000
"""Differences, evenly spaced in time, from which a scatter is found."""


def scatter(series: NDArray[Any]) -> Floats:
    """Robust standard deviation of one sample from the differences of neighbours along the first axis.

    Slow changes such as a transit hardly enter; fast ones such as pointing jitter do, as they should.
    """
    step = max(1, len(series) // _SCATTER_SAMPLE)
    return np.asarray(robust_std(series[1::step] - series[:-1:step], axis=0) / np.sqrt(2.0))


def reject(
    series: NDArray[Any], threshold: NDArray[Any], invalid: NDArray[np.bool_] | None = None
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Replace outliers and `invalid` samples by the median of the two before and the two after them along the first
    axis, mirrored at both ends; returns the cleaned series and what was replaced.

    An outlier differs from the median of the five by over `threshold`, which is broadcast against one sample. The
    sample itself does not enter its replacement, and values on both sides are rejected alike: nothing is biased.
    """
    # If both neighbours are within the threshold of a sample, so is the median of five that holds all three.
    jumps = np.abs(np.diff(series, axis=0)) > threshold
    suspect = np.zeros_like(series, bool) if invalid is None else invalid.copy(order="K")
    suspect[1:] |= jumps
    suspect[:-1] |= jumps
    times, *elsewhere = np.nonzero(suspect)
    around = times + _NEIGHBOURS[:, None]
    last = len(series) - 1
    around = np.clip(np.where(around > last, 2 * last - around, np.abs(around)), 0, last)
    _, low, high, _ = np.sort(series[(around, *elsewhere)], axis=0)
    value = series[suspect]
    distance = np.maximum(np.maximum(low - value, value - high), 0.0)
    replace = distance > np.broadcast_to(threshold, series.shape[1:])[tuple(elsewhere)]
    if invalid is not None:
        replace |= invalid[suspect]
    clean = series.copy(order="K")
    clean[tuple(index[replace] for index in (times, *elsewhere))] = 0.5 * (low + high)[replace]
    suspect[suspect] = replace
    return clean, suspect
