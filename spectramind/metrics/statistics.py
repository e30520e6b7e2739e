"""Errors, coverage and z statistics per instrument, as plain numbers for reports.

z = (truth - mean) / sigma. An interval of level q is mean +- z(q) sigma with z(q) the normal quantile: 0.994 at 68 %,
1.645 at 90 %. Arrays are (planets, bins), transit depths (Rp/Rs)^2; ppm are 1e-6 of the star's light.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from spectramind.instruments import INSTRUMENTS
from spectramind.metrics.score import require_scorable
from spectramind.types import Floats

COVERAGE_LEVELS = (0.68, 0.80, 0.90, 0.95)
_GAP_LEVELS = np.linspace(0.01, 0.99, 99)


def spectra_statistics(mean: Floats, sigma: Floats, truth: Floats) -> dict[str, dict[str, Any]]:
    """`bin_statistics` of all bins ("all") and of each instrument. Raises InputError on what cannot be scored."""
    require_scorable(mean, sigma, truth)
    slices = {"all": slice(None)} | {instrument.name: instrument.spectral_slice for instrument in INSTRUMENTS}
    return {name: bin_statistics(mean[:, bins], sigma[:, bins], truth[:, bins]) for name, bins in slices.items()}


def bin_statistics(mean: Floats, sigma: Floats, truth: Floats) -> dict[str, Any]:
    """`planets`, `bins`, `bias_ppm`, `rmse_ppm`, `mae_ppm`, `median_sigma_ppm`, `nll` (nats per bin, lower is better),
    `z_mean`, `z_std`, `z_kurtosis` (excess: 0 for normal errors), `coverage` by level in percent and `calibration_gap`,
    the mean distance between nominal and observed coverage over the levels 1 % to 99 %."""
    error = mean - truth
    z = -error / sigma
    return {
        "planets": int(mean.shape[0]),
        "bins": int(mean.shape[1]),
        "bias_ppm": 1e6 * float(np.mean(error)),
        "rmse_ppm": 1e6 * float(np.sqrt(np.mean(error**2))),
        "mae_ppm": 1e6 * float(np.mean(np.abs(error))),
        "median_sigma_ppm": 1e6 * float(np.median(sigma)),
        "nll": float(np.mean(np.log(sigma) + 0.5 * z**2 + 0.5 * np.log(2.0 * np.pi))),
        "z_mean": float(np.mean(z)),
        "z_std": float(np.std(z)),
        "z_kurtosis": excess_kurtosis(z),
        "coverage": {f"{100 * level:.0f}": coverage(z, level) for level in COVERAGE_LEVELS},
        "calibration_gap": _calibration_gap(z),
    }


def coverage(z: Floats, level: float) -> dict[str, float]:
    """`observed` fraction of |z| within the interval of `level`, and what may be concluded from it at 95 %.

    `accept_low`, `accept_high`: exact binomial limits between which `observed` falls for calibrated sigmas; `low`,
    `high`: exact (Clopper-Pearson, Beta) limits of the true coverage. Bins of one planet share their errors, so both
    count a planet as one trial: cautious where bins are partly independent, exact for one bin per planet.
    """
    from scipy.special import ndtri
    from scipy.stats import beta, binom

    n = z.shape[0]
    observed = float(np.mean(np.abs(z) <= ndtri(0.5 + 0.5 * level)))
    hits = observed * n
    return {
        "observed": observed,
        "low": float(beta.ppf(0.025, hits, n - hits + 1)) if hits > 0 else 0.0,
        "high": float(beta.ppf(0.975, hits + 1, n - hits)) if hits < n else 1.0,
        "accept_low": float(binom.ppf(0.025, n, level)) / n,
        "accept_high": float(binom.ppf(0.975, n, level)) / n,
    }


def _calibration_gap(z: Floats) -> float:
    from scipy.special import ndtri

    within = np.searchsorted(np.sort(np.abs(z), axis=None), ndtri(0.5 + 0.5 * _GAP_LEVELS), side="right") / z.size
    return float(np.mean(np.abs(within - _GAP_LEVELS)))


def excess_kurtosis(z: Floats) -> float:
    """0 for a normal distribution, positive for heavy tails; 0 for values that are all equal."""
    if np.ptp(z) == 0:
        return 0.0
    squares = (z - np.mean(z)) ** 2
    return float(np.mean(squares**2) / np.mean(squares) ** 2 - 3.0)
