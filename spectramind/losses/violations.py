"""Which planets and bins break which rule, how the rules pull on the spectrum, and what retraining makes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata

from spectramind.losses.options import LossOptions, Stage, SymbolicOptions
from spectramind.losses.prediction import Prediction
from spectramind.losses.spectral_axis import SpectralAxis
from spectramind.losses.total import Target, penalties, total_loss
from spectramind.types import Floats

NO_BIN = -1


@dataclass(frozen=True)
class Violations:
    """Penalties before weighting: `by_bin` (rules, planets, bins), `penalty` (planets, rules) its sum over bins,
    `worst_bin` (planets, rules) where it is largest, `NO_BIN` for a rule that is kept."""

    rules: tuple[str, ...]
    by_bin: Floats
    penalty: Floats
    worst_bin: NDArray[np.int64]


def violations(
    prediction: Prediction, axis: SpectralAxis, symbolic: SymbolicOptions, stage: Stage = "supervised"
) -> Violations:
    """The rules that are active in `stage`, applied to each planet."""
    with torch.no_grad():
        maps = {name: _array(values) for name, values in penalties(prediction, axis, symbolic, stage).items()}
    by_bin = np.array(list(maps.values())).reshape(len(maps), *prediction.mean.shape)
    worst = np.where(by_bin.max(axis=2) > 0, by_bin.argmax(axis=2), NO_BIN)
    return Violations(tuple(maps), by_bin, by_bin.sum(axis=2).T, worst.T)


def sample_weights(table: Violations, symbolic: SymbolicOptions) -> Floats:
    """Weights of the planets (planets,) in a training that is to mend what the table tells, with mean 1.

    A planet's violation is the weighted sum of its penalties. It enters by rank, so that one absurd spectrum does not
    take all the weight: before scaling, the planet that breaks the rules least weighs 1, the one that does most 1 +
    `retraining_strength`, and planets with equal violations weigh the same.
    """
    by_name = symbolic.by_name
    violation = table.penalty @ np.array([by_name[name].weight for name in table.rules])
    rank = rankdata(violation, method="min") - 1.0
    raised = 1.0 + symbolic.retraining_strength * rank / max(violation.size - 1, 1)
    weights: Floats = raised / raised.mean()
    return weights


def influence_maps(
    prediction: Prediction,
    target: Target,
    axis: SpectralAxis,
    options: LossOptions,
    symbolic: SymbolicOptions,
    stage: Stage = "supervised",
) -> Mapping[str, Floats]:
    """dL/dmu by planet and bin (planets, bins) of each term, the Gaussian one included: by how much the planet's own
    loss, as weighted in the total, rises per ppm of depth."""
    mean = prediction.mean.detach().requires_grad_()
    loss = total_loss(replace(prediction, mean=mean), target, axis, options, symbolic, stage)
    per_ppm = mean.shape[0] * 1e-6
    influence = {}
    for name, part in loss.parts.items():
        gradient = torch.zeros_like(mean)
        if part.requires_grad:
            (gradient,) = torch.autograd.grad(part, mean, retain_graph=True, materialize_grads=True)
        influence[name] = per_ppm * _array(gradient)
    return influence


def _array(values: torch.Tensor) -> Floats:
    array: Floats = values.double().cpu().numpy()
    return array
