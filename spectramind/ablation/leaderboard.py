"""Configurations ranked by their predictions of planets that they have not seen.

All are judged on the same planets, and two are compared planet by planet: the scores of easy and hard planets differ
far more than those of two configurations do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from spectramind.ablation.options import Metric
from spectramind.errors import InputError
from spectramind.metrics.score import paired_bootstrap, reference_of, score_parts
from spectramind.metrics.statistics import spectra_statistics
from spectramind.types import Floats

WEIGHTS: Mapping[str, float] = {
    "score": 0.40,
    "nll": 0.25,
    "calibration_gap": 0.10,
    "seconds": 0.15,
    "violations": 0.10,
}
"""Of the composite score, by column."""

HIGHER_IS_BETTER = frozenset({"score"})

PARETO = ("score", "calibration_gap", "seconds")
"""Columns between which the Pareto front trades."""

ERROR_RATE = 0.05
"""Chance of calling any configuration different from the first that is not."""

SAME, BETTER, WORSE, FIRST = "not distinguishable", "better score", "worse", "first"


@dataclass(frozen=True)
class Candidate:
    """A configuration: out-of-fold `mean` and `sigma` (seeds, planets, bins), `seconds` of its training, and
    `violations`, its mean violation of the physical rules; None where not known."""

    name: str
    mean: Floats
    sigma: Floats
    seconds: float | None = None
    violations: float | None = None


@dataclass(frozen=True)
class Row:
    """A line of the leaderboard. Numbers are means over the seeds.

    `score` official, in [0, 1]; `score_low`, `score_high` limits of 95 % over planets and seeds; `nll` in nats per bin;
    `gap_68`, `gap_95` observed less nominal coverage, `calibration_gap` its mean size over all levels; `z_error` the
    distance of N(z_mean, z_std^2) from N(0, 1); `composite` in [0, 1], lower is better; `pareto` whether no other row
    is better in one of `PARETO` and as good in the others; `difference` of the score from the first row's, with limits.
    """

    name: str
    seeds: int
    planets: int
    score: float
    score_low: float
    score_high: float
    nll: float
    rmse_ppm: float
    mae_ppm: float
    gap_68: float
    gap_95: float
    calibration_gap: float
    z_error: float
    violations: float | None
    seconds: float | None
    composite: float = 0.0
    pareto: bool = False
    difference: float = 0.0
    difference_low: float = 0.0
    difference_high: float = 0.0
    verdict: str = FIRST


@dataclass(frozen=True)
class Leaderboard:
    """Rows, best first. `winner` is the first row's name if its score beats every other beyond chance, else None."""

    rows: tuple[Row, ...]
    winner: str | None

    @property
    def rivals(self) -> tuple[str, ...]:
        """The rows that keep the first from winning."""
        return tuple(row.name for row in self.rows[1:] if row.verdict != WORSE)


def leaderboard(candidates: Sequence[Candidate], truth: Floats, metric: Metric = "composite") -> Leaderboard:
    """The leaderboard of `candidates` on the planets of `truth` (planets, bins), whatever their order.

    Ties go to the smaller z error, then to the smaller mean absolute error, then to the shorter training. Raises
    InputError unless all candidates hold the same seeds, planets and bins, and have names of their own.
    """
    _require_comparable(candidates, truth)
    reference = reference_of(truth)
    by_planet = {
        candidate.name: np.stack(
            [
                score_parts(mean, sigma, truth, *reference).by_planet
                for mean, sigma in zip(candidate.mean, candidate.sigma, strict=True)
            ]
        )
        for candidate in candidates
    }
    rows = [_measured(candidate, truth, by_planet[candidate.name]) for candidate in candidates]
    composite, front = composite_scores(rows), pareto_front(rows)
    rows = [replace(row, composite=c, pareto=f) for row, c, f in zip(rows, composite, front, strict=True)]
    rows.sort(key=lambda row: _rank(row, metric))
    level = 1.0 - ERROR_RATE / max(len(rows) - 1, 1)
    compared = [rows[0], *(_compared(row, by_planet, rows[0].name, level) for row in rows[1:])]
    wins = len(rows) > 1 and all(row.verdict == WORSE for row in compared[1:])
    return Leaderboard(tuple(compared), rows[0].name if wins else None)


