"""A predicted spectrum as retrieval codes read it: wavelength, depth, error, bin width.

The text file with these four columns, in micrometres and (Rp/Rs)^2, is what TauREx 3 (Al-Refaie et al. 2021) calls an
observed spectrum; other codes read it as well. Errors of bins go together: a likelihood that takes only the third
column counts the same information several times, so use the covariance where a code allows.
"""

from __future__ import annotations

import numpy as np

from spectramind.errors import InputError
from spectramind.instruments import AIRS, FGS1, N_WAVELENGTHS
from spectramind.types import Floats

FGS1_BAND_UM = (0.60, 0.80)
"""Of Ariel's photometer FGS1, whose depth is the first bin."""

COLUMNS = "wavelength_um depth error width_um"


def bin_widths(wavelength_um: Floats) -> Floats:
    """Widths (283,) in micrometres: of FGS1 its band, of AIRS from middle to middle between neighbours.

    Raises InputError unless there are 283 wavelengths, those of AIRS ascending.
    """
    airs = wavelength_um[AIRS.spectral_slice]
    if wavelength_um.shape != (N_WAVELENGTHS,) or not np.all(np.diff(airs) > 0):
        raise InputError(
            "wavelengths of a spectrum",
            f"{N_WAVELENGTHS}, those of AIRS ascending",
            f"shape {wavelength_um.shape}",
            "Read them from wavelengths.csv of the data set.",
        )
    widths = np.empty(N_WAVELENGTHS)
    widths[FGS1.spectral_slice] = FGS1_BAND_UM[1] - FGS1_BAND_UM[0]
    widths[AIRS.spectral_slice] = np.gradient(airs)
    return widths


def retrieval_table(wavelength_um: Floats, mean: Floats, sigma: Floats) -> Floats:
    """The four columns (283, 4) of one planet. Raises InputError as `bin_widths`, and on another number of depths."""
    widths = bin_widths(wavelength_um)
    if mean.shape != widths.shape or sigma.shape != widths.shape:
        found = f"shapes {mean.shape} and {sigma.shape}"
        raise InputError("spectrum of a planet", f"{N_WAVELENGTHS} depths and sigmas", found, "Give one planet.")
    return np.column_stack([wavelength_um, mean, sigma, widths])
