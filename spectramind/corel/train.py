"""Training of the network of quantiles on relative errors of out-of-fold predictions."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from spectramind.corel.network import LEVELS, MEDIAN, RelationalQuantiles
from spectramind.corel.options import CorelOptions
from spectramind.models.spectral_graph import SpectralGraph
from spectramind.types import Floats

FEWEST_STEPS = 8
"""Steps of an epoch, however few the planets."""
LARGEST_Z = 10.0
"""Relative errors are clipped there: one failed planet sets nobody else's interval."""
SOFTNESS = 0.1
"""Width, in z, of the step with which the coverage penalty counts what lies inside."""
CLIP = 5.0


def train_quantiles(
    features: Floats, z: Floats, graph: SpectralGraph, options: CorelOptions, seed: int
) -> tuple[RelationalQuantiles, list[float]]:
    """A network trained on standardised `features` (planets, bins, F) and `z` (planets, bins), in evaluation mode, and
    the mean loss of each epoch. The random state outside is left as it was; the same seed gives the same network."""
    x, y = torch.from_numpy(features).float(), torch.from_numpy(np.clip(z, -LARGEST_Z, LARGEST_Z)).float()
    batch = min(options.batch, math.ceil(len(x) / FEWEST_STEPS))
    losses: list[float] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = RelationalQuantiles(options, graph, features.shape[2])
        optimizer = torch.optim.AdamW(network.parameters(), lr=options.learning_rate)
        for _ in range(options.epochs):
            total = 0.0
            for rows in torch.randperm(len(x)).split(batch):
                optimizer.zero_grad()
                loss = quantile_loss(network(x[rows]), y[rows], options)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(network.parameters(), CLIP)
                optimizer.step()
                total += float(loss.detach()) * len(rows)
            losses.append(total / len(x))
    return network.eval(), losses


def quantile_loss(quantiles_PQN: Tensor, z_PN: Tensor, options: CorelOptions) -> Tensor:
    """Pinball loss summed over levels; or squared error of the median plus the squared miss of each level's coverage,
    averaged over bins."""
    levels = torch.tensor(LEVELS)[:, None]
    if options.loss == "pinball":
        error = z_PN[:, None] - quantiles_PQN
        return torch.maximum(levels * error, (levels - 1) * error).sum(dim=1).mean()
    below = torch.sigmoid((quantiles_PQN - z_PN[:, None]) / SOFTNESS).mean(dim=0)
    centre = (z_PN - quantiles_PQN[:, MEDIAN]) ** 2
    return centre.mean() + options.coverage_weight * ((below - levels) ** 2).sum(dim=0).mean()


def predict_quantiles(network: RelationalQuantiles, features: Floats, batch: int = 64) -> Floats:
    """Quantiles of z (planets, levels, bins) at `LEVELS`."""
    with torch.no_grad():
        parts = [network(part) for part in torch.from_numpy(features).float().split(batch)]
    return torch.cat(parts).double().numpy() if parts else np.zeros((0, len(LEVELS), features.shape[1]))
