"""From a rule's violation, in the rule's unit, to its penalty."""

from __future__ import annotations

import torch
from torch import Tensor

from spectramind.losses.options import Mode

PPM = 1e-6


def size_penalty(size: Tensor, mode: Mode) -> Tensor:
    """Of something that should be small, in units of its usual size: its square, or what exceeds one unit."""
    return size**2 if mode == "soft" else torch.relu(size.abs() - 1.0)


def bound_penalty(excess: Tensor, mode: Mode, power: float = 2.0) -> Tensor:
    """Of how far a bound is crossed (negative inside): the power of it, or itself.

    The linear penalty is exact: with a weight above the constraint's multiplier its minimum keeps the bound (Nocedal &
    Wright 2006, Numerical Optimization, section 17.2).
    """
    crossed = torch.relu(excess)
    return crossed**power if mode == "soft" else crossed
