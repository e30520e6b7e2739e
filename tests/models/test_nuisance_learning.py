"""Expectation-maximisation finds the scatter that the planets were drawn with."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import multivariate_normal

from spectramind.models.nuisance_learning import DRIFT_FREEDOM, learn_nuisance_prior, planet_nuisances
from spectramind.transit.joint import Gaussian
from spectramind.transit.nuisances import N_CLOCK, NuisancePrior, first_guess, temperature_terms
from spectramind.transit.options import TransitOptions
from spectramind.types import Star

OPTIONS = TransitOptions(drift_degree=2, drift_colours=2, limb_darkening_colours=1)
START = first_guess(OPTIONS, 8.0)
N_SHARED, N_VISIT = len(START.shared_covariance), len(START.visit_covariance)
AIRS_DRIFT = slice(N_CLOCK, N_CLOCK + 4)


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
        visit = visit_scatter * rng.normal(size=N_VISIT)
        visit[N_CLOCK:] *= scale
        visit[AIRS_DRIFT] = scale * 3e-4 * np.outer(rng.normal(size=2), rng.normal(size=2)).ravel()
        truth = np.r_[law @ temperature_terms(host) + shared_scatter * rng.normal(size=N_SHARED), visit]
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
    spreads = [spread for _, spread in planet_nuisances(likelihoods, hosts, prior, [1] * 150)]
    fgs1 = np.sqrt([spread[-1, -1] for spread in spreads])
    # Twelve times the drift; the t distribution draws two coefficients' scale towards the typical one.
    assert 2.5 < np.median(fgs1[drift > 1]) / np.median(fgs1[drift < 1]) < 12


@pytest.mark.parametrize("size", [0.3, 1.0, 4.0])
def test_a_drift_that_is_seen_in_part_has_the_expected_square_of_its_scale(size):
    """FGS1's own drift, of which the first coefficient is measured, against quadrature over its t distribution."""
    prior = START.with_separate_drifts()
    host = stars(np.random.default_rng(0), 1)[0]
    spread = prior.visit_covariance[-2:, -2:]
    noise = np.r_[np.full(N_SHARED + N_VISIT - 2, 0.01), 1e-5, 1.0]
    measured = size * np.sqrt(spread[0, 0])
    nuisances = np.zeros(N_SHARED + N_VISIT)
    nuisances[-2] = measured
    likelihood = Gaussian(np.diag(noise**-2.0), nuisances / noise**2)
    ((_, covariance),) = planet_nuisances([likelihood], [host], prior, [1])

    def weight(log_scale: float, power: int) -> float:
        scale = np.exp(log_scale)
        seen = multivariate_normal(0.0, scale**2 * spread[0, 0] + 1e-10).pdf(measured)
        return float(scale**power * seen * scale**-DRIFT_FREEDOM * np.exp(-DRIFT_FREEDOM / (2 * scale**2)))

    expected = quad(weight, -4, 5, args=(2,), limit=200)[0] / quad(weight, -4, 5, args=(0,), limit=200)[0]
    assert covariance[-1, -1] / spread[1, 1] == pytest.approx(expected, rel=0.1)


def drifts(seed: int, count: int, products: int) -> np.ndarray:
    """Drift coefficients of AIRS (count, degree, colours), sums of `products` of f and g."""
    rng = np.random.default_rng(seed)
    return 3e-4 * np.einsum(
        "npk,npc->nkc", rng.normal(size=(count, products, 2)), rng.normal(size=(count, products, 2))
    )


def observed_drifts(seed: int, drift: np.ndarray, white_noise: float) -> list[Gaussian]:
    """Likelihoods that measure colour differences well, and white drift well in its first degree only; in its second
    with `white_noise`."""
    rng = np.random.default_rng(seed)
    noise = np.r_[np.full(N_SHARED, 0.01), 0.001, 0.001, 1e-5, 1e-5, white_noise, 1e-5, 1e-5, 1e-5]
    rest = np.zeros(N_SHARED + N_VISIT)
    likelihoods = []
    for one in drift:
        rest[N_SHARED:][AIRS_DRIFT] = one.ravel()
        likelihoods.append(observe(rng, rest, noise))
    return likelihoods


def white_drift(products: int, start: NuisancePrior) -> tuple[np.ndarray, np.ndarray]:
    """Errors and sigmas of the second white drift coefficient of 200 planets that hardly measure it themselves, by a
    prior that 200 others taught."""
    hosts = stars(np.random.default_rng(0), 200)
    learned = learn_nuisance_prior(observed_drifts(6, drifts(7, 200, products), 1e-5), hosts, [1] * 200, start, 100)
    truth = drifts(8, 200, products)
    at = N_SHARED + N_CLOCK + 2
    errors, sigmas = [], []
    likelihoods = observed_drifts(9, truth, 1.0)
    found = planet_nuisances(likelihoods, hosts, learned, [1] * 200)
    for likelihood, moments, drift in zip(likelihoods, found, truth, strict=True):
        knowledge = Gaussian.from_moments(*moments)
        spread = np.linalg.inv(likelihood.precision + knowledge.precision)
        errors.append((spread @ (likelihood.score + knowledge.score))[at] - drift[1, 0])
        sigmas.append(np.sqrt(spread[at, at]))
    return np.array(errors), np.array(sigmas)


