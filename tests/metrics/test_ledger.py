"""The ledger adds up, and finds what was put in."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spectramind.errors import InputError
from spectramind.metrics.ledger import Ledger, gains_without, score_ledger
from spectramind.metrics.score import ideal_sigmas, official_score_2025, score_parts

REFERENCE = (0.0147, 0.0107)
N_BINS = 283
PARTS = ("loss", "bias", "sigma", "unavoidable", "share", "bias_by_chance", "sigma_by_chance")


def drawn(n: int, seed: int, bias: float = 0.0, stretch: float = 1.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, sigma, truth: errors `stretch` times as large as stated, plus a `bias` in AIRS."""
    rng = np.random.default_rng(seed)
    truth = np.clip(rng.lognormal(-4.4, 0.6, (n, 1)), 0, 0.1) * np.ones((1, N_BINS))
    sigma = 1e-4 * np.exp(0.4 * rng.normal(size=truth.shape))
    mean = np.abs(truth + stretch * sigma * rng.normal(size=truth.shape))
    mean[:, 1:] += bias
    return mean, sigma, truth


def ledger_of(mean: np.ndarray, sigma: np.ndarray, truth: np.ndarray) -> Ledger:
    return score_ledger([str(number) for number in range(len(truth))], mean, sigma, truth, *REFERENCE)


@settings(max_examples=15, deadline=None)
@given(
    n=st.integers(1, 12),
    seed=st.integers(0, 10_000),
    bias=st.floats(-1e-3, 1e-3),
    stretch=st.sampled_from([0.0, 0.1, 1.0, 5.0, 40.0]),
    scale=st.sampled_from([1e-3, 1.0, 50.0]),
)
def test_parts_sum_to_one_minus_the_score(n: int, seed: int, bias: float, stretch: float, scale: float) -> None:
    mean, sigma, truth = drawn(n, seed, abs(bias), stretch)
    sigma = sigma * scale
    ledger = ledger_of(mean, sigma, truth)
    total = ledger.rows[0]
    official = official_score_2025(mean, sigma, truth, *REFERENCE)
    tolerance = 1e-9 * max(1.0, abs(total.loss))  # 1e-9 wherever the score is above 0
    assert ledger.score == official
    assert total.bias + total.sigma + total.unavoidable + ledger.clip == pytest.approx(1 - official, abs=tolerance)
    for level in ("instrument", "bin", "planet"):
        for part in PARTS:
            summed = sum(getattr(row, part) for row in ledger.level(level))
            assert summed == pytest.approx(getattr(total, part), abs=tolerance)
    for row in ledger.level("bin"):
        assert min(row.bias, row.sigma, row.scaling_gain) >= -tolerance


def test_the_clip_takes_what_lies_below_zero() -> None:
    mean, sigma, truth = drawn(5, 1, stretch=50.0)
    ledger = ledger_of(mean, sigma, truth)
    assert ledger.score == 0.0
    assert ledger.clip == pytest.approx(score_parts(mean, sigma, truth, *REFERENCE).unclipped)
    assert ledger.clip < 0
    assert ledger_of(*drawn(5, 1)).clip == 0.0


def test_honest_errors_cost_what_chance_says() -> None:
    drawn_ledgers = [ledger_of(*drawn(40, seed)) for seed in range(8)]
    for part, chance in (("bias", "bias_by_chance"), ("sigma", "sigma_by_chance")):
        costs = np.mean([getattr(ledger.rows[0], part) for ledger in drawn_ledgers])
        expected = np.mean([getattr(ledger.rows[0], chance) for ledger in drawn_ledgers])
        assert costs == pytest.approx(expected, rel=0.25)


def test_a_bias_and_a_wrong_scale_are_found_where_they_are() -> None:
    biased = ledger_of(*drawn(40, 3, bias=3e-4))
    plain = ledger_of(*drawn(40, 3))
    assert {row.name for row in biased.to_do(20)}.isdisjoint({"wl_1"})
    fgs1, airs = biased.level("instrument")
    assert airs.bias > 100 * airs.bias_by_chance
    assert fgs1.bias == pytest.approx(plain.level("instrument")[0].bias)
    assert airs.bias_ppm == pytest.approx(300, abs=5)
    stretched = ledger_of(*drawn(40, 3, stretch=2.0)).level("instrument")[1]
    assert stretched.sigma > 10 * stretched.sigma_by_chance
    assert stretched.scaling_factor == pytest.approx(2.0, rel=0.05)


def test_correcting_what_the_ledger_names_wins_what_it_says() -> None:
    mean, sigma, truth = drawn(30, 4, bias=2e-4, stretch=1.7)
    row = ledger_of(mean, sigma, truth).level("instrument")[1]
    scaled = sigma.copy()
    scaled[:, 1:] *= row.scaling_factor
    won = official_score_2025(mean, scaled, truth, *REFERENCE) - official_score_2025(mean, sigma, truth, *REFERENCE)
    assert won == pytest.approx(row.scaling_gain, abs=1e-12)


def test_a_term_costs_what_its_absence_wins() -> None:
    """Two terms of a variance, drawn apart: the score of honest predictions with both and with one alone."""
    truth = np.full((400, 3), 0.0147)
    normal = 20 * np.linalg.qr(np.random.default_rng(8).normal(size=(400, 6)))[0]  # of variance 1, uncorrelated
    first, second = 2e-4 * normal[:, :3], 1e-4 * normal[:, 3:]
    sigma = np.full_like(truth, np.hypot(2e-4, 1e-4))
    shares = np.stack([np.full_like(truth, 0.8), np.full_like(truth, 0.2)])
    gains = gains_without(shares, truth, sigma, *REFERENCE)
    whole = score_parts(truth + first + second, sigma, truth, *REFERENCE)
    for gain, left, size in ((gains[0], second, 1e-4), (gains[1], first, 2e-4)):
        alone = score_parts(truth + left, np.full_like(truth, size), truth, *REFERENCE)
        won = (alone.by_bin - whole.by_bin) * whole.weights / whole.weights.sum()
        np.testing.assert_allclose(gain, won, rtol=1e-9)
    everything = gains_without(np.ones((1, *truth.shape)), truth, sigma, *REFERENCE)
    ideal = score_parts(truth, ideal_sigmas(3) * np.ones_like(truth), truth, *REFERENCE)
    honest = score_parts(truth, sigma, truth, *REFERENCE)
    assert everything.sum() == pytest.approx(ideal.score - honest.score)


def test_a_perfect_mean_ends_at_the_ideal_sigma() -> None:
    _, sigma, truth = drawn(3, 5)
    ledger = ledger_of(truth, sigma, truth)
    assert all(np.isfinite([row.sigma, row.scaling_gain]).all() for row in ledger.rows)
    assert ledger_of(truth, np.where(np.arange(N_BINS) == 0, 1e-6, 1e-5) + 0 * sigma, truth).rows[0].loss == 0.0


def test_bad_input_is_refused() -> None:
    mean, sigma, truth = drawn(3, 6)
    with pytest.raises(InputError):
        score_ledger(["1"], mean, sigma, truth, *REFERENCE)
    with pytest.raises(InputError):
        ledger_of(mean, 0 * sigma, truth)
