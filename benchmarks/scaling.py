"""How much faster two workers calibrate than one: python benchmarks/scaling.py [PLANETS] [ROUNDS]

Simulates PLANETS planets (default 12) at a twentieth of the frames in a temporary directory and calibrates both
instruments of each with one and with two worker processes in turn, ROUNDS times (default 3) and each time into a new
store. Prints the ratio of the shortest times, since machines are shared; starting the workers is not part of them.
Two processes that do the same sums without files or messages show what the machine allows.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from rich.console import Console
from rich.table import Table

from flows.units import CubeJob, calibrate_unit, cube_identity
from spectramind.calibration.options import CalibrationOptions
from spectramind.cubes.options import CubeOptions, DaskOptions
from spectramind.cubes.parallel import map_units, shared_workers
from spectramind.data.layout import open_dataset
from spectramind.instruments import INSTRUMENTS
from spectramind.provenance.digests import digest_json, file_digest
from spectramind.provenance.units import unit_path
from spectramind.simulation.dataset import simulate_dataset
from spectramind.simulation.options import SimulationOptions

Item = TypeVar("Item")

WORKERS = (1, 2)


def main(planets: int, rounds: int) -> None:
    options = SimulationOptions(
        train_planets=planets, test_planets=1, thin=20, fgs1_thin=10, two_visit_fraction=0.0, cut_fraction=0.0
    )
    visits: dict[int, list[float]] = {workers: [] for workers in WORKERS}
    sums: dict[int, list[float]] = {workers: [] for workers in WORKERS}
    with tempfile.TemporaryDirectory() as folder:
        root = simulate_dataset(Path(folder) / "data", options, seed=1, workers=2).root
        for number in range(rounds):
            for workers in WORKERS:
                settings = DaskOptions(workers=workers)
                with shared_workers(settings) as client:
                    # Every process imports and compiles before the clock starts.
                    warm = cube_jobs(root, Path(folder) / f"warm{number}{workers}")[: 4 * workers]
                    measure(calibrate_unit, warm, settings, client)
                    jobs = cube_jobs(root, Path(folder) / f"store{number}{workers}")
                    visits[workers].append(measure(calibrate_unit, jobs, settings, client))
                    sums[workers].append(measure(sum_up, list(range(2 * planets)), settings, client))
    table = Table("work", *(f"{workers} worker(s), s" for workers in WORKERS), "ratio")
    for name, seconds in (("calibrate every visit", visits), ("sums alone: what the machine allows", sums)):
        best = [min(seconds[workers]) for workers in WORKERS]
        table.add_row(name, *(f"{value:.2f}" for value in best), f"{best[0] / best[1]:.2f}")
    Console().print(table)


def cube_jobs(root: Path, store: Path) -> list[CubeJob]:
    dataset, calibration, cubes = open_dataset(root), CalibrationOptions(), CubeOptions()
    metadata = digest_json({name: file_digest(path) for name, path in dataset.metadata_files().items()})
    jobs = []
    for planet in dataset.planets("train"):
        inputs = {name: file_digest(path) for name, path in dataset.visit_files("train", planet, 0).items()}
        for instrument in INSTRUMENTS:
            identity = cube_identity(planet, 0, instrument, inputs, calibration, cubes)
            target, index = unit_path(store / planet, identity), store / "digests.sqlite"
            place = root, metadata, "train", planet, 0, instrument, target
            jobs.append(CubeJob(*place, identity, calibration, cubes, index))
    return jobs


def measure(function: Callable[[Item], Any], items: list[Item], settings: DaskOptions, client: Any) -> float:
    """Seconds that all units take together."""
    start = time.perf_counter()
    for outcome in map_units(function, items, settings, client=client):
        if outcome.error is not None:
            raise outcome.error
    return time.perf_counter() - start


def sum_up(_number: int) -> float:
    """A third of a second of arithmetic in the processor's cache."""
    values = np.linspace(0.0, 1.0, 4096)
    return float(sum(np.sqrt(values + step).sum() for step in range(30_000)))


if __name__ == "__main__":
    arguments = [int(argument) for argument in sys.argv[1:]]
    main(*(arguments + [12, 3][len(arguments) :]))
