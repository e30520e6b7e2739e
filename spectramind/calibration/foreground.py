"""Light that does not come from the star: constant in time, left in it dilutes transits.

The border of the frame holds foreground and the wings of the star's image. To subtract both as a constant would make
transits too deep, since the wings dim with the star. Time tells them apart: the part of the border's light that follows
the star's relative brightness is starlight, the rest is foreground.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spectramind.calibration.statistics import robust_std
from spectramind.types import Floats

_SPIKE_SIGMA = 3.0


def border(image: Floats, bad: NDArray[np.bool_], edge_pixels: int, dispersed: bool) -> Floats:
    """Weights (R, C) of the mean over good border pixels: the first and last rows of each column of a spectrometer, or
    the frame's whole border without the spikes of the star's image for an imager."""
    inside = np.zeros(image.shape, bool)
    inside[:edge_pixels] = inside[-edge_pixels:] = True
    if not dispersed:
        inside[:, :edge_pixels] = inside[:, -edge_pixels:] = True
    inside &= ~bad
    if not dispersed:
        middle = np.median(image[inside])
        spread = robust_std(image[inside] - middle)
        inside &= np.abs(image - middle) <= _SPIKE_SIGMA * spread
    count = inside.sum(axis=0) if dispersed else inside.sum()
    return np.asarray(inside / np.maximum(count, 1))


def starlight_share(
    edge: Floats, star: Floats, x: Floats, edge_variance: Floats, share: float, share_sigma: float
) -> Floats:
    """Starlight (B,) in the border per pixel, electrons per pair.

    `edge` (T, B) mean of the border pixels of each bin, of variance `edge_variance` (B,); `star` (T, B) flux; `x` (B,)
    wavelength scaled to -1..1. The star's relative white light is fitted to each border series; the starlight found in
    the bins is then described as star x (k0 + k1 x), which the width of the image justifies, with a Gaussian prior
    around `share` of the border's light for k0, and the same width around zero for k1.
    """
    white = star.sum(axis=1)
    brightness = white / np.median(white) - 1.0
    brightness = brightness - brightness.mean()
    leverage = float(brightness @ brightness)
    level, flux = edge.mean(axis=0), np.maximum(np.median(star, axis=0), 0.0)
    typical = float(np.maximum(level, 0.0).sum() / max(flux.sum(), np.finfo(float).tiny))
    if typical <= 0 or leverage <= 0:
        return np.zeros_like(level)
    found = brightness @ edge / leverage
    inverse_variance = leverage / edge_variance
    design = (flux[:, None] * typical) * np.stack([np.ones_like(x), x], axis=1)
    if edge.shape[1] == 1:
        design = design[:, :1]
    prior_mean = np.array([share, 0.0])[: design.shape[1]]
    precision = design.T @ (design * inverse_variance[:, None]) + np.eye(design.shape[1]) / share_sigma**2
    coefficients = np.linalg.solve(precision, design.T @ (found * inverse_variance) + prior_mean / share_sigma**2)
    return np.clip(design @ coefficients, 0.0, np.maximum(level, 0.0))
