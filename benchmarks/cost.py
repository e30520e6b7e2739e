"""What calibration and fit cost, as ratios to merely reading the files: python benchmarks/cost.py [PLANETS]

Simulates PLANETS planets (default 3) at a twentieth of the frames in a temporary directory, takes the CPU time of each
step on each planet in one process, and prints the medians' ratios. CPU time, since machines are shared.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from rich.console import Console
from rich.table import Table

from spectramind.calibration.kill_chain import calibrate_visit
from spectramind.calibration.options import CalibrationOptions
from spectramind.data.frames import read_exposure
from spectramind.data.layout import open_dataset
from spectramind.instruments import INSTRUMENTS
from spectramind.simulation.dataset import simulate_dataset
from spectramind.simulation.options import SimulationOptions
from spectramind.transit.fit import fit_planet
from spectramind.transit.options import TransitOptions


def main(planets: int) -> None:
    options = SimulationOptions(
        train_planets=planets + 1, test_planets=1, thin=20, fgs1_thin=10, two_visit_fraction=0.0, cut_fraction=0.0
    )
    seconds: dict[str, list[float]] = {"read both files with polars": [], "calibrate (reading included)": [], "fit": []}
    with tempfile.TemporaryDirectory() as folder:
        root = simulate_dataset(Path(folder) / "data", options, seed=1, workers=2).root
        dataset = open_dataset(root)
        for planet in dataset.planets("train"):
            files = dataset.visit_files("train", planet, 0)
            signals = [path for path in files.values() if "signal" in path.name]
            read, _ = _cpu(lambda signals=signals: [pl.read_parquet(path) for path in signals])
            calibrate, visit = _cpu(
                lambda planet=planet: calibrate_visit(
                    lambda instrument: read_exposure(dataset, "train", planet, 0, instrument),
                    planet,
                    0,
                    CalibrationOptions(),
                    INSTRUMENTS,
                )
            )
            star = dataset.star("train", planet)
            fit, _ = _cpu(lambda visit=visit, star=star: fit_planet([visit], star, TransitOptions()))
            for name, value in zip(seconds, (read, calibrate, fit), strict=True):
                seconds[name].append(value)
    table = Table("step", "CPU time / reading", title="One planet, one visit, a twentieth of the frames")
    medians = {name: float(np.median(values[1:])) for name, values in seconds.items()}
    for name, value in medians.items():
        table.add_row(name, f"{value / medians['read both files with polars']:.1f}")
    Console().print(table)


def _cpu(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
