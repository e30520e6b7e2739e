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
from numpy.typing import NDArray

from spectramind.instruments import AIRS, FGS1, N_WAVELENGTHS
from spectramind.models.windows import Windows, bins_inside
from spectramind.transit.joint import Gaussian, inverse, solve
from spectramind.types import Floats


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


def contrast_profile(attribution: Floats, windows: Windows) -> dict[str, Floats]:
    """By molecule, how much each bin's data (283,) speak for its contrast: the mean depth of its windows less that of
    the continuum, the AIRS bins in no window. Absolute values of `attribution` (283 explained, 283 sources) summed with
    those weights, over their sum.

    A contrast, since what moves all bins alike is no feature. Where each bin's depth comes from its own data alone, a
    profile lies in the windows and the continuum, and is zero in the windows of other molecules.
    """
    inside = {molecule: _within(ranges) for molecule, ranges in windows.items()}
    continuum = ~np.any(list(inside.values()), axis=0)
    continuum[FGS1.spectral_slice] = False
    profiles = {}
    for molecule, own in inside.items():
        contrast = own / own.sum() - continuum / max(continuum.sum(), 1)
        weight = np.abs(contrast @ attribution)
        profiles[molecule] = weight / max(float(weight.sum()), 1e-300)
    return profiles


def band_shares(profiles: Mapping[str, Floats], windows: Windows) -> dict[str, dict[str, float]]:
    """Of each molecule's profile: the shares in its `own` windows, in the `continuum` and in all else, the
    `confounders`.

    Chance is what its windows would hold elsewhere along AIRS, moved round by each number of bins: `by_chance` is the
    mean, `chance_limit` what 95 % of the places stay below or at, `chance_p` the share of places that hold as much as
    the true one, itself included.
    """
    inside = {molecule: _within(ranges) for molecule, ranges in windows.items()}
    windowed = np.any(list(inside.values()), axis=0)
    airs = AIRS.spectral_slice
    shares = {}
    for molecule, own in inside.items():
        profile = profiles[molecule]
        moved = np.array([profile[airs][np.roll(own[airs], step)].sum() for step in range(AIRS.n_bins)])
        share, continuum = float(moved[0]), float(profile[airs][~windowed[airs]].sum())
        shares[molecule] = {
            "own": share,
            "continuum": continuum,
            "confounders": 1.0 - share - continuum,
            "by_chance": float(moved.mean()),
            "chance_limit": float(np.quantile(moved, 0.95, method="inverted_cdf")),
            "chance_p": float(np.mean(moved >= share - 1e-12)),
        }
    return shares


def _within(ranges: Sequence[tuple[int, int]]) -> NDArray[np.bool_]:
    return np.isin(np.arange(N_WAVELENGTHS), bins_inside(ranges))
