"""Coverage of predictions of planets that the predictor had not seen, with the limits that exact theory sets.

An interval of level q is mean +- z(q) sigma, z the normal quantile. If the sigmas are honest, the number of n planets
whose truth lies inside is binomial in each bin. Its tail probabilities are incomplete Beta functions; `accept_low` and
`accept_high` are the extreme fractions that honest sigmas show with 95 % probability, for the bins in all 283 at once
(Bonferroni). `low` and `high` limit the true coverage (Clopper & Pearson 1934, Beta quantiles). An instrument's
coverage is the mean over planets and bins, tested as if a planet were one trial: exact for FGS1, cautious for AIRS,
whose bins share their errors. Arrays are (planets, bins).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from spectramind.instruments import INSTRUMENTS
from spectramind.metrics.score import require_scorable
from spectramind.metrics.statistics import COVERAGE_LEVELS
from spectramind.types import Floats
from spectramind.uncertainty.conformal import conformal_rank, coverage_law, fit_conformal

ERROR_RATE = 0.05
"""Probability with which honest sigmas leave a test's limits."""


@dataclass(frozen=True)
class Coverage:
    """Fraction `observed` inside intervals of a level, limits of the true coverage (`low`, `high`), and the fractions
    between which honest sigmas stay (`accept_low`, `accept_high`)."""

    observed: float
    low: float
    high: float
    accept_low: float
    accept_high: float

    @property
    def verdict(self) -> str:
        """ "too low": sigmas are too small; "too high": too large; "consistent" with honest sigmas."""
        if self.observed < self.accept_low - _ROUNDING:
            return "too low"
        return "too high" if self.observed > self.accept_high + _ROUNDING else "consistent"


@dataclass(frozen=True)
class SimultaneousCoverage:
    """All bins of a planet at once: the fraction of planets wholly inside mean +- z(q) sigma, which promises nothing of
    the kind, with limits `low`, `high` of the true fraction; the `factor` for which mean +- factor sigma holds all bins
    with probability q by split-conformal theory (None: infinite, too few planets), and the range in which 90 % of such
    factors' coverage of new planets lies."""

    observed: float
    low: float
    high: float
    factor: float | None
    coverage_range: tuple[float, float] | None


@dataclass(frozen=True)
class LevelCoverage:
    """Coverage at one level: `instruments` by name, `bins` in order, all `simultaneous`."""

    level: float
    instruments: dict[str, Coverage]
    bins: tuple[Coverage, ...]
    simultaneous: SimultaneousCoverage

    def to_json(self) -> dict[str, Any]:
        """Plain numbers, with verdicts."""
        return {
            "level": self.level,
            "instruments": {name: _with_verdict(found) for name, found in self.instruments.items()},
            "bins": [_with_verdict(found) for found in self.bins],
            "bins_outside": [f"wl_{n + 1}" for n, found in enumerate(self.bins) if found.verdict != "consistent"],
            "simultaneous": asdict(self.simultaneous),
        }


def certify_coverage(
    mean: Floats, sigma: Floats, truth: Floats, levels: Sequence[float] = COVERAGE_LEVELS
) -> tuple[LevelCoverage, ...]:
    """Coverage at each of `levels` of predictions of unseen planets. Raises InputError on what cannot be scored and on
    sigmas of zero."""
    from scipy.special import ndtri

    require_scorable(mean, sigma, truth)
    n_planets, n_bins = truth.shape
    bands = fit_conformal(mean, sigma, truth, levels).band
    found = []
    for level, band in zip(levels, bands, strict=True):
        inside = np.abs(truth - mean) <= ndtri(0.5 + 0.5 * level) * sigma
        instruments = {
            instrument.name: _coverage(float(inside[:, instrument.spectral_slice].mean()), n_planets, level, 1)
            for instrument in INSTRUMENTS
        }
        bins = tuple(_coverage(float(share), n_planets, level, n_bins) for share in inside.mean(axis=0))
        whole = _coverage(float(inside.all(axis=1).mean()), n_planets, level, 1)
        finite = conformal_rank(n_planets, level) <= n_planets
        limits = coverage_law(n_planets, level).ppf([0.05, 0.95]) if finite else None
        simultaneous = SimultaneousCoverage(
            *(whole.observed, whole.low, whole.high),
            factor=float(band) if finite else None,
            coverage_range=None if limits is None else (float(limits[0]), float(limits[1])),
        )
        found.append(LevelCoverage(level, instruments, bins, simultaneous))
    return tuple(found)


def _coverage(observed: float, n: int, level: float, tests: int) -> Coverage:
    from scipy.stats import beta, binom

    tail = 0.5 * ERROR_RATE / tests
    hits = observed * n
    low = float(beta.ppf(tail, hits, n - hits + 1)) if hits > 0 else 0.0
    high = float(beta.isf(tail, hits + 1, n - hits)) if hits < n else 1.0
    return Coverage(observed, low, high, float(binom.ppf(tail, n, level)) / n, float(binom.isf(tail, n, level)) / n)


def _with_verdict(found: Coverage) -> dict[str, Any]:
    return {**asdict(found), "verdict": found.verdict}


_ROUNDING = 1e-12
