"""Covariances as a few factors and a diagonal: C = F F^T + diag(d).

What errors of a spectrum's bins share (drift, orbit, timing, what spectra look like) has few dimensions, and the rest
is each bin's own. Factors are the principal axes of the correlations, less what is unique to each bin, which starts at
one minus the squared multiple correlation (Guttman 1956, Psychometrika 21, 273; Harman 1976, Modern Factor Analysis,
chapter 8). The diagonal of C is kept exactly, and C is positive definite.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh

from spectramind.types import Floats

TOLERANCE = 5e-3
"""Of a correlation."""
FEWEST_FACTORS = 16
STEPS = 3
RIDGE = 1e-9
"""Keeps correlations invertible, and what is unique to a bin positive."""


@dataclass(frozen=True)
class LowRank:
    """Covariances of N spectra: `factors` (N, bins, rank) and `diagonal` (N, bins)."""

    factors: Floats
    diagonal: Floats

    def dense(self) -> Floats:
        """(N, bins, bins)."""
        full: Floats = self.factors @ np.swapaxes(self.factors, 1, 2)
        bins = np.arange(self.diagonal.shape[1])
        full[:, bins, bins] += self.diagonal
        return full

    def rescaled(self, ratio: Floats) -> LowRank:
        """Sigmas times `ratio` (N, bins), the same correlations."""
        return LowRank(self.factors * ratio[:, :, None], self.diagonal * ratio**2)


def low_rank(covariance: Floats, tolerance: float = TOLERANCE) -> LowRank:
    """Positive definite `covariance` (N, bins, bins) with as many factors as bring each correlation within `tolerance`
    of what it is, the same number for all."""
    sigma = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    scaled = covariance / (sigma[:, :, None] * sigma[:, None, :])
    found = [_factors(one, tolerance) for one in scaled]
    factors = np.zeros((*sigma.shape, max((one.shape[1] for one in found), default=0)))
    for row, one in zip(factors, found, strict=True):
        row[:, : one.shape[1]] = one
    unique = 1.0 - (factors**2).sum(axis=2)
    return LowRank(factors, unique).rescaled(sigma)


def _factors(correlation: Floats, tolerance: float) -> Floats:
    """(bins, rank), rows shorter than one."""
    n_bins = len(correlation)
    rank = min(FEWEST_FACTORS, n_bins)
    while True:
        unique = np.full(n_bins, RIDGE)
        if rank < n_bins:
            unique = 1.0 / np.diag(np.linalg.inv(correlation + RIDGE * np.eye(n_bins)))
        for _ in range(STEPS):
            factors = _principal_axes(correlation, unique, rank)
            error = np.abs(factors @ factors.T - correlation)
            np.fill_diagonal(error, 0.0)
            if error.max() <= tolerance:
                return factors
            unique = 1.0 - (factors**2).sum(axis=1)
        if rank == n_bins:
            return factors
        rank = min(2 * rank, n_bins)


def _principal_axes(correlation: Floats, unique: Floats, rank: int) -> Floats:
    """(bins, rank): of the correlations less what is `unique` (bins,), with rows shorter than one."""
    n_bins = len(correlation)
    values, axes = eigh(correlation - np.diag(unique), subset_by_index=[n_bins - rank, n_bins - 1])
    factors = axes * np.sqrt(np.clip(values, 0.0, None))
    length = np.sqrt((factors**2).sum(axis=1, keepdims=True))
    return np.asarray(factors * np.minimum(1.0, np.sqrt(1.0 - RIDGE) / np.maximum(length, RIDGE)))
