"""Sigma scaling on errors whose true size is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from scipy.stats import t as t_law

from spectramind.errors import InputError
from spectramind.metrics.score import official_score_2025, reference_of, score_parts
from spectramind.uncertainty.options import UncertaintyOptions
from spectramind.uncertainty.scaling import SigmaScaling, _belief, cross_fit_sigma, fit_sigma_scaling

N_BINS = 283


def drawn(
    n_planets: int = 200, factor: np.ndarray | float = 1.0, exponent: float = 1.0, seed: int = 0, spread: float = 0.4
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, stated sigma and truth (planets, bins): errors are `factor * 1e-4 * (sigma / 1e-4) ** exponent` large and
    share a third of their variance over the bins of a planet."""
    rng = np.random.default_rng(seed)
    truth = np.repeat(rng.lognormal(-4.4, 0.6, (n_planets, 1)), N_BINS, axis=1)
    sigma = 1e-4 * np.exp(spread * rng.normal(size=(n_planets, 1)) + 0.1 * rng.normal(size=(n_planets, N_BINS)))
    z = np.sqrt(1 / 3) * rng.normal(size=(n_planets, 1)) + np.sqrt(2 / 3) * rng.normal(size=truth.shape)
    return truth + z * factor * 1e-4 * (sigma / 1e-4) ** exponent, sigma, truth


def test_known_temperature_per_instrument() -> None:
    factor = np.where(np.arange(N_BINS) == 0, 0.5, 2.0)
    mean, sigma, truth = drawn(800, factor)
    scaling = fit_sigma_scaling(mean, sigma, truth, UncertaintyOptions(stage="instrument"))
    assert scaling.groups["FGS1"].temperature == pytest.approx(0.5, rel=0.06)
    assert scaling.groups["AIRS-CH0"].temperature == pytest.approx(2.0, rel=0.06)
    ratio = scaling.apply(sigma) / sigma
    assert np.allclose(ratio[:, 0], scaling.groups["FGS1"].temperature)
    assert np.allclose(ratio[:, 1:], scaling.groups["AIRS-CH0"].temperature)


def test_temperature_is_the_optimum_of_the_official_score() -> None:
    mean, sigma, truth = drawn(100, 1.6)
    reference = reference_of(truth)
    scaled = fit_sigma_scaling(
        mean, sigma, truth, UncertaintyOptions(stage="instrument", tail_limit=100.0, prior_scatter=100.0)
    ).apply(sigma)
    best = score_parts(mean, scaled, truth, *reference).unclipped
    for bins in (slice(0, 1), slice(1, None)):
        for change in (0.98, 1.02):
            other = scaled.copy()
            other[:, bins] *= change
            assert score_parts(mean, other, truth, *reference).unclipped < best


def test_global_temperature_is_one_factor_and_lowers_held_out_loss() -> None:
    mean, sigma, truth = drawn(150, 1.5)
    options = UncertaintyOptions(stage="global", objective="nll", prior_scatter=100.0)
    scaling = fit_sigma_scaling(mean, sigma, truth, options)
    factor = scaling.apply(sigma) / sigma
    assert np.allclose(factor, scaling.groups["all"].temperature)
    z2 = ((truth - mean) / sigma) ** 2
    assert scaling.groups["all"].temperature == pytest.approx(np.sqrt(z2.mean()), rel=1e-6)
    assert scaling.groups["all"].gains["temperature"] > 0


def test_factor_per_bin_is_recovered_and_shrunk() -> None:
    bins = np.arange(N_BINS)
    factor = np.exp(0.3 * np.sin(bins / 30) + 0.15 * np.random.default_rng(1).normal(size=N_BINS))
    mean, sigma, truth = drawn(240, factor, seed=3)
    scaling = fit_sigma_scaling(mean, sigma, truth, UncertaintyOptions(stage="bins"))
    assert scaling.groups["AIRS-CH0"].kept == ("temperature", "bins")
    found = np.log(scaling.apply(sigma) / sigma)[0, 1:]
    raw = 0.5 * np.log(np.mean(((truth - mean) / sigma) ** 2, axis=0))[1:]
    wanted = np.log(factor)[1:]
    error = np.std(found - wanted)
    assert error < 0.05
    assert error <= np.std(raw - wanted) + 0.002


def test_per_bin_noise_is_not_believed() -> None:
    mean, sigma, truth = drawn(40, 1.3, seed=4)
    found = np.log(fit_sigma_scaling(mean, sigma, truth, UncertaintyOptions(stage="bins")).apply(sigma) / sigma)[0, 1:]
    raw = 0.5 * np.log(np.mean(((truth - mean) / sigma) ** 2, axis=0))[1:]
    assert np.std(found) < 0.5 * np.std(raw)


def test_power_law_is_recovered() -> None:
    mean, sigma, truth = drawn(400, 1.2, exponent=0.7, seed=5, spread=0.8)
    scaling = fit_sigma_scaling(mean, sigma, truth)
    airs = scaling.groups["AIRS-CH0"]
    assert "power" in airs.kept
    assert airs.exponent == pytest.approx(0.7, abs=0.06)
    assert np.log(scaling.apply(sigma) / (1.2e-4 * (sigma / 1e-4) ** 0.7))[:, 1:] == pytest.approx(0.0, abs=0.25)


