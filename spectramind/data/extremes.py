"""The largest count of each pixel, without an array that holds all of them."""

from __future__ import annotations

from collections.abc import Sequence

import numba
import numpy as np
from numpy.typing import NDArray

_TOGETHER = 32
"""Series per call of the compiled loop, which costs microseconds."""


def highest_counts(series: Sequence[NDArray[np.uint16]]) -> NDArray[np.uint16]:
    """The largest value of each of the `series`, whose number is a multiple of 32."""
    highest = np.empty(len(series), np.uint16)
    for first in range(0, len(series), _TOGETHER):
        _highest(tuple(series[first : first + _TOGETHER]), highest[first : first + _TOGETHER])
    return highest


@numba.njit(cache=True, nogil=True)
def _highest(series: tuple[NDArray[np.uint16], ...], highest: NDArray[np.uint16]) -> None:
    for place in range(len(series)):
        largest = np.uint16(0)
        for value in series[place]:
            largest = max(largest, value)
        highest[place] = largest
