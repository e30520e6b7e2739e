"""Expectation-maximisation finds the scatter that the planets were drawn with."""

from __future__ import annotations

import numpy as np
import pytest

from spectramind.models.nuisance_learning import drift_scales, learn_nuisance_prior
from spectramind.transit.joint import Gaussian
from spectramind.transit.nuisances import N_CLOCK, NuisancePrior, first_guess, temperature_terms
from spectramind.transit.options import TransitOptions
from spectramind.types import Star

OPTIONS = TransitOptions(drift_degree=2, drift_colours=2, limb_darkening_colours=1)
START = first_guess(OPTIONS, 8.0)
N_SHARED, N_VISIT = len(START.shared_covariance), len(START.visit_covariance)


def stars(rng: np.random.Generator, count: int) -> list[Star]:
    return [
        Star(str(n), 1.0, 1.0, float(t), 1.0, 0.0, 4.0, 10.0, 88.0)
        for n, t in enumerate(rng.uniform(4800, 6800, count))
    ]


def observe(rng: np.random.Generator, nuisances: np.ndarray, noise: np.ndarray) -> Gaussian:
    """A likelihood that measures each nuisance with `noise`."""
    measured = nuisances + noise * rng.normal(size=nuisances.size)
    return Gaussian(np.diag(noise**-2.0), measured / noise**2)


def population(seed: int, count: int, axis_scatter: float, drift: np.ndarray | float = 1.0):
    rng = np.random.default_rng(seed)
    hosts = stars(rng, count)
    law = np.zeros((N_SHARED, 3))
    law[2], law[4] = (0.12, -0.05, 0.0), (0.4, -0.1, 0.0)
    shared_scatter = np.array([axis_scatter, 0.01, 0.02, 0.02, 0.02, 0.02])
    visit_scatter = np.r_[0.4, 0.002, np.full(N_VISIT - N_CLOCK, 3e-4)]
    noise = np.r_[0.004, 0.01, np.full(4, 0.02), 0.001, 0.001, np.full(N_VISIT - N_CLOCK, 5e-5)]
    likelihoods = []
    for n, host in enumerate(hosts):
        scale = np.broadcast_to(drift, count)[n]
        stretch = np.r_[np.ones(N_CLOCK), np.full(N_VISIT - N_CLOCK, scale)]
        truth = np.r_[
            law @ temperature_terms(host) + shared_scatter * rng.normal(size=N_SHARED),
            stretch * visit_scatter * rng.normal(size=N_VISIT),
        ]
        likelihoods.append(observe(rng, truth, noise))
    return likelihoods, hosts


@pytest.mark.parametrize("axis_scatter", [0.001, 0.01, 0.05])
def test_the_table_is_trusted_as_far_as_it_deserves(axis_scatter):
    likelihoods, hosts = population(1, 150, axis_scatter)
    prior = learn_nuisance_prior(likelihoods, hosts, [1] * 150, START, 200)
    learned = np.sqrt(prior.shared_covariance[0, 0])
    assert learned == pytest.approx(axis_scatter, rel=0.3, abs=1.5e-3)


def test_the_limb_darkening_law_follows_temperature():
    likelihoods, hosts = population(2, 150, 0.01)
    prior = learn_nuisance_prior(likelihoods, hosts, [1] * 150, START, 100)
    np.testing.assert_allclose(prior.shared_law[2, :2], [0.12, -0.05], atol=0.01)
    np.testing.assert_allclose(prior.shared_law[4, :2], [0.4, -0.1], atol=0.01)


def test_one_fit_gone_astray_does_not_widen_the_scatter():
    likelihoods, hosts = population(3, 120, 0.01)
    astray = likelihoods[7]
    shift = np.zeros(N_SHARED + N_VISIT)
    shift[N_SHARED + 1] = -8.0
    likelihoods[7] = Gaussian(astray.precision, astray.score + astray.precision @ shift)
    prior = learn_nuisance_prior(likelihoods, hosts, [1] * 120, START, 200)
    assert np.sqrt(prior.visit_covariance[1, 1]) < 0.02


def test_quiet_and_wild_visits_find_their_own_drift_scale():
    drift = np.where(np.arange(150) % 3 == 0, 6.0, 0.5)
    likelihoods, hosts = population(4, 150, 0.01, drift)
    prior = learn_nuisance_prior(likelihoods, hosts, [1] * 150, START, 150)
    scales = np.array([drift_scales(g, s, prior, 1)[0] for g, s in zip(likelihoods, hosts, strict=True)])
    assert np.median(scales[drift > 1]) / np.median(scales[drift < 1]) == pytest.approx(12, rel=0.5)


def test_learning_again_from_the_result_changes_little():
    likelihoods, hosts = population(5, 100, 0.02)
    once = learn_nuisance_prior(likelihoods, hosts, [1] * 100, START, 300)
    again = learn_nuisance_prior(likelihoods, hosts, [1] * 100, once, 20)
    np.testing.assert_allclose(np.diag(again.shared_covariance), np.diag(once.shared_covariance), rtol=0.1)


def test_arrays_round_trip():
    back = NuisancePrior.from_arrays(START.to_arrays())
    for name in NuisancePrior.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(back, name), getattr(START, name))