def test_stages_do_not_lose_score_on_unseen_planets() -> None:
    factor = np.where(np.arange(N_BINS) == 0, 0.6, 1.8) * np.exp(0.2 * np.cos(np.arange(N_BINS) / 50))
    mean, sigma, truth = drawn(240, factor, exponent=0.9, seed=6)
    new_mean, new_sigma, new_truth = drawn(500, factor, exponent=0.9, seed=7)
    reference = reference_of(truth)

    def unseen(options: UncertaintyOptions) -> float:
        scaling = fit_sigma_scaling(mean, sigma, truth, options)
        return official_score_2025(new_mean, scaling.apply(new_sigma), new_truth, *reference)

    none, one, instrument, bins, power = (
        unseen(UncertaintyOptions(stage=stage)) for stage in ("none", "global", "instrument", "bins", "power")
    )
    assert none < one < instrument < bins
    assert power > bins - 0.002


def test_cross_fit_agrees_with_unseen_planets() -> None:
    mean, sigma, truth = drawn(240, 1.7, seed=8)
    new_mean, new_sigma, new_truth = drawn(1000, 1.7, seed=9)
    reference = reference_of(truth)
    honest = score_parts(mean, cross_fit_sigma(mean, sigma, truth), truth, *reference).unclipped
    unseen = score_parts(new_mean, fit_sigma_scaling(mean, sigma, truth).apply(new_sigma), new_truth, *reference)
    assert honest == pytest.approx(unseen.unclipped, abs=0.01)


@given(st.floats(1e-3, 3.0), st.floats(1e-3, 1.0), st.floats(0.01, 1.0))
def test_a_belief_is_where_the_posterior_under_a_t_prior_is_flat(found: float, error: float, scatter: float) -> None:
    belief = _belief(found**2, error**2, UncertaintyOptions(prior_scatter=scatter))
    assert 0.0 < belief < 1.0
    believed, step = belief * found, 1e-6 * found
    near = np.array([believed - step, believed + step])
    log_posterior = norm.logpdf(found, near, error) + t_law.logpdf(near, 4, scale=scatter)
    slope = np.diff(log_posterior)[0] / (2 * step)
    assert abs(slope) < 1e-2 * found / error**2


def unseen_gain(n_planets: int, options: UncertaintyOptions) -> float:
    """Points of the score that scalings of honest sigmas, each fitted on a few planets, win on new ones on average."""
    new_mean, new_sigma, new_truth = drawn(300, seed=1000)
    reference = reference_of(new_truth)
    before = score_parts(new_mean, new_sigma, new_truth, *reference).unclipped
    after = [
        score_parts(
            new_mean,
            fit_sigma_scaling(*drawn(n_planets, seed=seed), options, seed).apply(new_sigma),
            new_truth,
            *reference,
        ).unclipped
        for seed in range(20)
    ]
    return float(np.mean(after)) - before


def test_what_few_planets_show_costs_honest_sigmas_little() -> None:
    believed = UncertaintyOptions(prior_scatter=100.0, min_gain=0.0)
    assert 0.7 * unseen_gain(24, believed) < unseen_gain(24, UncertaintyOptions()) <= 0.0


def test_a_large_effect_is_believed() -> None:
    mean, sigma, truth = drawn(60, 2.5, seed=13)
    shrunk, whole = (
        fit_sigma_scaling(mean, sigma, truth, UncertaintyOptions(stage="instrument", prior_scatter=scatter))
        for scatter in (0.05, 100.0)
    )
    for name in ("FGS1", "AIRS-CH0"):
        assert shrunk.groups[name].temperature == pytest.approx(whole.groups[name].temperature, rel=0.05)


@given(st.integers(0, 200), st.sampled_from([0.8, 1.0, 1.3]))
@settings(max_examples=20)
def test_cross_fitted_sigmas_have_the_stages_of_the_scaling_in_use(seed: int, factor: float) -> None:
    mean, sigma, truth = drawn(20, factor, seed=seed)
    scaling = fit_sigma_scaling(mean, sigma, truth)
    honest = cross_fit_sigma(mean, sigma, truth)
    for instrument, bins in (("FGS1", slice(0, 1)), ("AIRS-CH0", slice(1, None))):
        assert np.array_equal(honest[:, bins], sigma[:, bins]) == (scaling.groups[instrument].kept == ())


def test_one_failed_planet_does_not_set_the_sigma_of_all() -> None:
    mean, sigma, truth = drawn(200, 1.0, seed=10)
    mean[17] += 100 * sigma[17]
    scaling = fit_sigma_scaling(mean, sigma, truth, UncertaintyOptions(stage="instrument"))
    assert scaling.groups["AIRS-CH0"].temperature < 1.3  # unlimited: 7
    assert scaling.groups["AIRS-CH0"].limited_fraction == pytest.approx(1 / 200, abs=1e-3)
    assert scaling.groups["AIRS-CH0"].z_kurtosis > 100


