"""What spectra look like: a mixture over the shapes and amplitudes of known planets.

A spectrum is a mean depth plus a shape. Shapes live in the leading principal components V of the training planets'
shapes, with a small independent remainder e:  s = V c + e. Given an amplitude a and a training planet n, the
components scatter about a u_n sqrt(1 - h^2) with covariance a^2 h^2 C, where u_n is planet n's normalised shape and C
the covariance of all: a kernel density of width h (h = 1: one Gaussian about the mean shape). The amplitude is
lognormal about a regression on the star table, so the prior adapts to each planet: weak spectra are drawn to the mean
depth, strong ones keep their bands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from spectramind.instruments import N_WAVELENGTHS
from spectramind.transit.joint import Gaussian, inverse
from spectramind.types import Floats, Star

AMPLITUDE_REACH = 2.5
"""The amplitude grid spans this many standard deviations on either side of the regression."""
REGRESSION_RIDGE = 3.0
SMALLEST_SHAPE = 1e-6
N_FEATURES = 6
"""Length of `features`."""


@dataclass(frozen=True)
class SpectralPrior:
    """Learned from training spectra by `learn_spectral_prior`.

    `basis` (283, 1 + K): the constant and K shape components; `remainder` (283,) variance outside them; `centres` (N,
    K) normalised shapes; `scatter` (K, K) their covariance; `level_mean`, `level_sigma` of the mean depth;
    `regression` (F,) of the log amplitude on `features`, `amplitude_sigma` its scatter,
    `typical_log_amplitude` the average.
    """

    basis: Floats
    remainder: Floats
    centres: Floats
    scatter: Floats
    level_mean: float
    level_sigma: float
    regression: Floats
    amplitude_sigma: float
    typical_log_amplitude: float

    def to_arrays(self) -> dict[str, Floats]:
        return {f"spectrum.{name}": np.atleast_1d(getattr(self, name)) for name in self.__dataclass_fields__}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Floats]) -> SpectralPrior:
        values: dict[str, Any] = {name: arrays[f"spectrum.{name}"] for name in cls.__dataclass_fields__}
        for name in ("level_mean", "level_sigma", "amplitude_sigma", "typical_log_amplitude"):
            values[name] = float(values[name][0])
        return cls(**values)


def features(star: Star, depth: float) -> Floats:
    """What an amplitude may follow: scale height grows with temperature and falls with gravity, its imprint grows with
    the
    planet's radius. Logarithms of depth, stellar radius and temperature, orbit and planet mass."""
    mass = np.log(max(star.Mp, 1e-3))
    return np.array(
        [1.0, np.log(max(depth, 1e-4) / 0.012), np.log(star.Rs), np.log(star.Ts / 5772.0), np.log(star.sma / 10), mass]
    )


def learn_spectral_prior(spectra: Floats, stars: Sequence[Star], components: int) -> SpectralPrior:
    """Learn from true `spectra` (N, 283) of planets around `stars`."""
    level = spectra[:, 1:].mean(axis=1)
    shapes = spectra - level[:, None]
    amplitude = np.maximum(np.sqrt((shapes**2).mean(axis=1)), 1e-6)
    normalised = shapes / amplitude[:, None]
    count = min(components, len(spectra) - 1)
    vectors = np.linalg.svd(normalised, full_matrices=False)[2][:count]
    centres = normalised @ vectors.T
    outside = shapes - amplitude[:, None] * centres @ vectors
    table = np.stack([features(star, depth) for star, depth in zip(stars, level, strict=True)])
    ridge = np.diag([0.0] + [REGRESSION_RIDGE] * (table.shape[1] - 1))
    regression = np.linalg.solve(table.T @ table + ridge, table.T @ np.log(amplitude))
    return SpectralPrior(
        basis=np.ascontiguousarray(np.column_stack([np.ones(N_WAVELENGTHS), vectors.T])),
        remainder=(outside**2).mean(axis=0) + 1e-14,
        centres=centres,
        scatter=np.cov(centres.T) + 1e-6 * np.eye(count),
        level_mean=float(level.mean()),
        level_sigma=float(1.5 * level.std()),
        regression=regression,
        amplitude_sigma=float(np.std(np.log(amplitude) - table @ regression)),
        typical_log_amplitude=float(np.log(amplitude).mean()),
    )


