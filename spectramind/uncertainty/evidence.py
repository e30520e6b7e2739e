"""What a planet's own light curves say about the errors of its depths, without its truth.

Three numbers per instrument, from the white residuals of the transit fit: the logarithm of their scatter out of transit
over that of independent noise, and how much the halves of the transit, and several visits, differ, as ln(1 + difference
in standard errors). Numbers of several visits are averaged, the differences as root mean squares; what a fit could not
measure counts as unremarkable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from spectramind.instruments import INSTRUMENTS
from spectramind.transit.fit import RESIDUAL_TESTS
from spectramind.types import Floats

LARGEST = 3.0
"""Bound of each number: one wild light curve says no more than that it is wild."""


def evidence_of(summaries: Sequence[Mapping[str, float | None]]) -> Floats:
    """Evidence (instruments, planets, 3) from the summaries of transit fits (`PlanetFit.summary`), in which None, as
    JSON has it, stands for NaN."""
    return np.stack([[_numbers(summary, instrument.name) for summary in summaries] for instrument in INSTRUMENTS])


def evidence_response(weight: Floats, loss: Floats, evidence: Floats, scatter: float, max_factor: float) -> Floats:
    """(1 + numbers,): the b and g of a factor e^(b + x g) on the sigmas of planets with evidence x (planets, numbers).

    `weight` and `loss`, the weighted half z^2, are means over bins (planets,). The objective is convex; a normal prior
    of width `scatter`, for which a planet counts as one datum, shrinks g. Each number changes ln sigma by no more than
    ln `max_factor`.
    """
    from scipy.optimize import minimize

    design = np.column_stack([np.ones(len(weight)), evidence])
    precision = np.r_[0.0, np.full(evidence.shape[1], scatter**-2.0)] / len(weight)

    def objective(g: Floats) -> tuple[float, Floats]:
        shift = design @ g
        left = loss * np.exp(-2.0 * np.clip(shift, -_LARGEST_SHIFT, _LARGEST_SHIFT))
        slope = design.T @ (weight - 2.0 * left) / len(weight) + precision * g
        return float(np.mean(weight * shift + left) + 0.5 * precision @ g**2), slope

    bounds = [(-np.log(max_factor), np.log(max_factor))] * design.shape[1]
    fitted: Floats = minimize(objective, np.zeros(design.shape[1]), jac=True, method="L-BFGS-B", bounds=bounds).x
    return fitted


_LARGEST_SHIFT = 20.0


def _numbers(summary: Mapping[str, float | None], instrument: str) -> list[float]:
    visits = [number for number in range(len(summary)) if f"{RESIDUAL_TESTS[0]}_{instrument}_{number}" in summary]
    values = np.array([[summary[f"{name}_{instrument}_{n}"] for name in RESIDUAL_TESTS] for n in visits], float)
    known = values[np.isfinite(values).all(axis=1)] if visits else np.empty((0, 3))
    if not len(known):
        return [0.0] * len(RESIDUAL_TESTS)
    scatter = np.mean(np.log(known[:, 0]))
    differences = np.log1p(np.sqrt(np.mean(known[:, 1:] ** 2, axis=0)))
    numbers: list[float] = np.clip([scatter, *differences], -LARGEST, LARGEST).tolist()
    return numbers
