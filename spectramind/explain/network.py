"""What the V50 network's heads respond to, for one planet.

Axis letters: V visits, T steps, N = 283 bins, E edges.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from spectramind.instruments import AIRS
from spectramind.models.network_inputs import FGS1_CHANNELS, STAR_FEATURES, V50Inputs
from spectramind.models.network_planets import NODE_FEATURES
from spectramind.models.v50 import V50, V50Output
from spectramind.types import Floats

GROUPS = (*NODE_FEATURES, *STAR_FEATURES, "FGS1 sequence")
"""What Shapley values are given to: each node feature in all bins, each star parameter, the sequence."""
HEADS = ("mean correction", "log sigma factor")
COMPLETENESS = 0.01
FEWEST_STEPS, MOST_STEPS = 32, 1024


@dataclass(frozen=True)
class HeadValues:
    """Shapley `values` (heads, groups, bins) of the heads' outputs, in analytic sigmas and in ln sigma; `base` (heads,
    bins), the output for the other planets' mean inputs; `additivity_error`: largest difference of base plus sum from
    the output, over the largest output."""

    values: Floats
    base: Floats
    additivity_error: float


@dataclass(frozen=True)
class PathAttribution:
    """Integrated gradients `values`, in the shape of an input, of the mean correction of the AIRS bins, in analytic
    sigmas; `change` of that output; `completeness_error` of the sum, over the change; the `steps` that it took."""

    values: Floats
    change: float
    completeness_error: float
    steps: int


def head_values(network: V50, inputs: V50Inputs, background: V50Inputs, bins: list[int], seed: int = 0) -> HeadValues:
    """Of one planet, for these bins, against the mean of the `background` planets' features. By permutations that go
    both ways, so that values add up exactly."""
    import shap

    nodes, star = background.nodes.mean(dim=0, keepdim=True), background.star.mean(dim=0, keepdim=True)
    count = len(NODE_FEATURES)

    def output(masks: Floats) -> Floats:
        rows = []
        for mask in torch.from_numpy(np.asarray(masks)).to(inputs.nodes):
            changed = inputs._replace(
                nodes=nodes + mask[:count] * (inputs.nodes - nodes),
                star=star + mask[count:-1] * (inputs.star - star),
                fgs1=_without_signal(inputs.fgs1) * (1 - mask[-1]) + inputs.fgs1 * mask[-1],
            )
            with torch.no_grad():
                rows.append(torch.cat([part[0, bins] for part in _heads(network(changed), inputs)]).double().numpy())
        return np.stack(rows)

    absent, present = np.zeros((1, len(GROUPS))), np.ones((1, len(GROUPS)))
    explainer = shap.PermutationExplainer(output, shap.maskers.Independent(absent), seed=seed)
    found = explainer(present, max_evals=4 * (2 * len(GROUPS) + 1), silent=True)
    values = np.asarray(found.values)[0].reshape(len(GROUPS), len(HEADS), len(bins)).transpose(1, 0, 2)
    base, whole = (output(m)[0].reshape(len(HEADS), len(bins)) for m in (absent, present))
    error = np.abs(base + values.sum(axis=1) - whole).max() / max(float(np.abs(whole).max()), 1e-12)
    return HeadValues(values, base, float(error))


def time_attribution(network: V50, inputs: V50Inputs) -> PathAttribution:
    """Along the FGS1 sequence (V, T, channels) of one planet, from one without signal."""
    return _integrated(network, inputs, "fgs1", _without_signal(inputs.fgs1))


def node_attribution(network: V50, inputs: V50Inputs, background: V50Inputs) -> PathAttribution:
    """Along the bins' features (1, N, features) of one planet, from the mean of the `background` planets."""
    return _integrated(network, inputs, "nodes", background.nodes.mean(dim=0, keepdim=True))


