"""Electrons that a pixel collects without light."""

from __future__ import annotations

import numpy as np

from spectramind.calibration.samples import Samples
from spectramind.types import Floats


def subtract_dark(samples: Samples, dark: Floats, integration_s: Floats) -> Samples:
    """Take `dark` (R, C) electrons per second x the integration time (n,) from each read.

    The dark current's own shot noise in a CDS pair is that of the longer integration less the shorter one.
    """
    signal = samples.signal - dark * integration_s[:, None, None]
    collected = np.abs(dark) * float(np.ptp(integration_s[:2]))
    noise = samples.noise + 0.5 * collected
    return samples._replace(signal=signal, noise=noise)
