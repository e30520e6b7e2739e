"""How much of the network goes into the prediction: as much as planets that it has not seen say, none in doubt.

Arrays are (planets, bins), transit depths.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spectramind.metrics.score import paired_bootstrap, reference_of, score_parts
from spectramind.types import Floats
from spectramind.uncertainty.options import UncertaintyOptions
from spectramind.uncertainty.scaling import cross_fit_sigma

WEIGHTS = (0.25, 0.5, 0.75, 1.0)
"""What is tried beside 0."""


@dataclass(frozen=True)
class Mixture:
    """`weight` of the network; `mean` and `sigma` of held-out planets, before scaling, each mixed with a weight that
    was chosen without its fold; `report` numbers for the metrics."""

    weight: float
    mean: Floats
    sigma: Floats
    report: Mapping[str, float]


def mix(analytic: tuple[Floats, Floats], network: tuple[Floats, Floats], weight: float) -> tuple[Floats, Floats]:
    """Mean and sigma: the means' weighted mean, the sigmas' weighted geometric mean. Weight 0 is `analytic` itself."""
    if weight == 0:
        return analytic
    mean = (1 - weight) * analytic[0] + weight * network[0]
    sigma = analytic[1] ** (1 - weight) * network[1] ** weight
    return mean, sigma


def choose_mixture(
    analytic: tuple[Floats, Floats],
    network: tuple[Floats, Floats],
    truth: Floats,
    folds: list[list[int]],
    options: UncertaintyOptions,
    seed: int,
) -> Mixture:
    """Mixture of out-of-fold predictions that scores best once its sigmas are scaled.

    A weight counts only if it beats the analytic posterior beyond the luck of the planets drawn (paired bootstrap, 95
    %). For each fold the choice is made by the others. If what is mixed that way does not beat the analytic posterior
    on all planets, the weight is 0.
    """
    reference = reference_of(truth)

    def by_planet(spectra: tuple[Floats, Floats]) -> Floats:
        sigma = cross_fit_sigma(*spectra, truth, options, seed)
        return score_parts(spectra[0], sigma, truth, *reference).by_planet

    scores = {weight: by_planet(mix(analytic, network, weight)) for weight in (0.0, *WEIGHTS)}
    everyone = np.arange(len(truth))
    weight = _chosen(scores, everyone)
    mean, sigma = analytic[0].copy(), analytic[1].copy()
    for fold in folds:
        rows = np.array(fold)
        own = _chosen(scores, np.setdiff1d(everyone, rows))
        mean[rows], sigma[rows] = mix((analytic[0][rows], analytic[1][rows]), (network[0][rows], network[1][rows]), own)
    mixed = by_planet((mean, sigma))
    if weight == 0 or mixed.mean() <= scores[0.0].mean():
        weight, (mean, sigma), mixed = 0.0, analytic, scores[0.0]
    network_gain = paired_bootstrap(scores[1.0], scores[0.0], seed=seed)
    report = {
        "network_weight": weight,
        "score_analytic": float(scores[0.0].mean()),
        "score_network": float(scores[1.0].mean()),
        "score_mixture": float(mixed.mean()),
        "network_gain": network_gain.difference,
        "network_gain_low": network_gain.low,
        "network_gain_high": network_gain.high,
    }
    return Mixture(weight, mean, sigma, report)


def _chosen(scores: Mapping[float, Floats], rows: NDArray[np.intp]) -> float:
    """The weight of the best mean score on these planets, if it wins beyond noise."""
    best = max(WEIGHTS, key=lambda weight: float(scores[weight][rows].mean()))
    return best if paired_bootstrap(scores[best][rows], scores[0.0][rows]).low > 0 else 0.0
