"""Network on the spectral graph, from PyTorch Geometric's layers.

Axis letters: P planets, N = 283 nodes, E edges.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn import GATv2Conv, GINEConv, NNConv, RGCNConv

from spectramind.instruments import N_WAVELENGTHS
from spectramind.models.options import EdgeFeatureOptions, GNNOptions, PositionOptions
from spectramind.models.positions import fourier, sinusoidal
from spectramind.models.spectral_graph import EDGE_TYPES, SpectralGraph

TAG_DIM = 4
"""Width of an embedded molecule or seam flag."""
NARROWING = 16
"""A matrix per edge (nnconv) acts in a space narrower by this factor: in full width it would need gigabytes."""


class AIRSGraphNetwork(nn.Module):
    """Node features (P, N, F) and stars (P, S) to node encodings (P, N, out_dim)."""

    edge_index: Tensor
    edge_type: Tensor
    edge_features: Tensor
    encoded_position: Tensor

    def __init__(self, options: GNNOptions, graph: SpectralGraph, star_features: int) -> None:
        super().__init__()
        for name, tensor in graph.tensors().items():
            self.register_buffer(name, tensor)
        self.register_buffer("encoded_position", _encoded(graph.position, options.positional_encoding))
        self.edges = EdgeEncoder(options.edge_features, int(graph.molecules.max()) + 1)
        width = options.hidden_dim
        self.in_proj = nn.Linear(options.node_features + self.encoded_position.shape[1], width)
        self.star_proj = nn.Linear(star_features, width, bias=False)
        layers = options.n_layers if options.enabled else 0
        self.layers = nn.ModuleList(GraphLayer(options, self.edges.dim) for _ in range(layers))
        self.out_proj = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, options.out_dim))

    def forward(self, features_PNF: Tensor, star_PS: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Also returns, if the layers attend, each layer's attention along the edges (P, E, heads)."""
        planets = features_PNF.shape[0]
        position = self.encoded_position.expand(planets, -1, -1)
        x = self.in_proj(torch.cat([features_PNF, position], dim=-1)) + self.star_proj(star_PS)[:, None]
        x, attention = x.flatten(0, 1).to(self.in_proj.weight.dtype), []  # layers add up in full precision
        first_node = N_WAVELENGTHS * torch.arange(planets, device=x.device)
        edge_index = (self.edge_index[:, None] + first_node[:, None]).flatten(1)
        edge_type, edge_vector = self.edge_type.repeat(planets), self.edges(self.edge_features).repeat(planets, 1)
        for layer in self.layers:
            x, weights = layer(x, edge_index, edge_type, edge_vector)
            if weights is not None:
                attention.append(weights.unflatten(0, (planets, -1)))
        return self.out_proj(x).unflatten(0, (planets, -1)), tuple(attention)


class EdgeEncoder(nn.Module):
    """Edge features (E, 4) to vectors (E, dim): molecules and seam embedded where asked for; ones if unused."""

    def __init__(self, options: EdgeFeatureOptions, tags: int) -> None:
        super().__init__()
        self.use = options.use
        self.molecules = nn.Embedding(tags, TAG_DIM) if options.use and options.mol_tags else None
        self.seam = nn.Embedding(2, TAG_DIM) if options.use and options.seam_flag else None
        tag_widths = [TAG_DIM if options.mol_tags else 1] * 2 + [TAG_DIM if options.seam_flag else 1]
        self.dim = 1 + sum(tag_widths) if options.use else 1

    def forward(self, features_E4: Tensor) -> Tensor:
        if not self.use:
            return torch.ones_like(features_E4[:, :1])
        parts = [features_E4[:, :1]]
        for column, embedding in ((1, self.molecules), (2, self.molecules), (3, self.seam)):
            tag = features_E4[:, column]
            parts.append(tag[:, None] if embedding is None else embedding(tag.long()))
        return torch.cat(parts, dim=1)


class GraphLayer(nn.Module):
    """x + dropout(gelu(messages(norm(x)))), and the attention of the messages or None."""

    def __init__(self, options: GNNOptions, edge_dim: int) -> None:
        super().__init__()
        self.backend, self.residual, width = options.backend, options.residual, options.hidden_dim
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(options.dropout)
        self.narrow: nn.Module = nn.Identity()
        self.widen: nn.Module = nn.Identity()
        self.conv: nn.Module
        if options.backend == "gat":
            # Every node sees itself through the residual, so that self loops are not needed.
            self.conv = GATv2Conv(
                width,
                width // options.heads,
                options.heads,
                dropout=options.dropout,
                add_self_loops=False,
                edge_dim=edge_dim,
                residual=not options.residual,
            )
        elif options.backend == "rgcn":
            self.conv = RGCNConv(width, width, len(EDGE_TYPES))
        elif options.backend == "nnconv":
            inner = max(width // NARROWING, 4)
            self.narrow, self.widen = nn.Linear(width, inner), nn.Linear(inner, width)
            self.conv = NNConv(inner, inner, nn.Linear(edge_dim, inner**2), aggr="mean")
        else:
            update = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
            self.conv = GINEConv(update, edge_dim=edge_dim, aggr="mean")

    def forward(
        self, x: Tensor, edge_index: Tensor, edge_type: Tensor, edge_vector: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        y, weights = self.narrow(self.norm(x)), None
        if self.backend == "gat":
            y, (_, weights) = self.conv(y, edge_index, edge_vector, return_attention_weights=True)
        elif self.backend == "rgcn":
            y = self.conv(y, edge_index, edge_type)
        else:
            y = self.conv(y, edge_index, edge_vector)
        y = self.dropout(F.gelu(self.widen(y)))
        return (x + y if self.residual else y), weights


def _encoded(position: Tensor, options: PositionOptions) -> Tensor:
    """(N, dim), or (N, 0) if unused."""
    if not options.use:
        return position.new_zeros(position.shape[0], 0)
    if options.kind == "fourier":
        return fourier(position, options.dim)
    return sinusoidal(position * (N_WAVELENGTHS - 1), options.dim)
