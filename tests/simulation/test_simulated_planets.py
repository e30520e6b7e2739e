"""Stars, orbits and spectra against the ranges of the challenge's tables; light curves from truth."""

from __future__ import annotations

from dataclasses import replace

import batman
import numpy as np
import pytest
from numpy.testing import assert_allclose

from spectramind.instruments import AIRS, FGS1
from spectramind.simulation.axes import column_wavelengths_um, pair_times_h, spectrum_wavelengths_um, time_axis
from spectramind.simulation.dataset import draw_planets
from spectramind.simulation.drift import draw_drift, drift_factor
from spectramind.simulation.exposures import column_depths, planet_detector, simulate_exposure, transit_factor
from spectramind.simulation.limb_darkening import LimbDarkening, quadratic_coefficients
from spectramind.simulation.options import SimulationOptions
from spectramind.simulation.planets import SimulatedPlanet
from spectramind.simulation.stars import StarProperties, planck_photon_ratio, stellar_levels

OPTIONS = SimulationOptions(train_planets=300, test_planets=2)


@pytest.fixture(scope="module")
def planets() -> tuple[SimulatedPlanet, ...]:
    return draw_planets(8, "train", OPTIONS, None)


def test_spectra_stay_in_the_stated_ranges(planets: tuple[SimulatedPlanet, ...]) -> None:
    depths = np.stack([planet.depth for planet in planets])
    mean = depths[:, 1:].mean(axis=1)
    std = depths[:, 1:].std(axis=1)
    contrast = depths[:, 0] - mean
    assert depths.shape == (300, 283)
    assert depths.min() > 0.003
    assert depths.max() < 0.085
    assert np.median(mean) == pytest.approx(0.012, rel=0.15)
    assert np.log(mean).std() == pytest.approx(0.6, abs=0.1)
    assert 5e-6 <= std.min() <= 1e-5
    assert 1.4e-4 <= std.max() <= 1.7e-4
    assert 2e-5 < np.median(std) < 6e-5
    assert np.abs(contrast).max() <= 5e-4
    assert contrast.min() < -1.5e-4
    assert contrast.max() > 3e-4


def test_few_components_hold_the_shapes(planets: tuple[SimulatedPlanet, ...]) -> None:
    depths = np.stack([planet.depth for planet in planets])
    shapes = depths - depths[:, 1:].mean(axis=1, keepdims=True)
    shares = np.linalg.svd(shapes - shapes.mean(axis=0), compute_uv=False) ** 2
    share = np.cumsum(shares) / shares.sum()
    assert share[6] > 0.975
    assert share[11] > 0.995
    assert share[2] < 0.97


def test_orbits_and_stars_are_like_the_star_table(planets: tuple[SimulatedPlanet, ...]) -> None:
    def quantiles(values: list[float]) -> np.ndarray:
        return np.percentile(values, [5, 50, 95])

    assert_allclose(quantiles([p.star.radius for p in planets]), [0.80, 1.23, 1.90], rtol=0.15)
    assert_allclose(quantiles([p.star.mass for p in planets]), [0.75, 1.10, 1.43], rtol=0.1)
    assert_allclose(quantiles([p.star.temperature for p in planets]), [4823, 5887, 6521], rtol=0.07)
    assert_allclose(quantiles([p.table.sma for p in planets]), [6.3, 10.5, 16.3], rtol=0.15)
    assert_allclose(quantiles([p.duration_h for p in planets]), [2.5, 3.9, 6.1], rtol=0.15)
    impact = [p.table.impact_parameter for p in planets]
    assert_allclose(quantiles(impact), [0.0, 0.27, 0.66], atol=0.08)
    assert max(impact) < 1.15
    offset = [p.orbit.sma / p.table.sma - 1 for p in planets]
    assert np.std(offset) == pytest.approx(OPTIONS.geometry_scatter, rel=0.15)


def test_mid_transit_is_off_centre_and_cut_only_by_choice(planets: tuple[SimulatedPlanet, ...]) -> None:
    for planet in planets:
        for mid in planet.mid_time_h:
            inside = planet.duration_h / 2 < mid < 7.5 - planet.duration_h / 2
            assert inside or OPTIONS.cut_fraction > 0
    mids = np.array([planet.mid_time_h[0] for planet in planets])
    assert 0.25 < mids.std() < 0.6
    cut = draw_planets(8, "train", replace(OPTIONS, train_planets=20, cut_fraction=1.0), None)
    for planet in cut:
        begins, ends = planet.mid_time_h[0] - planet.duration_h / 2, planet.mid_time_h[0] + planet.duration_h / 2
        assert begins < 0 or ends > 7.5
        assert ends > 0
        assert begins < 7.5
    twice = draw_planets(8, "train", replace(OPTIONS, train_planets=200), None)
    assert 0.04 < np.mean([len(planet.mid_time_h) == 2 for planet in twice]) < 0.17


