"""Attribution of the analytic posterior."""

from __future__ import annotations

import numpy as np
import pytest

from spectramind.explain.posterior import band_shares, posterior_parts
from spectramind.losses.options import MoleculeWindows
from spectramind.transit.joint import Gaussian

WINDOWS = MoleculeWindows().by_molecule


def gaussian(seed: int, scale: float) -> Gaussian:
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(283, 283)) * scale
    return Gaussian.from_moments(0.01 + 1e-4 * rng.normal(size=283), root @ root.T / 283 + scale**2 * np.eye(283))


def test_attributions_are_the_exact_change_of_the_depth() -> None:
    likelihood, prior = gaussian(1, 5e-5), gaussian(2, 1e-4)
    parts = posterior_parts(likelihood, prior)
    assert parts.additivity_error < 1e-8
    measured = np.linalg.solve(likelihood.precision, likelihood.score)
    moved = measured.copy()
    moved[40] = parts.expected[40]  # the bin says what was expected of it
    without = posterior_parts(Gaussian(likelihood.precision, likelihood.precision @ moved), prior)
    np.testing.assert_allclose(parts.mean - without.mean, parts.attribution[:, 40], atol=1e-11)


def test_shares_see_bands_and_confounders() -> None:
    inside = np.zeros((283, 283))
    for ranges in WINDOWS.values():
        bins = [b for first, last in ranges for b in range(first, last + 1)]
        inside[np.ix_(bins, bins)] = 1.0
    assert all(share["own"] == pytest.approx(1.0) for share in band_shares(inside, WINDOWS).values())
    for share in band_shares(np.ones((283, 283)), WINDOWS).values():
        assert share["own"] == pytest.approx(share["by_chance"])
