"""Calibrated light curves and stars as the network reads them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from spectramind.errors import InputError
from spectramind.instruments import FGS1
from spectramind.models.network_inputs import FGS1_CHANNELS, fgs1_sequence, join_visits, star_features
from spectramind.types import LightCurve, Quality, Star

STEPS = 200
STAR = Star("1", 1.0, 1.0, 5772.0, 1.0, 0.0, 4.0, 10.0, 90.0)


def curve(depth: float = 0.015, level: float = 2e5, start_h: float = 0.0) -> LightCurve:
    time_h = start_h + np.linspace(0, 7.5, STEPS)
    inside = np.abs(time_h - start_h - 3.75) < 1.25
    wave = np.sin(np.arange(STEPS))
    pointing = {"centroid_x": 15.5 + 0.1 * wave, "centroid_y": 15.2 - 0.1 * wave}
    jitter = {"jitter_x": np.full(STEPS, 0.1), "jitter_y": np.full(STEPS, 0.2)}
    return LightCurve(
        instrument=FGS1,
        flux=(level * (1 - depth * inside))[:, None],
        variance=np.full((STEPS, 1), level),
        quality=np.zeros((STEPS, 1), dtype=np.uint8),
        time_h=time_h,
        wavelength_um=np.array([0.7]),
        n_pairs=np.full(STEPS, 240),
        foreground=np.zeros(1),
        channels=pointing | jitter,
    )


def test_channels_are_in_order_and_of_order_one() -> None:
    sequence = dict(zip(FGS1_CHANNELS, fgs1_sequence(curve()).T, strict=True))
    assert list(sequence) == ["flux", "time", "centroid_x", "centroid_y", "jitter_x", "jitter_y"]
    assert np.ptp(sequence["flux"]) == pytest.approx(1.5, rel=1e-5)
    assert (sequence["time"][0], sequence["time"][-1]) == (-1.0, 1.0)
    assert np.abs(sequence["centroid_x"] + sequence["centroid_y"]).max() < 0.1
    assert np.ptp(sequence["centroid_x"]) == pytest.approx(2.0, rel=1e-2)
    assert (sequence["jitter_x"][0], sequence["jitter_y"][0]) == pytest.approx((1.0, 2.0))


def test_the_level_and_the_start_of_a_visit_do_not_enter() -> None:
    np.testing.assert_allclose(fgs1_sequence(curve(level=3e4, start_h=55.0)), fgs1_sequence(curve()), atol=1e-5)


def test_unusable_bins_are_left_out() -> None:
    whole = curve()
    flux, quality = whole.flux.copy(), whole.quality.copy()
    flux[3], quality[7] = np.nan, Quality.UNUSABLE
    kept = np.delete(np.arange(STEPS), [3, 7])
    sequence = fgs1_sequence(replace(whole, flux=flux, quality=quality))
    np.testing.assert_array_equal(sequence[:, :2], fgs1_sequence(whole)[kept, :2])
    with pytest.raises(InputError, match="a usable time bin"):
        fgs1_sequence(replace(whole, quality=np.full_like(quality, Quality.UNUSABLE)))


def test_features_of_a_star_like_the_sun_with_a_typical_planet_are_zero() -> None:
    np.testing.assert_allclose(star_features(STAR), 0.0, atol=1e-6)
    assert star_features(replace(STAR, i=87.0))[-1] == pytest.approx(10 * np.cos(np.radians(87.0)))
    assert np.isfinite(star_features(replace(STAR, Mp=0.0))).all()


def test_visits_are_joined_with_their_planets() -> None:
    one, two = fgs1_sequence(curve()), fgs1_sequence(curve(depth=0.02))[:50]
    fgs1, n_steps, planet_of_visit = join_visits([[one], [two, one]])
    assert n_steps.tolist() == [STEPS, 50, STEPS]
    assert planet_of_visit.tolist() == [0, 1, 1]
    np.testing.assert_array_equal(fgs1[1, :50], two)
    assert not fgs1[1, 50:].any()
