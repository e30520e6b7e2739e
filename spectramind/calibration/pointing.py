"""Where the star's image lies on the detector, and what its motion does to the flux.

Jitter moves light between pixels of different sensitivity. What the flat leaves of that is a smooth function of the
position, found from the fast part of both series, in which there is neither transit nor drift.
"""

from __future__ import annotations

from itertools import combinations_with_replacement

import numpy as np
from numpy.typing import NDArray

from spectramind.calibration.statistics import robust_std
from spectramind.types import Floats

_FEWEST_PAIRS = 50
_CLIP_SIGMA = 5.0
_LEVEL_SAMPLE = 500
"""Pairs, evenly spaced, from which the level that changes are relative to is found."""


def image_moments(
    core: NDArray[np.bool_], frames: Floats, variance: Floats, dispersed: bool, components: int = 0
) -> Floats:
    """Weights (M + 1, R, C) whose sums over a frame, each divided by the first, tell place and shape of the image.

    The first sums up the `core` (R, C) of the image; then follow the centre of light within it (x and y for an imager,
    y along the rows for a spectrometer, in pixels from the frame's first) and the leading `components` by which the
    shape of `frames` (n, R, C) varies, pixels weighted by their `variance` (R, C).
    """
    rows, columns = np.indices(core.shape)
    places = [rows] if dispersed else [columns, rows]
    moments = [core.astype(np.float64), *(place * core for place in places)]
    light = frames[:, core]
    share = light / light.sum(axis=1, keepdims=True)
    noise = np.sqrt(np.maximum(variance[core], np.finfo(float).tiny))
    deviations = (share - share.mean(axis=0)) / noise
    for component in np.linalg.svd(deviations, full_matrices=False)[2][:components] if components else ():
        weights = np.zeros(core.shape)
        weights[core] = component / noise / np.abs(component / noise).max()
        moments.append(weights)
    return np.stack(moments)


def position_response(flux: Floats, positions: Floats) -> Floats:
    """Relative change (n, B) of `flux` (n, B) that the `positions` (n, K) explain to second order, zero on average.

    Second differences of the flux are fitted with those of the positions' first and second powers, without the points
    that stand out; series of fewer than 50 pairs are left alone.
    """
    if len(flux) < _FEWEST_PAIRS:
        return np.zeros_like(flux)
    centred = positions - np.median(positions, axis=0)
    powers = [centred[:, axis] for axis in range(centred.shape[1])]
    powers += [first * second for first, second in combinations_with_replacement(powers, 2)]
    terms = np.stack(powers, axis=1)
    terms -= terms.mean(axis=0)
    level = np.median(flux[:: max(1, len(flux) // _LEVEL_SAMPLE)], axis=0)
    fast_flux = np.diff(flux / np.where(level > 0, level, 1.0), n=2, axis=0)
    fast_terms = np.diff(terms, n=2, axis=0)
    white = fast_flux.mean(axis=1)
    kept = np.abs(white) <= _CLIP_SIGMA * robust_std(white)
    coefficients = np.linalg.pinv(fast_terms[kept]) @ fast_flux[kept]
    return np.asarray(terms @ coefficients)
