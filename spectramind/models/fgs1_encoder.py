"""Encoder of the FGS1 sequence: residual layers of Mamba in both directions, or of a transformer.

Axis letters: V visits, T steps, d width of a layer, S width of the encoding.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from spectramind.models.network_inputs import FGS1_CHANNELS
from spectramind.models.options import SSMOptions
from spectramind.models.positions import sinusoidal
from spectramind.models.ssm import Mamba1, Mamba2

FEED_FORWARD = 4
"""Inner width of a transformer's feed-forward part, in widths."""


class FGS1Encoder(nn.Module):
    """Sequences (V, T, 6) of the channels in `FGS1_CHANNELS` to the encoding of every step (V, T, S).

    A visit has `n_steps` (V,) steps; what comes after is padding, which no other step's encoding depends on.
    """

    def __init__(self, options: SSMOptions) -> None:
        super().__init__()
        self.options = options
        self.in_proj = nn.Linear(len(FGS1_CHANNELS), options.d_model)
        layer = TransformerLayer if options.kind == "transformer" else MambaLayer
        self.layers = nn.ModuleList(layer(options) for _ in range(options.n_layers))
        self.norm = _norm(options)
        self.out_proj = nn.Linear(options.d_model, options.proj_out)

    def forward(self, x_VTC: Tensor, n_steps_V: Tensor) -> Tensor:
        steps = torch.arange(x_VTC.shape[1], device=x_VTC.device)
        last = n_steps_V[:, None] - 1
        backwards = torch.where(steps <= last, last - steps, steps)  # V T
        x = self.in_proj(x_VTC).to(self.in_proj.weight.dtype)  # layers add up in full precision, whatever the autocast
        if self.options.kind == "transformer":
            x = x + sinusoidal(steps, self.options.d_model).to(x)
        for layer in self.layers:
            if self.training and x.shape[1] > self.options.checkpoint_steps:
                x = checkpoint(layer, x, backwards, n_steps_V, use_reentrant=False)
            else:
                x = layer(x, backwards, n_steps_V)
        return self.out_proj(self.norm(x))


class MambaLayer(nn.Module):
    """x + dropout(fwd(norm(x)) + bwd of the reversed sequence)."""

    def __init__(self, options: SSMOptions) -> None:
        super().__init__()
        self.norm = _norm(options)
        self.fwd = mamba_layer(options)
        self.bwd = mamba_layer(options) if options.bidirectional else None
        self.dropout = nn.Dropout(options.dropout)

    def forward(self, x_VTd: Tensor, backwards_VT: Tensor, n_steps_V: Tensor) -> Tensor:
        normed = self.norm(x_VTd)
        y = self.fwd(normed)
        if self.bwd is not None:
            y = y + _reordered(self.bwd(_reordered(normed, backwards_VT)), backwards_VT)
        return x_VTd + self.dropout(y)


class TransformerLayer(nn.Module):
    """Attention among all steps of a visit, then a feed-forward part, both residual."""

    def __init__(self, options: SSMOptions) -> None:
        super().__init__()
        self.heads = options.d_model // options.head_dim
        self.attention_norm, self.norm = _norm(options), _norm(options)
        self.qkv = nn.Linear(options.d_model, 3 * options.d_model)
        self.out_proj = nn.Linear(options.d_model, options.d_model)
        inner = FEED_FORWARD * options.d_model
        self.feed_forward = nn.Sequential(
            nn.Linear(options.d_model, inner), nn.GELU(), nn.Linear(inner, options.d_model)
        )
        self.dropout = nn.Dropout(options.dropout)

    def forward(self, x_VTd: Tensor, backwards_VT: Tensor, n_steps_V: Tensor) -> Tensor:
        steps = torch.arange(x_VTd.shape[1], device=x_VTd.device)
        seen = (steps < n_steps_V[:, None])[:, None, None]
        qkv = self.qkv(self.attention_norm(x_VTd)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=seen).transpose(1, 2).flatten(2)
        x = x_VTd + self.dropout(self.out_proj(attended))
        return x + self.dropout(self.feed_forward(self.norm(x)))


def summary(encoding_VTS: Tensor, n_steps_V: Tensor) -> Tensor:
    """Mean encoding of each visit's steps (V, S)."""
    steps = torch.arange(encoding_VTS.shape[1], device=encoding_VTS.device)
    weight = (steps < n_steps_V[:, None]).to(encoding_VTS.dtype) / n_steps_V[:, None]
    return torch.einsum("vts,vt->vs", encoding_VTS, weight)


def tokens(encoding_VTS: Tensor, n_steps_V: Tensor, count: int) -> Tensor:
    """Means of `count` equal parts of each visit's steps (V, count, S)."""
    visits = zip(encoding_VTS.unbind(0), n_steps_V.tolist(), strict=True)
    return torch.stack([F.adaptive_avg_pool1d(steps[:n].T, count).T for steps, n in visits])


def mamba_layer(options: SSMOptions) -> nn.Module:
    """One direction of a layer, as `options` name it."""
    if options.kind == "mamba1":
        return Mamba1(
            options.d_model,
            d_state=options.d_state,
            d_conv=options.d_conv,
            expand=options.expand,
            chunk=options.chunk,
        )
    return Mamba2(
        options.d_model,
        d_state=options.d_state,
        d_conv=options.d_conv,
        expand=options.expand,
        headdim=options.head_dim,
        chunk=options.chunk,
        scan=options.scan,
    )


def _norm(options: SSMOptions) -> nn.Module:
    return nn.RMSNorm(options.d_model, eps=1e-5) if options.layer_norm == "rms" else nn.LayerNorm(options.d_model)


def _reordered(x_VTd: Tensor, order_VT: Tensor) -> Tensor:
    return x_VTd.gather(1, order_VT[..., None].expand_as(x_VTd))
