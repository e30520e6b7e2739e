"""Difference of the two reads of a ramp, which removes what both share: the pedestal and the reset noise."""

from __future__ import annotations

import numpy as np

from spectramind.calibration.samples import Samples


def difference(samples: Samples, long_first: bool = False) -> Samples:
    """Long minus short read (n / 2, R, C) of consecutive pairs.

    Both reads sample one ramp, so their photon noise has the electrons of the short read in common and the difference
    has the shot noise of the difference alone; the read noise of the two reads adds up.
    """
    first, second = samples.signal[0::2], samples.signal[1::2]
    signal = first - second if long_first else second - first
    return samples._replace(signal=signal, noise=samples.noise.sum(axis=0), shot=np.maximum(signal.mean(axis=0), 0.0))
