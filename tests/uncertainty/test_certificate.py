"""Limits of the coverage certificate against the exact binomial law, and its verdicts."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from spectramind.uncertainty.certificate import Coverage, _coverage, certify_coverage

N_BINS = 283


def drawn(n: int, stretch: float, seed: int, shared: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    z = np.sqrt(1 - shared) * rng.standard_normal((n, N_BINS)) + np.sqrt(shared) * rng.standard_normal((n, 1))
    sigma = np.full(z.shape, 1e-4)
    return 0.01 + stretch * sigma * z, sigma, np.full(z.shape, 0.01)


@pytest.mark.parametrize("level", [0.68, 0.8, 0.9, 0.95])
@pytest.mark.parametrize(("n", "tests"), [(60, 1), (60, 283), (1100, 283), (3, 1)])
def test_limits_are_exact(level: float, n: int, tests: int) -> None:
    tail = 0.025 / tests
    found = _coverage(0.9, n, level, tests)
    lowest, highest = round(found.accept_low * n), round(found.accept_high * n)
    assert binom.cdf(lowest - 1, n, level) <= tail < binom.cdf(lowest, n, level)
    assert binom.sf(highest, n, level) <= tail < binom.sf(highest - 1, n, level)
    hits = round(0.9 * n)
    reference = binomtest(hits, n).proportion_ci(1 - 2 * tail, method="exact")
    found = _coverage(hits / n, n, level, tests)
    assert (found.low, found.high) == pytest.approx((reference.low, reference.high))


def test_honest_sigmas_rarely_leave_the_limits_and_wrong_ones_do() -> None:
    honest = [certify_coverage(*drawn(80, 1.0, seed, shared=0.3)) for seed in range(20)]
    left = [any(found.verdict != "consistent" for found in level.bins) for levels in honest for level in levels]
    assert np.mean(left) <= 0.1
    small, large = (certify_coverage(*drawn(80, stretch, 1)) for stretch in (1.6, 0.5))
    assert {level.instruments["AIRS-CH0"].verdict for level in small} == {"too low"}
    assert {level.instruments["AIRS-CH0"].verdict for level in large[:3]} == {"too high"}


def test_intervals_per_bin_do_not_hold_all_bins_but_the_factor_does() -> None:
    mean, sigma, truth = drawn(99, 1.0, 2)
    level = certify_coverage(mean, sigma, truth, (0.9,))[0]
    assert level.simultaneous.observed < 0.05
    assert level.simultaneous.factor is not None
    inside = np.all(np.abs(truth - mean) <= level.simultaneous.factor * sigma, axis=1)
    assert inside.sum() == 90
    new_mean, new_sigma, new_truth = drawn(2000, 1.0, 3)
    coverage = np.mean(np.all(np.abs(new_truth - new_mean) <= level.simultaneous.factor * new_sigma, axis=1))
    low, high = level.simultaneous.coverage_range or (1.0, 0.0)
    assert low - 0.03 < coverage < high + 0.03


def test_too_few_planets_promise_no_band() -> None:
    level = certify_coverage(*drawn(5, 1.0, 4), (0.95,))[0]
    assert level.simultaneous.factor is None
    assert level.simultaneous.coverage_range is None
    assert level.to_json()["simultaneous"]["factor"] is None


def test_verdict_is_by_the_limits_themselves() -> None:
    limits = {"low": 0.0, "high": 1.0, "accept_low": 0.8, "accept_high": 0.95}
    assert Coverage(observed=0.8, **limits).verdict == "consistent"
    assert Coverage(observed=0.79, **limits).verdict == "too low"
    assert Coverage(observed=0.96, **limits).verdict == "too high"
