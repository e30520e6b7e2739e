"""The last step before the conformal one: a factor on a planet's widths by what its own light curves say of it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spectramind.corel.train import LARGEST_Z
from spectramind.instruments import INSTRUMENTS
from spectramind.types import Floats
from spectramind.uncertainty.evidence import evidence_response

SCATTER = 0.3
"""Expected size, in ln(width), of what a unit of evidence changes: as that of the sigma scaling."""
LARGEST_FACTOR = 20.0


def fit_instance(
    ratio: Floats, evidence: Floats, taught: NDArray[np.intp], choosing: NDArray[np.intp]
) -> tuple[Floats, float]:
    """The response (instruments, numbers) fitted on the planets `taught`, and what the planets `choosing` gain by it,
    in nats per bin of a normal law.

    `ratio` (planets, bins): errors about the median over the width; `evidence` (instruments, planets, numbers). The
    gain is beside a constant factor, which the conformal step makes anyway.
    """
    responses, gain = [], 0.0
    for instrument, own in zip(INSTRUMENTS, evidence, strict=True):
        limited = np.clip(ratio[:, instrument.spectral_slice], -LARGEST_Z, LARGEST_Z)
        half = 0.5 * np.mean(limited**2, axis=1)
        weight = np.ones(len(taught))
        fitted = evidence_response(weight, half[taught], own[taught], SCATTER, LARGEST_FACTOR)
        constant = evidence_response(weight, half[taught], own[taught][:, :0], SCATTER, LARGEST_FACTOR)
        before, after = constant[0], fitted[0] + own[choosing] @ fitted[1:]
        gain += instrument.n_bins / ratio.shape[1] * (_loss(before, half[choosing]) - _loss(after, half[choosing]))
        responses.append(fitted[1:])
    return np.stack(responses), gain


def stretched(quantiles: Floats, median: int, evidence: Floats, response: Floats) -> Floats:
    """Quantiles (planets, levels, bins), their distances from that of number `median` times e^(x g)."""
    middle = quantiles[:, median : median + 1]
    wider = quantiles.copy()
    for instrument, own, g in zip(INSTRUMENTS, evidence, response, strict=True):
        bins = instrument.spectral_slice
        factor = np.exp(own @ g)[:, None, None]
        wider[..., bins] = middle[..., bins] + factor * (quantiles - middle)[..., bins]
    return wider


def _loss(shift: Floats | float, half: Floats) -> float:
    """ln of the width plus half the squared error over it, mean over planets."""
    return float(np.mean(shift + half * np.exp(-2.0 * np.asarray(shift))))
