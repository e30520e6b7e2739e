"""Small networks, and batches of made-up planets for them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from spectramind.models.network_inputs import V50Inputs, principal_directions
from spectramind.models.options import NetworkOptions, SSMOptions
from spectramind.models.spectral_graph import SpectralGraph, spectral_graph
from spectramind.models.v50 import V50

WAVELENGTHS = np.r_[0.7, np.linspace(1.952, 3.895, 282)]
WINDOWS = {"h2o": ((40, 85), (210, 240)), "co2": ((95, 130), (245, 265)), "ch4": ((135, 175), (270, 282))}
SEAM = 178
TINY = replace(NetworkOptions(), ssm=SSMOptions(d_model=16, d_state=8, head_dim=8, n_layers=2, proj_out=12, chunk=16))


def graph(options: NetworkOptions = TINY) -> SpectralGraph:
    return spectral_graph(WAVELENGTHS, WINDOWS, SEAM, options.gnn.graph)


def tiny(**groups: dict[str, Any]) -> NetworkOptions:
    """Tiny options, with changed fields by group: `tiny(gnn={"backend": "rgcn"})`."""
    small = {
        "ssm": TINY.ssm,
        "gnn": replace(TINY.gnn, hidden_dim=16, out_dim=12, n_layers=2, heads=2),
        "fusion": replace(TINY.fusion, dim=16, hidden=8, n_heads=2, tokens=5),
        "heads": replace(
            TINY.heads, mu=replace(TINY.heads.mu, hidden=(16,)), sigma=replace(TINY.heads.sigma, hidden=(16,))
        ),
    }
    mu, sigma = groups.pop("mu", {}), groups.pop("sigma", {})
    small["heads"] = replace(
        small["heads"], mu=replace(small["heads"].mu, **mu), sigma=replace(small["heads"].sigma, **sigma)
    )
    return NetworkOptions(**small | {name: replace(small[name], **fields) for name, fields in groups.items()})


def build(options: NetworkOptions, *, trained: bool = False) -> V50:
    """In evaluation mode; `trained` gives the last layers of the heads random weights."""
    torch.manual_seed(0)
    network = V50(options, graph(options)).eval()
    if trained:
        for name, parameter in network.named_parameters():
            if name.startswith(("mu.", "sigma.")):
                torch.nn.init.normal_(parameter, std=0.2)
    return network


def batch(steps: tuple[int, ...] = (40, 23, 40), dtype: torch.dtype = torch.float64, features: int = 8) -> V50Inputs:
    """Two planets, the second with all visits but the first."""
    rng = np.random.default_rng(3)

    def normal(*shape: int) -> torch.Tensor:
        return torch.from_numpy(rng.normal(size=shape)).float()

    shapes = rng.normal(size=(2, 283, 6)) * [2e-4, 5e-5, 4e-5, 3e-5, 2e-5, 2e-5]
    covariance = shapes @ shapes.transpose(0, 2, 1) + 1e-10 * np.eye(283)
    sigma = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    return V50Inputs(
        fgs1=normal(len(steps), max(steps), 6),
        n_steps=torch.tensor(steps),
        planet_of_visit=torch.tensor([0] + [1] * (len(steps) - 1)),
        nodes=normal(2, 283, features),
        star=normal(2, 8),
        mean=(0.01 + 1e-4 * normal(2, 283)).to(dtype),
        sigma=torch.from_numpy(sigma.copy()).to(dtype),
        directions=principal_directions(covariance, 16),
    )
