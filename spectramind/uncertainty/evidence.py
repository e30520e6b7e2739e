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
