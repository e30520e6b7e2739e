"""What the noise that AIRS bins share is made of: motion and loss of light, or differences from pixel to pixel.

Motion along dispersion changes the logarithm of a bin's flux in proportion to d ln F / d bin; loss of light, change of
the image's width and errors of linearity, smoothly in wavelength. What no such template explains differs from pixel to
pixel: the flat field's errors, which act when the spectrum moves, and repaired pixels, which do so with a right flat.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import orth
from scipy.signal import savgol_filter

from spectramind.transit.bases import wavelength_basis
from spectramind.transit.local_likelihood import LogCurves
from spectramind.types import Floats

SLOPE_BINS = 7
"""Bins whose parabola gives d ln F / d bin: fewer, and the flat's own errors would look like a slope."""

SAME = 1e-6
"""Templates that differ by less than this, relatively, are one: the slope of a spectrum may be smooth."""


def pixel_to_pixel(curves: LogCurves, colours: int) -> tuple[Floats, Floats]:
    """The part (r, B) of each pattern of `curves` that no template explains, templates smooth in wavelength being
    `colours` polynomials; and the share (r,) of that part's square which is not chance.

    So many samples leave a pattern's direction uncertain: of a true one with variance l beside unit noise, g = B / T,
    the square (1 - g / l^2) / (1 + g / l) is found (Paul 2007, Statistica Sinica 17, 1617). The light beyond the
    outermost bins, and so their slope, is unknown: what they do counts as explained.
    """
    n_times, n_bins = curves.weight.shape
    if not len(curves.patterns):
        return curves.patterns, curves.excess
    templates = _templates(curves, colours) * np.sqrt(curves.weight.mean(axis=0))[:, None]
    length = np.linalg.norm(templates, axis=0)
    basis = orth(templates / np.where(length > 0, length, 1.0), rcond=SAME)
    rough = curves.patterns - (curves.patterns @ basis) @ basis.T
    strength = np.maximum(curves.excess / (1.0 - curves.excess), np.finfo(float).tiny)
    found = (1.0 - n_bins / n_times / strength**2) / (1.0 + n_bins / n_times / strength)
    by_chance = 1.0 - np.clip(found, 0.0, 1.0)
    return rough, np.maximum(1.0 - by_chance / np.maximum((rough**2).sum(axis=1), np.finfo(float).tiny), 0.0)


def _templates(curves: LogCurves, colours: int) -> Floats:
    """Changes of the log flux (B, colours + 3): smooth ones, the slope along dispersion, either outermost bin alone."""
    places = np.arange(curves.wavelength_um.size)
    total = curves.weight.sum(axis=0)
    seen = total > 0
    level = (curves.weight * curves.log_flux).sum(axis=0)[seen] / total[seen]
    slope = savgol_filter(np.interp(places, places[seen], level), SLOPE_BINS, 2, deriv=1)
    edges = np.eye(places.size)[:, [0, -1]]
    return np.column_stack([wavelength_basis(curves.wavelength_um, colours), slope, edges])
