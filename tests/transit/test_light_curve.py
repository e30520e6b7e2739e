"""The light curve against batman and against closed forms."""

from __future__ import annotations

import batman
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spectramind.transit.light_curve import hidden_moments, sky_distance, transit_light_curve


def batman_flux(time_h, k, sma, inclination, period, u1, u2):
    parameters = batman.TransitParams()
    parameters.t0, parameters.per, parameters.rp = 0.0, period, k
    parameters.a, parameters.inc, parameters.ecc, parameters.w = sma, inclination, 0.0, 90.0
    parameters.limb_dark, parameters.u = "quadratic", [u1, u2]
    return batman.TransitModel(parameters, time_h / 24.0).light_curve(parameters)


@pytest.mark.parametrize("k", [0.02, 0.1, 0.28])
@pytest.mark.parametrize("impact", [0.0, 0.3, 0.66, 0.95, 1.05])
@pytest.mark.parametrize(("u1", "u2"), [(0.0, 0.0), (0.1, 0.15), (0.5, 0.2)])
def test_agrees_with_batman(k, impact, u1, u2):
    time_h = np.linspace(-4, 4, 3001)
    sma, period = 8.7, 3.3
    inclination = np.degrees(np.arccos(impact / sma))
    ours = transit_light_curve(sky_distance(time_h, 0.0, period, sma, inclination), k, u1, u2)
    np.testing.assert_allclose(ours, batman_flux(time_h, k, sma, inclination, period, u1, u2), atol=2e-7, rtol=0)


@given(
    k=st.floats(0.01, 0.3),
    z=st.floats(0.0, 1.5),
    u1=st.floats(0.0, 0.6),
    u2=st.floats(0.0, 0.4),
    grow=st.floats(1.01, 1.3),
)
def test_a_larger_planet_never_hides_less(k, z, u1, u2, grow):
    small, large = (transit_light_curve([z], radius, u1, u2)[0] for radius in (k, k * grow))
    assert large <= small + 1e-12
    assert 0 < large <= 1


def test_uniform_star_loses_the_disc_area():
    flux = transit_light_curve([0.0, 0.3, 0.5], 0.1, 0.0, 0.0)
    np.testing.assert_allclose(flux, 1 - 0.01, atol=1e-12)


def test_whole_disc_integrates_to_the_normalisation():
    moments = hidden_moments(np.array([0.0]), np.array([0.999999]))[:, 0]
    np.testing.assert_allclose(moments, [1, 1 / 3, 1 / 6], atol=5e-6)


def test_many_wavelengths_equal_one_at_a_time():
    z = np.linspace(0, 1.3, 60)
    k, u1, u2 = np.array([0.08, 0.1, 0.08]), np.array([0.1, 0.2, 0.3]), np.array([0.2, 0.1, 0.0])
    together = transit_light_curve(z, k, u1, u2)
    for w in range(3):
        np.testing.assert_array_equal(together[:, w], transit_light_curve(z, k[w], u1[w], u2[w]))


def test_the_far_side_of_the_orbit_hides_nothing():
    z = sky_distance(np.array([0.0, 36.0]), 0.0, 3.0, 9.0, 90.0)
    assert z[0] == pytest.approx(0.0)
    assert np.isinf(z[1])
