"""Split-conformal intervals: finite-sample coverage from planets that neither predictor nor scaling has seen.

The score of a planet and bin is |truth - mean| / sigma. With the scores of n calibrating planets and
k = ceil((n + 1) level), the interval of a new planet is mean +- q sigma, q the k-th smallest score; for k > n no finite
interval has the coverage, and q is infinite (Vovk, Gammerman & Shafer 2005; Lei et al. 2018).

What holds if the new planet and the calibrating ones are exchangeable, whatever the law of the errors:

- each bin: P(truth inside) >= level, and < level + 1 / (n + 1) without ties, on average over draws of the n planets;
- given the n planets, the coverage of new ones follows Beta(k, n + 1 - k) in each bin (`coverage_law`);
- the simultaneous band takes the largest score of a planet's bins, and holds all its bins at once likewise;
- a region of bins with one factor (`regional_quantile`): the same on average over its bins, without a promise for each.

What does not: coverage for one given planet or kind of planet, and of all bins at once by the intervals per bin.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectramind.errors import InputError
from spectramind.instruments import FGS1
from spectramind.metrics.score import require_scorable
from spectramind.models.windows import Windows, bins_inside
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


def regional_quantile(scores: Floats, level: float) -> float:
    """One factor for all bins of `scores` (n planets, bins): infinite for as few planets as in `conformal_quantile`.

    The smallest q that leaves a share `level` of the scores at or below it, those of n + 1 planets being counted and
    the missing one's above. A planet weighs one, however many its bins: for exchangeable planets the mean coverage of
    the region's bins is `level` at least (Lee, Barber & Willett 2023, arXiv:2306.06342; Dunn, Wasserman & Ramdas 2023,
    JASA 118, 2491). For one bin this is the conformal quantile.
    """
    rank = math.ceil((len(scores) + 1) * scores.shape[1] * level - ROUNDING)
    if conformal_rank(len(scores), level) > len(scores):
        return math.inf
    return float(np.partition(scores, rank - 1, axis=None)[rank - 1])


def molecule_regions(windows: Windows, n_bins: int) -> dict[str, NDArray[np.intp]]:
    """A partition of the bins by name: FGS1, the bins of each molecule's `windows` (inclusive ranges; a bin of several
    molecules goes to the first), and the other bins of AIRS, the continuum."""
    owner = np.full(n_bins, len(windows))
    owner[FGS1.spectral_slice] = -1
    for number, ranges in reversed(list(enumerate(windows.values()))):
        owner[bins_inside(ranges)] = number
    names = [FGS1.name, *windows, "continuum"]
    regions = {name: np.flatnonzero(owner == number) for number, name in enumerate(names, start=-1)}
    return {name: bins for name, bins in regions.items() if bins.size}


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

    def limits(self, mean: Floats, sigma: Floats, *, band: bool = False) -> tuple[Floats, Floats]:
        """Lower and upper limits (levels, planets, bins) that hold each bin, or all bins of a planet at once; infinite
        where no finite ones exist."""
        factor = self.band[:, None, None] if band else self.factor[:, None, :]
        return mean - factor * sigma, mean + factor * sigma


def fit_conformal(
    mean: Floats,
    sigma: Floats,
    truth: Floats,
    levels: Sequence[float],
    regions: Sequence[NDArray[np.intp]] | None = None,
) -> ConformalIntervals:
    """Intervals from predictions of calibrating planets (planets, bins), one row per planet, all its visits in it.

    Bins of one of the `regions`, a partition of the bins, share a factor; None: each bin has its own. Raises InputError
    on arrays that cannot be scored, sigmas of zero, and levels outside (0, 1).
    """
    require_scorable(mean, sigma, truth)
    if not np.all(sigma > 0):
        raise InputError("sigma of conformal intervals", "positive numbers", "zero", "Check the predictor's output.")
    scores = np.abs(truth - mean) / sigma
    if regions is None:
        factor = np.array([conformal_quantile(scores, level) for level in levels])
    else:
        factor = np.empty((len(levels), scores.shape[1]))
        for bins in regions:
            factor[:, bins] = [[regional_quantile(scores[:, bins], level)] for level in levels]
    band = np.array([conformal_quantile(scores.max(axis=1), level) for level in levels])
    return ConformalIntervals(tuple(levels), factor, band, len(truth))
