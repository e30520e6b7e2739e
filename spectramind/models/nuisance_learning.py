"""Learning how far the star table, the limb-darkening law and the drift are to be trusted, from planets with known
spectra.

With its spectrum known, a planet's likelihood is a Gaussian in its nuisances alone. Expectation-maximisation over all
planets finds the law and the scatter that make their light curves most probable (Dempster, Laird & Rubin 1977): a
table that is exact ends with a vanishing scatter, a poor one with a wide scatter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from spectramind.transit.joint import Gaussian
from spectramind.transit.nuisances import NuisancePrior, temperature_terms
from spectramind.types import Floats, Star

PSEUDO_PLANETS = 5.0
"""Weight, in planets, with which a learned covariance is drawn towards its own diagonal and the first guess's scale."""
OUTLIER_SIGMAS = 6.0
LAW_RIDGE = np.diag([0.0, 1.0, 3.0])


@dataclass(frozen=True)
class _Batch:
    """Planets with the same number of visits: `precision` (N, p, p), `score` (N, p), `terms` (N, 3)."""

    n_visits: int
    precision: Floats
    score: Floats
    terms: Floats


def learn_nuisance_prior(
    given_spectrum: Sequence[Gaussian],
    stars: Sequence[Star],
    n_visits: Sequence[int],
    start: NuisancePrior,
    iterations: int,
) -> NuisancePrior:
    """Maximum-likelihood prior from the planets' nuisance likelihoods given their true spectra.

    `given_spectrum` holds one Gaussian per planet over the nuisances of its `n_visits` visits.
    """
    batches = _batches(given_spectrum, stars, n_visits)
    prior = start
    for round_of in (iterations // 2, iterations - iterations // 2):
        for _ in range(round_of):
            prior = _step(batches, prior, start)
        batches = [_without_outliers(batch, prior) for batch in batches]
    return prior


def _without_outliers(batch: _Batch, prior: NuisancePrior) -> _Batch:
    """Leave out planets whose nuisances lie far outside their own scatter: fits gone astray, which would widen it."""
    mean, _ = _posteriors(batch, prior)
    deviation = mean - _prior_means(batch, prior)
    distance = np.einsum("np,np->n", deviation, np.linalg.solve(prior.covariance(batch.n_visits), deviation.T).T)
    size = deviation.shape[1]
    kept = distance < size + OUTLIER_SIGMAS * np.sqrt(2.0 * size)
    return _Batch(batch.n_visits, batch.precision[kept], batch.score[kept], batch.terms[kept])


def _batches(given: Sequence[Gaussian], stars: Sequence[Star], n_visits: Sequence[int]) -> list[_Batch]:
    batches = []
    for count in sorted(set(n_visits)):
        members = [i for i, n in enumerate(n_visits) if n == count]
        batches.append(
            _Batch(
                count,
                np.stack([given[i].precision for i in members]),
                np.stack([given[i].score for i in members]),
                np.stack([temperature_terms(stars[i]) for i in members]),
            )
        )
    return batches


def _step(batches: list[_Batch], prior: NuisancePrior, start: NuisancePrior) -> NuisancePrior:
    n_shared, n_visit = prior.shared_covariance.shape[0], prior.visit_covariance.shape[0]
    shared_mean, shared_covariance, terms = [], [], []
    visit_mean, visit_covariance = [], []
    for batch in batches:
        mean, covariance = _posteriors(batch, prior)
        shared_mean.append(mean[:, :n_shared])
        shared_covariance.append(covariance[:, :n_shared, :n_shared])
        terms.append(batch.terms)
        for v in range(batch.n_visits):
            part = slice(n_shared + v * n_visit, n_shared + (v + 1) * n_visit)
            visit_mean.append(mean[:, part])
            visit_covariance.append(covariance[:, part, part])
    m, x = np.concatenate(shared_mean), np.concatenate(terms)
    law = np.asarray(np.linalg.solve(x.T @ x + LAW_RIDGE, x.T @ m).T, np.float64)
    v_mean = np.concatenate(visit_mean)
    average: Floats = v_mean.mean(axis=0)
    return NuisancePrior(
        law,
        _scatter(m - x @ law.T, np.concatenate(shared_covariance), start.shared_covariance),
        average,
        _scatter(v_mean - average, np.concatenate(visit_covariance), start.visit_covariance),
    )


def _prior_means(batch: _Batch, prior: NuisancePrior) -> Floats:
    visits = np.tile(prior.visit_mean, (len(batch.terms), batch.n_visits))
    return np.concatenate([batch.terms @ prior.shared_law.T, visits], axis=1)


def _posteriors(batch: _Batch, prior: NuisancePrior) -> tuple[Floats, Floats]:
    """Mean (N, p) and covariance (N, p, p) of each planet's nuisances."""
    mean = _prior_means(batch, prior)
    spread = prior.covariance(batch.n_visits)
    root = np.sqrt(np.diag(spread))
    whitened = batch.precision * root[:, None] * root
    inverse = np.linalg.inv(np.linalg.inv(spread / root[:, None] / root) + whitened)
    covariance = np.asarray(inverse * root[:, None] * root, np.float64)
    pull = batch.score - np.einsum("nij,nj->ni", batch.precision, mean)
    return mean + np.einsum("nij,nj->ni", covariance, pull), covariance


def _scatter(deviation: Floats, covariance: Floats, guess: Floats) -> Floats:
    """Covariance of the nuisances over planets, drawn a little towards its diagonal."""
    n = len(deviation)
    total = deviation.T @ deviation + covariance.sum(axis=0)
    diagonal = np.diag(np.diag(total) / n)
    floor = 1e-6 * np.diag(np.diag(guess))
    result: Floats = (total + PSEUDO_PLANETS * diagonal) / (n + PSEUDO_PLANETS) + floor
    return result
