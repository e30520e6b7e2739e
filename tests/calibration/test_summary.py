"""The summary row of light curves whose transit, drift and noise are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_exposure import AIRS, FGS1

from spectramind.calibration.summary import QUANTITIES, matched_filter, summarise
from spectramind.transit.light_curve import sky_distance, transit_light_curve
from spectramind.types import LightCurve, Quality

BINS, PAIRS, LEVEL = 281, 40, 2e5
TIME_H = np.linspace(0.0, 7.5, BINS)
NOISE = 1.0 / np.sqrt(LEVEL * PAIRS)


def trapezoid(mid_h: float, duration_h: float, depth: float, ingress: float = 0.1) -> np.ndarray:
    return 1.0 - depth * np.clip((0.5 - np.abs(TIME_H - mid_h) / duration_h) / ingress, 0.0, 1.0)


def noise(seed: int = 0) -> np.ndarray:
    return NOISE * np.random.default_rng(seed).normal(size=BINS)


def light_curve(relative: np.ndarray, **changes) -> LightCurve:
    """FGS1 at `LEVEL` electrons a pair, with photon noise as its variance."""
    flux = LEVEL * relative[:, None]
    curve = LightCurve(
        FGS1,
        flux,
        np.full_like(flux, LEVEL / PAIRS),
        np.zeros(flux.shape, np.uint8),
        TIME_H,
        np.array([0.7]),
        np.full(len(relative), PAIRS),
        np.array([0.02 * LEVEL]),
        {"centroid_x": np.linspace(15.0, 15.3, len(relative)), "centroid_y": np.full(len(relative), 15.0)},
    )
    return replace(curve, **changes)


def row(curve: LightCurve) -> dict[str, float]:
    return summarise(curve, 0.01, 0.0, 0.0, 1e-5)


def test_every_number_has_a_title_and_a_unit():
    assert list(row(light_curve(1.0 + noise()))) == list(QUANTITIES)


def test_the_row_of_a_light_curve_that_is_known():
    drift = 1e-3 * (TIME_H / 7.5 - 0.5) ** 2 * 4
    found = row(light_curve(trapezoid(3.7, 2.5, 0.012) * (1.0 + drift) + noise()))
    assert found["electrons_per_pair"] == pytest.approx(LEVEL, rel=2e-3)
    assert found["noise_over_photon"] == pytest.approx(1.0, abs=0.15)
    assert found["noise_over_propagated"] == pytest.approx(1.0, abs=0.15)
    assert found["out_of_transit_ppm"] == pytest.approx(1e6 * NOISE, rel=0.15)
    assert found["drift_ppm"] == pytest.approx(1000, rel=0.2)
    assert found["transit_depth_ppm"] == pytest.approx(12_000, rel=0.03)
    assert found["foreground_share"] == pytest.approx(0.02, rel=0.02)
    assert found["centroid_motion_px"] == pytest.approx(0.3)


@pytest.mark.parametrize("mid_h", [-0.4, 0.5, 3.75, 7.0, 7.8])
@pytest.mark.parametrize("depth", [0.002, 0.02])
def test_a_transit_is_found_wherever_the_window_cuts_it(mid_h: float, depth: float):
    found = matched_filter(trapezoid(mid_h, 2.5, depth) + noise(), TIME_H)
    assert found.depth == pytest.approx(depth, rel=0.2)
    assert found.snr > 5
    assert found.drift < 0.2 * depth
    assert found.scatter == pytest.approx(NOISE, rel=0.2)


def test_the_depth_of_a_limb_darkened_transit():
    flux = transit_light_curve(sky_distance(TIME_H, 3.75, 3.0, 8.0, 87.0), 0.1, 0.4, 0.2)
    found = matched_filter(flux + noise(), TIME_H)
    assert found.depth == pytest.approx(0.01, rel=0.2)


def test_noise_and_drift_alone_are_no_transit():
    phase = 2.0 * TIME_H / 7.5 - 1.0
    drifts = np.random.default_rng(1).normal(size=(60, 5)) * 2e-3
    found = [
        matched_filter(1.0 + np.polynomial.chebyshev.chebval(phase, drift) + noise(seed), TIME_H)
        for seed, drift in enumerate(drifts)
    ]
    significance = [transit.snr for transit in found]
    assert np.median(significance) < 4
    assert max(significance) < 6
    assert np.median([transit.scatter for transit in found]) == pytest.approx(NOISE, rel=0.05)


def test_signal_to_noise_grows_with_the_depth_and_falls_with_the_noise():
    shallow, deep = (matched_filter(trapezoid(3.7, 2.5, depth) + noise(), TIME_H).snr for depth in (0.005, 0.01))
    noisy = matched_filter(trapezoid(3.7, 2.5, 0.01) + 2 * noise(), TIME_H).snr
    assert deep / shallow == pytest.approx(2.0, rel=0.1)
    assert deep / noisy == pytest.approx(2.0, rel=0.1)


def test_a_single_outlier_is_no_transit_and_no_noise():
    struck = 1.0 + noise()
    struck[100] -= 0.05
    found = matched_filter(struck, TIME_H)
    assert found.snr < 6
    assert found.scatter == pytest.approx(NOISE, rel=0.1)


@settings(max_examples=30, deadline=None)
@given(st.floats(0.1, 100.0), st.floats(-0.2, 1.2), st.integers(0, 1000))
def test_the_row_does_not_depend_on_the_unit_of_light(factor: float, mid: float, seed: int):
    curve = light_curve(trapezoid(7.5 * mid, 2.5, 0.01) + noise(seed))
    scaled = replace(curve, flux=factor * curve.flux, variance=factor**2 * curve.variance)
    one, other = row(curve), row(scaled)
    for name in ("scatter_ppm", "out_of_transit_ppm", "drift_ppm", "transit_depth_ppm", "noise_over_propagated"):
        assert other[name] == pytest.approx(one[name], rel=1e-6)


@pytest.mark.parametrize("bins", [1, 2, 5, 15, 20])
def test_short_light_curves_have_a_row(bins: int):
    curve = light_curve((1.0 + noise())[:bins], time_h=TIME_H[:bins])
    found = row(curve)
    assert found["electrons_per_pair"] == pytest.approx(LEVEL, rel=0.01)
    assert np.isnan(found["transit_snr"]) == (bins < 16)


def test_an_empty_light_curve_has_no_level_and_a_dark_one_no_ratios():
    lost = np.full((BINS, 1), Quality.UNUSABLE, np.uint8)
    empty = row(light_curve(np.full(BINS, np.nan), quality=lost))
    assert np.isnan(empty["electrons_per_pair"])
    dark = row(light_curve(noise() - 0.01))
    assert dark["electrons_per_pair"] < 0
    assert np.isnan(dark["scatter_ppm"])
    assert np.isnan(dark["transit_snr"])


def test_a_bin_without_light_is_left_out_and_a_spectrograph_images_no_star():
    relative = trapezoid(3.7, 2.5, 0.012) + noise()
    lost = np.zeros((BINS, 2), np.uint8)
    lost[:, 1] = Quality.UNUSABLE
    lost[7] = Quality.UNUSABLE
    flux = LEVEL * np.stack([relative, np.full(BINS, np.nan)], axis=1)
    flux[7] = np.nan
    curve = light_curve(relative, instrument=AIRS, flux=flux, variance=np.full((BINS, 2), LEVEL / PAIRS), quality=lost)
    curve = replace(curve, foreground=np.array([0.02 * LEVEL, np.nan]), channels={})
    found = row(curve)
    assert found["transit_depth_ppm"] == pytest.approx(12_000, rel=0.03)
    assert found["foreground_share"] == pytest.approx(0.02, rel=0.02)
    assert np.isnan(found["centroid_motion_px"])
