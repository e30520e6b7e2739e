"""Learning how far the star table, the limb-darkening law and the drift are to be trusted, from planets with known
spectra.

With its spectrum known, a planet's likelihood is a Gaussian in its nuisances alone. Expectation-maximisation over all
planets finds the law and the scatter that make their light curves most probable (Dempster, Laird & Rubin 1977): a table
that is exact ends with a vanishing scatter, a poor one with a wide scatter. Drift coefficients follow a multivariate t
distribution, whose scale each visit finds for itself (Liu & Rubin 1995, Statistica Sinica 5, 19).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from spectramind.transit.joint import Gaussian
from spectramind.transit.nuisances import N_CLOCK, NuisancePrior, temperature_terms
from spectramind.types import Floats, Star

PSEUDO_PLANETS = 5.0
"""Weight, in planets, with which a learned covariance is drawn towards its own diagonal."""
DRIFT_FREEDOM = 3.0
"""Degrees of freedom of the drift's t distribution."""
OUTLIER_SIGMAS = 6.0
LAW_RIDGE = np.diag([0.0, 1.0, 3.0])
SCALE_STEPS = 25


@dataclass(frozen=True)
class _Batch:
    """Planets with the same number of visits: `precision` (N, p, p), `score` (N, p), `terms` (N, 3), drift `scales`
    (N, visits)."""

    precision: Floats
    score: Floats
    terms: Floats
    scales: Floats

    @property
    def n_visits(self) -> int:
        return int(self.scales.shape[1])

    def stretch(self, prior: NuisancePrior) -> Floats:
        """(N, p): what turns unit-scale nuisances into a planet's own."""
        n_shared, n_visit = prior.shared_covariance.shape[0], prior.visit_covariance.shape[0]
        parts = [np.ones((len(self.terms), n_shared))]
        for scale in self.scales.T:
            parts += [np.ones((len(scale), N_CLOCK)), np.repeat(scale[:, None], n_visit - N_CLOCK, axis=1)]
        return np.concatenate(parts, axis=1)

    def part(self, kept: Floats) -> _Batch:
        return _Batch(self.precision[kept], self.score[kept], self.terms[kept], self.scales[kept])


