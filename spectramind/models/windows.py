"""Windows of a molecule's bands: inclusive ranges of the 283 bins in ascending wavelength."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Windows = Mapping[str, Sequence[tuple[int, int]]]
"""Ranges by molecule."""


def bins_inside(ranges: Sequence[tuple[int, int]]) -> NDArray[np.intp]:
    """The bins of all `ranges`, in their order."""
    return np.concatenate([np.arange(first, last + 1) for first, last in ranges])