def _integrated(network: V50, inputs: V50Inputs, part: Literal["fgs1", "nodes"], start: Tensor) -> PathAttribution:
    """Integrated gradients (Sundararajan, Taly & Yan 2017, ICML) along a `part` of the inputs. The number of steps
    doubles until the sum is complete to one percent."""
    end: Tensor = getattr(inputs, part)

    def output(values: Tensor) -> Tensor:
        return _heads(network(inputs._replace(**{part: values})), inputs)[0][0, AIRS.spectral_slice].mean()

    with torch.no_grad():
        change = float(output(end) - output(start))
    steps = FEWEST_STEPS
    while True:
        gradient = torch.zeros_like(end, dtype=torch.float64)
        for step in range(steps):
            at = (start + (step + 0.5) / steps * (end - start)).requires_grad_()
            with torch.enable_grad():
                gradient += torch.autograd.grad(output(at), at)[0].double() / steps
        values = (gradient * (end - start)).numpy()
        error = abs(float(values.sum()) - change) / max(abs(change), 1e-9)
        if error <= COMPLETENESS or steps >= MOST_STEPS:
            return PathAttribution(values, change, error, steps)
        steps *= 2


def edge_attention(network: V50, inputs: V50Inputs) -> tuple[Floats, Floats] | None:
    """Edges (2, E) as source and target, and the attention (layers, E) of one planet's graph, means over heads; None
    for a network whose layers do not attend."""
    with torch.no_grad():
        attention = network(inputs).attention
    if not attention:
        return None
    edges = network.airs.edge_index.numpy()
    return edges, torch.stack([layer[0].mean(dim=-1) for layer in attention]).double().numpy()


def step_latents(network: V50, inputs: V50Inputs) -> list[Floats] | None:
    """The encoding (T, S) of every FGS1 step in each visit of one planet; None for a network without
    `export_step_latents`."""
    with torch.no_grad():
        found = network(inputs).step_latents
    if found is None:
        return None
    return [steps[:count] for steps, count in zip(found.numpy(), inputs.n_steps.tolist(), strict=True)]


def edge_importance(network: V50, inputs: V50Inputs, epochs: int, seed: int = 0) -> Floats:
    """Importance (E,), 0 to 1, of the graph's edges for both heads' outputs of one planet: the mask of GNNExplainer
    (Ying et al. 2019, NeurIPS) after `epochs` steps. The network must have graph layers."""
    from torch_geometric.explain import Explainer, GNNExplainer

    with torch.no_grad():
        # In units of their own size: corrections are small, and the penalty on the mask would decide alone.
        size = [part.square().mean().sqrt().clamp_min(1e-12) for part in _heads(network(inputs), inputs)]

    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, nodes: Tensor, _edges: Tensor) -> Tensor:
            parts = _heads(self.network(inputs._replace(nodes=nodes[None])), inputs)
            return torch.stack([part[0] / scale for part, scale in zip(parts, size, strict=True)], dim=1)

    explainer = Explainer(
        Heads(),
        GNNExplainer(epochs=epochs, lr=0.05, edge_size=0.05, edge_reduction="mean", edge_ent=0.01),
        explanation_type="model",
        edge_mask_type="object",
        model_config={"mode": "regression", "task_level": "node", "return_type": "raw"},
    )
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seed)
        mask = explainer(inputs.nodes[0], network.airs.edge_index).edge_mask
    network.zero_grad()
    return np.asarray(mask.double().numpy())


def _heads(output: V50Output, inputs: V50Inputs) -> tuple[Tensor, Tensor]:
    return (output.mean - inputs.mean) / inputs.sigma, (output.sigma / inputs.sigma).log()


def _without_signal(fgs1: Tensor) -> Tensor:
    """The sequence with nothing in it but time."""
    kept = torch.zeros(len(FGS1_CHANNELS), dtype=fgs1.dtype)
    kept[FGS1_CHANNELS.index("time")] = 1.0
    return fgs1 * kept
