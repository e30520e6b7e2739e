"""What the frame steps of the kill-chain pass on."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from spectramind.types import Floats


class Samples(NamedTuple):
    """A block of detector samples in electrons with their uncertainty and mask.

    `signal` (n, R, C): n reads, or n CDS pairs once the pairs are differenced.
    `noise` variance of one sample from everything but light: (2, R, C) for the even and odd reads, then (R, C).
    `shot` (R, C) variance of one sample from photon counting at the block's mean brightness.
    `bad` (R, C) pixels that hold no measurement of their own.
    """

    signal: Floats
    noise: Floats
    shot: Floats
    bad: NDArray[np.bool_]
