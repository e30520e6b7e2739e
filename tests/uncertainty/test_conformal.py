"""Split-conformal intervals against their exact finite-sample law."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest, norm, t

from spectramind.errors import InputError
from spectramind.losses.options import MoleculeWindows
from spectramind.uncertainty.conformal import (
    conformal_quantile,
    conformal_rank,
    coverage_law,
    fit_conformal,
    molecule_regions,
    regional_quantile,
)

REPEATS = 300


@pytest.mark.parametrize(("n", "level"), [(9, 0.9), (55, 0.9), (55, 0.68), (110, 0.95), (220, 0.8)])
def test_coverage_follows_the_exact_beta_law(n: int, level: float) -> None:
    scores = np.abs(np.random.default_rng(n).standard_normal((n, REPEATS)))
    coverage = 1.0 - 2.0 * norm.sf(conformal_quantile(scores, level))  # of new planets, exactly
    assert kstest(coverage, coverage_law(n, level).cdf).pvalue > 1e-3
    assert coverage.mean() >= level - 4 * coverage_law(n, level).std() / math.sqrt(REPEATS)


def test_the_band_holds_all_bins_at_once_whatever_the_law() -> None:
    """Heavy-tailed errors that the bins of a planet share, sigmas too small: the coverage is exact."""
    rng = np.random.default_rng(1)
    n, bins, level = 39, 20, 0.9
    shape = (REPEATS, n + 1, bins)
    error = 3.0 * (t.rvs(2, size=(REPEATS, n + 1, 1), random_state=rng) + rng.standard_normal(shape))
    worst = np.abs(error).max(axis=2)
    inside = worst[:, -1] <= conformal_quantile(worst[:, :-1].T, level)
    promised = conformal_rank(n, level) / (n + 1)
    assert abs(inside.mean() - promised) < 4 * math.sqrt(promised * (1 - promised) / REPEATS)
    fitted = [fit_conformal(np.zeros((n, bins)) + 50, np.ones((n, bins)), 50 + e[:n], (level,)) for e in error[:40]]
    assert np.allclose([f.band[0] for f in fitted], conformal_quantile(worst[:40, :-1].T, level))
    assert all(np.all(f.factor <= f.band[:, None]) for f in fitted)


def test_a_region_is_covered_on_average_over_its_bins_whatever_they_share() -> None:
    """Bins of different size, heavy tails that a planet's bins share: pooled as if they were independent, coverage
    would be short."""
    rng = np.random.default_rng(2)
    n, bins, level = 20, 30, 0.8
    size = np.exp(rng.standard_normal(bins))
    error = size * np.abs(t.rvs(2, size=(REPEATS, n + 1, 1), random_state=rng) + 0.3 * rng.standard_normal(bins))
    quantile = np.array([regional_quantile(e[:-1], level) for e in error])
    covered = (error[:, -1] <= quantile[:, None]).mean(axis=1)
    assert covered.mean() >= level - 4 * covered.std() / math.sqrt(REPEATS)
    assert covered.mean() <= level + 1 / (n + 1) + 4 * covered.std() / math.sqrt(REPEATS)
    naive = np.quantile(error[:, :-1].reshape(REPEATS, -1), level, axis=1)
    assert (naive <= quantile).all()


def test_a_region_of_one_bin_is_split_conformal_and_the_regions_part_the_bins() -> None:
    rng = np.random.default_rng(3)
    mean = rng.normal(size=(25, 283)) + 5
    known = mean, np.exp(rng.normal(size=(25, 283))), mean + rng.normal(size=(25, 283)), (0.68, 0.9)
    plain, alone = fit_conformal(*known), fit_conformal(*known, [np.array([b]) for b in range(283)])
    np.testing.assert_array_equal(plain.factor, alone.factor)
    regions = molecule_regions(MoleculeWindows().by_molecule, 283)
    assert list(regions) == ["FGS1", "h2o", "co2", "ch4", "continuum"]
    assert sorted(np.concatenate(list(regions.values()))) == list(range(283))
    pooled = fit_conformal(*known, list(regions.values()))
    assert all(np.ptp(pooled.factor[:, bins], axis=1).max() == 0 for bins in regions.values())
    assert np.all(pooled.factor <= pooled.band[:, None])
    assert molecule_regions({"a": ((1, 4),), "b": ((3, 6),)}, 8)["b"].tolist() == [5, 6]


@given(st.integers(1, 2000), st.integers(1, 99))
def test_rank_is_the_smallest_with_the_promised_coverage(n: int, percent: int) -> None:
    k = conformal_rank(n, percent / 100)
    assert 100 * k >= (n + 1) * percent > 100 * (k - 1)  # in integers: free of rounding


@pytest.mark.parametrize(("level", "fewest"), [(0.9, 9), (0.95, 19), (0.99, 99)])
def test_too_few_planets_give_the_infinite_interval(level: float, fewest: int) -> None:
    scores = np.arange(fewest, dtype=float)[:, None]
    assert conformal_quantile(scores, level) == fewest - 1
    assert conformal_quantile(scores[1:], level) == np.inf
    assert regional_quantile(np.tile(scores, 7), level) == fewest - 1  # more bins are not more planets
    assert regional_quantile(np.tile(scores[1:], 7), level) == np.inf
    with pytest.raises(InputError, match=f"{fewest} calibrating planets"):
        coverage_law(fewest - 1, level)
    wide = fit_conformal(*(np.full((fewest - 1, 3), value) for value in (0.01, 1e-4, 0.01)), (level,))
    low, high = wide.limits(np.full((2, 3), 0.01), np.full((2, 3), 1e-4))
    assert np.all(low == -np.inf)
    assert np.all(high == np.inf)


def test_published_limits_of_the_law() -> None:
    """5-95 % range of a 90 % interval's coverage (Beta quantiles as in Angelopoulos & Bates 2023, section 3.2)."""
    for n, low, high in ((55, 0.841, 0.963), (220, 0.865, 0.931), (880, 0.883, 0.916)):
        assert coverage_law(n, 0.9).ppf([0.05, 0.95]) == pytest.approx([low, high], abs=6e-4)


def test_bad_input_is_refused() -> None:
    good = np.full((3, 4), 0.01)
    for level in (0.0, 1.0, 90.0):
        with pytest.raises(InputError):
            fit_conformal(good, good, good, (level,))
    with pytest.raises(InputError):
        fit_conformal(good, 0 * good, good, (0.9,))
