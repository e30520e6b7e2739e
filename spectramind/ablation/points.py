"""The points of a search space that a sweep visits.

A point holds one choice per axis, as text. The same axes and seed give the same points.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal

import numpy as np

Point = tuple[str, ...]

STARTUP_POINTS = 10
"""Random points before the estimator has a say."""

ATTEMPTS = 50
"""Proposals of the estimator, which repeats itself in a small space, before an unseen point is drawn instead."""


@dataclass(frozen=True)
class Axis:
    """A setting, or a group of which presets are tried, and its distinct choices."""

    key: str
    choices: tuple[str, ...]


def space_size(axes: Sequence[Axis]) -> int:
    """Number of combinations; 1 without axes."""
    return prod(len(axis.choices) for axis in axes)


def select_points(axes: Sequence[Axis], strategy: Literal["grid", "random"], limit: int, seed: int) -> list[Point]:
    """At most `limit` distinct points.

    A grid is in order, the last axis varying fastest; one of more than `limit` points is thinned at random, since its
    first points would leave the first axis where it is.
    """
    size = space_size(axes)
    if strategy == "grid" and size <= limit:
        return [_point(axes, index) for index in range(size)]
    drawn = np.random.default_rng(seed).choice(size, min(limit, size), replace=False)
    return [_point(axes, int(index)) for index in (np.sort(drawn) if strategy == "grid" else drawn)]


def propose_point(axes: Sequence[Axis], history: Mapping[Point, float | None], seed: int) -> Point | None:
    """The next point by a tree-structured Parzen estimator (Bergstra et al. 2011), None if all have been visited.

    `history`: points visited and their loss, lower is better, None where it is not known. The answer depends on the
    arguments alone, so a sweep that was interrupted goes on as it would have.
    """
    if len(history) >= space_size(axes):
        return None
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    distributions: dict[str, optuna.distributions.BaseDistribution] = {
        axis.key: optuna.distributions.CategoricalDistribution(axis.choices) for axis in axes
    }
    sampler = optuna.samplers.TPESampler(seed=(seed + len(history)) % 2**32, n_startup_trials=STARTUP_POINTS)
    study = optuna.create_study(sampler=sampler)
    for point, loss in history.items():
        if loss is not None:
            params = dict(zip(distributions, point, strict=True))
            study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, value=loss))
    for _ in range(ATTEMPTS):
        trial = study.ask(distributions)
        proposed = tuple(str(trial.params[axis.key]) for axis in axes)
        if proposed not in history:
            return proposed
    return next(p for p in select_points(axes, "random", len(history) + 1, seed) if p not in history)


def _point(axes: Sequence[Axis], index: int) -> Point:
    choices = []
    for axis in reversed(axes):
        index, place = divmod(index, len(axis.choices))
        choices.append(axis.choices[place])
    return tuple(reversed(choices))
