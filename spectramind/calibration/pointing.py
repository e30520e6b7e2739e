"""Where the star's image lies on the imager."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectramind.types import Floats


def centroids(frames: NDArray[Any], aperture: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Centre of light (x, y), each (n,), in pixels within the `aperture` (R, C) of frames (n, R, C).

    x counts columns and y rows from the frame's first pixel.
    """
    rows, columns = np.nonzero(aperture)
    light = frames[:, rows, columns].astype(np.float64)
    total = light.sum(axis=1)
    return light @ columns / total, light @ rows / total
