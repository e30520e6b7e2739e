"""Rules on roughness, bounds and order, against numbers worked out by other means."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.fft import dct
from toy_spectra import N_BINS, noisy, plain_axis, ppm, predicted, small_axis, tensor

from spectramind.losses.options import (
    FftOptions,
    NonnegativityOptions,
    QuantileMonotonicityOptions,
    SeamContinuityOptions,
    SigmaBoundsOptions,
    SmoothnessOptions,
    TotalVariationOptions,
)
from spectramind.losses.shape_rules import (
    fft_suppression,
    nonnegativity,
    quantile_monotonicity,
    seam_continuity,
    sigma_bounds,
    smoothness,
    total_variation,
)

SMOOTH = SmoothnessOptions(scale_ppm=10.0, window=1, mask_strong_lines=False)


def test_smoothness_by_hand() -> None:
    """AIRS 0, 30, 0, 0 ppm: second differences -60 and 30 at bins 2 and 3; FGS1, far off, is no neighbour."""
    penalty = smoothness(predicted(ppm(900, 0, 30, 0, 0)), plain_axis(5), SMOOTH)
    np.testing.assert_allclose(penalty.numpy(), [[0, 0, 36 / 2, 9 / 2, 0]], rtol=1e-9)


def test_smoothness_with_a_longer_window() -> None:
    """Distance 2, six AIRS bins: 0 - 2 * 7 + 20 = 6 ppm and 5 - 2 * 10 + 0 = -15 ppm."""
    spectrum = ppm(0, 0, 5, 7, 10, 20, 0)
    penalty = smoothness(predicted(spectrum), plain_axis(7), replace(SMOOTH, window=2))
    np.testing.assert_allclose(penalty.numpy(), [[0, 0, 0, 0.36 / 2, 2.25 / 2, 0, 0]], rtol=1e-9)


def test_smoothness_leaves_out_the_strong_lines_of_the_analytic_spectrum() -> None:
    masked = replace(SMOOTH, mask_strong_lines=True, cutoff=50.0)
    line, weak = ppm(0, 0, 30, 0, 0), ppm(0, 0, 20, 0, 0)
    kept = smoothness(predicted(line, analytic=weak), plain_axis(5), masked)
    np.testing.assert_allclose(kept.numpy(), [[0, 0, 36 / 2, 9 / 2, 0]], rtol=1e-9)
    left_out = smoothness(predicted(line, analytic=line), plain_axis(5), masked)
    np.testing.assert_allclose(left_out.numpy(), [[0, 0, 0, 9 / 2, 0]], rtol=1e-9)


def test_smoothness_of_a_straight_line_is_zero() -> None:
    straight = ppm(5000, *np.linspace(-300, 300, 24))
    assert float(smoothness(predicted(straight), small_axis(), SMOOTH).sum()) == pytest.approx(0.0, abs=1e-12)


def test_hard_smoothness_tolerates_its_scale_and_is_linear_beyond() -> None:
    hard = replace(SMOOTH, mode="hard", scale_ppm=40.0)
    penalty = smoothness(predicted(ppm(0, 0, 30, 0, 0)), plain_axis(5), hard)
    np.testing.assert_allclose(penalty.numpy(), [[0, 0, (60 / 40 - 1) / 2, 0, 0]], rtol=1e-9)


def test_fft_power_is_that_of_the_cosine_transform() -> None:
    """Frequencies above 5 cycles are the cosine coefficients from number 11 on."""
    spectrum = noisy()
    coefficients = dct(1e6 * spectrum[:, 1:], type=2, norm="ortho", axis=1)
    by_hand = (coefficients[:, 11:] ** 2).sum(axis=1) / 24 / 20.0**2
    penalty = fft_suppression(predicted(spectrum), small_axis(), FftOptions(scale_ppm=20.0, cutoff_freq=5.0))
    np.testing.assert_allclose(penalty.sum(dim=1).numpy(), by_hand, rtol=1e-9)
    assert (penalty[:, 0] == 0).all()


def test_fft_lets_slow_waves_pass_and_stops_fast_ones() -> None:
    bins = (np.arange(24) + 0.5) / 24
    options = FftOptions(scale_ppm=50.0, cutoff_freq=5.0)
    slow, fast = (ppm(0, *(100 * np.cos(2 * np.pi * cycles * bins))) for cycles in (4.5, 6.0))
    assert float(fft_suppression(predicted(slow), small_axis(), options).sum()) == pytest.approx(0.0, abs=1e-12)
    assert float(fft_suppression(predicted(fast), small_axis(), options).sum()) == pytest.approx(4 / 2, rel=1e-9)


def test_total_variation_by_hand() -> None:
    """Steps 30, 30 and 5 ppm in units of 20 ppm, over three pairs."""
    options = TotalVariationOptions(scale_ppm=20.0)
    spectrum = predicted(ppm(900, 0, 30, 0, 5))
    soft = total_variation(spectrum, plain_axis(5), options)
    np.testing.assert_allclose(soft.numpy(), [[0, 1.5 / 3, 1.5 / 3, 0.25 / 3, 0]], rtol=1e-9)
    hard = total_variation(spectrum, plain_axis(5), replace(options, mode="hard"))
    np.testing.assert_allclose(hard.numpy(), [[0, 0.5 / 3, 0.5 / 3, 0, 0]], rtol=1e-9)
    assert float(total_variation(predicted(ppm(900, 1, 1, 1, 1)), plain_axis(5), options).sum()) == 0.0


def test_nonnegativity_by_hand() -> None:
    """-200 and -50 ppm in units of 100 ppm: squares 4 and 1/4, cubes 8 and 1/8, over five bins."""
    spectrum = predicted(1e-6 * np.array([[-200, 0, 100, -50, 3000]]))
    for power, expected in ((2.0, [4, 0, 0, 0.25, 0]), (3.0, [8, 0, 0, 0.125, 0])):
        penalty = nonnegativity(spectrum, plain_axis(5), NonnegativityOptions(power=power))
        np.testing.assert_allclose(penalty.numpy(), [np.array(expected) / 5], rtol=1e-9)
    hard = nonnegativity(spectrum, plain_axis(5), NonnegativityOptions(mode="hard"))
    np.testing.assert_allclose(hard.numpy(), [np.array([2, 0, 0, 0.5, 0]) / 5], rtol=1e-9)
    assert float(nonnegativity(predicted(ppm(*range(5))), plain_axis(5), NonnegativityOptions()).sum()) == 0.0


def test_seam_by_hand() -> None:
    """Seam at bin 4 of 0, 10 | 40, 50 ppm: the lines meet it at 15 and 35 ppm."""
    options = SeamContinuityOptions(scale_ppm=10.0, seam_index=4)
    penalty = seam_continuity(predicted(ppm(0, 0, 0, 10, 40, 50, 0)), plain_axis(7), options)
    np.testing.assert_allclose(penalty.numpy(), [[0, 0, 0, 2, 2, 0, 0]], rtol=1e-9)
    straight = seam_continuity(predicted(ppm(9, 0, 10, 20, 30, 40, 50)), plain_axis(7), options)
    np.testing.assert_allclose(straight.numpy(), np.zeros((1, 7)), atol=1e-20)


def test_quantiles_in_order_cost_nothing() -> None:
    """Levels cross by 20 ppm in bin 1 and by 10 ppm in bin 2, one of two pairs each; unit 10 ppm."""
    quantiles = 0.01 + 1e-6 * np.array([[[0, 0, 0, 0, 0], [9, -20, 9, 0, 9], [9, 9, -1, 0, 99]]])
    mean = ppm(0, 0, 0, 0, 0)
    options = QuantileMonotonicityOptions(scale_ppm=10.0)
    penalty = quantile_monotonicity(predicted(mean, quantiles=quantiles), plain_axis(5), options)
    np.testing.assert_allclose(penalty.numpy(), [[0, 4 / 10, 1 / 10, 0, 0]], rtol=1e-9)
    ordered = quantile_monotonicity(predicted(mean, quantiles=np.sort(quantiles, axis=1)), plain_axis(5), options)
    assert float(ordered.sum()) == 0.0
    assert float(quantile_monotonicity(predicted(mean), plain_axis(5), options).sum()) == 0.0


def test_sigma_bounds_by_hand() -> None:
    """One e-fold too narrow in FGS1, two in an AIRS bin, half an e-fold too wide in another."""
    sigma = [[1e-6 * np.exp(-1), 1e-5 * np.exp(-2), 1e-5, 1e-2 * np.exp(0.5), 1e-4]]
    penalty = sigma_bounds(predicted(ppm(0, 0, 0, 0, 0), sigma=sigma), plain_axis(5), SigmaBoundsOptions())
    np.testing.assert_allclose(penalty.numpy(), [[1 / 5, 4 / 5, 0, 0.25 / 5, 0]], rtol=1e-9, atol=1e-12)
    inside = predicted(ppm(0, 0, 0, 0, 0), sigma=[[2e-6, 2e-5, 1e-4, 1e-3, 9e-3]])
    assert float(sigma_bounds(inside, plain_axis(5), SigmaBoundsOptions()).sum()) == 0.0


@pytest.mark.parametrize(
    ("rule", "options"),
    [
        (smoothness, replace(SMOOTH, window=2)),
        (fft_suppression, FftOptions(cutoff_freq=4.0)),
        (total_variation, TotalVariationOptions()),
        (seam_continuity, SeamContinuityOptions(seam_index=9)),
    ],
)
def test_roughness_does_not_depend_on_the_level(rule, options) -> None:  # type: ignore[no-untyped-def]
    shallow, deep = (rule(predicted(noisy() + level), small_axis(), options) for level in (0.0, 0.05))
    np.testing.assert_allclose(deep.numpy(), shallow.numpy(), rtol=1e-6, atol=1e-9)
    assert shallow.shape == tensor(noisy()).shape == (3, N_BINS)