def broad_gaussian(prior: SpectralPrior) -> Gaussian:
    """Any spectrum of the population, strong ones included, as one Gaussian of all 283 depths."""
    amplitude = np.exp(prior.typical_log_amplitude + AMPLITUDE_REACH / 2 * prior.amplitude_sigma)
    level, shapes = prior.basis[:, :1], prior.basis[:, 1:]
    covariance = prior.level_sigma**2 * level @ level.T + amplitude**2 * shapes @ prior.scatter @ shapes.T
    mean = prior.level_mean + amplitude * shapes @ prior.centres.mean(axis=0)
    return Gaussian.from_moments(mean, covariance + np.diag(prior.remainder + SMALLEST_SHAPE**2))


@dataclass(frozen=True)
class ReducedLikelihood:
    """A planet's likelihood of the basis coefficients (`likelihood`, 1 + K), and how its spectrum follows from them:
    s = `offset` + `map` c + noise of covariance `remainder`."""

    likelihood: Gaussian
    offset: Floats
    map: Floats
    remainder: Floats


def reduce_likelihood(spectrum: Gaussian, prior: SpectralPrior) -> ReducedLikelihood:
    """Integrate the remainder out of a likelihood of the whole spectrum."""
    remainder = inverse(spectrum.precision + np.diag(1.0 / prior.remainder))
    seen = spectrum.precision @ prior.basis
    unseen = remainder @ seen
    likelihood = Gaussian(
        prior.basis.T @ (seen - spectrum.precision @ unseen), prior.basis.T @ spectrum.score - unseen.T @ spectrum.score
    )
    return ReducedLikelihood(likelihood, remainder @ spectrum.score, prior.basis - unseen, remainder)


def posterior(
    reduced: ReducedLikelihood, star: Star, prior: SpectralPrior, width: float, amplitude_steps: int
) -> tuple[Floats, Floats]:
    """Mean (283,) and covariance (283, 283) of a planet's spectrum; `width` is the kernel's h."""
    mean, covariance = _mixture(reduced.likelihood, star, prior, width, amplitude_steps)
    return reduced.offset + reduced.map @ mean, reduced.map @ covariance @ reduced.map.T + reduced.remainder


def _mixture(
    likelihood: Gaussian, star: Star, prior: SpectralPrior, width: float, amplitude_steps: int
) -> tuple[Floats, Floats]:
    """Moments of the basis coefficients under the mixture of all training shapes and amplitudes."""
    depth = likelihood.score[0] / max(likelihood.precision[0, 0], 1e-300)
    typical = features(star, float(np.clip(depth, 1e-3, 0.1))) @ prior.regression
    grid = np.linspace(-AMPLITUDE_REACH, AMPLITUDE_REACH, amplitude_steps)
    log_weight, means, covariances = [], [], []
    for step in grid:
        amplitude = np.exp(typical + step * prior.amplitude_sigma)
        centres, spread = _components(prior, width, amplitude)
        precision = np.linalg.inv(spread)
        posterior_covariance = inverse(likelihood.precision + precision)
        pulled = centres @ precision + likelihood.score
        mean = pulled @ posterior_covariance
        evidence = (np.einsum("nk,nk->n", pulled, mean) - np.einsum("nk,kl,nl->n", centres, precision, centres)) / 2
        evidence += (np.linalg.slogdet(posterior_covariance)[1] - np.linalg.slogdet(spread)[1]) / 2
        log_weight.append(evidence - step**2 / 2)
        means.append(mean)
        covariances.append(posterior_covariance)
    weight = np.exp(np.stack(log_weight) - np.max(log_weight))
    weight /= weight.sum()
    mean = np.einsum("an,ank->k", weight, np.stack(means))
    deviation = np.stack(means) - mean
    covariance = np.einsum("a,akl->kl", weight.sum(axis=1), np.stack(covariances))
    return mean, covariance + np.tensordot(weight[..., None] * deviation, deviation, axes=([0, 1], [0, 1]))


def _components(prior: SpectralPrior, width: float, amplitude: float) -> tuple[Floats, Floats]:
    """Centres (N, 1 + K) and the common covariance of the mixture's Gaussians at one amplitude."""
    average = prior.centres.mean(axis=0)
    kept = np.sqrt(1 - min(width, 1.0) ** 2)
    distinct = prior.centres if kept > 0 else prior.centres[:1]
    shapes = average + kept * (distinct - average)
    centres = np.column_stack([np.full(len(shapes), prior.level_mean), amplitude * shapes])
    spread = np.zeros((centres.shape[1],) * 2)
    spread[0, 0] = prior.level_sigma**2
    spread[1:, 1:] = (amplitude * min(width, 1.0)) ** 2 * prior.scatter
    return centres, spread
