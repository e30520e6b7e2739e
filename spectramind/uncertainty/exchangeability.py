"""Do two sets of planets look like draws from one population? Only observed numbers are compared, never spectra.

The test is that of the energy distance (Székely & Rizzo 2013) on normal scores of the pooled ranks, so that neither
units nor outliers matter, with a permutation p-value, which is valid for any number of planets. Single columns are
compared by the Kolmogorov-Smirnov test, corrected by Holm's method, to name what differs. A large p-value is no proof
of exchangeability: with few planets only gross differences show.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spectramind.errors import InputError
from spectramind.types import Floats

MOST_PLANETS = 3000
"""Of both sets together: distances of all pairs are kept in memory. Larger sets are drawn from."""


@dataclass(frozen=True)
class ExchangeabilityTest:
    """`p_value` of the energy test, the `least_p_value` that so few planets and permutations can give, the planets of
    each set, the columns compared, and Holm-corrected p-values of single columns, smallest first."""

    p_value: float
    least_p_value: float
    n_first: int
    n_second: int
    columns: tuple[str, ...]
    column_p_values: Mapping[str, float]


def compare_populations(
    first: Floats, second: Floats, columns: Sequence[str], *, seed: int = 0, permutations: int = 999
) -> ExchangeabilityTest:
    """Compare `first` (n, columns) with `second` (m, columns). Columns with one value only say nothing and are left
    out; a missing number (NaN) counts as the column's median. Raises InputError without two planets in each set."""
    if min(len(first), len(second)) < 2 or first.shape[1:] != second.shape[1:] or first.shape[1] != len(columns):
        raise InputError(
            "sets of planets to be compared",
            f"two planets or more in each, {len(columns)} numbers per planet",
            f"shapes {first.shape} and {second.shape}",
            "Compare larger sets.",
        )
    from scipy.special import comb

    rng = np.random.default_rng(seed)
    pooled, is_first = np.vstack([first, second]), np.arange(len(first) + len(second)) < len(first)
    varied = [number for number in range(len(columns)) if np.unique(pooled[:, number]).size > 1]
    scores = _normal_scores(pooled[:, varied])
    names = tuple(columns[number] for number in varied)
    drawn = np.sort(rng.permutation(len(scores))[:MOST_PLANETS])
    p_value = _energy_p_value(scores[drawn], is_first[drawn], rng, permutations) if varied else 1.0
    same = 2.0 if len(first) == len(second) else 1.0  # sets of equal size may swap their names
    least = max(1.0 / (permutations + 1), same / float(comb(len(scores), len(first))))
    return ExchangeabilityTest(
        p_value, least, len(first), len(second), names, _column_p_values(scores, is_first, names)
    )


def _normal_scores(values: Floats) -> Floats:
    from scipy.special import ndtri
    from scipy.stats import rankdata

    known = np.where(np.isfinite(values), values, np.nan)
    filled = np.where(np.isnan(known), np.nanmedian(known, axis=0), known)
    scores: Floats = ndtri(rankdata(filled, axis=0) / (len(values) + 1))
    return scores


def _energy_p_value(scores: Floats, is_first: NDArray[np.bool_], rng: np.random.Generator, permutations: int) -> float:
    """The share of relabellings, the true one included, with an energy distance as large."""
    from scipy.spatial.distance import pdist, squareform

    distance = squareform(pdist(scores))
    labels = np.array([is_first, *(rng.permutation(is_first) for _ in range(permutations))], dtype=float)
    n, m = labels[0].sum(), (1.0 - labels[0]).sum()
    # Weights +1/n and -1/m: minus the quadratic form is the energy distance.
    weights = labels / n - (1.0 - labels) / m
    energy = -np.sum(weights @ distance * weights, axis=1)
    return float(np.mean(energy >= energy[0] * (1.0 - 1e-12)))


def _column_p_values(scores: Floats, is_first: NDArray[np.bool_], names: Sequence[str]) -> dict[str, float]:
    from scipy.stats import ks_2samp

    found = {
        name: float(ks_2samp(column[is_first], column[~is_first]).pvalue)
        for name, column in zip(names, scores.T, strict=True)
    }
    corrected, least = {}, 0.0
    for number, (name, p_value) in enumerate(sorted(found.items(), key=lambda item: item[1])):
        least = max(least, min(1.0, p_value * (len(found) - number)))
        corrected[name] = least
    return corrected
