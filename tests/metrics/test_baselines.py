"""Naive predictions and expected scores against the score itself."""

from __future__ import annotations

import numpy as np
import pytest

from spectramind.errors import InputError
from spectramind.metrics.baselines import expected_score, mean_depth_baseline, train_mean_baseline
from spectramind.metrics.score import official_score_2025, reference_of, score_parts


def labels(n_planets: int = 400, n_bins: int = 12) -> np.ndarray:
    rng = np.random.default_rng(3)
    return rng.lognormal(-4.43, 0.66, (n_planets, 1)) * (1 + 0.005 * rng.normal(size=(n_planets, n_bins)))


def test_train_mean_scores_zero() -> None:
    truth = labels()
    mean, sigma = train_mean_baseline(truth, len(truth))
    assert official_score_2025(mean, sigma, truth, *reference_of(truth)) == pytest.approx(0.0, abs=1e-12)


def test_mean_depth_has_the_best_constant_sigma() -> None:
    truth = labels()
    reference = reference_of(truth)
    depth = truth.mean(axis=1) + np.random.default_rng(4).normal(0, 1e-4, len(truth))
    mean, sigma = mean_depth_baseline(depth, truth, depth)
    assert np.ptp(sigma) == 0
    assert np.array_equal(mean[:, 0], depth)
    best = score_parts(mean, sigma, truth, *reference).unclipped
    others = [score_parts(mean, factor * sigma, truth, *reference).unclipped for factor in (0.9, 0.99, 1.01, 1.1)]
    assert best > max(others)
    assert best > 0.4


def test_mean_depth_refuses_other_planets() -> None:
    truth = labels(10)
    with pytest.raises(InputError):
        mean_depth_baseline(np.full(9, 0.01), truth, np.full(3, 0.01))


def test_expected_score_is_the_mean_over_draws() -> None:
    truth = labels(200)
    rng = np.random.default_rng(6)
    error_sigma = rng.uniform(5e-5, 2e-4, truth.shape)
    stated = 0.7 * error_sigma
    reference = reference_of(truth)
    draws = [
        score_parts(np.abs(truth + error_sigma * rng.normal(size=truth.shape)), stated, truth, *reference).unclipped
        for _ in range(60)
    ]
    assert expected_score(stated, truth, *reference, error_sigma) == pytest.approx(np.mean(draws), abs=0.002)


def test_cost_of_wrong_sigmas_at_100_ppm() -> None:
    """Half the true error costs 0.10, double costs 0.04."""
    truth = labels(3000, 4)
    reference = reference_of(truth)
    honest, half, double = (
        expected_score(np.array(stated), truth, *reference, error_sigma=np.array(1e-4)) for stated in (1e-4, 5e-5, 2e-4)
    )
    assert honest == expected_score(np.array(1e-4), truth, *reference)
    assert honest - half == pytest.approx(0.10, abs=0.02)
    assert honest - double == pytest.approx(0.04, abs=0.01)
