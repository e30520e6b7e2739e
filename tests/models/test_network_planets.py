"""Planets as the network reads them, and what networks make of them together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from toy_network import build, tiny

from spectramind.errors import InputError
from spectramind.instruments import N_WAVELENGTHS
from spectramind.models.network_inputs import principal_directions
from spectramind.models.network_planets import NODE_FEATURES, NetworkPlanets, network_planets, network_spectra
from spectramind.types import Spectra


def planets(count: int = 5) -> NetworkPlanets:
    rng = np.random.default_rng(0)
    covariance = np.full((count, 283, 283), 1e-4**2) + 1e-5**2 * np.eye(283)
    sigma = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    return NetworkPlanets(
        visits=tuple((rng.normal(size=(20 + n, 6)).astype(np.float32),) * (1 + n % 2) for n in range(count)),
        nodes=torch.from_numpy(rng.normal(size=(count, 283, 8))).float(),
        star=torch.from_numpy(rng.normal(size=(count, 8))).float(),
        mean=torch.from_numpy(0.01 + 1e-4 * rng.normal(size=(count, 283))),
        sigma=torch.from_numpy(sigma.copy()),
        directions=principal_directions(covariance, 4),
        usable=np.arange(count) != 2,
    )


def test_untrained_networks_give_the_analytic_posterior() -> None:
    mean, sigma = network_spectra([build(tiny()), build(tiny())], planets(), batch=2)
    np.testing.assert_allclose(mean, planets().mean.numpy(), rtol=1e-14)
    np.testing.assert_allclose(sigma, planets().sigma.numpy(), rtol=1e-12)


def test_batches_do_not_matter_and_an_unusable_planet_stays() -> None:
    network, many = build(tiny(), trained=True), planets()
    mean, sigma = network_spectra([network], many, batch=2)
    whole = network_spectra([network], many, batch=64)
    np.testing.assert_allclose(mean, whole[0], rtol=1e-6)
    np.testing.assert_allclose(sigma, whole[1], rtol=1e-4)
    np.testing.assert_array_equal(mean[2], many.mean.numpy()[2])
    np.testing.assert_array_equal(sigma[2], many.sigma.numpy()[2])
    assert np.abs(mean - many.mean.numpy()).max(axis=1)[[0, 1, 3, 4]].min() > 0


def test_disagreement_of_an_ensemble_adds_to_sigma() -> None:
    one, other = build(tiny(), trained=True), build(tiny(), trained=True)
    with torch.no_grad():
        for parameter in other.mu.parameters():
            parameter.neg_()
    means, sigmas = zip(*(network_spectra([n], planets(), 8) for n in (one, other)), strict=True)
    mean, sigma = network_spectra([one, other], planets(), 8)
    np.testing.assert_allclose(mean, np.mean(means, axis=0), rtol=1e-9)
    np.testing.assert_allclose(sigma**2, np.mean(np.square(sigmas), axis=0) + np.var(means, axis=0), rtol=1e-6)


def test_dropout_while_predicting_adds_to_sigma_and_is_repeatable() -> None:
    network = build(tiny(), trained=True)
    once = network_spectra([network], planets(), 8)
    many = network_spectra([network], planets(), 8, passes=12, seed=3)
    again = network_spectra([network], planets(), 8, passes=12, seed=3)
    np.testing.assert_array_equal(many[1], again[1])
    usable = planets().usable
    assert np.median(many[1][usable] / once[1][usable]) > 1.0
    assert not network.training


def test_a_posterior_without_covariance_is_refused() -> None:
    bare = Spectra(("a",), np.ones((1, N_WAVELENGTHS)), np.ones((1, N_WAVELENGTHS)))
    with pytest.raises(InputError, match="covariance"):
        network_planets([], [], bare, [], 4)


def test_one_name_per_node_feature() -> None:
    assert len(NODE_FEATURES) == tiny().gnn.node_features == replace(planets()).nodes.shape[2]
