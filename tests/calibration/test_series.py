"""Outliers, foreground, extraction, time bins and pointing on series and images whose answer is known."""

import numpy as np
import pytest
from toy_exposure import AIRS, box_transit, profile

from spectramind.calibration import cosmic_rays, extraction, foreground, time_binning
from spectramind.calibration.pointing import image_moments, position_response
from spectramind.calibration.statistics import point_to_point


@pytest.mark.parametrize("threshold", [0.0, 0.7, 2.0])
def test_what_is_far_from_the_median_of_five_becomes_that_of_its_neighbours(threshold):
    series = np.random.default_rng(0).normal(size=(40, 3))
    padded = np.pad(series, [(2, 2), (0, 0)], mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, 5, axis=0)
    median, neighbours = np.median(windows, axis=-1), np.median(windows[..., [0, 1, 3, 4]], axis=-1)
    far = np.abs(series - median) > threshold
    result, replaced = cosmic_rays.reject(series, np.full(3, threshold))
    np.testing.assert_array_equal(replaced, far)
    np.testing.assert_array_equal(result, np.where(far, neighbours, series))


def test_hits_are_replaced_and_a_steep_ingress_is_not():
    clean = 1e5 * box_transit(280, 0.08)[:, None]
    noisy = clean + np.random.default_rng(0).normal(0, 100, clean.shape)
    hit = noisy.copy()
    hit[[20, 21, 140]] += 1e6
    result, replaced = cosmic_rays.reject(hit, 6 * cosmic_rays.scatter(noisy))
    assert np.flatnonzero(replaced).tolist() == [20, 21, 140]
    assert np.abs(result - clean).max() < 500


def test_rejection_does_not_bias_noise():
    noise = np.random.default_rng(0).normal(0, 1, (4000, 50))
    result, replaced = cosmic_rays.reject(noise, np.full(50, 4.0))
    assert replaced.mean() < 1e-3
    assert abs(result.mean()) < 4 / np.sqrt(noise.size)


def test_optimal_weights_are_unbiased_and_beat_the_sum():
    rng = np.random.default_rng(0)
    share = profile(AIRS)[:, 39:321]
    image = share * 20_000
    variance = image + 2 * 13.3**2
    weights = extraction.optimal_weights(extraction.spatial_profile(image, True, 9), variance, True)
    frames = image + rng.normal(size=(400, *image.shape)) * np.sqrt(variance)
    best = extraction.weighted_sum(frames, weights, True)
    plain = extraction.weighted_sum(frames, np.ones_like(image), True)
    np.testing.assert_allclose(best.mean(), 20_000, rtol=1e-3)
    assert best.std(axis=0).mean() < 0.95 * plain.std(axis=0).mean()
    limit = np.sqrt(1 / (share**2 / variance).sum(axis=0)).mean()
    assert best.std(axis=0).mean() == pytest.approx(limit, rel=0.02)


@pytest.mark.parametrize(("fore", "wings"), [(10.0, 0.0), (10.0, 20.0), (0.0, 20.0)])
def test_wings_are_told_from_foreground_by_the_transit(fore, wings):
    rng = np.random.default_rng(0)
    dip = box_transit(280, 0.012)
    star = dip[:, None] * np.linspace(90e3, 4e3, 30) * 20
    x = np.linspace(-1, 1, 30)
    light = wings * (1 + 0.3 * x) * star[0] / star[0].mean()
    edge = fore + dip[:, None] * light + rng.normal(0, 0.1, star.shape)
    found = foreground.starlight_share(edge, star, x, np.full(30, 0.01), 0.5, 0.3)
    assert np.abs(found - light).mean() < 0.05 * (fore + wings)


def test_wings_without_a_transit_follow_the_expectation():
    star = np.full((280, 1), 1e5) + np.random.default_rng(0).normal(0, 1, (280, 1))
    edge = np.full((280, 1), 10.0) + np.random.default_rng(1).normal(0, 1, (280, 1))
    found = foreground.starlight_share(edge, star, np.zeros(1), np.ones(1), 0.5, 0.3)
    assert found[0] == pytest.approx(5.0, rel=0.05)


