"""Statistics of errors whose distribution is known."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.stats import binomtest, norm, t

from spectramind.metrics.statistics import bin_statistics, coverage, spectra_statistics


def test_normal_errors() -> None:
    rng = np.random.default_rng(8)
    truth = rng.uniform(0.005, 0.03, (2000, 30))
    sigma = rng.uniform(5e-5, 2e-4, truth.shape)
    mean = truth + sigma * rng.normal(size=truth.shape)
    statistics = spectra_statistics(mean, sigma, truth)
    assert set(statistics) == {"all", "FGS1", "AIRS-CH0"}
    assert (statistics["FGS1"]["bins"], statistics["AIRS-CH0"]["bins"]) == (1, 29)
    for group in statistics.values():
        assert group["z_std"] == pytest.approx(1, abs=0.05)
        assert group["z_mean"] == pytest.approx(0, abs=0.08)
        assert group["calibration_gap"] < 0.02
        for level, found in group["coverage"].items():
            assert found["low"] <= found["observed"] <= found["high"]
            assert found["observed"] == pytest.approx(float(level) / 100, abs=0.03)
    everything = statistics["all"]
    assert everything["nll"] == pytest.approx(-norm.logpdf(truth, mean, sigma).mean())
    assert everything["rmse_ppm"] == pytest.approx(1e6 * np.sqrt(np.mean((mean - truth) ** 2)))
    assert everything["mae_ppm"] == pytest.approx(1e6 * np.mean(np.abs(mean - truth)))
    json.dumps(statistics, allow_nan=False)


def test_coverage_uses_the_normal_quantile() -> None:
    """mean +- 1 sigma is 68.27 %, so |z| = 0.999 lies outside the 68 % interval and 1.6448 inside the 90 % one."""
    assert coverage(np.array([[0.999]]), 0.68)["observed"] == 0.0
    assert coverage(np.array([[1.6448]]), 0.90)["observed"] == 1.0
    assert coverage(np.array([[1.6449]]), 0.90)["observed"] == 0.0


@pytest.mark.parametrize("hits", [0, 17, 40])
def test_limits_are_clopper_pearson(hits: int) -> None:
    z = np.where(np.arange(40) < hits, 0.0, 9.0)[:, None]
    limits = binomtest(hits, 40).proportion_ci(0.95, method="exact")
    found = coverage(z, 0.80)
    assert (found["low"], found["high"]) == pytest.approx((limits.low, limits.high))


def test_overconfident_heavy_tails_show() -> None:
    z = t.rvs(4, size=(500, 10), random_state=9) * 2
    statistics = bin_statistics(z * 1e-4, np.full(z.shape, 1e-4), np.zeros(z.shape))
    assert statistics["z_kurtosis"] > 1
    assert statistics["coverage"]["90"]["high"] < 0.9
    assert statistics["coverage"]["90"]["observed"] < statistics["coverage"]["90"]["accept_low"]
    assert statistics["calibration_gap"] > 0.1