def test_light_curves_agree_with_batman(planets: tuple[SimulatedPlanet, ...]) -> None:
    planet = planets[0]
    time_h = pair_times_h(time_axis(AIRS, 200, 7.5))
    flux = transit_factor(planet, AIRS, time_h, planet.mid_time_h[0])
    u1, u2 = quadratic_coefficients(planet.limb_darkening, column_wavelengths_um(AIRS))
    for column in (39, 180, 320):
        p = batman.TransitParams()
        p.t0, p.per = planet.mid_time_h[0], planet.orbit.period_d * 24
        p.rp = float(np.sqrt(planet.depth[1 + 320 - column]))
        p.a, p.inc, p.ecc, p.w = planet.orbit.sma, planet.orbit.inclination_deg, 0.0, 90.0
        p.limb_dark, p.u = "quadratic", [u1[column], u2[column]]
        assert_allclose(flux[column], batman.TransitModel(p, time_h).light_curve(p), atol=1e-6)


def test_columns_are_wavelengths_in_descending_order(planets: tuple[SimulatedPlanet, ...]) -> None:
    depths = column_depths(planets[0], AIRS)
    assert_allclose(depths[39:321][::-1], planets[0].depth[1:])
    assert_allclose(column_depths(planets[0], FGS1), planets[0].depth[:1])
    wavelengths = spectrum_wavelengths_um()
    assert np.all(np.diff(wavelengths) > 0)
    assert_allclose(wavelengths[[0, 1, -1]], [0.7, 1.95176, 3.89504], atol=1e-5)


def test_levels_follow_the_measured_anchors_and_temperature() -> None:
    star = StarProperties(1.0, 1.0, 5750.0, 1.0)
    levels = stellar_levels(star, AIRS)[39:321][::-1]
    assert_allclose(levels[[0, 50, 100, 150, 200, 250, 281]], [82e3, 80e3, 52e3, 29e3, 21e3, 14e3, 4e3], rtol=0.03)
    cool = planck_photon_ratio(np.array([0.7, 3.0, 1e4]), 4800.0)
    assert cool[0] < cool[1] < cool[2] == pytest.approx(4800 / 5750, rel=1e-3)


def test_limb_darkening_falls_with_wavelength_and_temperature() -> None:
    wavelengths = spectrum_wavelengths_um()
    sun = quadratic_coefficients(LimbDarkening(5777.0), wavelengths)
    assert np.all(np.diff(sun[0]) < 0)
    assert_allclose([sun[0][0], sun[1][0]], [0.345, 0.275], atol=0.01)
    cool = quadratic_coefficients(LimbDarkening(4500.0), wavelengths)
    assert np.all(cool[0] > sun[0])


def test_drift_has_its_amplitude() -> None:
    time_h = np.linspace(0, 7.5, 100)
    for seed in range(30):
        drift = draw_drift(np.random.default_rng(seed), 1e-4, 2e-3, dispersed=False)
        peak = np.abs(drift_factor(drift, time_h, 7.5, 1) - 1).max()
        assert 1e-4 <= drift.amplitude <= 2e-3
        assert peak == pytest.approx(drift.amplitude, rel=0.02)


def test_the_fgs1_clock_can_be_shifted(planets: tuple[SimulatedPlanet, ...]) -> None:
    options = replace(OPTIONS, fgs1_frames=300, airs_frames=60, fgs1_jitter_px=0.0, drift_max=0.0, drift_min=0.0)
    planet = replace(max(planets, key=lambda p: p.depth[0]), mid_time_h=(3.75,))
    detector = planet_detector(1, planet, FGS1, options)
    time_h = pair_times_h(time_axis(FGS1, 150, 7.5))

    def mid_time(clock_offset_h: float) -> float:
        counts, _ = simulate_exposure(
            1, planet, 0, FGS1, detector, replace(options, fgs1_clock_offset_h=clock_offset_h)
        )
        flux = (counts[:, 1::2].astype(float) - counts[:, ::2]).sum(axis=0)
        loss = np.clip(1 - flux / np.percentile(flux, 90) - 0.02, 0, None)
        return float((loss * time_h).sum() / loss.sum())

    assert mid_time(-1.1) - mid_time(0.0) == pytest.approx(-1.1, abs=0.15)
