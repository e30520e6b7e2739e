"""Numbers of the report against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from spectramind.diagnostics.projections import KINDS, project
from spectramind.diagnostics.reliability import coverage_by_bin, distance_from_normal, reliability_curve, z_histogram
from spectramind.diagnostics.residuals import autocorrelation, power_spectrum


def test_autocorrelation_of_an_alternating_series():
    # +1 -1 +1 -1: products at lag k number 4 - k, of alternating sign, over a sum of squares of 4
    assert autocorrelation(np.array([[1.0, -1.0, 1.0, -1.0]]), 3) == pytest.approx([1, -0.75, 0.5, -0.25])


def test_autocorrelation_leaves_out_what_says_nothing():
    series = np.array([[2.0, 0.0, 2.0, 0.0], [5.0, 5.0, 5.0, 5.0], [np.nan, 1.0, np.nan, np.nan]])
    assert autocorrelation(series, 9) == pytest.approx([1, -0.75, 0.5, -0.25])
    assert np.isnan(autocorrelation(series[1:], 2)).all()


def test_power_of_a_sine_is_at_its_frequency():
    hours = np.arange(64) * 0.5
    frequency, power = power_spectrum(np.sin(2 * np.pi * 0.25 * hours)[None], 0.5)
    assert frequency[power.argmax()] == pytest.approx(0.25)
    # A sine of amplitude 1 has |F|^2 = (n / 2)^2 over a sum of squares of n / 2: n / 2 = 32, and nothing elsewhere.
    assert power.max() == pytest.approx(32)
    assert np.sort(power)[-2] == pytest.approx(0, abs=1e-12)


def test_power_of_white_noise_is_flat_at_one():
    power = power_spectrum(np.random.default_rng(1).normal(size=(2000, 64)), 1.0)[1]
    assert power[:-1] == pytest.approx(np.ones(31), abs=0.12)


def test_reliability_and_coverage_count_what_is_inside():
    z = np.array([[0.0, 2.0], [0.9, -2.1], [-1.1, 0.1], [3.0, -1.7]])
    # inside 1.645 sigma: 0, 0.9, -1.1 | 0.1
    assert coverage_by_bin(z, (0.9,)).tolist() == [[0.75, 0.25]]
    assert reliability_curve(z, np.array([0.9]))[0] == pytest.approx(0.5)


def test_z_histogram_is_a_density():
    z = np.random.default_rng(2).normal(size=(400, 50))
    centres, density, normal = z_histogram(z)
    assert density.sum() * (centres[1] - centres[0]) == pytest.approx(1)
    assert density == pytest.approx(normal, abs=0.02)
    assert z_histogram(np.array([[100.0]]))[1][-1] == pytest.approx(5.0)  # 1 / the width 0.2


def test_distance_from_normal_of_one_value():
    assert distance_from_normal(np.array([[0.0]])) == pytest.approx(0.5)
    assert distance_from_normal(np.full((3, 3), 9.0)) == pytest.approx(1.0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dimensions", [2, 3])
def test_projections_keep_neighbours(kind, dimensions):
    rng = np.random.default_rng(3)
    groups = np.repeat([0, 1], 12)
    vectors = rng.normal(size=(24, 6)) + 30.0 * groups[:, None]
    found = project(vectors, kind, dimensions, seed=4)
    assert found.shape == (24, dimensions)
    distance = np.linalg.norm(found[:, None] - found, axis=2) + 1e9 * np.eye(24)
    assert (groups[distance.argmin(axis=1)] == groups).mean() > 0.9
    assert np.array_equal(found, project(vectors, kind, dimensions, seed=4))


def test_projection_needs_points():
    with pytest.raises(ValueError, match="at least 5 points"):
        project(np.zeros((3, 2)), "UMAP", 2, seed=0)
