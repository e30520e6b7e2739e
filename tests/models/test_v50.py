"""The network around the analytic posterior: what it returns untrained, what it may change, and how it is stored."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_network import TINY, WAVELENGTHS, batch, build, graph, tiny

from settings.resolve import resolve
from spectramind.errors import InputError
from spectramind.models.heads import correction
from spectramind.models.network_inputs import V50Inputs, principal_directions
from spectramind.models.v50 import V50, V50Output

BACKENDS = ("gat", "rgcn", "nnconv", "mpnn")
FUSIONS = ("concat", "cross_attend", "gated")
SIGMAS = ("flow", "mlp", "quantile")
VARIANTS = [
    *({"gnn": {"backend": name}} for name in BACKENDS),
    *({"fusion": {"kind": name}} for name in FUSIONS),
    *({"sigma": {"type": name}} for name in SIGMAS),
    {"mu": {"type": "single"}},
    {"mu": {"scales": ("coarse", "fine")}},
    {"sigma": {"activation": "exp"}},
    {"ssm": {"kind": "transformer"}},
    {"ssm": {"kind": "mamba1"}},
    {"ssm": {"enabled": False}},
    {"gnn": {"enabled": False}},
    {"gnn": {"residual": False}},
    {"gnn": {"edge_features": replace(TINY.gnn.edge_features, use=False)}},
    {"gnn": {"edge_features": replace(TINY.gnn.edge_features, mol_tags=False, seam_flag=False)}},
    {"gnn": {"positional_encoding": replace(TINY.gnn.positional_encoding, use=False)}},
    {"gnn": {"positional_encoding": replace(TINY.gnn.positional_encoding, kind="sinusoidal")}},
]
variants = pytest.mark.parametrize("groups", VARIANTS, ids=str)


@variants
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_untrained_network_is_the_analytic_posterior(groups, dtype) -> None:
    network, inputs = build(tiny(**groups)).train(), batch(dtype=dtype)
    output = network(inputs)
    assert torch.equal(output.mean, inputs.mean)
    assert torch.equal(output.sigma, inputs.sigma)
    assert all(torch.equal(mean, inputs.mean) for mean in output.scales)


@variants
def test_every_parameter_learns(groups) -> None:
    network, inputs = build(tiny(**groups), trained=True), batch()
    output = network(inputs)
    loss = ((output.mean - inputs.mean) / inputs.sigma).square().sum() + (output.sigma / inputs.sigma).log().sum()
    loss.backward()
    still = [
        name for name, parameter in network.named_parameters() if parameter.grad is None or not parameter.grad.any()
    ]
    # What forms the FGS1 summary has none where the sequence is not read.
    unread = ("fusion",) if groups.get("ssm", {}).get("enabled") is False else ()
    unused = ("airs.edges",) if groups.get("gnn", {}).get("enabled") is False or groups == VARIANTS[1] else ()
    assert not [name for name in still if not name.startswith(unread + unused)]


@variants
def test_planets_do_not_influence_each_other(groups) -> None:
    network, inputs = build(tiny(**groups), trained=True), batch()
    alone = inputs._replace(
        fgs1=inputs.fgs1[1:],
        n_steps=inputs.n_steps[1:],
        planet_of_visit=inputs.planet_of_visit[1:] - 1,
        **{name: getattr(inputs, name)[1:] for name in ("nodes", "star", "mean", "sigma", "directions")},
    )
    together = network(inputs)
    torch.testing.assert_close(network(alone).mean[0], together.mean[1], rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(network(alone).sigma[0], together.sigma[1], rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("kind", FUSIONS)
def test_the_order_of_visits_and_their_padding_do_not_matter(kind: str) -> None:
    network, inputs = build(tiny(fusion={"kind": kind}), trained=True), batch()
    order = torch.tensor([2, 0, 1])
    padded = torch.nn.functional.pad(inputs.fgs1, (0, 0, 0, 9), value=7.0)
    other = inputs._replace(
        fgs1=padded[order], n_steps=inputs.n_steps[order], planet_of_visit=inputs.planet_of_visit[order]
    )
    torch.testing.assert_close(network(other).mean, network(inputs).mean, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("kind", FUSIONS)
def test_the_sequence_the_nodes_and_the_star_reach_the_prediction(kind: str) -> None:
    network, inputs = build(tiny(fusion={"kind": kind}), trained=True), batch()
    for name in ("fgs1", "nodes", "star"):
        changed = inputs._replace(**{name: getattr(inputs, name) + 0.5 * torch.randn_like(getattr(inputs, name))})
        assert not torch.equal(network(changed).mean, network(inputs).mean), name
        assert not torch.equal(network(changed).sigma, network(inputs).sigma), name


def test_corrections_stay_within_the_posterior() -> None:
    """The mean moves only along the directions that the covariance leaves open, and by `reach` sigmas at most."""
    inputs = batch()
    directions = inputs.directions[:, :, -2:].double()
    small = 1e-3 * torch.randn(2, 283, dtype=torch.float64)
    moved = correction(small, directions, inputs.sigma, 100.0)
    coefficients = torch.linalg.lstsq(directions, moved[..., None]).solution
    torch.testing.assert_close((directions @ coefficients).squeeze(-1), moved, rtol=1e-4, atol=1e-12)
    far = correction(1e6 * small, directions, inputs.sigma, 3.0)
    assert (far.abs() <= 3.0 * inputs.sigma * (1 + 1e-12)).all()
    assert (far.abs() > 2.9 * inputs.sigma).any()


def test_white_fields_give_corrections_with_the_covariance_of_the_posterior() -> None:
    rng = np.random.default_rng(0)
    factor = rng.normal(size=(283, 4)) * [4e-4, 2e-4, 1e-4, 5e-5]
    covariance = factor @ factor.T
    directions = principal_directions(covariance[None], 4).double()
    torch.testing.assert_close(
        (directions @ directions.transpose(1, 2))[0] @ (directions @ directions.transpose(1, 2))[0],
        torch.from_numpy(covariance),
        rtol=1e-4,
        atol=1e-12,
    )
    flipped = directions * torch.tensor([1.0, -1.0, -1.0, 1.0]).double()
    field, sigma = torch.randn(1, 283).double(), torch.from_numpy(np.sqrt(np.diag(covariance)))[None]
    torch.testing.assert_close(correction(field, flipped, sigma, 3.0), correction(field, directions, sigma, 3.0))


@settings(max_examples=25, deadline=None)
@given(scale=st.floats(0.1, 10.0))
def test_depths_and_sigmas_scale_together(scale: float) -> None:
    network, inputs = build(tiny(), trained=True), batch()
    scaled = inputs._replace(
        mean=scale * inputs.mean, sigma=scale * inputs.sigma, directions=scale**0.5 * inputs.directions
    )
    one, other = network(inputs), network(scaled)
    torch.testing.assert_close(other.mean, scale * one.mean, rtol=1e-6, atol=1e-9)
    assert torch.allclose(other.sigma, scale * one.sigma, rtol=1e-6) or scale < 1


@pytest.mark.parametrize("kind", SIGMAS)
@pytest.mark.parametrize("bias", [-50.0, 0.0, 50.0])
def test_sigma_is_never_below_its_floors(kind: str, bias: float) -> None:
    network, inputs = build(tiny(sigma={"type": kind})), batch()
    with torch.no_grad():
        for head in (network.sigma.bin, network.sigma.planet):
            if head is not None:
                head[-1].bias.fill_(bias)
    sigma = network(inputs).sigma
    assert sigma.isfinite().all()
    assert (sigma[:, 0] >= 1e-6).all()
    assert (sigma[:, 1:] >= 1e-5).all()
    if bias < 0:
        assert (sigma[:, 1:] == 1e-5).all()
        assert (sigma[:, 0] < 1e-5).all()


def test_quantiles_never_cross_and_belong_to_sigma() -> None:
    network, inputs = build(tiny(sigma={"type": "quantile"}), trained=True), batch()
    output = network(inputs)
    low, median, high = output.quantiles.unbind(1)
    assert (low < median).all()
    assert (median < high).all()
    assert torch.equal(median, output.mean)
    torch.testing.assert_close((high - low) / (2 * 1.2815515655446004), output.sigma, rtol=1e-5, atol=0)
    assert not torch.allclose(high - median, median - low, rtol=1e-3)


@pytest.mark.parametrize("kind", SIGMAS)
def test_a_temperature_scales_sigma_and_leaves_the_mean(kind: str) -> None:
    output = build(tiny(sigma={"type": kind}), trained=True)(batch())
    hot = output.tempered(2.5)
    assert torch.equal(hot.mean, output.mean)
    torch.testing.assert_close(hot.sigma, 2.5 * output.sigma)
    if output.quantiles is not None:
        torch.testing.assert_close(hot.quantiles.diff(dim=1), 2.5 * output.quantiles.diff(dim=1))


def test_the_flow_has_a_scale_of_the_planet() -> None:
    """A planet whose noise was misjudged is corrected in all bins by one number."""
    network, inputs = build(tiny(sigma={"type": "flow"})), batch()
    with torch.no_grad():
        network.sigma.planet[-1].weight.normal_()
    ratio = network(inputs).sigma / inputs.sigma
    torch.testing.assert_close(ratio, ratio[:, 100:101].expand(-1, 283), rtol=1e-6, atol=0)
    assert not torch.allclose(ratio[0], ratio[1], rtol=1e-3)


def test_scales_add_up_from_coarse_to_fine() -> None:
    network, inputs = build(tiny(), trained=True), batch()
    coarse, mid = network(inputs).scales
    fields = network.mu(network(inputs).node_latents)
    roughness = [field[:, 1:].diff(n=2).square().mean().sqrt() / field[:, 1:].std() for field in fields]
    assert roughness[0] < roughness[1] < roughness[2]
    directions = inputs.directions.double()
    torch.testing.assert_close(coarse, inputs.mean + correction(fields[0].double(), directions, inputs.sigma, 3.0))
    torch.testing.assert_close(mid, inputs.mean + correction(sum(fields[:2]).double(), directions, inputs.sigma, 3.0))
    assert build(tiny(mu={"aux_losses": False}))(inputs).scales == ()


def test_a_few_steps_of_training_find_what_the_fit_missed() -> None:
    """Errors that one node feature tells in part, and sigmas that are twice what is left: Adam finds both."""
    torch.manual_seed(2)
    planets, generator = 24, torch.Generator().manual_seed(4)
    directions = 1e-2 * torch.randn(planets, 283, 3, generator=generator)
    root = directions @ directions.transpose(1, 2)
    sigma = root.square().sum(-1).sqrt()
    told, hidden = torch.randn(2, planets, 283, generator=generator)
    truth = 0.01 + (root @ (0.9 * told + 0.4 * hidden)[..., None]).squeeze(-1)
    inputs = V50Inputs(
        fgs1=torch.zeros(planets, 2, 6),
        n_steps=torch.full((planets,), 2),
        planet_of_visit=torch.arange(planets),
        nodes=torch.cat([told[..., None], torch.zeros(planets, 283, 7)], dim=-1),
        star=torch.zeros(planets, 8),
        mean=torch.full((planets, 283), 0.01),
        sigma=sigma,
        directions=directions,
    )
    network = build(tiny(ssm={"enabled": False}, gnn={"enabled": False}))
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    losses = []
    for _ in range(250):
        output = network(inputs)
        z = (truth - output.mean) / output.sigma
        loss = (0.5 * z.square() + (output.sigma / sigma).log()).mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    error = ((truth - output.mean) / sigma).square().mean().sqrt()
    assert losses[-1] < losses[0] - 0.4
    assert error < 0.6 * ((truth - inputs.mean) / sigma).square().mean().sqrt()
    assert z.square().mean().sqrt().item() == pytest.approx(1.0, abs=0.15)


def test_exports() -> None:
    network, inputs = build(tiny(ssm={"export_step_latents": True}), trained=True), batch()
    output = network(inputs)
    assert output.step_latents.shape == (3, 40, TINY.ssm.proj_out)
    assert output.node_latents.shape == (2, 283, 16)
    edges = network.airs.edge_index.shape[1]
    assert [tuple(weights.shape) for weights in output.attention] == [(2, edges, 2)] * 2
    received = torch.zeros(283).index_add(0, network.airs.edge_index[1], output.attention[0][1, :, 0])
    torch.testing.assert_close(received, torch.ones(283))
    assert build(tiny(), trained=True)(inputs).step_latents is None


def test_messages_travel_along_the_edges_only() -> None:
    """Two layers without the hub of FGS1 carry a bin's features four bins far, and to its molecule."""
    options = tiny(gnn={"graph": replace(TINY.gnn.graph, cross_instrument=False, molecular_links=False)})
    network, inputs = build(options), batch()
    nodes = inputs.nodes.clone()
    nodes[:, 140] += 1.0
    before, _ = network.airs(inputs.nodes, inputs.star)
    after, _ = network.airs(nodes, inputs.star)
    changed = (before != after).any(dim=-1).any(dim=0).nonzero().flatten()
    assert changed.tolist() == list(range(136, 145))


