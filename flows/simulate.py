"""Simulated data sets in the challenge's layout."""

from __future__ import annotations

import os
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from settings.tree import Settings
from spectramind.simulation.dataset import SimulatedDataset, simulate_dataset


def simulate(settings: Settings, out: Path) -> SimulatedDataset:
    """Write a data set to `out` and its truth beside it, with a progress bar."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), transient=True, console=Console(stderr=True)) as progress:
        task = progress.add_task("simulating planets", total=None)

        def advance(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        return simulate_dataset(out, settings.simulation, settings.runtime.seed, workers(settings), advance)


def workers(settings: Settings) -> int:
    """Processes to use: `dask.workers`, or one for every core that this process may use."""
    if settings.dask.scheduler == "synchronous":
        return 1
    return settings.dask.workers or len(os.sched_getaffinity(0))
