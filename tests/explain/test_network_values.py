"""Shapley values and integrated gradients of a small network add up."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))

from toy_network import batch, build, tiny

from spectramind.explain.network import (
    COMPLETENESS,
    HEADS,
    edge_attention,
    head_values,
    node_attribution,
    step_latents,
    time_attribution,
)
from spectramind.models.network_inputs import V50Inputs


def one_planet() -> tuple[V50Inputs, V50Inputs]:
    both = batch()
    first = both.planet_of_visit == 0
    visits = {"fgs1": both.fgs1[first], "n_steps": both.n_steps[first], "planet_of_visit": both.planet_of_visit[first]}
    rest = {name: getattr(both, name)[:1] for name in ("nodes", "star", "mean", "sigma", "directions")}
    return V50Inputs(**visits, **rest), both


def test_values_add_up_to_the_heads_outputs() -> None:
    network, (planet, both) = build(tiny(), trained=True), one_planet()
    bins = [0, 50, 200]
    found = head_values(network, planet, both, bins)
    output = network(planet)
    change = ((output.mean - planet.mean) / planet.sigma).detach().numpy()[0, bins]
    np.testing.assert_allclose(found.base[0] + found.values[0].sum(axis=0), change, atol=1e-5)
    assert found.additivity_error < 1e-5
    assert np.abs(found.values).max() > 1e-4
    assert found.base.shape == (len(HEADS), 3)


def test_integrated_gradients_are_complete() -> None:
    network, (planet, both) = build(tiny(), trained=True), one_planet()
    for found, part in (
        (time_attribution(network, planet), planet.fgs1),
        (node_attribution(network, planet, both), planet.nodes),
    ):
        assert found.values.shape == tuple(part.shape)
        assert abs(found.change) > 1e-6
        assert found.values.sum() == pytest.approx(found.change, rel=COMPLETENESS)
        assert found.completeness_error <= COMPLETENESS


def test_attention_of_all_that_enters_a_bin_is_one() -> None:
    edges, layers = edge_attention(build(tiny()), one_planet()[0]) or (None, None)
    assert edges is not None
    into = np.bincount(edges[1], weights=layers[0], minlength=283)
    np.testing.assert_allclose(into[np.unique(edges[1])], 1.0, rtol=1e-5)


def test_step_latents_leave_padding_out() -> None:
    _, both = one_planet()
    assert step_latents(build(tiny()), both) is None
    found = step_latents(build(tiny(ssm={"export_step_latents": True})), both)
    assert found is not None
    assert [len(visit) for visit in found] == both.n_steps.tolist()
    assert all(np.ptp(visit, axis=0).min() > 0 for visit in found)
