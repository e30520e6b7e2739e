"""The Gaussian log likelihood on the scale of the official score, differentiable and unclipped."""

from __future__ import annotations

import torch
from torch import Tensor

from spectramind.metrics.score import bin_weights, ideal_sigmas


def gaussian_loss(
    mean: Tensor, sigma: Tensor, truth: Tensor, train_mean: float, train_std: float, clip_above: float | None = None
) -> Tensor:
    """1 - r by planet and bin, times the bin's share of the 2025 score (planets, bins).

    r = (L_pred - L_ref) / (L_ideal - L_ref) as in `spectramind.metrics.score`. The sum over bins is 1 minus the
    planet's unclipped score: 0 for the ideal prediction, 1 for the train mean with the train standard deviation.
    `mean`, `sigma` > 0, `truth` (planets, bins); `train_mean`, `train_std` of all train labels. Above `clip_above` the
    loss of a bin, before its share, saturates smoothly towards twice that value.
    """
    n_bins = truth.shape[1]
    ideal = torch.as_tensor(ideal_sigmas(n_bins), dtype=mean.dtype, device=mean.device)
    weights = torch.as_tensor(bin_weights(n_bins), dtype=mean.dtype, device=mean.device)
    span = torch.log(train_std / ideal) + 0.5 * ((truth - train_mean) / train_std) ** 2
    loss = (torch.log(sigma / ideal) + 0.5 * ((truth - mean) / sigma) ** 2) / span
    if clip_above is not None:
        loss = saturate(loss, clip_above)
    return loss * (weights / weights.sum())


def saturate(loss: Tensor, knee: float) -> Tensor:
    """`loss` up to `knee`; beyond, a curve of the same slope at the knee that approaches twice the knee.

    The whole loss of a bin is bounded, width term included: were only z^2 bounded, shrinking sigma would pay for
    outliers.
    """
    return loss.clamp(max=knee) - knee * torch.expm1(-torch.relu(loss - knee) / knee)
