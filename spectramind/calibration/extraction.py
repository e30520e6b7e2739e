"""Summing up pixels with weights that get the most out of each frame.

With the profile P (the share of the light in each pixel) and the variance V of a pixel, the estimate of the flux with
the least variance is sum(P D / V) / sum(P^2 / V) (Horne 1986, PASP 98, 609). The weights are constant in time, so
relative changes of the flux are unbiased whatever the profile's own errors.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectramind.types import Floats


def spatial_profile(image: Floats, dispersed: bool, smooth_columns: int) -> Floats:
    """Share of the light in each pixel of `image` (R, C), which is free of foreground.

    Sums to one along each column of a spectrometer, after averaging over `smooth_columns` neighbouring columns, or over
    the whole frame of an imager.
    """
    from scipy.ndimage import uniform_filter1d

    if not dispersed:
        positive = np.maximum(image, 0.0)
        return np.asarray(positive / positive.sum())
    smooth = uniform_filter1d(image, smooth_columns, axis=1, mode="nearest")
    smooth = np.maximum(smooth, 0.0)
    total = smooth.sum(axis=0)
    return np.asarray(np.divide(smooth, total, out=np.zeros_like(smooth), where=total > 0))


def optimal_weights(profile: Floats, variance: Floats, dispersed: bool) -> Floats:
    """Weights (R, C) with sum(weights x profile) = 1 per bin; a bin without light has weights zero."""
    weights = profile / variance
    norm = weighted_sum(weights[None], profile, dispersed)[0]
    return np.asarray(np.divide(weights, norm, out=np.zeros_like(weights), where=norm > 0))


def plain_weights(profile: Floats) -> Floats:
    """Weights (R, C) of the plain sum of all pixels."""
    return np.ones_like(profile)


def weighted_sum(frames: NDArray[Any], weights: Floats, dispersed: bool) -> Floats:
    """sum(weights x frames) of each frame (n, R, C): (n, C) for a spectrometer, (n, 1) for an imager."""
    if dispersed:
        return np.asarray(np.einsum("trc,rc->tc", frames, weights))
    return np.asarray(np.einsum("tp,p->t", frames.reshape(len(frames), -1), weights.ravel())[:, None])
