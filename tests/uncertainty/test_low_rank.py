"""Covariances as factors and a diagonal."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spectramind.types import Floats
from spectramind.uncertainty.low_rank import FEWEST_FACTORS, TOLERANCE, low_rank


def correlation(covariance: Floats) -> Floats:
    sigma = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    return np.asarray(covariance / (sigma[:, :, None] * sigma[:, None, :]))


def drawn(seed: int, bins: int, shared: int, unique: float) -> Floats:
    rng = np.random.default_rng(seed)
    factors = rng.normal(size=(3, bins, shared)) * np.exp(rng.normal(size=(3, bins, 1)))
    own = unique * np.exp(rng.normal(size=(3, bins)))
    return 1e-10 * (factors @ factors.transpose(0, 2, 1) + own[:, :, None] * np.eye(bins))


@given(st.integers(0, 1000), st.integers(2, 60), st.integers(1, 60), st.floats(1e-2, 10.0))
def test_variances_are_kept_and_correlations_within_the_tolerance(
    seed: int, bins: int, shared: int, unique: float
) -> None:
    covariance = drawn(seed, bins, shared, unique)
    found = low_rank(covariance)
    full = found.dense()
    np.testing.assert_allclose(
        np.diagonal(full, axis1=1, axis2=2), np.diagonal(covariance, axis1=1, axis2=2), rtol=1e-12
    )
    assert np.abs(correlation(full) - correlation(covariance)).max() <= TOLERANCE
    assert (found.diagonal > 0).all()
    assert np.linalg.eigvalsh(correlation(full)).min() > 0


def test_few_shared_dimensions_need_few_factors() -> None:
    found = low_rank(drawn(3, 283, 8, 1.0))
    assert found.factors.shape == (3, 283, FEWEST_FACTORS)
    assert np.abs(correlation(found.dense()) - correlation(drawn(3, 283, 8, 1.0))).max() < TOLERANCE


def test_independent_bins_have_no_factors_worth_mentioning() -> None:
    variance = np.linspace(1.0, 4.0, 30)
    found = low_rank(np.diag(variance)[None])
    np.testing.assert_allclose(found.diagonal[0], variance, rtol=1e-6)


def test_sigmas_are_rescaled_and_correlations_stay() -> None:
    covariance = drawn(5, 40, 4, 1.0)
    ratio = np.random.default_rng(1).uniform(0.5, 2.0, (3, 40))
    found = low_rank(covariance)
    after = found.rescaled(ratio).dense()
    sigma = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    np.testing.assert_allclose(np.sqrt(np.diagonal(after, axis1=1, axis2=2)), sigma * ratio, rtol=1e-10)
    np.testing.assert_allclose(correlation(after), correlation(found.dense()), atol=1e-12)


def test_a_likelihood_with_the_factors_is_that_of_the_whole_covariance() -> None:
    covariance = drawn(7, 283, 10, 0.5)
    errors = np.linalg.cholesky(covariance) @ np.random.default_rng(2).normal(size=(3, 283, 1))

    def log_likelihood(one: Floats) -> Floats:
        chi2 = (errors * np.linalg.solve(one, errors)).sum(axis=(1, 2))
        return np.asarray(-0.5 * chi2 - 0.5 * np.linalg.slogdet(one)[1])

    assert log_likelihood(low_rank(covariance).dense()) == pytest.approx(log_likelihood(covariance), abs=0.5)
