"""Knobs of a sweep."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from spectramind.options import option

Strategy = Literal["grid", "random", "smart"]
Metric = Literal["composite", "score", "nll"]


@dataclass(frozen=True)
class AblationOptions:
    """What a sweep varies, how many runs it may take, and how they are ranked."""

    sweep: tuple[str, ...] = option(
        (), "Settings and presets to vary, each as KEY=VALUE,VALUE; `ablate -m KEY=VALUE,VALUE` sets this."
    )
    strategy: Strategy = option(
        "grid",
        "Order of the combinations: all of them (beyond max_runs a random part), random ones, or the smart choice of a "
        "tree-structured Parzen estimator that learns from the runs so far.",
    )
    max_runs: int = option(32, "Most runs of a sweep, seeds counted.", ge=1, le=1000)
    seeds: tuple[int, ...] = option(
        (), "Repeat every combination with each of these seeds; empty means runtime.seed alone.", ge=0, le=2**32 - 1
    )
    parallel_runs: int = option(1, "Runs at a time; more than one run as processes of their own.", ge=1, le=64)
    metric: Metric = option(
        "composite", "What the leaderboard is ordered by: composite score, official score or negative log likelihood."
    )
    top_n: int = option(5, "Configurations whose runs are packed into top.zip.", ge=1, le=100)
    register_best: bool = option(
        False, "Register the model of the leaderboard's first row, which may become the champion by tracking.promotion."
    )
