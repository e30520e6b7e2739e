"""Encodings of a position by sines and cosines."""

from __future__ import annotations

import math

import torch
from torch import Tensor

LONGEST_PERIOD = 10_000.0


def fourier(position: Tensor, dim: int) -> Tensor:
    """Positions (N,) in [0, 1] to (N, dim): octaves from half a period over the range (Mildenhall et al. 2020)."""
    octaves = torch.arange(dim // 2, dtype=torch.float32, device=position.device)
    return _waves(position[:, None] * math.pi * 2**octaves)


def sinusoidal(position: Tensor, dim: int) -> Tensor:
    """Positions (N,) in steps to (N, dim), `dim` even: periods from 2 pi to 10,000 times that (Vaswani et al. 2017)."""
    exponents = torch.arange(dim // 2, dtype=torch.float32, device=position.device) * (2.0 / dim)
    return _waves(position[:, None] / LONGEST_PERIOD**exponents)


def _waves(phase: Tensor) -> Tensor:
    return torch.cat([phase.sin(), phase.cos()], dim=-1)
