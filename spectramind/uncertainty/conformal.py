"""Split-conformal intervals: finite-sample coverage from planets that neither predictor nor scaling has seen.

The score of a planet and bin is |truth - mean| / sigma. With the scores of n calibrating planets and
k = ceil((n + 1) level), the interval of a new planet is mean +- q sigma, q the k-th smallest score; for k > n no finite
interval has the coverage, and q is infinite (Vovk, Gammerman & Shafer 2005; Lei et al. 2018).

What holds if the new planet and the calibrating ones are exchangeable, whatever the law of the errors:

- each bin: P(truth inside) >= level, and < level + 1 / (n + 1) without ties, on average over draws of the n planets;
- given the n planets, the coverage of new ones follows Beta(k, n + 1 - k) in each bin (`coverage_law`);
- the simultaneous band takes the largest score of a planet's bins, and holds all its bins at once likewise.

What does not: coverage for one given planet or kind of planet, and of all bins at once by the intervals per bin.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from spectramind.errors import InputError
from spectramind.metrics.score import require_scorable
from spectramind.types import Floats

ROUNDING = 1e-9
"""(n + 1) level may miss an integer by rounding: 110 * 0.9 is above 99."""


def conformal_rank(n: int, level: float) -> int:
    """k = ceil((n + 1) level): above n where n planets are too few for the level. Raises InputError outside (0, 1)."""
    if not 0.0 < level < 1.0:
        raise InputError("level of an interval", "a number between 0 and 1", str(level), "Write 0.9 for 90 %.")
    return math.ceil((n + 1) * level - ROUNDING)


def conformal_quantile(scores: Floats, level: float) -> Floats:
    """The k-th smallest of `scores` (n, ...) along the first axis, infinite if k > n."""
    n = len(scores)
    k = conformal_rank(n, level)
    if k > n:
        return np.full(scores.shape[1:], np.inf)
    quantile: Floats = np.partition(scores, k - 1, axis=0)[k - 1]
    return quantile


def coverage_law(n: int, level: float) -> Any:
    """The law of the coverage of new planets given n calibrating ones: SciPy's frozen Beta(k, n + 1 - k).

    Raises InputError where k > n: the infinite interval covers everything.
    """
    from scipy.stats import beta

    k = conformal_rank(n, level)
    if k > n:
        raise InputError(
            f"interval of level {level:g}",
            f"{math.ceil(level / (1.0 - level) - ROUNDING)} calibrating planets or more",
            str(n),
            "Use more planets.",
        )
    return beta(k, n + 1 - k)


@dataclass(frozen=True)
class ConformalIntervals:
    """Half-widths in sigmas: `factor` (levels, bins) for each bin alone, `band` (levels,) for all bins at once; from
    `n_planets` calibrating planets."""

    levels: tuple[float, ...]
    factor: Floats
    band: Floats
    n_planets: int

    def intervals(self, mean: Floats, sigma: Floats) -> tuple[Floats, Floats]:
        """Lower and upper limits (levels, planets, bins) that hold each bin; infinite where no finite ones exist."""
        return _limits(mean, self.factor[:, None, :] * sigma)

    def bands(self, mean: Floats, sigma: Floats) -> tuple[Floats, Floats]:
        """Lower and upper limits (levels, planets, bins) that hold all bins of a planet at once."""
        return _limits(mean, self.band[:, None, None] * sigma)


def fit_conformal(mean: Floats, sigma: Floats, truth: Floats, levels: Sequence[float]) -> ConformalIntervals:
    """Intervals from predictions of calibrating planets (planets, bins), one row per planet, all its visits in it.

    Raises InputError on arrays that cannot be scored, sigmas of zero, and levels outside (0, 1).
    """
    require_scorable(mean, sigma, truth)
    if not np.all(sigma > 0):
        raise InputError("sigma of conformal intervals", "positive numbers", "zero", "Check the predictor's output.")
    scores = np.abs(truth - mean) / sigma
    factor = np.array([conformal_quantile(scores, level) for level in levels])
    band = np.array([conformal_quantile(scores.max(axis=1), level) for level in levels])
    return ConformalIntervals(tuple(levels), factor, band, len(truth))


def _limits(mean: Floats, half_width: Floats) -> tuple[Floats, Floats]:
    return mean - half_width, mean + half_width
