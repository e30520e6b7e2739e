"""Learning how far the star table, the limb-darkening law and the drift are to be trusted, from planets with known
spectra.

With its spectrum known, a planet's likelihood is a Gaussian in its nuisances alone. Expectation-maximisation over all
planets finds the law and the scatter that make their light curves most probable (Dempster, Laird & Rubin 1977): a table
that is exact ends with a vanishing scatter, a poor one with a wide scatter. Drifts follow a multivariate t
distribution, whose scale each visit finds for itself, AIRS and FGS1 each their own (Liu & Rubin 1995, Statistica
Sinica 5, 19).

The drift of AIRS is a product f(t) g(w), and a remainder that is as large as the planets ask for. The differences
between colours show f far better than white light does, where it looks like a transit; so the product is worth much
more than its coefficients one by one. It is linearised about each visit's own most probable f and g (Gauss-Newton;
Laplace's approximation), at which it is as Gaussian as everything else. g has a value for FGS1, too, whose scatter
tells whether the instruments drift together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import block_diag

from spectramind.transit.joint import Gaussian
from spectramind.transit.nuisances import N_CLOCK, NuisancePrior, temperature_terms
from spectramind.types import Floats, Star

PSEUDO_PLANETS = 5.0
"""Weight, in planets, with which a learned covariance is drawn towards its own diagonal."""
DRIFT_FREEDOM = 3.0
"""Degrees of freedom of the drift's t distribution."""
SCALE_GRID = np.linspace(-1.5, 2.0, 11)
"""Logarithms of scales tried, relative to the most probable."""
OUTLIER_SIGMAS = 6.0
LAW_RIDGE = np.diag([0.0, 1.0, 3.0])
PLANET_STEPS = 20
"""Steps in which a planet's drift is found; by then it moves far less than it is known."""


