"""The conformal graph network on errors of known laws."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from toy_errors import WAVELENGTHS, WINDOWS, bins_of_molecules, erring_spectra

from spectramind.corel.intervals import coverage_limits, fit_corel, split_planets
from spectramind.corel.network import LEVELS, RelationalQuantiles
from spectramind.corel.options import CorelOptions
from spectramind.errors import InputError
from spectramind.models.options import GraphOptions
from spectramind.models.spectral_graph import SpectralGraph, spectral_graph

OPTIONS = CorelOptions(hidden=16, layers=1, epochs=25, learning_rate=4e-3)


@pytest.fixture(scope="module")
def graph() -> SpectralGraph:
    return spectral_graph(WAVELENGTHS, WINDOWS, 178, GraphOptions())


def test_an_untrained_network_leaves_sigma_as_it_is(graph: SpectralGraph) -> None:
    torch.manual_seed(0)
    network = RelationalQuantiles(OPTIONS, graph, 8).eval()
    found = network(torch.randn(2, 283, 8)).detach().numpy()
    normal = torch.distributions.Normal(0.0, 1.0).icdf(torch.tensor(LEVELS)).numpy()
    np.testing.assert_allclose(found, np.broadcast_to(normal[:, None], found.shape), atol=1e-5)


def test_quantiles_never_cross(graph: SpectralGraph) -> None:
    torch.manual_seed(0)
    network = RelationalQuantiles(OPTIONS, graph, 8)
    torch.nn.init.normal_(network.decoder[-1].weight, std=3.0)
    assert (network(5 * torch.randn(2, 283, 8)).diff(dim=1) >= 0).all()


def test_every_relation_gets_a_gradient(graph: SpectralGraph) -> None:
    torch.manual_seed(0)
    network = RelationalQuantiles(OPTIONS, graph, 8)
    torch.nn.init.normal_(network.decoder[-1].weight)
    network(torch.randn(2, 283, 8)).pow(2).sum().backward()
    assert (network.relations.logits.grad != 0).sum(dim=1).min() > OPTIONS.relations


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["pinball", "mse"])
def test_correlated_errors_widen_the_intervals_of_their_bands_alone(graph: SpectralGraph, loss: str) -> None:
    options = replace(OPTIONS, loss=loss, coverage_weight=10.0)
    mean, sigma, truth = erring_spectra(200, 1, correlated=1.5)
    fitted, _, _ = fit_corel(mean, sigma, truth, None, graph, options, seed=3)
    plain = fit_corel(*erring_spectra(200, 1), None, graph, options, seed=3)[0]
    new = erring_spectra(60, 2)[:2]
    wide, narrow = (np.diff(f.limits(*new, None), axis=0)[0][f.levels.index(0.9)] for f in (fitted, plain))
    ratio = np.mean(wide / narrow, axis=0)
    inside = bins_of_molecules("h2o", "co2")
    assert ratio[inside].mean() == pytest.approx(np.hypot(1, 1.5), rel=0.15)
    assert ratio[~inside].mean() == pytest.approx(1.0, abs=0.1)
    # Not by the conformal step alone: the network itself has learned where errors are larger.
    spread = fitted.quantiles(*new, None)
    width = (spread[:, -2] - spread[:, 1]).mean(axis=0)
    assert width[inside].mean() > 1.25 * width[~inside].mean()


@pytest.mark.slow
def test_coverage_of_planets_never_used_stays_within_its_limits(graph: SpectralGraph) -> None:
    fitted, report, split = fit_corel(*erring_spectra(150, 4, correlated=1.0), None, graph, OPTIONS, seed=1)
    mean, sigma, truth = erring_spectra(400, 5, correlated=1.0)
    (low, high), (below, above) = (fitted.limits(mean, sigma, None, band=band) for band in (False, True))
    for number, level in enumerate(fitted.levels):
        covered = ((low[number] <= truth) & (truth <= high[number])).mean(axis=0)
        least, most = coverage_limits(len(split.hold), 400, level, 283)
        assert ((least <= covered) & (covered <= most)).all()
        at_once = ((below[number] <= truth) & (truth <= above[number])).all(axis=1).mean()
        least, most = coverage_limits(len(split.hold), 400, level, 1)
        assert least <= at_once <= most
        assert (report.beta_low[number] <= report.coverage[number]).all()
    assert {0.68, 0.80, 0.90, 0.95} <= set(fitted.levels)


@pytest.mark.parametrize("telling", [True, False])
def test_light_curves_that_tell_of_errors_set_a_planets_width(graph: SpectralGraph, telling: bool) -> None:
    """Errors of AIRS grow with the first number of the evidence, or with none of them; the network hardly learns."""
    options = replace(OPTIONS, instance=True, epochs=1, learning_rate=1e-6)
    rng = np.random.default_rng(0)
    evidence = rng.normal(size=(2, 200, 3))
    factor = np.exp(0.5 * evidence[1, :, :1] * telling) * np.ones((200, 283))
    mean, sigma, truth = erring_spectra(200, 1)
    truth = mean + factor * (truth - mean)
    fitted, report, _ = fit_corel(mean, sigma, truth, evidence, graph, options, seed=3)
    if not telling:
        assert report.instance_gain < 0.01
        return
    assert report.instance_gain > 0.05
    assert fitted.response[1, 0] == pytest.approx(0.5, abs=0.1)
    new, stated = erring_spectra(2, 2)[:2]
    told = np.zeros((2, 2, 3))
    told[1, 1, 0] = 1.0
    low, high = fitted.limits(new, np.full_like(stated, 5e-5), told)
    ratio = (high - low)[:, 1] / (high - low)[:, 0]
    np.testing.assert_allclose(ratio[:, 1:], np.exp(fitted.response[1, 0]), rtol=1e-3)
    plain = fit_corel(mean, sigma, truth, evidence, graph, replace(options, instance=False), seed=3)[1]
    assert plain.instance_gain is None
    assert report.width_ppm[2] < plain.width_ppm[2]


def test_the_same_seed_gives_the_same_bits(graph: SpectralGraph) -> None:
    options = replace(OPTIONS, epochs=2)
    data = erring_spectra(30, 7)
    torch.manual_seed(99)
    first = fit_corel(*data, None, graph, options, seed=5)[0]
    torch.manual_seed(1)
    second, other = (fit_corel(*data, None, graph, options, seed=seed)[0] for seed in (5, 6))
    weights = [
        {name: tensor.numpy() for name, tensor in f.network.state_dict().items()} for f in (first, second, other)
    ]
    assert all(np.array_equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not np.array_equal(weights[0]["embedding"], weights[2]["embedding"])
    assert np.array_equal(first.factor, second.factor)


def test_few_planets_get_plain_intervals_and_no_network(graph: SpectralGraph) -> None:
    data = erring_spectra(19, 1)
    fitted, report, split = fit_corel(*data, None, graph, OPTIONS)
    assert fitted.network is None
    assert report.n_train == 0
    assert report.width_ppm == pytest.approx(report.plain_width_ppm)
    # Four planets hold no 90 % interval: the honest answer is an infinite one.
    assert len(split.hold) == 4
    assert np.isinf(fitted.factor[fitted.levels.index(0.9)]).all()
    with pytest.raises(InputError, match="5 planets or more"):
        fit_corel(*erring_spectra(4, 1), None, graph, OPTIONS)


def test_a_network_that_learned_luck_gets_no_weight(graph: SpectralGraph) -> None:
    options = replace(OPTIONS, epochs=60, learning_rate=2e-2)
    fitted, report, _ = fit_corel(*erring_spectra(24, 3), None, graph, options)
    assert fitted.network is not None
    assert fitted.weight == 0.0
    assert report.width_ppm == pytest.approx(report.plain_width_ppm)


def test_no_planet_is_in_two_parts() -> None:
    for n in (5, 20, 101):
        parts = split_planets(n, OPTIONS, 1)
        together = np.concatenate([parts.train, parts.hold, parts.check])
        assert sorted(together) == list(range(n))
        assert min(map(len, (parts.train, parts.hold, parts.check))) >= 1