def test_bins_hold_the_pairs_nearest_to_the_wanted_length():
    bins = time_binning.plan_bins(np.arange(5625) * 4.8 / 3600, 96.0)
    assert bins.full == 20
    assert bins.size.sum() == 5625
    assert bins.size[-1] == 5
    assert time_binning.plan_bins(np.arange(280) * 96.4 / 3600, 96.0).full == 1


def test_unusable_pairs_do_not_enter_bins():
    bins = time_binning.plan_bins(np.arange(10) / 3600, 4.0)
    usable = np.ones(10, bool)
    usable[[0, 8, 9]] = False
    mean, count = time_binning.bin_mean(np.arange(10.0)[:, None], usable, bins)
    assert count.tolist() == [3, 4, 0]
    np.testing.assert_array_equal(mean[:, 0], [2.0, 5.5, np.nan])


def test_centroid_of_a_shifted_star():
    rows, columns = np.mgrid[:32, :32]
    image = np.exp(-0.5 * ((rows - 15.3) ** 2 + (columns - 16.1) ** 2) / 4)
    moments = image_moments(np.ones((32, 32), bool), image[None], np.ones_like(image), dispersed=False)
    total, x, y = (moments * image).sum(axis=(1, 2))
    assert (x / total, y / total) == (pytest.approx(16.1, abs=1e-3), pytest.approx(15.3, abs=1e-3))


def test_a_breathing_image_is_seen_by_its_components_and_not_by_its_place():
    """The image grows and shrinks about a fixed centre, and the flux with it."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:32, :32] - 15.5
    width = rng.normal(2.0, 0.05, 3000)
    images = np.exp(-0.5 * (rows**2 + columns**2) / width[:, None, None] ** 2)
    images *= 2e5 / images.sum(axis=(1, 2))[:, None, None]
    variance = images.mean(axis=0) + 350.0
    frames = images + rng.normal(size=images.shape) * np.sqrt(variance)
    flux = 2e5 * (1 + 0.05 * (width - 2.0)[:, None]) + rng.normal(0, 450, (3000, 1))
    core = images[0] > 0.5 * images[0].max()
    left = {}
    for components in (0, 2):
        moments = image_moments(core, frames[:80], variance, dispersed=False, components=components)
        total, *others = np.einsum("trc,mrc->mt", frames, moments)
        response = position_response(flux, (np.array(others) / total).T)
        left[components] = np.corrcoef((flux / (1 + response))[:, 0], width)[0, 1]
    assert left[0] > 0.6
    assert abs(left[2]) < 0.3 * left[0]


def test_jitter_is_removed_and_the_transit_stays():
    rng = np.random.default_rng(0)
    position = rng.normal(0, 0.1, (6000, 2))
    dip = box_transit(6000, 0.01)[:, None]
    wobble = 1 + 0.02 * position[:, :1] - 0.01 * position[:, 1:] + 0.05 * position[:, :1] * position[:, 1:]
    flux = 1e6 * dip * wobble + rng.normal(0, 300, dip.shape)
    response = position_response(flux, position)
    assert np.std(flux / (1 + response) / dip) / 1e6 == pytest.approx(3e-4, rel=0.05)
    assert abs(response.mean()) < 1e-12
    assert abs(np.cov(response[:, 0], dip[:, 0])[0, 1]) / dip.var() < 2e-2


def test_short_series_keep_their_jitter():
    assert not position_response(np.ones((20, 1)), np.random.default_rng(0).normal(size=(20, 2))).any()


def test_point_to_point_scatter_ignores_trends():
    time = np.linspace(0, 1, 4000)
    series = 1e3 * time**2 + np.random.default_rng(0).normal(0, 2, time.size)
    assert point_to_point(series) == pytest.approx(2.0, rel=0.05)
