"""Attribution of the analytic posterior."""

from __future__ import annotations

import numpy as np
import pytest

from spectramind.explain.posterior import band_shares, contrast_profile, posterior_parts
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


def bins_of(molecule: str) -> list[int]:
    return [b for first, last in WINDOWS[molecule] for b in range(first, last + 1)]


def test_bins_that_speak_for_themselves_alone_have_no_confounders() -> None:
    data = 1e-4 * np.random.default_rng(0).normal(size=283)
    for share in band_shares(contrast_profile(np.diag(data), WINDOWS), WINDOWS).values():
        assert share["own"] + share["continuum"] == pytest.approx(1.0)
        assert share["own"] == pytest.approx(0.5, abs=0.1)
        assert share["own"] > share["chance_limit"] > share["by_chance"]
        assert share["chance_p"] < 0.05


def test_what_moves_all_bins_alike_is_no_contrast() -> None:
    data = 1e-4 * np.random.default_rng(1).normal(size=283)
    own, level = np.diag(data), 1e-2 * np.ones((283, 283)) * data
    for molecule, profile in contrast_profile(own + level, WINDOWS).items():
        np.testing.assert_allclose(profile, contrast_profile(own, WINDOWS)[molecule], atol=1e-12)


def test_a_molecule_that_is_read_off_another_has_confounders() -> None:
    gain = np.eye(283)
    gain[bins_of("co2")] = 0.0
    gain[np.ix_(bins_of("co2"), bins_of("h2o"))] = 1.0 / len(bins_of("h2o"))
    found = band_shares(contrast_profile(gain, WINDOWS), WINDOWS)
    assert found["co2"]["own"] == pytest.approx(0.0, abs=1e-12)
    assert found["co2"]["confounders"] == pytest.approx(0.5, abs=0.01)
    assert found["co2"]["chance_p"] > 0.5
    assert found["h2o"]["own"] == pytest.approx(0.5, abs=0.01)
    flat = {molecule: np.full(283, 1 / 283) for molecule in WINDOWS}
    for molecule, share in band_shares(flat, WINDOWS).items():
        assert share["own"] == pytest.approx(share["by_chance"]) == pytest.approx(len(bins_of(molecule)) / 283)
        assert share["chance_p"] == 1.0
