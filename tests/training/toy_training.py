"""Made-up planets whose errors follow a feature of their bins, and recipes that are through in a second."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from spectramind.losses.options import LossOptions, SymbolicOptions
from spectramind.models.network_inputs import principal_directions
from spectramind.models.network_planets import NetworkPlanets
from spectramind.models.options import (
    FusionOptions,
    GNNOptions,
    HeadsOptions,
    MuHeadOptions,
    NetworkOptions,
    SigmaHeadOptions,
    SSMOptions,
)
from spectramind.training.options import (
    AugmentationOptions,
    BatchOptions,
    EpochOptions,
    OptimizerOptions,
    TrainOptions,
)
from spectramind.training.phases import Recipe
from spectramind.training.train import TrainingSet
from spectramind.types import Floats

WAVELENGTHS = np.r_[0.7, np.linspace(1.952, 3.895, 282)]
NETWORK = NetworkOptions(
    ssm=SSMOptions(d_model=8, d_state=4, head_dim=8, n_layers=1, proj_out=8, chunk=16),
    gnn=GNNOptions(hidden_dim=8, out_dim=8, n_layers=1, heads=2),
    fusion=FusionOptions(dim=16, hidden=8, n_heads=2),
    heads=HeadsOptions(MuHeadOptions(hidden=(16,)), SigmaHeadOptions(hidden=(16,))),
)
TRAIN = TrainOptions(epochs=EpochOptions(2, 1, 4), batch=BatchOptions(4, 8), device="cpu")


def toy_planets(count: int = 12, hint: float = 1.0, seed: int = 3) -> tuple[NetworkPlanets, Floats]:
    """Planets and their true spectra. The first feature of all bins of a planet tells `hint` times by how many sigmas
    its analytic spectrum is wrong."""
    rng = np.random.default_rng(seed)
    covariance = np.full((count, 283, 283), 1e-4**2) + 1e-5**2 * np.eye(283)
    sigma = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    mean = 0.01 + 0.005 * rng.random((count, 1)) + 1e-4 * rng.normal(size=(count, 283))
    wrong = rng.normal(size=(count, 1))
    nodes = rng.normal(size=(count, 283, 8))
    nodes[:, :, 0] = hint * wrong
    planets = NetworkPlanets(
        visits=tuple((rng.normal(size=(30, 6)).astype(np.float32),) for _ in range(count)),
        nodes=torch.from_numpy(nodes).float(),
        star=torch.from_numpy(rng.normal(size=(count, 8))).float(),
        mean=torch.from_numpy(mean),
        sigma=torch.from_numpy(sigma.copy()),
        directions=principal_directions(covariance, 4),
        usable=np.ones(count, dtype=bool),
    )
    return planets, mean + wrong * sigma


def training_set(count: int = 12, **options: Any) -> TrainingSet:
    planets, truth = toy_planets(count, **options)
    rows = tuple(range(count))
    return TrainingSet(planets, truth, rows[: -count // 4], rows[-count // 4 :], WAVELENGTHS, (0.0125, 0.005))


def recipe(optimizer: OptimizerOptions | None = None, **train: Any) -> Recipe:
    return Recipe(
        NETWORK,
        replace(TRAIN, **train),
        optimizer or OptimizerOptions(lr=1e-3),
        LossOptions(),
        SymbolicOptions(enabled=False),
    )


def still_recipe(**train: Any) -> Recipe:
    """One epoch without any chance in it but the order of the planets."""
    silent = AugmentationOptions(jitter_std=0, time_shift=0)
    how = recipe(**{"epochs": EpochOptions(0, 0, 1), "augmentation": silent, **train})
    heads = HeadsOptions(
        replace(NETWORK.heads.mu, dropout=0.0),
        replace(NETWORK.heads.sigma, dropout=0.0),
    )
    network = NetworkOptions(
        replace(NETWORK.ssm, dropout=0.0),
        replace(NETWORK.gnn, dropout=0.0),
        replace(NETWORK.fusion, dropout=0.0),
        heads,
    )
    return replace(how, network=network)