def log_density(errors: np.ndarray, sigmas: np.ndarray) -> float:
    return float(np.mean(-0.5 * (errors / sigmas) ** 2 - np.log(sigmas)))


def test_colours_tell_the_white_drift_where_it_is_a_product():
    errors, sigmas = white_drift(1, START)
    typical = np.sqrt(np.mean(drifts(8, 200, 1)[:, 1, 0] ** 2))
    assert np.median(np.abs(errors)) < 0.1 * typical
    assert np.median(np.abs(errors) / sigmas) == pytest.approx(0.67, rel=0.35)


def fgs1_drift(start: NuisancePrior, shared: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Errors and sigmas of the second drift coefficient of FGS1, in units of its scatter, for planets that hardly
    measure it there; FGS1 drifts as AIRS does, `shared` times, and by itself as much as 1 - shared."""
    rng = np.random.default_rng(seed)
    hosts = stars(rng, 200)
    noise = np.r_[np.full(N_SHARED, 0.01), 0.001, 0.001, np.full(6, 1e-5)]

    def nuisances() -> np.ndarray:
        time, colour, own = 3e-4 * rng.normal(size=2), rng.normal(size=2), 3e-4 * rng.normal(size=2)
        drift = np.r_[np.outer(time, colour).ravel(), shared * rng.normal() * time + (1 - shared) * own]
        return np.r_[np.zeros(N_SHARED + N_CLOCK), drift]

    seen = [observe(rng, nuisances(), noise) for _ in hosts]
    learned = learn_nuisance_prior(seen, hosts, [1] * len(hosts), start, 100)
    errors, sigmas = [], []
    noise[-1] = 1.0
    truths = [nuisances() for _ in hosts]
    likelihoods = [observe(rng, truth, noise) for truth in truths]
    found = planet_nuisances(likelihoods, hosts, learned, [1] * len(hosts))
    for likelihood, moments, truth in zip(likelihoods, found, truths, strict=True):
        knowledge = Gaussian.from_moments(*moments)
        spread = np.linalg.inv(likelihood.precision + knowledge.precision)
        errors.append((spread @ (likelihood.score + knowledge.score))[-1] - truth[-1])
        sigmas.append(np.sqrt(spread[-1, -1]))
    return np.array(errors) / 3e-4, np.array(sigmas) / 3e-4


def test_a_drift_that_instruments_share_is_told_by_the_other():
    assert np.median(np.abs(fgs1_drift(START, 1.0, 11)[0])) < 0.1
    assert np.median(np.abs(fgs1_drift(START.with_separate_drifts(), 1.0, 11)[0])) > 0.2


def test_instruments_that_drift_apart_are_told_from_those_that_do_not_by_what_they_predict():
    apart = START.with_separate_drifts()
    assert log_density(*fgs1_drift(START, 1.0, 12)) > log_density(*fgs1_drift(apart, 1.0, 12)) + 1
    assert log_density(*fgs1_drift(START, 0.0, 12)) < log_density(*fgs1_drift(apart, 0.0, 12))


def test_a_free_drift_is_told_from_a_product_by_what_it_predicts():
    free = START.with_free_drift()
    assert log_density(*white_drift(1, START)) > log_density(*white_drift(1, free)) + 1
    assert log_density(*white_drift(4, START)) < log_density(*white_drift(4, free)) - 0.2


def test_a_drift_of_one_degree_none_and_several_visits():
    for degree, visits in ((0, 1), (1, 2)):
        options = TransitOptions(drift_degree=degree, drift_colours=2, limb_darkening_colours=1)
        start = first_guess(options, 8.0)
        size = len(start.mean(stars(np.random.default_rng(0), 1)[0], visits))
        rng = np.random.default_rng(10)
        likelihoods = [observe(rng, np.zeros(size), np.full(size, 1e-3)) for _ in range(20)]
        hosts = stars(rng, 20)
        prior = learn_nuisance_prior(likelihoods, hosts, [visits] * 20, start, 10)
        mean, covariance = planet_nuisances(likelihoods[:1], hosts[:1], prior, [visits])[0]
        assert np.isfinite(mean).all()
        assert np.linalg.eigvalsh(covariance).min() > 0


def test_learning_again_from_the_result_changes_little():
    likelihoods, hosts = population(5, 100, 0.02)
    once = learn_nuisance_prior(likelihoods, hosts, [1] * 100, START, 300)
    again = learn_nuisance_prior(likelihoods, hosts, [1] * 100, once, 20)
    np.testing.assert_allclose(np.diag(again.shared_covariance), np.diag(once.shared_covariance), rtol=0.1)


@pytest.mark.parametrize("prior", [START, START.with_free_drift()], ids=["product", "free"])
def test_arrays_round_trip(prior):
    back = NuisancePrior.from_arrays(prior.to_arrays())
    for name in NuisancePrior.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(back, name), getattr(prior, name))


def test_a_free_drift_has_the_spread_of_the_product():
    np.testing.assert_allclose(START.with_free_drift().covariance(2), START.covariance(2), rtol=1e-12)
