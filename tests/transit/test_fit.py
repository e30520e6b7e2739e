"""The joint fit recovers what batman put in."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from light_curves import WAVELENGTHS, star, visit

from spectramind.instruments import N_WAVELENGTHS
from spectramind.transit.fit import PlanetFit, _local, _residual_tests, fit_planet, white_curves
from spectramind.transit.joint import Gaussian, SpectrumLikelihood
from spectramind.transit.local_likelihood import linearise, log_curves, model_and_slopes
from spectramind.transit.nuisances import LOCAL, first_guess
from spectramind.transit.options import TransitOptions

DEPTH = 0.0125 + 8e-5 * np.sin(4 * WAVELENGTHS)
OPTIONS = TransitOptions(drift_degree=4)


def spectrum_posterior(fit: PlanetFit, host) -> tuple[np.ndarray, np.ndarray]:
    prior = first_guess(OPTIONS, 8.0)
    n = fit.layout.n_visits
    measured = fit.likelihood.integrated(Gaussian.from_moments(prior.mean(host, n), prior.covariance(n)))
    covariance = np.linalg.inv(measured.precision)
    return covariance @ measured.score, covariance


def white(mean: np.ndarray, covariance: np.ndarray) -> tuple[float, float]:
    """Best estimate of the mean AIRS depth and its sigma."""
    weights = np.r_[0.0, np.full(N_WAVELENGTHS - 1, 1 / (N_WAVELENGTHS - 1))]
    return float(weights @ mean), float(np.sqrt(weights @ covariance @ weights))


def test_noiseless_light_curves_give_back_the_spectrum():
    host = star()
    fit = fit_planet([visit(host, DEPTH, seed=None, mid_time_h=3.9)], host, OPTIONS)
    assert fit.flags == ()
    assert fit.summary["mid_time_h_0"] == pytest.approx(0.15, abs=2e-3)
    mean, _ = spectrum_posterior(fit, host)
    np.testing.assert_allclose(mean[1:], DEPTH[1:], atol=3e-5)


def test_errors_are_as_large_as_the_posterior_says():
    host = star()
    z = []
    for seed in range(6):
        fit = fit_planet([visit(host, DEPTH, seed=seed)], host, OPTIONS)
        mean, covariance = spectrum_posterior(fit, host)
        error = mean - DEPTH
        z.append(error @ np.linalg.solve(covariance, error) / N_WAVELENGTHS)
    assert np.mean(z) == pytest.approx(1.0, abs=0.15)


@pytest.mark.parametrize("mid_time_h", [2.4, 3.75, 5.4])
def test_finds_the_transit_wherever_it_is(mid_time_h):
    host = star()
    fit = fit_planet([visit(host, DEPTH, mid_time_h=mid_time_h)], host, OPTIONS)
    assert fit.summary["mid_time_h_0"] == pytest.approx(mid_time_h - 3.75, abs=0.02)


def test_instruments_with_clocks_an_hour_apart():
    host = star()
    fit = fit_planet([visit(host, DEPTH, clock_h=-1.1)], host, OPTIONS)
    assert fit.summary["clock_offset_h_0"] == pytest.approx(-1.1, abs=0.02)
    assert abs(fit.summary["depth_airs"] - DEPTH[1:].mean()) < 3e-4


def test_two_visits_say_more_than_one():
    host = star()
    visits = [visit(host, DEPTH, number=n, mid_time_h=3.5 + 0.4 * n) for n in range(2)]
    one, two = fit_planet(visits[:1], host, OPTIONS), fit_planet(visits, host, OPTIONS)
    (_, sigma_one), (depth, sigma_two) = (white(*spectrum_posterior(fit, host)) for fit in (one, two))
    assert sigma_two < sigma_one
    assert abs(depth - DEPTH[1:].mean()) < 5 * sigma_two


def test_a_table_with_the_wrong_orbit_is_corrected_by_the_light_curve():
    host = star()
    told = replace(host, sma=host.sma * 1.03, i=88.8)
    fit = fit_planet([visit(host, DEPTH)], told, OPTIONS)
    assert fit.summary["axis_offset"] == pytest.approx(-np.log(1.03), abs=0.02)
    assert abs(fit.summary["depth_airs"] - DEPTH[1:].mean()) < 2e-4


def test_a_cosmic_ray_does_not_move_the_depth():
    host = star()
    clean = visit(host, DEPTH)
    airs = clean.curves["AIRS-CH0"]
    flux = airs.flux.copy()
    flux[70, 40] *= 1.5
    hit = replace(clean, curves={**clean.curves, "AIRS-CH0": replace(airs, flux=flux)})
    a, b = (fit_planet([v], host, OPTIONS) for v in (clean, hit))
    assert abs(a.best[41] - b.best[41]) < 4e-5


def test_noise_that_all_bins_share_is_told_from_transits():
    """Light that comes and goes together across wavelength, as when the spectrum moves, ten times the photon noise of
    the white light curve: it has a pattern, and the errors stay those that the posterior claims."""
    host = star()
    z, plain_sigma = [], white(*spectrum_posterior(fit_planet([visit(host, DEPTH)], host, OPTIONS), host))[1]
    x = np.linspace(-1, 1, N_WAVELENGTHS - 1)
    for seed in range(5):
        clean = visit(host, DEPTH, seed=seed)
        airs = clean.curves["AIRS-CH0"]
        wobble = 6e-4 * np.random.default_rng([9, seed]).normal(size=(len(airs.time_h), 1)) * (1 + 8 * x**9)
        shaken = replace(clean, curves={**clean.curves, "AIRS-CH0": replace(airs, flux=airs.flux * (1 + wobble))})
        fit = fit_planet([shaken], host, OPTIONS)
        depth, sigma = white(*spectrum_posterior(fit, host))
        z.append((depth - DEPTH[1:].mean()) / sigma)
        assert sigma < 3 * plain_sigma
    assert np.sqrt(np.mean(np.square(z))) < 1.8


def test_samples_without_measurement_are_left_out():
    host = star()
    clean = visit(host, DEPTH)
    airs = clean.curves["AIRS-CH0"]
    flux, variance = airs.flux.copy(), airs.variance.copy()
    flux[10:13, 5], variance[10:13, 5] = np.nan, np.inf
    broken = replace(clean, curves={**clean.curves, "AIRS-CH0": replace(airs, flux=flux, variance=variance)})
    fit = fit_planet([broken], host, OPTIONS)
    assert np.isfinite(fit.best).all()
    assert abs(fit.summary["depth_airs"] - DEPTH[1:].mean()) < 3e-4


def test_a_transit_outside_the_window_is_flagged():
    host = star()
    fit = fit_planet([visit(host, DEPTH, mid_time_h=30.0)], host, OPTIONS)
    mean, covariance = spectrum_posterior(fit, host)
    depth, sigma = white(mean, covariance)
    assert fit.flags or sigma > 1e-3 or depth < 5 * sigma


def test_a_window_inside_the_transit_is_flagged():
    host = star(P=40.0, sma=10.0, i=89.9)
    fit = fit_planet([visit(host, DEPTH, window_h=4.0, mid_time_h=2.0)], host, OPTIONS)
    assert fit.flags == ("no baseline outside the transit",)


def test_slopes_agree_with_finite_differences():
    host = star()
    curves = log_curves(visit(host, DEPTH, seed=None).curves["AIRS-CH0"], 3.75, 2)
    rng = np.random.default_rng(0)
    local = np.column_stack([DEPTH[1:], *(np.full(282, v) for v in (0.01, 0.02, 0.2, 0.15, 0.1)), *np.zeros((2, 282))])
    _, slopes = model_and_slopes(curves, host, local)
    for j in range(len(LOCAL) + 2):
        step = 1e-6 * (1 + rng.random())
        up, down = local.copy(), local.copy()
        up[:, j] += step
        down[:, j] -= step
        numeric = (model_and_slopes(curves, host, up)[0] - model_and_slopes(curves, host, down)[0]) / (2 * step)
        np.testing.assert_allclose(slopes[j], numeric, atol=2e-3 * np.abs(numeric).max() + 1e-9)


def test_the_star_level_does_not_matter():
    host = star()
    curves = log_curves(visit(host, DEPTH).curves["FGS1"], 3.75, 2)
    local = np.array([[0.012, 0.0, 0.0, 0.3, 0.2, 0.0, 0.0, 0.0]])
    a, _ = linearise(curves, host, local)
    b, _ = linearise(replace(curves, log_flux=curves.log_flux + 3.0), host, local)
    np.testing.assert_allclose(a.score, b.score, rtol=1e-6, atol=1e-3)


def test_saved_fits_come_back_bit_for_bit(tmp_path):
    host = star()
    fit = fit_planet([visit(host, DEPTH)], host, OPTIONS)
    fit.save(tmp_path / "fit.npz")
    back = PlanetFit.load(tmp_path / "fit.npz")
    assert (back.planet_id, back.layout, back.summary, back.flags) == (
        fit.planet_id,
        fit.layout,
        fit.summary,
        fit.flags,
    )
    for name in SpectrumLikelihood.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(back.likelihood, name), getattr(fit.likelihood, name))


def test_integrating_nuisances_out_equals_the_dense_marginal():
    rng = np.random.default_rng(3)
    p = 4
    factor = rng.normal(size=(600, N_WAVELENGTHS + p)) * 0.1
    dense = factor.T @ factor
    spectrum = np.diag(np.diag(dense)[:N_WAVELENGTHS] + 50)
    likelihood = SpectrumLikelihood(
        spectrum, dense[:N_WAVELENGTHS, N_WAVELENGTHS:], dense[N_WAVELENGTHS:, N_WAVELENGTHS:], rng.normal(size=287)
    )
    knowledge = Gaussian(2 * np.eye(p), np.arange(p, dtype=float))
    full = likelihood.dense()
    precision, score = full.precision.copy(), full.score.copy()
    precision[N_WAVELENGTHS:, N_WAVELENGTHS:] += knowledge.precision
    score[N_WAVELENGTHS:] += knowledge.score
    covariance = np.linalg.inv(precision)
    expected = (covariance @ score)[:N_WAVELENGTHS], covariance[:N_WAVELENGTHS, :N_WAVELENGTHS]
    marginal = likelihood.integrated(knowledge)
    np.testing.assert_allclose(np.linalg.inv(marginal.precision), expected[1], rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(np.linalg.solve(marginal.precision, marginal.score), expected[0], rtol=1e-7)


def test_white_residuals_are_those_of_noise_and_show_what_the_model_has_not():
    host = star()
    honest = [fit_planet([visit(host, DEPTH, seed=seed)], host, OPTIONS).summary for seed in range(4)]
    for name in ("FGS1", "AIRS-CH0"):
        assert np.mean([summary[f"scatter_{name}_0"] for summary in honest]) == pytest.approx(1.0, abs=0.15)
        assert max(abs(summary[f"half_difference_{name}_0"]) for summary in honest) < 4
    deeper = fit_planet([visit(host, DEPTH, seed=1), visit(host, 1.1 * DEPTH, seed=2, number=1)], host, OPTIONS)
    first, second = (deeper.summary[f"transit_residual_AIRS-CH0_{number}"] for number in (0, 1))
    assert first - second > 3  # the shallower is too bright in transit for the common depth
    assert deeper.summary["scatter_AIRS-CH0_0"] > 1.4


def test_a_step_in_mid_transit_is_a_difference_of_the_halves():
    curves = log_curves(visit(star(), DEPTH, seed=1).curves["AIRS-CH0"], 0.0, 4)
    noise = np.random.default_rng(0).normal(size=curves.weight.shape) / np.sqrt(curves.weight)
    start, end, middle = (np.quantile(curves.hours, q) for q in (0.3, 0.7, 0.5))
    inside = (curves.hours > start) & (curves.hours < end)
    step = 1e-4 * (inside & (curves.hours < middle))[:, None]
    plain, stepped = (_residual_tests(curves, noise + s, inside, middle) for s in (0.0, step))
    white = 1 / np.sqrt(curves.weight.sum(axis=1).mean())
    expected = 1e-4 / (white * np.sqrt(4 / inside.sum()))
    assert stepped[1] - plain[1] == pytest.approx(expected, rel=0.3)
    assert abs(plain[1]) < 4
    assert all(np.isnan(_residual_tests(curves, noise, inside & False, middle)))


def test_white_curves_differ_from_the_fit_by_its_residuals():
    host = star()
    visits = [visit(host, DEPTH, seed=seed, number=seed) for seed in (1, 2)]
    visits[1].curves["AIRS-CH0"].flux[7] = np.nan
    fit = fit_planet(visits, host, OPTIONS)
    curves = white_curves(fit, visits, host, OPTIONS)
    assert [(curve.instrument, curve.visit) for curve in curves] == [
        (name, number) for number in (1, 2) for name in ("FGS1", "AIRS-CH0")
    ]
    for place, curve in enumerate(curves):
        position = place // 2
        calibrated = visits[position].curves[curve.instrument]
        logs = log_curves(calibrated, 3.75, OPTIONS.drift_degree)
        local = _local(fit.best, fit.layout, logs, position)
        _, residual = linearise(logs, host, local)
        known = np.isfinite(calibrated.flux).all(axis=1)
        assert np.array_equal(np.isfinite(curve.data), known)
        own = np.average(residual[known], weights=1 / (calibrated.variance / calibrated.flux**2)[known], axis=1)
        scatter = np.std(own)
        np.testing.assert_allclose((curve.data - curve.model)[known], own, atol=0.1 * scatter)
        # Photon noise of all light together, and the depth that batman put in: the lowest point is darker by the limb.
        total = calibrated.flux[known].sum(axis=1)
        assert scatter == pytest.approx(np.mean(total**-0.5), rel=0.25)
        assert np.ptp(curve.model) == pytest.approx(-np.log(total.min() / total.max()), rel=0.05)


def test_noiseless_white_curves_have_no_residuals():
    host = star()
    visits = [visit(host, DEPTH, seed=None)]
    for curve in white_curves(fit_planet(visits, host, OPTIONS), visits, host, OPTIONS):
        assert np.abs(curve.data - curve.model).max() < 3e-6
