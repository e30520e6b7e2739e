"""Optimisers and the course of their step size."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from spectramind.training.options import OptimizerOptions


class _Lookahead:
    """A hook of an optimiser by which slow weights follow the fast ones (Zhang et al. 2019, NeurIPS 32).

    The slow weights are kept in the optimiser's groups of parameters, and so in its checkpoints.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, steps: int, alpha: float) -> None:
        self.steps, self.alpha = steps, alpha
        for group in optimizer.param_groups:
            group["slow"], group["since"] = [parameter.detach().clone() for parameter in group["params"]], 0
        optimizer.register_step_post_hook(self)

    @torch.no_grad()
    def __call__(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        for group in optimizer.param_groups:
            group["since"] += 1
            if group["since"] % self.steps == 0:
                for parameter, slow in zip(group["params"], group["slow"], strict=True):
                    parameter.lerp_(slow.to(parameter.device), 1 - self.alpha)
                    slow.copy_(parameter)


def build_optimizer(parameters: Iterable[nn.Parameter], options: OptimizerOptions) -> torch.optim.Optimizer:
    """The optimiser that `options` name."""
    optimizer: torch.optim.Optimizer
    if options.name == "adamw":
        optimizer = torch.optim.AdamW(
            parameters, options.lr, betas=options.betas, eps=options.eps, weight_decay=options.weight_decay
        )
    else:
        optimizer = torch.optim.SGD(
            parameters,
            options.lr,
            momentum=options.momentum,
            weight_decay=options.weight_decay,
            nesterov=options.momentum > 0,
        )
    if options.lookahead_steps:
        _Lookahead(optimizer, options.lookahead_steps, options.lookahead_alpha)
    return optimizer


def warmup_cosine(optimizer: torch.optim.Optimizer, options: OptimizerOptions, steps: int) -> LambdaLR:
    """Scheduler per step over `steps` in all."""
    return LambdaLR(optimizer, learning_rate_factor(options, steps))


def learning_rate_factor(options: OptimizerOptions, steps: int) -> Callable[[int], float]:
    """Step size at a step as a share of `options.lr`: a linear rise over the warm-up, then half a cosine down to
    `min_lr` at the last step."""
    warmup = min(options.warmup_steps, round(options.warmup_share * steps))
    lowest = options.min_lr / options.lr

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        progress = min((step - warmup) / max(steps - 1 - warmup, 1), 1.0)
        return lowest + (1.0 - lowest) * 0.5 * (1.0 + math.cos(math.pi * progress))

    return factor
