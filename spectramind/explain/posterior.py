"""The analytic posterior taken apart, with one Gaussian for the spectral prior.

With the precision L of the light curves' likelihood (nuisances integrated out), the prior N(m0, K^-1) and C = (L +
K)^-1, the posterior mean is m0 + G (d - m0): d the depths that the light curves alone would give, G = C L the gain. So
G_ij (d_j - m0_j) is what bin j gives to bin i: the exact Shapley value of a linear model. Rows of G do not sum to one:
the rest is the prior's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from spectramind.instruments import N_WAVELENGTHS
from spectramind.transit.joint import Gaussian, inverse, solve
from spectramind.types import Floats

Windows = Mapping[str, Sequence[tuple[int, int]]]


@dataclass(frozen=True)
class PosteriorParts:
    """`attribution` (283, 283): what bin j (column) gives to the depth of bin i (row); `gain` likewise; `expected`
    (283,) before the light curves, `mean` after; `additivity_error`: the largest difference between a row's sum and the
    change of the depth, over the largest change."""

    attribution: Floats
    gain: Floats
    expected: Floats
    mean: Floats
    additivity_error: float


def posterior_parts(likelihood: Gaussian, prior: Gaussian) -> PosteriorParts:
    """Of the spectrum alone: both are Gaussians of 283 depths."""
    covariance = inverse(likelihood.precision + prior.precision)
    mean = covariance @ (likelihood.score + prior.score)
    expected = solve(prior.precision, prior.score)
    gain = covariance @ likelihood.precision
    attribution = gain * (solve(likelihood.precision, likelihood.score) - expected)
    change = mean - expected
    error = np.abs(attribution.sum(axis=1) - change).max() / max(float(np.abs(change).max()), 1e-300)
    return PosteriorParts(attribution, gain, expected, mean, float(error))


def band_shares(weight: Floats, windows: Windows) -> dict[str, dict[str, float]]:
    """Where the attribution of a molecule's bins comes from: for each molecule the `own` share of the absolute `weight`
    (283 explained, 283 sources) that lies in its own windows, that of the `confounders` (all other bins), and the share
    that `own` would have if all bins gave the same."""
    shares = {}
    for molecule, ranges in windows.items():
        own = [b for first, last in ranges for b in range(first, last + 1)]
        total = np.abs(weight[own]).sum(axis=0)
        share = float(total[own].sum() / max(float(total.sum()), 1e-300))
        shares[molecule] = {"own": share, "confounders": 1.0 - share, "by_chance": len(own) / N_WAVELENGTHS}
    return shares
