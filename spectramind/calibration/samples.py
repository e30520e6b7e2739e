"""What the steps of the kill-chain pass on."""

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


class Series(NamedTuple):
    """Extracted series of CDS pairs (pairs, B), before the foreground is subtracted.

    `flux` and `edge` electrons per pair; `moments` (pairs, M) of the star's image, each per electron of its core;
    `replaced` (pairs, B) whether a pixel's outlier was replaced; `removed` (pairs,) electrons of all the flux that the
    replacements took away; `saturated` (pairs,) the share of saturated pixels; `replaced_share` of all samples.
    """

    flux: Floats
    edge: Floats
    moments: Floats
    replaced: NDArray[np.bool_]
    removed: Floats
    saturated: Floats
    replaced_share: float
