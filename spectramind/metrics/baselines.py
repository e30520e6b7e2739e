"""What a score is to be compared with: naive predictions below, the score of honest errors above.

Arrays are (planets, bins), transit depths (Rp/Rs)^2.
"""

from __future__ import annotations

import numpy as np

from spectramind.errors import InputError
from spectramind.metrics.score import bin_weights, ideal_sigmas, likelihood_span, reference_of
from spectramind.types import Floats


def train_mean_baseline(labels: Floats, n_planets: int) -> tuple[Floats, Floats]:
    """Mean and sigma (n_planets, bins) of the score's own reference: it scores exactly 0."""
    mean, std = reference_of(labels)
    shape = (n_planets, labels.shape[1])
    return np.full(shape, mean), np.full(shape, std)


def mean_depth_baseline(train_depth: Floats, labels: Floats, depth: Floats) -> tuple[Floats, Floats]:
    """A flat spectrum at each planet's mean depth with one constant sigma: mean and sigma (planets, bins).

    `train_depth` (train planets,) are the estimated mean depths of the planets of `labels`, from held-out fits, `depth`
    (planets,) those of the planets to predict. The sigma is the one that maximises the 2025 score on the train planets.
    Raises InputError if depths and labels do not match or are negative.
    """
    if train_depth.shape != (len(labels),) or depth.ndim != 1 or np.any(train_depth < 0) or np.any(depth < 0):
        raise InputError(
            "mean-depth baseline",
            f"{len(labels)} train depths and a row of depths, none negative",
            f"shapes {train_depth.shape} and {depth.shape}",
            "Give one estimated depth per planet.",
        )
    weight = bin_weights(labels.shape[1]) / likelihood_span(labels, *reference_of(labels))
    sigma = float(np.sqrt(np.average((labels - train_depth[:, None]) ** 2, weights=weight)))
    shape = (depth.size, labels.shape[1])
    return np.broadcast_to(depth[:, None], shape).copy(), np.full(shape, sigma)


def expected_score(
    sigma: Floats, depth: Floats, train_mean: float, train_std: float, error_sigma: Floats | None = None
) -> float:
    """Expected 2025 score, unclipped, if the errors are exactly N(0, error_sigma^2) and `sigma` is stated.

    `sigma`, `error_sigma` broadcast to the shape of `depth` (planets, bins). Without `error_sigma` the errors are as
    large as stated: the score that a prediction expects of itself (of a covariance, only the diagonal counts). `depth`
    is the truth, or the predicted mean where the truth is hidden: L_ref changes little between the two.
    """
    stated = np.broadcast_to(sigma, depth.shape)
    z2 = 1.0 if error_sigma is None else (np.broadcast_to(error_sigma, depth.shape) / stated) ** 2
    n_bins = depth.shape[1]
    loss = (np.log(stated / ideal_sigmas(n_bins)) + 0.5 * z2) / likelihood_span(depth, train_mean, train_std)
    return float(np.mean(np.average(1.0 - loss, axis=1, weights=bin_weights(n_bins))))
