"""What the noise that AIRS bins share is made of: motion and loss of light, or differences from pixel to pixel.

Motion along dispersion changes the logarithm of a bin's flux in proportion to d ln F / d bin; loss of light, change of
the image's width and errors of linearity, smoothly in wavelength. What no such template explains differs from pixel to
pixel: the flat field's errors, which act when the spectrum moves, and repaired pixels, which do so with a right flat.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import orth

from spectramind.transit.bases import wavelength_basis
from spectramind.transit.local_likelihood import LogCurves
from spectramind.types import Floats

SLOPE_BINS = 7
"""Bins whose parabola gives d ln F / d bin: fewer, and the flat's own errors would look like a slope."""
SAME = 1e-6
"""Templates that differ by less than this, relatively, are one: the slope of a spectrum may be smooth."""


def pixel_share(curves: LogCurves, colours: int) -> Floats:
    """The share (r,), 0 to 1, of the variance of each pattern of `curves` that differs from pixel to pixel; `colours`
    polynomials are the templates smooth in wavelength.

    The direction of a pattern is uncertain: where noise of variance l is shared beside unit noise, the square
    (1 - g / l^2) / (1 + g / l) of what is found, g = B / T, is true (Paul 2007, Statistica Sinica 17, 1617). The rest
    is chance, which no template explains. The light beyond the outermost bins, and so their slope, is unknown: what
    these bins do counts as explained.
    """
    if not len(curves.patterns):
        return np.zeros(0)
    n_times, n_bins = curves.weight.shape
    templates = _templates(curves, colours) * np.sqrt(curves.weight.mean(axis=0))[:, None]
    length = np.linalg.norm(templates, axis=0)
    basis = orth(templates / np.where(length > 0, length, 1.0), rcond=SAME)
    explained = ((curves.patterns @ basis) ** 2).sum(axis=1)
    variance = np.maximum(curves.excess / (1.0 - curves.excess), np.finfo(float).tiny)
    true = (1.0 - n_bins / n_times / variance**2) / (1.0 + n_bins / n_times / variance)
    return np.asarray(np.where(explained < true, 1.0 - explained / np.maximum(true, SAME), 0.0))


def _templates(curves: LogCurves, colours: int) -> Floats:
    """Changes of the log flux (B, colours + 3): smooth ones, the slope along dispersion, either outermost bin alone."""
    from scipy.signal import savgol_filter

    places = np.arange(curves.wavelength_um.size)
    total = curves.weight.sum(axis=0)
    seen = total > 0
    level = (curves.weight * curves.log_flux).sum(axis=0)[seen] / total[seen]
    slope = savgol_filter(np.interp(places, places[seen], level), SLOPE_BINS, 2, deriv=1)
    edges = np.eye(places.size)[:, [0, -1]]
    return np.column_stack([wavelength_basis(curves.wavelength_um, colours), slope, edges])
