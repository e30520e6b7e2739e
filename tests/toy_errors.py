"""Predicted spectra whose errors follow a known law."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spectramind.losses.options import MoleculeWindows
from spectramind.models.windows import bins_inside
from spectramind.types import Floats

WAVELENGTHS = np.r_[0.7, np.linspace(1.952, 3.895, 282)]
WINDOWS = MoleculeWindows().by_molecule


def bins_of_molecules(*molecules: str) -> NDArray[np.bool_]:
    """Of the 283 bins, those in windows of these molecules."""
    return np.isin(np.arange(283), np.concatenate([bins_inside(WINDOWS[molecule]) for molecule in molecules]))


def erring_spectra(n: int, seed: int, correlated: float = 0.0) -> tuple[Floats, Floats, Floats]:
    """Means, stated sigmas and truths; errors that the bins of H2O and those of CO2 share, in sigmas, come on top."""
    rng = np.random.default_rng(seed)
    sigma = 5e-5 * np.exp(0.3 * rng.normal(size=(n, 1))) * np.ones((n, 283))
    mean = 0.01 + 1e-3 * rng.normal(size=(n, 1)) + 1e-4 * rng.normal(size=(n, 283))
    z = rng.normal(size=(n, 283))
    for molecule in ("h2o", "co2"):
        z += correlated * bins_of_molecules(molecule) * rng.normal(size=(n, 1))
    return mean, sigma, mean + sigma * z
