"""Each detector effect against numbers worked out by hand or by NumPy's own polynomials."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spectramind.calibration.analog_to_digital import to_electrons
from spectramind.calibration.bad_pixels import fill_in, fold_weights, hot_pixels, plan_repair
from spectramind.calibration.correlated_double_sampling import difference
from spectramind.calibration.dark_current import subtract_dark
from spectramind.calibration.flat_field import divide_flat
from spectramind.calibration.nonlinearity import linearise
from spectramind.calibration.samples import Samples
from spectramind.types import Adc

SHAPE = (3, 4)
GOOD = np.zeros(SHAPE, bool)


def samples(signal, noise=2.0, shot=0.0, bad=GOOD):
    signal = np.asarray(signal, float)
    return Samples(signal, np.full((2, *SHAPE), noise), np.full(SHAPE, shot), bad)


def test_counts_become_electrons_by_division():
    counts = np.full((2, *SHAPE), 437, np.uint16)
    result = to_electrons(counts, Adc(0.4369, -1000.0), np.full(SHAPE, 13.3), GOOD)
    np.testing.assert_allclose(result.signal, 437 / 0.4369 - 1000.0)
    np.testing.assert_allclose(result.noise, 13.3**2 + 1 / 12 / 0.4369**2)


@given(st.integers(0, 65534), st.floats(0.01, 10, allow_subnormal=False), st.floats(-5000, 0, allow_subnormal=False))
@settings(max_examples=50)
def test_electrons_rise_with_counts(count, gain, offset):
    counts = np.array([count, count + 1], np.uint16)[:, None, None] * np.ones((1, *SHAPE), np.uint16)
    low, high = to_electrons(counts, Adc(gain, offset), np.ones(SHAPE), GOOD).signal[:, 0, 0]
    assert low < high


def test_linearity_is_the_polynomial_and_scales_the_noise_by_its_slope():
    rng = np.random.default_rng(0)
    coefficients = rng.normal(size=(6, *SHAPE)) * np.array([1, 1, 1e-5, 1e-10, 1e-15, 1e-20])[:, None, None]
    signal = rng.uniform(100, 50_000, (8, *SHAPE))
    result = linearise(samples(signal), coefficients)
    for row in range(3):
        for column in range(4):
            polynomial = np.polynomial.Polynomial(coefficients[:, row, column])
            np.testing.assert_allclose(result.signal[:, row, column], polynomial(signal[:, row, column]), rtol=1e-12)
            slope = polynomial.deriv()(signal[1::2, row, column].mean())
            np.testing.assert_allclose(result.noise[1, row, column], 2.0 * slope**2, rtol=1e-12)


def test_dark_of_a_pair_is_that_of_the_longer_integration():
    dark = np.full(SHAPE, 3.0)
    result = difference(subtract_dark(samples(np.zeros((2, *SHAPE))), dark, np.array([0.1, 4.6])))
    np.testing.assert_allclose(result.signal, -4.5 * 3.0)
    np.testing.assert_allclose(result.noise, 2 * 2.0 + 4.5 * 3.0)


def test_double_sampling_drops_the_pedestal_and_adds_both_read_noises():
    ramp = np.array([1000.0, 1700.0, 2000.0, 2700.0])[:, None, None] * np.ones(SHAPE)
    result = difference(samples(ramp))
    np.testing.assert_array_equal(result.signal, np.full((2, *SHAPE), 700.0))
    np.testing.assert_array_equal(result.noise, np.full(SHAPE, 4.0))
    np.testing.assert_array_equal(result.shot, np.full(SHAPE, 700.0))
    np.testing.assert_array_equal(difference(samples(ramp), long_first=True).signal, -result.signal)


def test_flat_and_double_sampling_commute():
    rng = np.random.default_rng(0)
    flat, signal = rng.normal(1, 0.02, SHAPE), rng.normal(1000, 10, (6, *SHAPE))
    one = divide_flat(difference(samples(signal)), flat)
    other = difference(divide_flat(samples(signal), flat))
    np.testing.assert_allclose(one.signal, other.signal, rtol=1e-12, atol=1e-9)
    np.testing.assert_allclose(one.noise, other.noise, rtol=1e-12)


def test_flat_leaves_bad_pixels_alone():
    bad = GOOD.copy()
    bad[1, 1] = True
    flat = np.where(bad, 0.0, 2.0)
    result = divide_flat(samples(np.ones((2, *SHAPE)), bad=bad), flat)
    assert result.signal[0, 1, 1] == 1.0
    assert result.signal[0, 0, 0] == 0.5


def test_hot_pixels_stand_out_of_the_dark():
    dark = np.random.default_rng(0).normal(0.006, 0.001, (32, 32))
    dark[3, 4] = 1.0
    dark[5, 6] = 50.0
    dead = np.zeros((32, 32), bool)
    dead[5, 6] = True
    hot = hot_pixels(dark, dead, 6.0)
    assert hot[3, 4]
    assert hot.sum() == 1


@pytest.mark.parametrize("along_rows_only", [True, False])
def test_repair_is_exact_on_a_plane(along_rows_only):
    rows, columns = np.mgrid[:6, :7]
    plane = 3.0 + 2.0 * rows - 0.5 * columns
    bad = np.zeros(plane.shape, bool)
    bad[2, 3] = bad[2, 4] = bad[4, 1] = True
    repair = plan_repair(bad, along_rows_only)
    broken = np.where(bad, -999.0, plane)[None]
    fixed = fill_in(Samples(broken, np.ones((2, 6, 7)).sum(0), np.ones((6, 7)), bad), repair)
    np.testing.assert_allclose(fixed.signal[0], plane)


def test_folded_weights_give_the_sum_over_repaired_frames():
    rng = np.random.default_rng(0)
    bad = rng.random((8, 9)) < 0.15
    frames, weights = rng.normal(size=(5, 8, 9)), rng.random((8, 9))
    repair = plan_repair(bad, along_rows_only=False)
    repaired = fill_in(Samples(frames, np.ones((8, 9)), np.ones((8, 9)), bad), repair).signal
    folded = fold_weights(weights, repair)
    assert (folded[bad] == 0).all()
    np.testing.assert_allclose((repaired * weights).sum((1, 2)), (frames * folded).sum((1, 2)))
