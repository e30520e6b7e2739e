"""The relative error that remains in depths after calibration, learned from planets with known spectra.

Light that does not transit and was left in, or starlight taken for foreground, scales every depth of a bin by the same
factor 1 + beta(w). beta is a short Legendre series in log wavelength for AIRS and a constant for FGS1, drawn to zero.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from spectramind.instruments import AIRS, FGS1, N_WAVELENGTHS
from spectramind.transit.bases import wavelength_basis
from spectramind.transit.joint import Gaussian
from spectramind.types import Floats

EXPECTED_ERROR = 0.01
AIRS_TERMS = 5


def response_basis(wavelengths_um: Floats) -> Floats:
    """(283, 1 + AIRS_TERMS): FGS1's constant, then AIRS's series."""
    basis = np.zeros((N_WAVELENGTHS, 1 + AIRS_TERMS))
    basis[FGS1.spectral_slice, 0] = 1.0
    basis[AIRS.spectral_slice, 1:] = wavelength_basis(wavelengths_um[AIRS.spectral_slice], AIRS_TERMS)
    return basis


def learn_response(likelihoods: Sequence[Gaussian], spectra: Floats, wavelengths_um: Floats) -> Floats:
    """1 + beta (283,) that makes the measured depths (1 + beta) s most probable, by generalised least squares."""
    basis = response_basis(wavelengths_um)
    precision = np.eye(basis.shape[1]) / EXPECTED_ERROR**2
    score = np.zeros(basis.shape[1])
    for likelihood, spectrum in zip(likelihoods, spectra, strict=True):
        slope = spectrum[:, None] * basis
        precision += slope.T @ likelihood.precision @ slope
        score += slope.T @ (likelihood.score - likelihood.precision @ spectrum)
    correction: Floats = 1.0 + basis @ np.linalg.solve(precision, score)
    return correction


def correct_response(likelihood: Gaussian, response: Floats) -> Gaussian:
    """The likelihood of the true spectrum, given that of the measured one."""
    return Gaussian(likelihood.precision * response[:, None] * response, likelihood.score * response)
