"""Selective state-space layers in plain PyTorch: Mamba-2 (SSD) and Mamba-1.

A layer carries a state h along the sequence, with step sizes dt, input B and output C that depend on the input:

    h_t = exp(dt_t A) h_{t-1} + dt_t B_t x_t        y_t = C_t h_t + D x_t

Mamba-2 (Dao & Gu 2024, arXiv:2405.21060) has one A per head, so that a block of steps becomes matrix products; Mamba-1
(Gu & Dao 2023, arXiv:2312.00752) has one per channel and state. Names and shapes of all parameters are those of
`mamba_ssm.Mamba2` and `mamba_ssm.Mamba`, so that weights load strictly both ways.

Axis letters: V visits, T steps, K chunks, Q steps of a chunk, H heads, P channels of a head, N states,
D inner channels.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from spectramind.errors import SettingsError

Scan = Literal["auto", "plain", "kernel"]

KERNEL_CHUNK = 256
"""Steps of a chunk in the Triton kernel; a processor's caches prefer the shorter chunks of `ssd`."""
DT_RANGE = (1e-3, 1e-1)
"""Step sizes at initialisation."""


def ssd(x_VTHP: Tensor, dt_VTH: Tensor, A_H: Tensor, B_VTN: Tensor, C_VTN: Tensor, chunk: int) -> Tensor:
    """y_t = C_t h_t for every step, (V, T, H, P), in chunks of `chunk` steps: linear in T, which may be any length.

    Inside a chunk the recurrence is a masked matrix product; states pass from chunk to chunk in a loop. `A` is negative
    and `dt` not, so that every exponential is at most one. Computes in float32 at least, whatever the autocast.
    """
    steps = x_VTHP.shape[1]
    dtype = torch.promote_types(x_VTHP.dtype, torch.float32)
    with torch.autocast(x_VTHP.device.type, enabled=False):
        x, dt, A, B, C = (value.to(dtype) for value in (x_VTHP, dt_VTH, A_H, B_VTN, C_VTN))
        # A step with dt = 0 leaves the state as it is, so that padding the tail changes nothing.
        u = _chunks(x * dt[..., None], chunk).transpose(2, 3)  # V K H Q P
        log_decay = _chunks(dt * A, chunk).transpose(2, 3).cumsum(-1)  # V K H Q, since the chunk's start
        B, C = _chunks(B, chunk), _chunks(C, chunk)  # V K Q N

        between = log_decay[..., :, None] - log_decay[..., None, :]  # V K H Q Q
        later = torch.ones(between.shape[-2:], dtype=torch.bool, device=x.device).triu(1)
        weight = between.masked_fill(later, -math.inf).exp() * (C @ B.transpose(-1, -2))[:, :, None]
        y = weight @ u

        to_end = (log_decay[..., -1:] - log_decay).exp()
        added = (u * to_end[..., None]).transpose(-1, -2) @ B[:, :, None]  # V K H P N
        before = _carried(log_decay[..., -1].exp(), added)
        y = y + log_decay.exp()[..., None] * (C[:, :, None] @ before.transpose(-1, -2))
        return y.transpose(2, 3).flatten(1, 2)[:, :steps]


def _chunks(value: Tensor, chunk: int) -> Tensor:
    """(V, T, ...) as (V, K, Q, ...), the tail filled with zeros."""
    fill = -value.shape[1] % chunk
    return F.pad(value, (0, 0) * (value.dim() - 2) + (0, fill)).unflatten(1, (-1, chunk))


def _carried(decay_VKH: Tensor, added_VKHPN: Tensor) -> Tensor:
    """The state before each chunk. `unbind`, since indexing in a loop makes the backward pass quadratic."""
    added = added_VKHPN.unbind(1)
    state, states = torch.zeros_like(added[0]), []
    for decay, gain in zip(decay_VKH.unbind(1), added, strict=True):
        states.append(state)
        state = decay[..., None, None] * state + gain
    return torch.stack(states, dim=1)


@cache
def ssd_kernel() -> Callable[..., Any] | None:
    """The Triton scan of mamba-ssm, or None, with a warning, where it cannot be imported. Imported on first use, since
    that takes long."""
    try:
        from mamba_ssm.ops.triton.ssd_combined import mamba_chunk_scan_combined
    except ImportError as error:
        warnings.warn(f"mamba-ssm cannot be imported ({error}): plain PyTorch scans instead, slower", stacklevel=2)
        return None
    return mamba_chunk_scan_combined


def selective_scan(x_VTD: Tensor, dt_VTD: Tensor, A_DN: Tensor, B_VTN: Tensor, C_VTN: Tensor, chunk: int) -> Tensor:
    """y_t = C_t h_t for every step, (V, T, D), step by step; states are kept at the ends of chunks of `chunk`
    steps only and computed again in the backward pass. Computes in float32 at least, whatever the autocast."""
    dtype = torch.promote_types(x_VTD.dtype, torch.float32)
    with torch.autocast(x_VTD.device.type, enabled=False):
        series = [value.to(dtype).split(chunk, dim=1) for value in (x_VTD, dt_VTD, B_VTN, C_VTN)]
        A = A_DN.to(dtype)
        state = A.new_zeros(x_VTD.shape[0], *A.shape)
        outputs = []
        for block in zip(*series, strict=True):
            y, state = checkpoint(_scan_chunk, state, A, *block, use_reentrant=False, preserve_rng_state=False)
            outputs.append(y)
        return torch.cat(outputs, dim=1)


