"""The spectral prior against closed forms, and its adaptation to each planet."""

from __future__ import annotations

import numpy as np
import pytest

from spectramind.instruments import N_WAVELENGTHS
from spectramind.models.spectral_prior import SpectralPrior, learn_spectral_prior, posterior, reduce_likelihood
from spectramind.transit.joint import Gaussian
from spectramind.types import Star

HOST = Star("1", 1.0, 1.0, 5772.0, 1.0, 0.0, 4.0, 10.0, 88.0)
X = np.linspace(-1, 1, N_WAVELENGTHS)
PATTERNS = np.stack([np.sin(3 * X), np.cos(5 * X), X**2 - 0.3])


def spectra(seed: int, count: int, amplitudes: tuple[float, float] = (2e-5, 2e-4)) -> np.ndarray:
    rng = np.random.default_rng(seed)
    level = np.exp(rng.normal(np.log(0.012), 0.5, count))
    amplitude = np.exp(rng.uniform(*np.log(amplitudes), count))
    return level[:, None] + amplitude[:, None] * (rng.normal(size=(count, 3)) @ PATTERNS)


def measure(truth: np.ndarray, sigma: float, rng: np.random.Generator) -> Gaussian:
    seen = truth + sigma * rng.normal(size=truth.size)
    return Gaussian(np.eye(truth.size) / sigma**2, seen / sigma**2)


def predict(prior: SpectralPrior, likelihood: Gaussian, width: float = 1.0):
    return posterior(reduce_likelihood(likelihood, prior), HOST, prior, width, 21)


def learn(train: np.ndarray) -> SpectralPrior:
    return learn_spectral_prior(train, [HOST] * len(train), 6)


def test_good_data_overrule_the_prior():
    prior, rng = learn(spectra(0, 80)), np.random.default_rng(1)
    truth = spectra(2, 1)[0]
    mean, covariance = predict(prior, measure(truth, 1e-7, rng))
    np.testing.assert_allclose(mean, truth, atol=1e-6)
    assert np.sqrt(np.diag(covariance)).max() < 1e-6


def test_without_data_the_population_comes_back():
    train = spectra(0, 300)
    prior = learn(train)
    mean, covariance = predict(prior, Gaussian(1e-6 * np.eye(N_WAVELENGTHS), np.zeros(N_WAVELENGTHS)))
    np.testing.assert_allclose(mean, train.mean(), rtol=0.02)
    assert np.sqrt(np.diag(covariance)).mean() == pytest.approx(1.5 * train.mean(axis=1).std(), rel=0.05)


@pytest.mark.parametrize("width", [1.0, 0.6, 0.35])
def test_errors_are_as_large_as_sigma(width):
    prior, rng = learn(spectra(0, 150)), np.random.default_rng(3)
    z = []
    for truth in spectra(4, 60):
        mean, covariance = predict(prior, measure(truth, 3e-4, rng), width)
        z.append((mean - truth) / np.sqrt(np.diag(covariance)))
    assert np.std(z) == pytest.approx(1.0, abs=0.2)


def test_adapting_beats_the_mean_depth_and_the_raw_data():
    prior, rng = learn(spectra(0, 150)), np.random.default_rng(5)
    errors = {"posterior": [], "raw": [], "flat": []}
    for truth in spectra(6, 60):
        likelihood = measure(truth, 3e-4, rng)
        raw = likelihood.score * 9e-8
        errors["posterior"].append(predict(prior, likelihood)[0] - truth)
        errors["raw"].append(raw - truth)
        errors["flat"].append(raw.mean() - truth)
    rms = {name: np.sqrt(np.mean(np.square(values))) for name, values in errors.items()}
    assert rms["posterior"] < 0.6 * min(rms["raw"], rms["flat"])


def test_depths_and_noise_scale_together():
    """Twice as deep spectra with twice the noise give twice the answer: nothing depends on the unit of depth."""
    rng = np.random.default_rng(7)
    train, truth = spectra(0, 100), spectra(8, 1)[0]
    one = predict(learn(train), measure(truth, 2e-4, rng))[0]
    rng = np.random.default_rng(7)
    two = predict(learn(2 * train), measure(2 * truth, 4e-4, rng))[0]
    np.testing.assert_allclose(two, 2 * one, rtol=2e-3)


def test_arrays_round_trip():
    prior = learn(spectra(0, 20))
    back = SpectralPrior.from_arrays(prior.to_arrays())
    for name in SpectralPrior.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(back, name), getattr(prior, name))
