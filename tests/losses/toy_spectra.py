"""Small spectra for the tests of the losses, in float64 so that hand-computed numbers agree to rounding."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from spectramind.losses.options import MoleculeWindows
from spectramind.losses.prediction import Prediction
from spectramind.losses.spectral_axis import SpectralAxis, spectral_axis

N_BINS = 25
WAVELENGTH_UM = np.array([0.7, *np.linspace(1.95, 3.9, N_BINS - 1)])
WINDOWS = MoleculeWindows(h2o=((7, 12),), co2=((1, 5),), ch4=((14, 18), (20, 24)))


def small_axis() -> SpectralAxis:
    """FGS1 and 24 AIRS bins; bins 6, 13, 19 lie outside all windows."""
    return spectral_axis(WAVELENGTH_UM, WINDOWS, dtype=torch.float64)


def plain_axis(n_bins: int) -> SpectralAxis:
    """For the rules that look at no window."""
    axis = small_axis()
    return SpectralAxis(**{**vars(axis), "continuum": torch.full((n_bins,), 1.0 / n_bins, dtype=torch.float64)})


def tensor(values: object) -> Tensor:
    return torch.as_tensor(np.asarray(values), dtype=torch.float64)


def predicted(mean: object, analytic: object = None, sigma: object = 1e-4, quantiles: object = None) -> Prediction:
    """A prediction of `mean` (planets, bins), by default on a flat analytic spectrum of the same bins."""
    depth = tensor(mean)
    return Prediction(
        mean=depth,
        sigma=tensor(np.broadcast_to(np.asarray(sigma), depth.shape).copy()),
        analytic=torch.full_like(depth, 0.01) if analytic is None else tensor(analytic),
        quantiles=None if quantiles is None else tensor(quantiles),
    )


def ppm(*values: float, level: float = 0.01) -> np.ndarray:
    """One planet: `level` plus `values` in ppm."""
    return level + 1e-6 * np.array([values])


def noisy(n_planets: int = 3, size_ppm: float = 200.0, seed: int = 7) -> np.ndarray:
    """Rough spectra that break most rules."""
    return 0.01 + 1e-6 * size_ppm * np.random.default_rng(seed).standard_normal((n_planets, N_BINS))
