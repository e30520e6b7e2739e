"""The training loss: the Gaussian likelihood, always, plus the symbolic rules that are active."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from spectramind.errors import InputError
from spectramind.losses import physical_rules, shape_rules
from spectramind.losses.gaussian import gaussian_loss
from spectramind.losses.options import LossOptions, Stage, SymbolicOptions
from spectramind.losses.prediction import Prediction
from spectramind.losses.spectral_axis import SpectralAxis

GAUSSIAN = "gaussian"

RULES: Mapping[str, Callable[[Prediction, SpectralAxis, Any], Tensor]] = {
    "smoothness": shape_rules.smoothness,
    "fft": shape_rules.fft_suppression,
    "total_variation": shape_rules.total_variation,
    "nonnegativity": shape_rules.nonnegativity,
    "asymmetry": physical_rules.asymmetry,
    "molecular_coherence": physical_rules.molecular_coherence,
    "seam_continuity": shape_rules.seam_continuity,
    "ratio_envelopes": physical_rules.ratio_envelopes,
    "quantile_monotonicity": shape_rules.quantile_monotonicity,
    "sigma_bounds": shape_rules.sigma_bounds,
    "molecular_fingerprint": physical_rules.molecular_fingerprint,
    "gravitational_lensing": physical_rules.gravitational_lensing,
    "photonic_alignment": physical_rules.photonic_alignment,
    "radiative_transfer": physical_rules.radiative_transfer,
}
"""Every symbolic rule, by the name of its options in `SymbolicOptions`."""


@dataclass(frozen=True)
class Target:
    """`truth` (planets, bins) depths; mean and standard deviation of all train labels, the score's reference;
    `planet_weights` (planets,) with mean 1 over the data set, or None for equal ones."""

    truth: Tensor
    train_mean: float
    train_std: float
    planet_weights: Tensor | None = None


@dataclass(frozen=True)
class Loss:
    """`total` is the sum of `parts`, one number per term, weighted; each is the sum of its map (planets, bins)."""

    total: Tensor
    parts: Mapping[str, Tensor]
    maps: Mapping[str, Tensor]


def total_loss(
    prediction: Prediction,
    target: Target,
    axis: SpectralAxis,
    options: LossOptions,
    symbolic: SymbolicOptions,
    stage: Stage = "supervised",
) -> Loss:
    """Loss of a batch, a mean over planets, in units of the official score: smaller by 0.01 is a score higher by 0.01
    as far as the Gaussian part goes.

    A rule that is off, or whose weight is 0, is not computed and leaves no trace in the result. Raises InputError
    where prediction, truth, weights and axis disagree in shape.
    """
    _require_shapes(prediction, target)
    maps = {GAUSSIAN: options.gll_weight * _gaussian(prediction, target, options)}
    if options.symbolic_weight_scale > 0:
        for name, values in penalties(prediction, axis, symbolic, stage).items():
            maps[name] = options.symbolic_weight_scale * symbolic.by_name[name].weight * values
    n_planets = prediction.mean.shape[0]
    maps = {name: _weighted(values, target.planet_weights) / n_planets for name, values in maps.items()}
    parts = {name: values.sum() for name, values in maps.items()}
    total = parts[GAUSSIAN]
    for name, part in parts.items():
        if name != GAUSSIAN:
            total = total + part
    return Loss(total, parts, maps)


def penalties(
    prediction: Prediction, axis: SpectralAxis, symbolic: SymbolicOptions, stage: Stage = "supervised"
) -> dict[str, Tensor]:
    """The penalties (planets, bins), before weighting, of the rules that are active in `stage`.

    Raises InputError unless the axis has the prediction's bins and type.
    """
    found = (prediction.mean.shape[1], prediction.mean.dtype)
    if found != (axis.n_bins, axis.continuum.dtype):
        raise InputError(
            "predicted spectra",
            f"{axis.n_bins} bins of {axis.continuum.dtype}, as the axis has",
            f"{found[0]} bins of {found[1]}",
            "Build the axis for the network's wavelengths and type.",
        )
    return {name: RULES[name](prediction, axis, rule) for name, rule in symbolic.active(stage).items()}


def _gaussian(prediction: Prediction, target: Target, options: LossOptions) -> Tensor:
    return gaussian_loss(
        prediction.mean, prediction.sigma, target.truth, target.train_mean, target.train_std, options.clip_above
    )


def _weighted(values: Tensor, planet_weights: Tensor | None) -> Tensor:
    return values if planet_weights is None else values * planet_weights[:, None]


def _require_shapes(prediction: Prediction, target: Target) -> None:
    shape = prediction.mean.shape
    if target.truth.shape != shape:
        raise InputError(
            "true spectra",
            f"the planets and bins of the prediction, shape {tuple(shape)}",
            f"shape {tuple(target.truth.shape)}",
            "Compare the same planets and bins.",
        )
    weights = target.planet_weights
    if weights is not None and weights.shape != shape[:1]:
        raise InputError(
            "weights of the planets",
            f"shape {tuple(shape[:1])}",
            f"shape {tuple(weights.shape)}",
            "Give one per planet.",
        )
