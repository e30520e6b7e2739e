"""Quantiles of relative errors z = (truth - mean) / sigma on the graph of the 283 bins.

After Cini, Jenkins, Mandic, Alippi & Bianchi (2025, PMLR 267, "Relational Conformal Prediction for Correlated Time
Series"), for spectra instead of time series: a test spectrum reveals no residual of a neighbour, so that a node reads
what is observed of it (`inputs`); messages run along the physical edges of `spectral_graph` and along relations that
are learned.

The last layer starts at zero, which gives the quantiles of a standard normal: stated sigmas are then left as they are.

Axis letters: P planets, N = 283 bins, F features, D width, Q quantile levels.
"""

from __future__ import annotations

from statistics import NormalDist

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spectramind.corel.options import CorelOptions
from spectramind.instruments import N_WAVELENGTHS
from spectramind.models.gnn import EdgeEncoder, GraphLayer
from spectramind.models.heads import SOFTPLUS_OF_ONE
from spectramind.models.options import GNNOptions
from spectramind.models.spectral_graph import SpectralGraph

LEVELS = (0.025, 0.05, 0.1, 0.16, 0.5, 0.84, 0.9, 0.95, 0.975)
"""The ends of the 95, 90, 80 and 68 % intervals, and the median."""
MEDIAN = LEVELS.index(0.5)
LARGEST_LOGIT = 5.0
NEARNESS_BINS = 4.0
"""Relations start with neighbours: a logit falls by one in so many bins."""


class RelationalQuantiles(nn.Module):
    """Features (P, N, F), standardised, to quantiles of z (P, Q, N) that never cross."""

    edge_index: Tensor
    edge_type: Tensor
    edge_features: Tensor
    steps: Tensor

    def __init__(self, options: CorelOptions, graph: SpectralGraph, features: int) -> None:
        super().__init__()
        layer = GNNOptions(hidden_dim=options.hidden, heads=options.heads, dropout=0.0)
        for name in ("edge_index", "edge_type", "edge_features"):
            self.register_buffer(name, getattr(graph, name))
        z = torch.tensor([NormalDist().inv_cdf(level) for level in LEVELS])
        self.register_buffer("steps", z.diff(), persistent=False)
        self.edges = EdgeEncoder(layer.edge_features, int(graph.molecules.max()) + 1)
        self.embedding = nn.Parameter(0.1 * torch.randn(N_WAVELENGTHS, options.embedding))
        self.in_proj = nn.Linear(features + options.embedding, options.hidden)
        self.physical = nn.ModuleList(GraphLayer(layer, self.edges.dim) for _ in range(options.layers))
        self.related = nn.ModuleList(nn.Linear(options.hidden, options.hidden) for _ in range(options.layers))
        self.relations = LearnedRelations(options.relations)
        last = nn.Linear(options.hidden, len(LEVELS))
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        inner = nn.Linear(2 * options.hidden + options.embedding, options.hidden)
        self.decoder = nn.Sequential(inner, nn.ELU(), last)

    def forward(self, features_PNF: Tensor) -> Tensor:
        planets = features_PNF.shape[0]
        embedding = self.embedding.expand(planets, -1, -1)
        encoded = self.in_proj(torch.cat([features_PNF, embedding], dim=-1))
        first = N_WAVELENGTHS * torch.arange(planets, device=encoded.device)
        edge_index = (self.edge_index[:, None] + first[:, None]).flatten(1)
        edge_type, edge_vector = self.edge_type.repeat(planets), self.edges(self.edge_features).repeat(planets, 1)
        relations, x = self.relations(), encoded
        for physical, related in zip(self.physical, self.related, strict=True):
            x = x + F.elu(relations @ related(x))
            x = physical(x.flatten(0, 1), edge_index, edge_type, edge_vector)[0].unflatten(0, (planets, -1))
        raw = self.decoder(torch.cat([x, encoded, embedding], dim=-1))
        distances = self.steps * F.softplus(raw[..., 1:] + SOFTPLUS_OF_ONE)
        rising = F.pad(distances.cumsum(-1), (1, 0))
        quantiles = raw[..., :1] + rising - rising[..., MEDIAN : MEDIAN + 1]
        return quantiles.transpose(1, 2)


class LearnedRelations(nn.Module):
    """A row-stochastic matrix (N, N) in which each bin has `count` others, equally weighted.

    Drawn by Gumbel top-k while training; gradients are those of its relaxation, as many successive softmaxes (Xie &
    Ermon 2019, IJCAI), so that they also reach relations that were not drawn.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count
        bins = torch.arange(N_WAVELENGTHS)
        self.logits = nn.Parameter(-(bins[:, None] - bins).abs().float() / NEARNESS_BINS)

    def forward(self) -> Tensor:
        logits = LARGEST_LOGIT * torch.tanh(self.logits / LARGEST_LOGIT)
        if self.training:
            logits = logits - torch.log(-torch.log(torch.rand_like(logits).clamp(1e-9, 1 - 1e-7)))
        logits = logits.masked_fill(torch.eye(N_WAVELENGTHS, dtype=torch.bool, device=logits.device), -1e9)
        chosen = torch.zeros_like(logits).scatter_(1, logits.topk(self.count, dim=1).indices, 1.0)
        if not self.training:
            return chosen / self.count
        relaxed, left = torch.zeros_like(logits), logits
        for _ in range(self.count):
            share = left.softmax(dim=1)
            relaxed = relaxed + share
            left = left + torch.log1p(-share.clamp(max=1 - 1e-6))
        return (chosen + relaxed - relaxed.detach()) / self.count
