"""What FGS1 saw, brought to the spectral bins.

Axis letters: P planets, V visits, N = 283 nodes, S width of an encoded step, K tokens of a visit.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spectramind.models.options import FusionOptions


class Fusion(nn.Module):
    """Node encodings (P, N, D), summaries (V, S) and tokens (V, K, S) of the visits to (P, N, dim).

    `planet_of_visit` (V,) tells whose visit it is. Visits of a planet are averaged: their order has no meaning.
    """

    def __init__(self, options: FusionOptions, node_dim: int, step_dim: int) -> None:
        super().__init__()
        self.kind, hidden = options.kind, options.hidden
        if options.kind == "concat":
            self.join = nn.Sequential(
                nn.Linear(node_dim + step_dim, hidden),
                nn.GELU(),
                nn.Dropout(options.dropout),
                nn.Linear(hidden, options.dim),
            )
        elif options.kind == "gated":
            self.gate = nn.Linear(node_dim + step_dim, options.dim)
            self.from_node = _projection(node_dim, options)
            self.from_step = _projection(step_dim, options)
        else:
            self.query, self.key = nn.Linear(node_dim, hidden), nn.Linear(step_dim, hidden)
            self.layers = nn.ModuleList(CrossAttention(options) for _ in range(options.n_layers))
            self.out_proj = nn.Sequential(nn.LayerNorm(hidden), nn.Linear(hidden, options.dim))

    def forward(self, nodes_PND: Tensor, summary_VS: Tensor, tokens_VKS: Tensor, planet_of_visit_V: Tensor) -> Tensor:
        if self.kind == "cross_attend":
            queries = self.query(nodes_PND)
            keys = self.key(tokens_VKS)
            for layer in self.layers:
                attended = layer(queries[planet_of_visit_V], keys)
                queries = queries + per_planet(attended, planet_of_visit_V, nodes_PND.shape[0])
            return self.out_proj(queries)
        steps = per_planet(summary_VS, planet_of_visit_V, nodes_PND.shape[0])
        joined = torch.cat([nodes_PND, steps[:, None].expand(-1, nodes_PND.shape[1], -1)], dim=-1)
        if self.kind == "concat":
            return self.join(joined)
        gate = torch.sigmoid(self.gate(joined))
        return gate * self.from_node(nodes_PND) + (1 - gate) * self.from_step(steps)[:, None]


class CrossAttention(nn.Module):
    """What queries (V, N, hidden) find among keys (V, K, hidden)."""

    def __init__(self, options: FusionOptions) -> None:
        super().__init__()
        hidden, self.heads = options.hidden, options.n_heads
        self.query_norm, self.key_norm = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        self.q, self.kv, self.out_proj = (
            nn.Linear(hidden, hidden),
            nn.Linear(hidden, 2 * hidden),
            nn.Linear(hidden, hidden),
        )
        self.dropout = nn.Dropout(options.dropout)

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        q = self.q(self.query_norm(queries)).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k, v = self.kv(self.key_norm(keys)).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.dropout(self.out_proj(attended))


def per_planet(values: Tensor, planet_of_visit_V: Tensor, planets: int) -> Tensor:
    """Mean over the visits of each planet: (V, ...) to (P, ...); zero for a planet without visits."""
    mine = planet_of_visit_V == torch.arange(planets, device=values.device)[:, None]  # P V
    weight = mine / mine.sum(dim=1, keepdim=True).clamp(min=1)
    return torch.einsum("pv,v...->p...", weight.to(values.dtype), values)


def _projection(width: int, options: FusionOptions) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(width, options.hidden), nn.GELU(), nn.Dropout(options.dropout), nn.Linear(options.hidden, options.dim)
    )