def _scan_chunk(state: Tensor, A: Tensor, x: Tensor, dt: Tensor, B: Tensor, C: Tensor) -> tuple[Tensor, Tensor]:
    outputs = []
    for x_t, dt_t, B_t, C_t in zip(x.unbind(1), dt.unbind(1), B.unbind(1), C.unbind(1), strict=True):
        state = (dt_t[..., None] * A).exp() * state + (dt_t * x_t)[..., None] * B_t[:, None]
        outputs.append((state @ C_t[..., None]).squeeze(-1))
    return torch.stack(outputs, dim=1), state


class Mamba2(nn.Module):
    """(V, T, d_model) to the same shape, causal. Parameters as in `mamba_ssm.Mamba2` with one group.

    `scan`: "plain" is `ssd`, "kernel" the Triton kernel of mamba-ssm, "auto" the kernel on a CUDA device that has it.
    """

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int,
        d_conv: int,
        expand: int,
        headdim: int,
        chunk: int,
        scan: Scan = "auto",
    ) -> None:
        super().__init__()
        self.d_inner, self.d_state, self.headdim, self.chunk, self.scan = (
            expand * d_model,
            d_state,
            headdim,
            chunk,
            scan,
        )
        self.nheads = self.d_inner // headdim
        self.in_proj = nn.Linear(d_model, 2 * self.d_inner + 2 * d_state + self.nheads, bias=False)
        conv_dim = self.d_inner + 2 * d_state
        self.conv1d = nn.Conv1d(conv_dim, conv_dim, d_conv, groups=conv_dim, padding=d_conv - 1)
        self.dt_bias = nn.Parameter(_initial_dt_bias(self.nheads))
        self.A_log = nn.Parameter(torch.empty(self.nheads).uniform_(1, 16).log())
        self.D = nn.Parameter(torch.ones(self.nheads))
        self.norm = nn.RMSNorm(self.d_inner, eps=1e-5)
        self.out_proj = nn.Linear(self.d_inner, d_model, bias=False)

    def forward(self, u_VTd: Tensor) -> Tensor:
        z, xBC, dt = self.in_proj(u_VTd).split([self.d_inner, self.d_inner + 2 * self.d_state, self.nheads], dim=-1)
        xBC = F.silu(_causal(self.conv1d, xBC))
        x, B, C = xBC.split([self.d_inner, self.d_state, self.d_state], dim=-1)
        x_VTHP = x.unflatten(-1, (self.nheads, self.headdim))
        dtype = torch.promote_types(x.dtype, torch.float32)
        dt, A = F.softplus(dt.to(dtype) + self.dt_bias), -self.A_log.to(dtype).exp()
        y = self._scan(x_VTHP, dt, A, B, C).to(dtype) + self.D[:, None] * x_VTHP
        return self.out_proj(self.norm(y.flatten(2) * F.silu(z.to(dtype))).to(u_VTd.dtype))

    def _scan(self, x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
        kernel = ssd_kernel() if self.scan == "kernel" or (self.scan == "auto" and x.is_cuda) else None
        if kernel is not None:
            return kernel(x, dt, A, B[:, :, None], C[:, :, None], chunk_size=KERNEL_CHUNK)
        if self.scan == "kernel":
            raise SettingsError("model.ssm.scan=kernel: mamba-ssm cannot be imported; install the extra `gpu`")
        return ssd(x, dt, A, B, C, self.chunk)


class Mamba1(nn.Module):
    """(V, T, d_model) to the same shape, causal. Parameters as in `mamba_ssm.Mamba`."""

    def __init__(self, d_model: int, *, d_state: int, d_conv: int, expand: int, chunk: int) -> None:
        super().__init__()
        self.d_inner, self.d_state, self.dt_rank, self.chunk = expand * d_model, d_state, math.ceil(d_model / 16), chunk
        self.in_proj = nn.Linear(d_model, 2 * self.d_inner, bias=False)
        self.conv1d = nn.Conv1d(self.d_inner, self.d_inner, d_conv, groups=self.d_inner, padding=d_conv - 1)
        self.x_proj = nn.Linear(self.d_inner, self.dt_rank + 2 * d_state, bias=False)
        self.dt_proj = nn.Linear(self.dt_rank, self.d_inner)
        with torch.no_grad():
            self.dt_proj.weight.uniform_(-(self.dt_rank**-0.5), self.dt_rank**-0.5)
            self.dt_proj.bias.copy_(_initial_dt_bias(self.d_inner))
        self.A_log = nn.Parameter(torch.arange(1.0, d_state + 1).log().repeat(self.d_inner, 1))
        self.D = nn.Parameter(torch.ones(self.d_inner))
        self.out_proj = nn.Linear(self.d_inner, d_model, bias=False)

    def forward(self, u_VTd: Tensor) -> Tensor:
        x, z = self.in_proj(u_VTd).chunk(2, dim=-1)
        x = F.silu(_causal(self.conv1d, x))
        low_rank, B, C = self.x_proj(x).split([self.dt_rank, self.d_state, self.d_state], dim=-1)
        dtype = torch.promote_types(x.dtype, torch.float32)
        dt = F.softplus(F.linear(low_rank, self.dt_proj.weight).to(dtype) + self.dt_proj.bias)
        y = selective_scan(x, dt, -self.A_log.to(dtype).exp(), B, C, self.chunk) + self.D * x
        return self.out_proj((y * F.silu(z.to(dtype))).to(u_VTd.dtype))


def _initial_dt_bias(count: int) -> Tensor:
    """Values whose softplus is log-uniform in `DT_RANGE`."""
    low, high = (math.log(dt) for dt in DT_RANGE)
    dt = torch.empty(count).uniform_(low, high).exp()
    return dt + torch.log(-torch.expm1(-dt))


def _causal(conv: nn.Conv1d, x_VTD: Tensor) -> Tensor:
    """Depthwise convolution over the present and the steps before it."""
    return conv(x_VTD.transpose(1, 2))[..., : x_VTD.shape[1]].transpose(1, 2)
