"""The official scores against hand-computed values, the laws they obey, and the figures known for the challenge."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from spectramind.errors import InputError
from spectramind.metrics.score import (
    AIRS_IDEAL_SIGMA,
    FGS1_IDEAL_SIGMA,
    official_score_2024,
    official_score_2025,
    paired_bootstrap,
    reference_of,
    score_parts,
)

REFERENCE = (0.012, 0.008)
TRUTH = np.array([[0.0100, 0.0101, 0.0099], [0.0300, 0.0302, 0.0299]])
MEAN = np.array([[0.0101, 0.0100, 0.0100], [0.0299, 0.0300, 0.0303]])
SIGMA = np.array([[2e-4, 1e-4, 1e-4], [1e-4, 3e-4, 2e-4]])


def population(n_planets: int = 1100, n_bins: int = 283, seed: int = 5) -> np.ndarray:
    """Depths with the mean and standard deviation of the 2025 train labels, log-normal, flat within a planet."""
    mean, std = 0.014689, 0.010661
    log_variance = np.log(1 + (std / mean) ** 2)
    depth = np.random.default_rng(seed).lognormal(np.log(mean) - log_variance / 2, np.sqrt(log_variance), n_planets)
    return np.repeat(depth[:, None], n_bins, axis=1)


def test_2025_by_hand() -> None:
    total = 0.0
    for planet in range(2):
        for bin_id, (weight, ideal) in enumerate([(57.846, 1e-6), (1, 1e-5), (1, 1e-5)]):
            y = TRUTH[planet, bin_id]
            l_pred = norm.logpdf(y, MEAN[planet, bin_id], SIGMA[planet, bin_id])
            l_ref = norm.logpdf(y, 0.012, 0.008)
            l_ideal = norm.logpdf(y, y, ideal)
            total += weight * (l_pred - l_ref) / (l_ideal - l_ref)
    by_hand = total / (2 * (57.846 + 1 + 1))
    assert 0 < by_hand < 1
    assert official_score_2025(MEAN, SIGMA, TRUTH, *REFERENCE) == pytest.approx(by_hand, rel=1e-12)


def test_2025_one_bin_in_figures() -> None:
    """FGS1 100 ppm off with sigma 100 ppm, truth at the reference mean: r = (ln(0.01/1e-4) - 1/2) / ln(0.01/1e-6)."""
    truth = np.array([[0.01, 0.01]])
    parts = score_parts(truth + np.array([[1e-4, 0]]), np.array([[1e-4, 1e-5]]), truth, 0.01, 0.01)
    assert parts.ratio[0, 0] == pytest.approx((4.605170185988092 - 0.5) / 9.210340371976184, rel=1e-12)
    assert parts.ratio[0, 1] == pytest.approx(1.0, abs=1e-12)


def test_2024_by_hand() -> None:
    l_pred = norm.logpdf(TRUTH, MEAN, SIGMA).sum()
    l_ref = norm.logpdf(TRUTH, 0.012, 0.008).sum()
    l_ideal = norm.logpdf(TRUTH, TRUTH, 1e-5).sum()
    by_hand = (l_pred - l_ref) / (l_ideal - l_ref)
    assert 0 < by_hand < 1
    assert official_score_2024(MEAN, SIGMA, TRUTH, *REFERENCE) == pytest.approx(by_hand, rel=1e-12)


def test_perfect_prediction_with_ideal_sigma_scores_one() -> None:
    sigma = np.where(np.arange(3) == 0, FGS1_IDEAL_SIGMA, AIRS_IDEAL_SIGMA) * np.ones_like(TRUTH)
    assert official_score_2025(TRUTH, sigma, TRUTH, *REFERENCE) == pytest.approx(1.0, abs=1e-12)
    assert official_score_2024(TRUTH, np.full_like(TRUTH, 1e-5), TRUTH, *REFERENCE) == pytest.approx(1.0, abs=1e-12)


def test_reference_scores_zero() -> None:
    mean, sigma = np.full_like(TRUTH, REFERENCE[0]), np.full_like(TRUTH, REFERENCE[1])
    assert official_score_2025(mean, sigma, TRUTH, *REFERENCE) == pytest.approx(0.0, abs=1e-12)
    assert official_score_2024(mean, sigma, TRUTH, *REFERENCE) == pytest.approx(0.0, abs=1e-12)


def test_clipped_at_the_end_only() -> None:
    """A good planet does not hide a hopeless one: r is averaged first, then clipped."""
    truth = np.full((2, 2), 0.01)
    mean = truth + np.array([[0.0, 0.0], [0.005, 0.005]])
    parts = score_parts(mean, np.full((2, 2), 1e-4), truth, *REFERENCE)
    assert parts.by_planet[0] > 0.4
    assert parts.by_planet[1] < -10
    assert parts.unclipped < -5
    assert parts.score == 0.0


def test_zero_sigma_counts_as_the_official_smallest() -> None:
    sigma, smallest = np.zeros_like(TRUTH), np.full_like(TRUTH, 1e-15)
    zero = score_parts(TRUTH, sigma, TRUTH, *REFERENCE)
    assert np.array_equal(zero.ratio, score_parts(TRUTH, smallest, TRUTH, *REFERENCE).ratio)


@pytest.mark.parametrize(
    ("ppm", "expected"), [(500, 0.38), (200, 0.50), (100, 0.59), (50, 0.68), (30, 0.75), (10, 0.89)]
)
def test_honest_errors_reach_the_known_scores(ppm: float, expected: float) -> None:
    truth = population()
    sigma = np.full_like(truth, ppm * 1e-6)
    mean = np.abs(truth + np.random.default_rng(ppm).normal(0, 1, truth.shape) * sigma)
    assert official_score_2025(mean, sigma, truth, *reference_of(truth)) == pytest.approx(expected, abs=0.008)


@given(st.permutations(range(6)), st.integers(0, 2**32 - 1))
def test_order_of_planets_does_not_matter(order: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.uniform(0.005, 0.03, (6, 4))
    sigma = rng.uniform(5e-5, 5e-4, (6, 4))
    mean = truth + sigma * rng.normal(size=(6, 4))
    for score in (official_score_2025, official_score_2024):
        permuted = score(mean[order], sigma[order], truth[order], *REFERENCE)
        assert permuted == pytest.approx(score(mean, sigma, truth, *REFERENCE), abs=1e-12)


def test_parts_add_up() -> None:
    parts = score_parts(MEAN, SIGMA, TRUTH, *REFERENCE)
    assert np.mean(parts.by_planet) == pytest.approx(parts.score)
    assert np.average(parts.by_bin, weights=parts.weights) == pytest.approx(parts.score)
    summary = parts.summary()
    assert summary["all"]["score"] == pytest.approx(parts.score)
    airs_share = 2 / (57.846 + 2)
    both = (1 - airs_share) * summary["FGS1"]["score"] + airs_share * summary["AIRS-CH0"]["score"]
    assert both == pytest.approx(parts.score)


def test_sigma_loss_is_what_the_best_factor_wins() -> None:
    parts = score_parts(MEAN, SIGMA, TRUTH, *REFERENCE)
    factors = np.geomspace(0.1, 10, 4001)
    best = max(score_parts(MEAN, factor * SIGMA, TRUTH, *REFERENCE).unclipped for factor in factors)
    assert parts.summary()["all"]["sigma_loss"] == pytest.approx(best - parts.unclipped, abs=1e-6)


@pytest.mark.parametrize(
    ("mean", "sigma", "place"),
    [
        (np.where(TRUTH == 0.0302, -1e-9, TRUTH), SIGMA, "row 1, bin 1"),
        (TRUTH, np.where(TRUTH == 0.0099, np.nan, SIGMA), "row 0, bin 2"),
        (np.where(TRUTH == 0.01, np.inf, TRUTH), SIGMA, "row 0, bin 0"),
        (TRUTH[:, :2], SIGMA, "spectra to be scored"),
    ],
)
def test_what_voids_a_submission_is_refused(mean: np.ndarray, sigma: np.ndarray, place: str) -> None:
    with pytest.raises(InputError, match=place):
        official_score_2025(mean, sigma, TRUTH, *REFERENCE)


def test_reference_must_be_wider_than_ideal() -> None:
    with pytest.raises(InputError, match="standard deviation of the train labels"):
        official_score_2025(MEAN, SIGMA, TRUTH, 0.01, 1e-5)


def test_paired_bootstrap() -> None:
    rng = np.random.default_rng(2)
    base = rng.normal(0.5, 0.2, 200)
    better = paired_bootstrap(base + rng.normal(0.02, 0.02, 200), base)
    assert better.low > 0
    assert better.probability_better == 1.0
    standard_error = 0.02 / np.sqrt(200)
    assert better.high - better.low == pytest.approx(2 * 1.96 * standard_error, rel=0.2)
    noise = paired_bootstrap(base + rng.normal(0.0, 0.02, 200), base)
    assert noise.low < noise.difference < noise.high
    assert paired_bootstrap(base, base).difference == 0.0
    shift = np.array([-0.03, 0.0, 0.03])[:, None]
    seeds = paired_bootstrap(base + shift, np.tile(base, (3, 1)))
    assert seeds.difference == pytest.approx(0.0, abs=1e-12)
    assert seeds.high == pytest.approx(0.03, abs=0.005)  # all three draws the luckiest seed: 1 of 27
    with pytest.raises(InputError):
        paired_bootstrap(base, base[:5])