@variants
def test_saved_networks_predict_the_same(groups, tmp_path) -> None:
    network, inputs = build(tiny(**groups), trained=True), batch()
    network.save(tmp_path)
    back = V50.load(tmp_path)
    assert back.options == network.options
    ours, theirs = network(inputs), back(inputs)
    for item in fields(V50Output):
        one, other = getattr(ours, item.name), getattr(theirs, item.name)
        if isinstance(one, torch.Tensor):
            assert torch.equal(one, other), item.name


def test_a_directory_without_a_network_is_refused(tmp_path) -> None:
    with pytest.raises(InputError, match=r"network\.json"):
        V50.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"fgs1": torch.zeros(3, 40, 5)}, "fgs1"),
        ({"n_steps": torch.tensor([40, 0, 40])}, "n_steps"),
        ({"n_steps": torch.tensor([40, 41, 40])}, "n_steps"),
        ({"nodes": torch.zeros(2, 283, 7)}, "nodes"),
        ({"mean": torch.zeros(2, 282)}, "mean"),
        ({"star": torch.zeros(2, 9)}, "star"),
        ({"directions": torch.zeros(1, 283, 4)}, "directions"),
    ],
)
def test_inputs_of_the_wrong_shape_are_named(change, problem) -> None:
    with pytest.raises(InputError, match=problem):
        build(tiny())(batch()._replace(**change))


def test_mixed_precision_keeps_depths_in_full_precision() -> None:
    network, inputs = build(tiny()), batch(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        output = network(inputs)
    assert torch.equal(output.mean, inputs.mean)
    assert torch.equal(output.sigma, inputs.sigma)


@pytest.mark.parametrize("name", ["small", "medium", "base", "large", "v50"])
def test_presets_build_and_run(name: str) -> None:
    options = resolve([f"model={name}"]).model.network
    network = V50(options, graph(options)).eval()
    assert network.airs.encoded_position.shape == (len(WAVELENGTHS), 16)
    inputs = batch(steps=(70, 5))
    with torch.no_grad():
        output = network(inputs)
    assert torch.equal(output.mean, inputs.mean)
    assert len(output.attention) == options.gnn.n_layers
