"""Averaging CDS pairs in time."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from spectramind.types import Floats


class Bins(NamedTuple):
    """Consecutive bins: `first` (T,) index of a bin's first pair, `size` (T,) its pairs, `full` pairs of a full bin."""

    first: NDArray[np.intp]
    size: NDArray[np.int64]
    full: int


def plan_bins(time_h: Floats, bin_seconds: float) -> Bins:
    """Bins of as many pairs as come nearest to `bin_seconds`, at least one; the last bin holds the rest."""
    period_s = float(np.median(np.diff(time_h))) * 3600.0
    full = max(1, round(bin_seconds / period_s))
    first = np.arange(0, time_h.size, full)
    return Bins(first, np.diff(np.append(first, time_h.size)), full)


def bin_sum(values: NDArray[Any], bins: Bins) -> NDArray[Any]:
    """Sum over each bin along the first axis."""
    return np.add.reduceat(values, bins.first, axis=0)


def bin_mean(values: Floats, usable: NDArray[np.bool_], bins: Bins) -> tuple[Floats, NDArray[np.int64]]:
    """Mean of the `usable` (pairs,) values (pairs, …) of each bin, NaN where there is none, and their number (T,)."""
    count = bin_sum(usable.astype(np.int64), bins)
    shape = (-1,) + (1,) * (values.ndim - 1)
    total = bin_sum(np.where(usable.reshape(shape), values, 0.0), bins)
    with np.errstate(invalid="ignore", divide="ignore"):
        return total / count.reshape(shape), count