def test_gains_are_points_of_the_score() -> None:
    """Without outliers and with one stage the gain stated is that of the cross-fitted score, up to the other folds."""
    mean, sigma, truth = drawn(200, 1.8, seed=11)
    options = UncertaintyOptions(stage="instrument", tail_limit=1000.0)
    gains = [group.gains["temperature"] for group in fit_sigma_scaling(mean, sigma, truth, options).groups.values()]
    scores = [
        score_parts(mean, sigmas, truth, *reference_of(truth)).unclipped
        for sigmas in (sigma, cross_fit_sigma(mean, sigma, truth, options))
    ]
    assert sum(gains) == pytest.approx(scores[1] - scores[0], rel=0.02)


@given(st.floats(0.6, 1.4), st.floats(-2, 2), st.lists(st.floats(1e-5, 1e-2), min_size=3, max_size=3))
def test_undoing_returns_the_unscaled_sigma(exponent: float, offset: float, values: list[float]) -> None:
    scaling = SigmaScaling(np.full(3, offset), np.full(3, exponent), np.zeros(3), 0, {})
    assert scaling.undo(scaling.apply(np.array([values]))) == pytest.approx(np.array([values]), rel=1e-12)


def test_few_planets_leave_sigma_alone() -> None:
    mean, sigma, truth = drawn(8, 3.0)
    assert np.array_equal(fit_sigma_scaling(mean, sigma, truth).apply(sigma), sigma)


def test_a_mean_without_error_ends_at_the_floors() -> None:
    _, sigma, truth = drawn(40)
    scaling = fit_sigma_scaling(truth, sigma, truth, UncertaintyOptions(max_factor=1000.0))
    scaled = scaling.apply(sigma)
    assert np.all(scaled[:, 0] == 1e-6)
    assert np.all(scaled[:, 1:] == 1e-5)


def test_floors() -> None:
    mean, sigma, truth = drawn(30)
    scaling = fit_sigma_scaling(mean, sigma, truth, UncertaintyOptions(stage="none"))
    scaled = scaling.apply(np.full((1, N_BINS), 1e-9))
    assert scaled[0, 0] == 1e-6
    assert np.all(scaled[0, 1:] == 1e-5)


@given(st.lists(st.floats(1e-8, 1.0), min_size=4, max_size=4))
def test_identity_returns_sigma_to_the_last_bit(values: list[float]) -> None:
    sigma = np.array([values])
    assert np.array_equal(SigmaScaling.identity(4).apply(sigma), sigma)


@settings(max_examples=20)
@given(st.floats(0.5, 1.5), st.floats(-2, 2), st.floats(1e-6, 1e-2), st.floats(1.0001, 10))
def test_larger_sigma_stays_larger(exponent: float, offset: float, sigma: float, more: float) -> None:
    scaling = SigmaScaling(np.full(2, offset), np.full(2, exponent), np.zeros(2), 0, {})
    assert np.all(scaling.apply(np.full((1, 2), sigma * more)) > scaling.apply(np.full((1, 2), sigma)))


def test_json_round_trip(tmp_path: Path) -> None:
    mean, sigma, truth = drawn(60, 1.4)
    scaling = fit_sigma_scaling(mean, sigma, truth)
    scaling.save(tmp_path / "scaling.json")
    loaded = SigmaScaling.load(tmp_path / "scaling.json")
    assert np.array_equal(loaded.apply(sigma), scaling.apply(sigma))
    assert loaded.groups == scaling.groups
    for text in ("{", "[]", "{}", '{"offset": [0], "exponent": [1, 1], "floor": [0], "n_planets": 1, "groups": {}}'):
        with pytest.raises(InputError):
            SigmaScaling.from_json(text)


def test_covariance_keeps_correlations() -> None:
    rng = np.random.default_rng(12)
    mean, sigma, truth = drawn(60, 1.4)
    scaling = fit_sigma_scaling(mean, sigma, truth)
    factor = rng.normal(size=(2, N_BINS, N_BINS)) * 1e-5
    covariance = factor @ factor.transpose(0, 2, 1)
    scaled = scaling.apply_covariance(covariance)
    stated = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    after = np.sqrt(np.diagonal(scaled, axis1=1, axis2=2))
    assert np.allclose(after, scaling.apply(stated))
    before_correlation = covariance / stated[:, :, None] / stated[:, None, :]
    assert np.allclose(scaled / after[:, :, None] / after[:, None, :], before_correlation)


def test_bad_input_is_refused() -> None:
    mean, sigma, truth = drawn(20)
    with pytest.raises(InputError):
        fit_sigma_scaling(mean, np.zeros_like(sigma), truth)
    with pytest.raises(InputError):
        SigmaScaling.identity(N_BINS).apply(sigma[:, :5])
    with pytest.raises(InputError):
        SigmaScaling.identity(N_BINS).apply(np.full((1, N_BINS), np.nan))