def learn_nuisance_prior(
    given_spectrum: Sequence[Gaussian],
    stars: Sequence[Star],
    n_visits: Sequence[int],
    start: NuisancePrior,
    iterations: int,
) -> NuisancePrior:
    """Maximum-likelihood prior from the planets' nuisance likelihoods given their true spectra.

    `given_spectrum` holds one Gaussian per planet over the nuisances of its `n_visits` visits. Half-way, planets whose
    nuisances lie far outside the common scatter are left out.
    """
    batches = _batches(given_spectrum, stars, n_visits)
    prior = start
    for steps in (iterations // 2, iterations - iterations // 2):
        for _ in range(steps):
            prior, batches = _step(batches, prior, start)
        batches = [_without_outliers(batch, prior) for batch in batches]
    return prior


def drift_scales(nuisances: Gaussian, star: Star, prior: NuisancePrior, n_visits: int) -> list[float]:
    """The drift scale of each visit of a planet that makes its light curves most probable."""
    batch = _batches([nuisances], [star], [n_visits])[0]
    for _ in range(SCALE_STEPS):
        batch = _rescaled(batch, prior, *_posteriors(batch, prior))
    return [float(scale) for scale in batch.scales[0]]


def _batches(given: Sequence[Gaussian], stars: Sequence[Star], n_visits: Sequence[int]) -> list[_Batch]:
    batches = []
    for count in sorted(set(n_visits)):
        members = [i for i, n in enumerate(n_visits) if n == count]
        batches.append(
            _Batch(
                np.stack([given[i].precision for i in members]),
                np.stack([given[i].score for i in members]),
                np.stack([temperature_terms(stars[i]) for i in members]),
                np.ones((len(members), count)),
            )
        )
    return batches


def _step(batches: list[_Batch], prior: NuisancePrior, start: NuisancePrior) -> tuple[NuisancePrior, list[_Batch]]:
    n_shared, n_visit = prior.shared_covariance.shape[0], prior.visit_covariance.shape[0]
    shared_mean, shared_covariance, terms = [], [], []
    visit_mean, visit_covariance, rescaled = [], [], []
    for batch in batches:
        mean, covariance = _posteriors(batch, prior)
        rescaled.append(_rescaled(batch, prior, mean, covariance))
        shared_mean.append(mean[:, :n_shared])
        shared_covariance.append(covariance[:, :n_shared, :n_shared])
        terms.append(batch.terms)
        for v in range(batch.n_visits):
            part = slice(n_shared + v * n_visit, n_shared + (v + 1) * n_visit)
            visit_mean.append(mean[:, part])
            visit_covariance.append(covariance[:, part, part])
    m, x = np.concatenate(shared_mean), np.concatenate(terms)
    law = np.ascontiguousarray(np.linalg.solve(x.T @ x + LAW_RIDGE, x.T @ m).T, np.float64)
    v_mean = np.concatenate(visit_mean)
    average: Floats = v_mean.mean(axis=0)
    average[N_CLOCK:] = 0.0
    learned = NuisancePrior(
        law,
        _scatter(m - x @ law.T, np.concatenate(shared_covariance), start.shared_covariance),
        average,
        _scatter(v_mean - average, np.concatenate(visit_covariance), start.visit_covariance),
    )
    return learned, rescaled


def _prior_means(batch: _Batch, prior: NuisancePrior) -> Floats:
    visits = np.tile(prior.visit_mean, (len(batch.terms), batch.n_visits))
    return np.concatenate([batch.terms @ prior.shared_law.T, visits], axis=1)


def _posteriors(batch: _Batch, prior: NuisancePrior) -> tuple[Floats, Floats]:
    """Mean (N, p) and covariance (N, p, p) of each planet's nuisances at unit drift scale."""
    mean, stretch = _prior_means(batch, prior), batch.stretch(prior)
    precision = batch.precision * stretch[:, :, None] * stretch[:, None, :]
    spread = prior.covariance([1.0] * batch.n_visits)
    root = np.sqrt(np.diag(spread))
    inverse = np.linalg.inv(np.linalg.inv(spread / root[:, None] / root) + precision * root[:, None] * root)
    covariance = np.asarray(inverse * root[:, None] * root, np.float64)
    pull = batch.score * stretch - (precision @ mean[:, :, None])[..., 0]
    return mean + (covariance @ pull[:, :, None])[..., 0], covariance


def _rescaled(batch: _Batch, prior: NuisancePrior, mean: Floats, covariance: Floats) -> _Batch:
    """Drift scales updated to the expected size of each visit's drift, by the t distribution's rule."""
    n_shared, n_visit = prior.shared_covariance.shape[0], prior.visit_covariance.shape[0]
    inverse = np.linalg.inv(prior.visit_covariance[N_CLOCK:, N_CLOCK:])
    scales = batch.scales.copy()
    for v in range(batch.n_visits):
        part = slice(n_shared + v * n_visit + N_CLOCK, n_shared + (v + 1) * n_visit)
        drift = mean[:, part]
        size = ((drift @ inverse) * drift).sum(axis=1) + np.einsum("ij,nji->n", inverse, covariance[:, part, part])
        size *= batch.scales[:, v] ** 2
        scales[:, v] = np.sqrt((DRIFT_FREEDOM + size) / (DRIFT_FREEDOM + inverse.shape[0]))
    return replace(batch, scales=scales)


def _without_outliers(batch: _Batch, prior: NuisancePrior) -> _Batch:
    """Leave out planets whose nuisances lie far outside their own scatter: fits gone astray, which would widen it."""
    mean, _ = _posteriors(batch, prior)
    deviation = mean - _prior_means(batch, prior)
    spread = prior.covariance([1.0] * batch.n_visits)
    distance = (deviation * np.linalg.solve(spread, deviation.T).T).sum(axis=1)
    size = deviation.shape[1]
    return batch.part(distance < size + OUTLIER_SIGMAS * np.sqrt(2.0 * size))


def _scatter(deviation: Floats, covariance: Floats, guess: Floats) -> Floats:
    """Covariance of the nuisances over planets, drawn a little towards its diagonal."""
    n = len(deviation)
    total = deviation.T @ deviation + covariance.sum(axis=0)
    diagonal = np.diag(np.diag(total) / n)
    floor = 1e-6 * np.diag(np.diag(guess))
    result: Floats = (total + PSEUDO_PLANETS * diagonal) / (n + PSEUDO_PLANETS) + floor
    return result
