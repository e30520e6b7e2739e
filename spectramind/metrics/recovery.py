"""Injection and recovery: do known spectra come back unbiased, with honest sigmas?

Bins of one planet share their errors, so a planet is one trial: standard errors are those over planets. A limit counts
as exceeded only beyond two of them, so that few planets do not refuse by chance, and do not prove much either.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spectramind.errors import InputError
from spectramind.instruments import FGS1, INSTRUMENTS
from spectramind.metrics.options import RecoveryOptions
from spectramind.metrics.score import require_scorable
from spectramind.types import Floats

FEWEST_PLANETS = 3
ERRORS_ALLOWED = 2.0
"""Standard errors by which a limit must be exceeded."""


@dataclass(frozen=True)
class Recovery:
    """One instrument. `bias_ppm` is the mean of prediction minus truth over planets and bins, `bias_error_ppm` its
    standard error over planets; `z_rms` the root mean square of errors / sigma, between `z_low` and `z_high` with two
    standard errors. `problems` is empty if it passes."""

    instrument: str
    planets: int
    bias_ppm: float
    bias_error_ppm: float
    bias_limit_ppm: float
    z_rms: float
    z_low: float
    z_high: float
    problems: tuple[str, ...]


def recovered(mean: Floats, sigma: Floats, truth: Floats, options: RecoveryOptions) -> tuple[Recovery, ...]:
    """Each instrument's recovery from predictions `mean`, `sigma` and injected `truth`, depths (planets, 283).

    Raises InputError on what cannot be scored, on sigmas of zero and on fewer than three planets.
    """
    require_scorable(mean, sigma, truth)
    if len(mean) < FEWEST_PLANETS:
        found, cure = f"{len(mean)} came back", "Inject more, recovery.planets."
        raise InputError("injected spectra", f"at least {FEWEST_PLANETS} planets", found, cure)
    if not np.all(sigma > 0):
        raise InputError("recovered spectra", "sigmas above 0", "a sigma of 0", "Set the floors of uncertainty.")
    limits = {i.name: options.bias_fgs1_ppm if i == FGS1 else options.bias_airs_ppm for i in INSTRUMENTS}
    bins = {instrument.name: instrument.spectral_slice for instrument in INSTRUMENTS}
    error = mean - truth
    return tuple(_recovered(n, error[:, own], sigma[:, own], limits[n], options) for n, own in bins.items())


def _recovered(name: str, error: Floats, sigma: Floats, limit: float, options: RecoveryOptions) -> Recovery:
    bias, bias_error = _mean_and_error(1e6 * error.mean(axis=1))
    square, square_error = _mean_and_error(np.mean((error / sigma) ** 2, axis=1))
    margin = ERRORS_ALLOWED * square_error
    low, high = float(np.sqrt(max(square - margin, 0.0))), float(np.sqrt(square + margin))
    problems = []
    if abs(bias) > limit + ERRORS_ALLOWED * bias_error:
        problems.append(f"{name}: mean error {bias:+.1f} ± {bias_error:.1f} ppm, limit {limit:g} ppm")
    if low > options.z_factor:
        problems.append(f"{name}: sigmas too small, errors / sigma between {low:.2f} and {high:.2f}")
    if high < 1.0 / options.z_factor:
        problems.append(f"{name}: sigmas too large, errors / sigma between {low:.2f} and {high:.2f}")
    z_rms = float(np.sqrt(square))
    return Recovery(name, len(error), bias, bias_error, limit, z_rms, low, high, tuple(problems))


def _mean_and_error(by_planet: Floats) -> tuple[float, float]:
    """Mean over planets and its standard error."""
    return float(by_planet.mean()), float(by_planet.std(ddof=1) / np.sqrt(by_planet.size))