@dataclass(frozen=True)
class _Batch:
    """Planets with the same number of visits: `precision` (N, p, p), `score` (N, p), `terms` (N, 3), and of each visit
    the drift `scales` (N, visits, 2), AIRS and FGS1, and f and g at unit scale: `time` (N, visits, degree), `colour`
    (N, visits, colours), of which there are none where the drift is free."""

    precision: Floats
    score: Floats
    terms: Floats
    scales: Floats
    time: Floats
    colour: Floats

    @property
    def n_visits(self) -> int:
        return int(self.scales.shape[1])

    def stretch(self, prior: NuisancePrior) -> Floats:
        """(N, p): what turns nuisances at unit scale into a planet's own."""
        stretch = np.ones_like(self.score)
        for v in range(self.n_visits):
            stretch[:, prior.dispersed_drift(v)] = self.scales[:, v, :1]
            stretch[:, prior.dispersionless_drift(v)] = self.scales[:, v, 1:]
        return stretch

    def slopes(self, prior: NuisancePrior) -> Floats:
        """(N, p, p + visits (degree + colours)): nuisances at unit scale by the remainders, then f and g of each visit,
        about the present ones."""
        n, p = self.score.shape
        remainders = np.broadcast_to(np.eye(p), (n, p, p))
        if not prior.separable:
            return remainders
        degree, colours = self.time.shape[2], self.colour.shape[2]
        products = np.zeros((n, p, self.n_visits, degree + colours))
        for v in range(self.n_visits):
            by_time = np.einsum("kl,nc->nkcl", np.eye(degree), self.colour[:, v])
            by_colour = np.einsum("nk,cd->nkcd", self.time[:, v], np.eye(colours))
            self._place(products[:, :, v], np.concatenate([by_time, by_colour], axis=3), prior, v)
        return np.concatenate([remainders, products.reshape(n, p, -1)], axis=2)

    def _place(self, rows: Floats, drift: Floats, prior: NuisancePrior, visit: int) -> None:
        """Put what belongs to each coefficient of a visit's product, `drift` (N, degree, colours, ...), AIRS at unit
        scale, into its row of `rows` (N, p, ...)."""
        own = self.scales[:, visit, 0] / self.scales[:, visit, 1]
        rows[:, prior.dispersed_drift(visit)] = drift[:, :, :-1].reshape(len(drift), -1, *drift.shape[3:])
        rows[:, prior.dispersionless_drift(visit)] = own.reshape(-1, *[1] * (drift.ndim - 2)) * drift[:, :, -1]

    def offset(self, prior: NuisancePrior) -> Floats:
        """(N, p): nuisances at unit scale where remainders, f and g vanish; minus the present product."""
        offset = np.zeros_like(self.score)
        if prior.separable:
            for v in range(self.n_visits):
                self._place(offset, -self.time[:, v, :, None] * self.colour[:, v, None, :], prior, v)
        return offset

    def product(self, visit: int) -> tuple[slice, slice]:
        """Where f and g of a visit stand behind the nuisances."""
        degree, colours = self.time.shape[2], self.colour.shape[2]
        start = self.score.shape[1] + visit * (degree + colours)
        return slice(start, start + degree), slice(start + degree, start + degree + colours)

    def part(self, kept: Floats) -> _Batch:
        return _Batch(*(getattr(self, name)[kept] for name in self.__dataclass_fields__))


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
    batches = [batch for _, batch in _batches(given_spectrum, stars, n_visits, start)]
    prior = start
    for steps in (iterations // 2, iterations - iterations // 2):
        for _ in range(steps):
            prior, batches = _step(batches, prior, start)
        batches = [_without_outliers(batch, prior) for batch in batches]
    return prior


def planet_nuisances(
    nuisances: Sequence[Gaussian], stars: Sequence[Star], prior: NuisancePrior, n_visits: Sequence[int]
) -> list[tuple[Floats, Floats]]:
    """Mean (p,) and covariance (p, p) of each planet's nuisances before its own light curves: f and g are those that
    make its likelihood, of `nuisances`, most probable, the squares of drift scales what is expected of them."""
    found: dict[int, tuple[Floats, Floats]] = {}
    for members, batch in _batches(nuisances, stars, n_visits, prior):
        for _ in range(PLANET_STEPS):
            batch = _moved(batch, prior, *_posteriors(batch, prior))
        mean, root = _before_light_curves(_with_expected_scales(batch, prior), prior)
        covariance = root @ np.swapaxes(root, 1, 2)
        found.update(zip(members, zip(mean, covariance, strict=True), strict=True))
    return [found[number] for number in range(len(nuisances))]


def _before_light_curves(batch: _Batch, prior: NuisancePrior) -> tuple[Floats, Floats]:
    """Mean (N, p) of each planet's nuisances at its scales, f and g; and a root (N, p, q) of their covariance."""
    stretch = batch.stretch(prior)
    mean = stretch * (_prior_means(batch, prior) + batch.offset(prior))
    root = np.linalg.cholesky(_spread(prior, batch.n_visits))
    return mean, stretch[:, :, None] * (batch.slopes(prior) @ root)


def _spread(prior: NuisancePrior, n_visits: int) -> Floats:
    """Covariance of the remainders, then of f and g of each visit."""
    products = [prior.drift_time, prior.drift_colour] * n_visits if prior.separable else []
    return np.asarray(block_diag(prior.remainder(n_visits), *products))


def _batches(
    given: Sequence[Gaussian], stars: Sequence[Star], n_visits: Sequence[int], prior: NuisancePrior
) -> list[tuple[list[int], _Batch]]:
    """Planets with the same number of visits together: which these are, and where their drifts start from."""
    batches = []
    degree, colours = (prior.drift_degree, len(prior.drift_colour)) if prior.separable else (0, 0)
    for count in sorted(set(n_visits)):
        members = [i for i, n in enumerate(n_visits) if n == count]
        shape = (len(members), count)
        batch = _Batch(
            np.stack([given[i].precision for i in members]),
            np.stack([given[i].score for i in members]),
            np.stack([temperature_terms(stars[i]) for i in members]),
            np.ones((*shape, 2)),
            np.zeros((*shape, degree)),
            np.zeros((*shape, colours)),
        )
        batches.append((members, _started(batch, prior) if prior.separable else batch))
    return batches


def _started(batch: _Batch, prior: NuisancePrior) -> _Batch:
    """f and g from the leading singular vectors of the drift as a Gaussian prior finds it: zero is a saddle point."""
    drift, _ = _gaussian_posteriors(
        batch.precision, batch.score, _prior_means(batch, prior), prior.covariance(batch.n_visits)
    )
    degree, colours = batch.time.shape[2], batch.colour.shape[2]
    time, colour = batch.time.copy(), batch.colour.copy()
    for v in range(batch.n_visits):
        left, size, right = np.linalg.svd(drift[:, prior.dispersed_drift(v)].reshape(-1, degree, colours - 1))
        time[:, v], colour[:, v, :-1] = left[:, :, 0] * size[:, :1], right[:, 0]
    return replace(batch, time=time, colour=colour)


def _step(batches: list[_Batch], prior: NuisancePrior, start: NuisancePrior) -> tuple[NuisancePrior, list[_Batch]]:
    n_shared, n_visit = len(prior.shared_law), len(prior.visit_mean)
    shared, visit, time, colour = _Moments(), _Moments(), _Moments(), _Moments()
    terms, moved = [], []
    for batch in batches:
        mean, covariance = _posteriors(batch, prior)
        moved.append(_moved(batch, prior, mean, covariance))
        terms.append(batch.terms)
        shared.add(mean, covariance, slice(0, n_shared))
        for v in range(batch.n_visits):
            visit.add(mean, covariance, slice(n_shared + v * n_visit, n_shared + (v + 1) * n_visit))
            if prior.separable:
                of_time, of_colour = batch.product(v)
                time.add(mean, covariance, of_time)
                colour.add(mean, covariance, of_colour)
    m, x = np.concatenate(shared.means), np.concatenate(terms)
    law = np.ascontiguousarray(np.linalg.solve(x.T @ x + LAW_RIDGE, x.T @ m).T, np.float64)
    average: Floats = np.concatenate(visit.means).mean(axis=0)
    average[N_CLOCK:] = 0.0
    learned = replace(
        prior,
        shared_law=law,
        shared_covariance=shared.scatter(x @ law.T, start.shared_covariance),
        visit_mean=average,
        visit_covariance=visit.scatter(average, start.visit_covariance),
    )
    if not prior.separable:
        return learned, moved
    drift_colour = colour.scatter(0.0, start.drift_colour)
    power = float(np.trace(drift_colour))
    learned = replace(
        learned, drift_time=time.scatter(0.0, start.drift_time) * power, drift_colour=drift_colour / power
    )
    root = np.sqrt(power)
    return learned, [replace(batch, time=batch.time * root, colour=batch.colour / root) for batch in moved]


class _Moments:
    """Posterior `means` and `covariances` of some nuisances, collected over planets and visits."""

    def __init__(self) -> None:
        self.means: list[Floats] = []
        self.covariances: list[Floats] = []

    def add(self, mean: Floats, covariance: Floats, part: slice) -> None:
        self.means.append(mean[:, part])
        self.covariances.append(covariance[:, part, part])

    def scatter(self, expected: Floats | float, guess: Floats) -> Floats:
        """Covariance about `expected`, drawn a little towards its diagonal."""
        deviation = np.concatenate(self.means) - expected
        total = deviation.T @ deviation + np.concatenate(self.covariances).sum(axis=0)
        n = len(deviation)
        diagonal = np.diag(np.diag(total) / n)
        floor = 1e-6 * np.diag(np.diag(guess))
        result: Floats = (total + PSEUDO_PLANETS * diagonal) / (n + PSEUDO_PLANETS) + floor
        return result


def _prior_means(batch: _Batch, prior: NuisancePrior) -> Floats:
    visits = np.tile(prior.visit_mean, (len(batch.terms), batch.n_visits))
    return np.concatenate([batch.terms @ prior.shared_law.T, visits], axis=1)


def _posteriors(batch: _Batch, prior: NuisancePrior) -> tuple[Floats, Floats]:
    """Mean (N, q) and covariance (N, q, q) of each planet's nuisances at unit scale: remainders, then f and g."""
    stretch, slopes = batch.stretch(prior), batch.slopes(prior)
    scaled = stretch[:, :, None] * slopes
    precision = np.swapaxes(scaled, 1, 2) @ batch.precision @ scaled
    residual = batch.score - (batch.precision @ (stretch * batch.offset(prior))[:, :, None])[..., 0]
    score = (np.swapaxes(scaled, 1, 2) @ residual[:, :, None])[..., 0]
    expected = _prior_means(batch, prior)
    beside = np.zeros((len(expected), slopes.shape[2] - expected.shape[1]))
    return _gaussian_posteriors(
        precision, score, np.concatenate([expected, beside], axis=1), _spread(prior, batch.n_visits)
    )


def _gaussian_posteriors(precision: Floats, score: Floats, mean: Floats, spread: Floats) -> tuple[Floats, Floats]:
    """Mean (N, q) and covariance (N, q, q) of Gaussians of prior `mean` (N, q) and covariance `spread` (q, q)."""
    root = np.sqrt(np.diag(spread))
    inverse = np.linalg.inv(np.linalg.inv(spread / root[:, None] / root) + precision * root[:, None] * root)
    covariance = np.asarray(inverse * root[:, None] * root, np.float64)
    pull = score - (precision @ mean[:, :, None])[..., 0]
    return mean + (covariance @ pull[:, :, None])[..., 0], covariance


def _moved(batch: _Batch, prior: NuisancePrior, mean: Floats, covariance: Floats) -> _Batch:
    """f and g moved to their posterior means; drift scales to the expected size of the drifts, that of AIRS by its f,
    after the t distribution's rule."""
    scales, time, colour = batch.scales.copy(), batch.time.copy(), batch.colour.copy()
    spread = prior.remainder(1)
    for v in range(batch.n_visits):
        dispersed, own = prior.dispersed_drift(v), prior.dispersed_drift(0)
        of_airs = spread[own, own]
        if prior.separable:
            dispersed, of_colour = batch.product(v)
            time[:, v], colour[:, v], of_airs = mean[:, dispersed], mean[:, of_colour], prior.drift_time
        own = prior.dispersionless_drift(0)
        drifts = ((dispersed, of_airs), (prior.dispersionless_drift(v), spread[own, own]))
        for number, (part, expected) in enumerate(drifts):
            precision, drift = np.linalg.inv(expected), mean[:, part]
            size = ((drift @ precision) * drift).sum(axis=1)
            size += np.einsum("ij,nji->n", precision, covariance[:, part, part])
            size *= batch.scales[:, v, number] ** 2
            scales[:, v, number] = np.sqrt((DRIFT_FREEDOM + size) / (DRIFT_FREEDOM + len(expected)))
    return replace(batch, scales=scales, time=time, colour=colour)


def _with_expected_scales(batch: _Batch, prior: NuisancePrior) -> _Batch:
    """Drift scales at the root of their squares' expectation, each integrated by itself over its posterior."""
    scales = batch.scales.copy()
    for v in range(batch.n_visits):
        for number in range(2):
            tried, weight = _scale_posterior(batch, prior, v, number)
            scales[:, v, number] = np.sqrt((weight * tried**2).sum(axis=0) / weight.sum(axis=0))
    return _at_scales(batch, scales)


def _scale_posterior(batch: _Batch, prior: NuisancePrior, visit: int, number: int) -> tuple[Floats, Floats]:
    """Scales (G, N) about the present one, and their posterior weights (G, N); the drift keeps its product."""
    tried, logs = [], []
    for factor in np.exp(SCALE_GRID):
        scales = batch.scales.copy()
        scales[:, visit, number] *= factor
        own = scales[:, visit, number]
        log_prior = -DRIFT_FREEDOM * (np.log(own) + 0.5 / own**2)
        tried.append(own)
        logs.append(_evidence(_at_scales(batch, scales), prior) + log_prior)
    log_weight = np.stack(logs)
    return np.stack(tried), np.exp(log_weight - log_weight.max(axis=0))


def _at_scales(batch: _Batch, scales: Floats) -> _Batch:
    """The same drift f(t) g(w) with other scales."""
    return replace(batch, scales=scales, time=batch.time * (batch.scales / scales)[:, :, :1])


def _evidence(batch: _Batch, prior: NuisancePrior) -> Floats:
    """(N,): log probability of the light curves, up to what does not depend on the scales."""
    expected, root = _before_light_curves(batch, prior)
    inner = np.swapaxes(root, 1, 2) @ batch.precision @ root + np.eye(root.shape[2])
    pull = batch.score - (batch.precision @ expected[:, :, None])[..., 0]
    seen = (np.swapaxes(root, 1, 2) @ pull[:, :, None])[..., 0]
    gain = (seen * np.linalg.solve(inner, seen[:, :, None])[..., 0]).sum(axis=1) / 2
    base = (expected * (batch.score + pull)).sum(axis=1) / 2
    return np.asarray(base + gain - np.linalg.slogdet(inner)[1] / 2)


def _without_outliers(batch: _Batch, prior: NuisancePrior) -> _Batch:
    """Leave out planets whose nuisances lie far outside their own scatter: fits gone astray, which would widen it."""
    mean, _ = _posteriors(batch, prior)
    size = batch.score.shape[1]
    deviation = mean[:, :size] - _prior_means(batch, prior)
    distance = (deviation * np.linalg.solve(prior.remainder(batch.n_visits), deviation.T).T).sum(axis=1)
    return batch.part(distance < size + OUTLIER_SIGMAS * np.sqrt(2.0 * size))