def composite_scores(rows: Sequence[Row]) -> list[float]:
    """Weighted badness of each row: 0 is the best row in every column, 1 the worst in every one.

    A column is scaled to [0, 1] between its best and its worst row. One that is not known of all rows is left out, and
    the weights of the others are raised in proportion.
    """
    known = {name: weight for name, weight in WEIGHTS.items() if all(getattr(row, name) is not None for row in rows)}
    total = np.zeros(len(rows))
    for name, weight in known.items():
        values = _losses(rows, name)
        spread = np.ptp(values)
        if spread > 0:
            total += weight * (values - values.min()) / spread
    return [float(value) for value in total / sum(known.values())]


def pareto_front(rows: Sequence[Row]) -> list[bool]:
    """Whether each row is on the front of `PARETO`, columns that are not known of all rows left out."""
    names = [name for name in PARETO if all(getattr(row, name) is not None for row in rows)]
    losses = np.stack([_losses(rows, name) for name in names], axis=1)
    return [not np.any(np.all(losses <= own, axis=1) & np.any(losses < own, axis=1)) for own in losses]


def _losses(rows: Sequence[Row], name: str) -> Floats:
    sign = -1.0 if name in HIGHER_IS_BETTER else 1.0
    return sign * np.array([getattr(row, name) for row in rows], dtype=float)


def _rank(row: Row, metric: Metric) -> tuple[Any, ...]:
    value = -row.score if metric == "score" else getattr(row, metric)
    # Sums in another order differ in the last digit; that is a tie.
    return round(value, 12), row.z_error, row.mae_ppm, np.inf if row.seconds is None else row.seconds, row.name


def _measured(candidate: Candidate, truth: Floats, by_planet: Floats) -> Row:
    statistics = [
        spectra_statistics(mean, sigma, truth)["all"]
        for mean, sigma in zip(candidate.mean, candidate.sigma, strict=True)
    ]

    def average(name: str) -> float:
        return float(np.mean([found[name] for found in statistics]))

    def gap(level: str) -> float:
        return float(np.mean([found["coverage"][level]["observed"] for found in statistics])) - float(level) / 100

    interval = paired_bootstrap(by_planet, np.zeros_like(by_planet))
    return Row(
        name=candidate.name,
        seeds=len(by_planet),
        planets=len(truth),
        score=float(np.mean(np.clip(by_planet.mean(axis=1), 0.0, 1.0))),
        score_low=interval.low,
        score_high=interval.high,
        nll=average("nll"),
        rmse_ppm=average("rmse_ppm"),
        mae_ppm=average("mae_ppm"),
        gap_68=gap("68"),
        gap_95=gap("95"),
        calibration_gap=average("calibration_gap"),
        z_error=float(np.mean([np.hypot(found["z_mean"], found["z_std"] - 1.0) for found in statistics])),
        violations=candidate.violations,
        seconds=candidate.seconds,
    )


def _compared(row: Row, by_planet: Mapping[str, Floats], first: str, level: float) -> Row:
    found = paired_bootstrap(by_planet[row.name], by_planet[first], level=level)
    verdict = WORSE if found.high < 0 else BETTER if found.low > 0 else SAME
    return replace(
        row, difference=found.difference, difference_low=found.low, difference_high=found.high, verdict=verdict
    )


def _require_comparable(candidates: Sequence[Candidate], truth: Floats) -> None:
    shapes = sorted({values.shape for candidate in candidates for values in (candidate.mean, candidate.sigma)})
    names = {candidate.name for candidate in candidates}
    if len(shapes) != 1 or len(shapes[0]) != 3 or shapes[0][1:] != truth.shape or len(names) < len(candidates):
        raise InputError(
            "candidates of a leaderboard",
            f"one or more, each with a name of its own and spectra (seeds, {', '.join(map(str, truth.shape))})",
            f"{len(candidates)} with {len(names)} names, shapes {', '.join(map(str, shapes)) or 'none'}",
            "Rank runs of the same seeds on the same planets.",
        )
