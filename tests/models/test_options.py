"""The project's presets, value by value, and options that do not fit together."""

from __future__ import annotations

import math
from typing import Any

import pytest

from settings.resolve import RenamedSettingWarning, resolve
from spectramind.errors import SettingsError
from spectramind.models.options import AnalyticOptions, NetworkOptions

BASE: dict[str, Any] = {
    "kind": "v50",
    "ssm.enabled": True,
    "ssm.kind": "mamba2",
    "ssm.d_model": 256,
    "ssm.d_state": 64,
    "ssm.d_conv": 4,
    "ssm.expand": 2,
    "ssm.n_layers": 8,
    "ssm.bidirectional": True,
    "ssm.dropout": 0.1,
    "ssm.layer_norm": "rms",
    "ssm.proj_out": 256,
    "ssm.export_step_latents": False,
    "gnn.enabled": True,
    "gnn.node_features": 8,
    "gnn.hidden_dim": 256,
    "gnn.out_dim": 256,
    "gnn.n_layers": 4,
    "gnn.backend": "gat",
    "gnn.heads": 4,
    "gnn.residual": True,
    "gnn.dropout": 0.1,
    "gnn.edge_features.use": True,
    "gnn.edge_features.mol_tags": True,
    "gnn.edge_features.seam_flag": True,
    "gnn.positional_encoding.use": True,
    "gnn.positional_encoding.kind": "fourier",
    "gnn.positional_encoding.dim": 16,
    "gnn.graph.wavelength_adjacency": True,
    "gnn.graph.molecular_links": True,
    "gnn.graph.detector_seams": True,
    "gnn.graph.cross_instrument": True,
    "fusion.kind": "concat",
    "fusion.dim": 512,
    "fusion.hidden": 256,
    "fusion.dropout": 0.1,
    "fusion.n_heads": 4,
    "fusion.n_layers": 1,
    "heads.mu.type": "multiscale",
    "heads.mu.hidden": (512,),
    "heads.mu.dropout": 0.1,
    "heads.mu.scales": ("coarse", "mid", "fine"),
    "heads.mu.aux_losses": True,
    "heads.sigma.type": "flow",
    "heads.sigma.hidden": (256,),
    "heads.sigma.dropout": 0.1,
    "heads.sigma.activation": "softplus",
    "heads.sigma.sigma_min": 1e-4,
    "heads.sigma.q_list": (0.1, 0.5, 0.9),
    "heads.sigma.floor_fgs1": 1e-6,
    "heads.sigma.floor_airs": 1e-5,
}


def sizes(ssm: list[int], gnn: list[int], fusion: list[int], mu: int, sigma: int) -> dict[str, Any]:
    return {
        **dict(zip(("ssm.d_model", "ssm.d_state", "ssm.n_layers"), ssm, strict=True)),
        **dict(zip(("gnn.hidden_dim", "gnn.out_dim", "gnn.n_layers", "gnn.heads"), gnn, strict=True)),
        **dict(zip(("fusion.dim", "fusion.hidden"), fusion, strict=True)),
        "heads.mu.hidden": (mu,),
        "heads.sigma.hidden": (sigma,),
    }


PRESETS: dict[str, dict[str, Any]] = {
    "base": BASE,
    "small": BASE | sizes([128, 32, 4], [128, 128, 2, 2], [256, 128], 256, 128),
    "medium": BASE | sizes([192, 48, 6], [192, 192, 3, 4], [384, 192], 384, 192),
    "large": BASE | sizes([320, 96, 10], [320, 320, 5, 5], [640, 320], 640, 320) | {"fusion.dropout": 0.15},
    "v50": BASE
    | {
        "gnn.hidden_dim": 192,
        "gnn.out_dim": 192,
        "gnn.n_layers": 6,
        "heads.mu.hidden": (256, 256),
        "heads.sigma.sigma_min": math.exp(-4.0),
    },
}


@pytest.mark.parametrize("name", PRESETS)
def test_presets(name: str) -> None:
    model = resolve([f"model={name}"]).model
    found = {}
    for key in PRESETS[name]:
        value = model
        for part in key.split("."):
            value = getattr(value, part)
        found[key] = value
    assert found == PRESETS[name]


def test_the_large_network_decays_its_weights_faster() -> None:
    assert resolve(["model=base"]).optimizer.weight_decay == 0.01
    assert resolve(["model=large", "optimizer=large"]).optimizer.weight_decay == 0.02


def test_the_analytic_predictor_is_the_default_and_knows_nothing_of_the_network() -> None:
    assert resolve(["model=analytic"]) == resolve()
    model = resolve(["model.folds=7", "model.ssm.d_model=64"]).model
    assert model.kind == "analytic"
    assert model.analytic == AnalyticOptions(folds=7)
    assert model.network.ssm.d_model == 64
    assert resolve(["model.folds=7"]).model.network == NetworkOptions()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["model=base", "model.gnn.heads=6"], "256 is not a multiple of heads 6"),
        (["model=large", "model.gnn.heads=6"], "320 is not a multiple of heads 6"),
        (["model.ssm.d_model=40"], "80 is not a multiple of head_dim 64"),
        (["model.ssm.kind=transformer", "model.ssm.d_model=96"], "96 is not a multiple of head_dim 64"),
        (["model.gnn.positional_encoding.dim=15"], "15 is odd"),
        (["model.fusion.n_heads=3"], "256 is not a multiple of n_heads 3"),
        (["model.heads.mu.scales=[fine, fine]"], "named twice"),
        (["model.heads.sigma.q_list=[0.9, 0.5, 0.1]"], "must ascend"),
        (["model.heads.sigma.q_list=[0.1, 0.9]"], "hold 0.5"),
        (["model.heads.sigma.floor_airs=1e-4"], "≤ 1e-05"),
        (["model.gnn.backend=gcn"], "one of gat, rgcn, nnconv, mpnn"),
    ],
)
def test_options_that_do_not_fit_are_refused(arguments: list[str], expected: str) -> None:
    with pytest.raises(SettingsError, match=expected):
        resolve(arguments)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("model.encoders.fgs1_mamba.n_layers=6", "model.ssm.n_layers=6"),
        ("model.encoders.airs_gnn.backend=rgcn", "model.gnn.backend=rgcn"),
        ("model.decoders.mu_head.type=single", "model.heads.mu.type=single"),
        ("model.decoders.sigma_head.type=mlp", "model.heads.sigma.type=mlp"),
    ],
)
def test_names_by_place_in_the_network_are_understood(old: str, new: str) -> None:
    with pytest.warns(RenamedSettingWarning, match=r"is now called model\."):
        assert resolve([old]) == resolve([new])
