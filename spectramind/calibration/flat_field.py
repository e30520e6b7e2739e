"""Sensitivity of each pixel relative to the others."""

from __future__ import annotations

import numpy as np

from spectramind.calibration.samples import Samples
from spectramind.types import Floats


def divide_flat(samples: Samples, flat: Floats) -> Samples:
    """Divide by `flat` (R, C); bad pixels, whose flat means nothing, stay as they are."""
    inverse = np.divide(1.0, flat, out=np.ones_like(flat), where=~samples.bad)
    return samples._replace(
        signal=samples.signal * inverse, noise=samples.noise * inverse**2, shot=samples.shot * inverse**2
    )
