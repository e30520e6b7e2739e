"""Counts against theory: mean, variance, linearity, thinning, jitter, cosmic rays."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spectramind.instruments import AIRS, FGS1, INSTRUMENTS, Instrument
from spectramind.simulation.axes import SAMPLING
from spectramind.simulation.cosmic_rays import add_cosmic_rays, draw_cosmic_rays
from spectramind.simulation.detectors import LINEARITY, Detector, draw_detector, thin_adc, thin_detector
from spectramind.simulation.linearity import delinearise, linearise
from spectramind.simulation.optics import draw_placement, image_series
from spectramind.simulation.pointing import CORRELATION_TIME_S, draw_jitter
from spectramind.simulation.readout import Scene, expose
from spectramind.simulation.stars import reference_levels
from spectramind.types import Adc, Floats

ADC = Adc(gain=0.4369, offset=-1000.0)
N_PAIRS = 3000


def ideal_detector(instrument: Instrument) -> Detector:
    """No dark, no bad pixels, a flat of 1; drawn linearity and read noise."""
    frames = draw_detector(np.random.default_rng(0), instrument).frames
    shape = (instrument.rows, instrument.columns)
    calm = replace(frames, dark=np.zeros(shape), dead=np.zeros(shape, bool), flat=np.ones(shape))
    return Detector(replace(calm, read=np.full(shape, 13.3)), np.ones(shape))


def flat_scene(level: float, n_pairs: int) -> Scene:
    """Every FGS1 pixel at the same mean level."""
    images = np.zeros((6, 32, 32))
    images[0] = level
    return Scene(np.ones((1, n_pairs)), images, np.zeros((n_pairs, 2)), np.zeros(1))


def linear_pairs(counts: Floats, detector: Detector, adc: Adc) -> tuple[Floats, Floats]:
    """First reads and CDS signal in linear electrons, (pixels, pairs)."""
    electrons = (counts + 0.5) / adc.gain + adc.offset
    linear = linearise(electrons, detector.frames.linear_corr.reshape(6, -1, 1))
    return linear[:, ::2], linear[:, 1::2] - linear[:, ::2]


@pytest.mark.parametrize("level", [3.0, 25.0, 400.0, 20_000.0])
def test_mean_and_variance_follow_photon_read_and_quantisation_noise(level: float) -> None:
    detector = ideal_detector(FGS1)
    counts = expose(
        np.random.default_rng(2), flat_scene(level, N_PAIRS), detector.response, detector.frames, ADC, 0.1, 0.1
    )
    first, cds = linear_pairs(counts.astype(float), detector, ADC)
    n = cds.size
    slope = 1.0 + 2e-6 * level  # the gain of linearisation acts on read noise: below 5 % at these levels
    variance = level + (2 * 13.3**2 + 2 / (12 * ADC.gain**2)) * slope**2
    assert abs(cds.mean() - level) < 5 * np.sqrt(variance / n) + 1e-4 * level
    assert cds.var() == pytest.approx(variance, rel=0.01)
    assert first.mean() == pytest.approx(level, rel=2e-3, abs=0.1)
    # one ramp: the first read's photons are in the second read too
    shared = np.mean((first - first.mean()) * (first + cds - (first + cds).mean()))
    assert shared == pytest.approx(level, rel=0.05, abs=2.0)


@settings(deadline=None, max_examples=50)
@given(level=st.floats(0.0, 1.2e5), scatter=st.floats(0.97, 1.03), name=st.sampled_from(sorted(LINEARITY)))
def test_linearity_inverts(level: float, scatter: float, name: str) -> None:
    coefficients = (
        np.array(LINEARITY[name])[:, None] * np.array([1, scatter, scatter, scatter, scatter, scatter])[:, None]
    )
    measured, converged = delinearise(np.array([level]), coefficients)
    assert converged.all()
    assert abs(linearise(measured, coefficients)[0] - level) <= 1e-9 * max(level, 1.0)


def test_a_polynomial_that_turns_over_is_reported() -> None:
    falling = np.array([0.0, 1.0, -2e-5, 0.0, 0.0, 0.0])[:, None]
    assert list(delinearise(np.array([1e3, 5e4]), falling)[1]) == [True, False]


@pytest.mark.parametrize("instrument", INSTRUMENTS, ids=lambda i: i.name)
def test_linearity_is_as_strong_as_in_the_real_files(instrument: Instrument) -> None:
    frames = draw_detector(np.random.default_rng(5), instrument).frames
    at_10k, at_50k = (100 * (linearise(x, frames.linear_corr) / x - 1).mean() for x in (1e4, 5e4))
    assert at_10k == pytest.approx(0.1, abs=0.06)
    assert at_50k == pytest.approx(2.25 if instrument is AIRS else 1.7, abs=0.15)


def test_thinning_keeps_counts_and_signal_to_noise() -> None:
    """One thinned pair carries what `factor` full pairs carry together, at the same counts."""
    factor, level = 20, 500.0
    detector = draw_detector(np.random.default_rng(7), FGS1)
    frames = replace(detector.frames, dark=np.full((32, 32), 0.5))
    usual = expose(
        np.random.default_rng(1), flat_scene(level, N_PAIRS), np.ones((32, 32)), frames, ADC, 0.1, 0.1
    ).astype(float)
    thin_scene = flat_scene(factor * level, N_PAIRS // factor)
    thin_frames, adc = thin_detector(frames, factor), thin_adc(ADC, factor)
    thinned = expose(np.random.default_rng(2), thin_scene, np.ones((32, 32)), thin_frames, adc, 0.1, 0.1).astype(float)
    assert thinned.mean() == pytest.approx(usual.mean(), rel=1e-4)

    _, full = linear_pairs(usual, Detector(frames, detector.response), ADC)
    _, kept = linear_pairs(thinned, Detector(thin_frames, detector.response), adc)
    summed = full.reshape(full.shape[0], -1, factor).sum(axis=2)
    assert kept.mean() == pytest.approx(summed.mean(), rel=1e-3)
    quiet = frames.read.ravel() < 16
    assert kept[quiet].var(axis=1).mean() == pytest.approx(summed[quiet].var(axis=1).mean(), rel=0.03)


@pytest.mark.parametrize("instrument", INSTRUMENTS, ids=lambda i: i.name)
def test_jitter_moves_light_but_keeps_the_sum(instrument: Instrument) -> None:
    rng = np.random.default_rng(3)
    columns = instrument.columns if instrument.dispersed else 1
    levels = reference_levels(instrument, np.arange(columns, dtype=float))
    placement = draw_placement(rng, instrument)
    series = image_series(instrument, placement, levels)
    moved = image_series(instrument, replace(placement, row=placement.row + 0.05), levels)[0]
    dy = 0.05
    taylor = series[0] + dy * series[2] + 0.5 * dy**2 * series[5]
    np.testing.assert_allclose(taylor, moved, atol=1e-4)
    assert abs(taylor - series[0]).max() > 2e-3
    axis = 0 if instrument.dispersed else (0, 1)
    np.testing.assert_allclose(series[0].sum(axis=axis), 1.0, atol=2e-3)
    np.testing.assert_allclose(series[2].sum(axis=axis), 0.0, atol=1e-3)


def test_jitter_is_stationary_and_correlated_in_time() -> None:
    time_h = np.arange(40_000) * 0.4 / 3600
    walk = draw_jitter(np.random.default_rng(1), time_h, 0.1, FGS1.name)
    np.testing.assert_allclose(walk.std(axis=0), 0.1, rtol=0.05)
    lag = np.mean(walk[1:] * walk[:-1], axis=0) / walk.var(axis=0)
    np.testing.assert_allclose(lag, np.exp(-0.4 / CORRELATION_TIME_S[FGS1.name]), atol=0.03)


def test_cosmic_rays_come_at_their_rate_and_saturate() -> None:
    rays = draw_cosmic_rays(np.random.default_rng(1), AIRS, 500, SAMPLING[AIRS.name], 1e-4)
    expected = 1e-4 * 4.6 * 500 * AIRS.n_pixels
    assert rays.pixel.size == pytest.approx(1.3 * expected, rel=0.1)
    counts = np.full((AIRS.n_pixels, 1000), 65_000, np.uint16)
    struck = add_cosmic_rays(counts, rays, 0.4369)
    assert struck.min() == 65_000
    assert struck.max() == 65_535
    assert np.all(struck[rays.pixel, 2 * rays.pair + 1] > 65_000)
    untouched = ~rays.before_first_read
    assert np.count_nonzero(struck[:, ::2] > 65_000) <= np.count_nonzero(~untouched)


def test_real_like_pixels_have_the_stated_statistics() -> None:
    frames = draw_detector(np.random.default_rng(11), AIRS).frames
    assert np.median(frames.dark) == pytest.approx(0.0067, abs=0.0005)
    assert 1.0 < frames.dark.max() <= 12.0
    assert 0.005 < np.mean(frames.dark > 0.0165) < 0.02
    assert 0.0005 < frames.dead.mean() < 0.012
    assert np.median(frames.read) == pytest.approx(13.3, abs=0.1)
    assert frames.flat[~frames.dead].std() == pytest.approx(0.0125, rel=0.1)
