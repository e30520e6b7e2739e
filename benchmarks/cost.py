"""What calibration and fit cost at full size, as ratios to merely reading the files: python benchmarks/cost.py [ROOT]

Without ROOT, the folder of a data set, one planet is simulated at full size in a temporary directory, and its frames
written as Polars writes them. Every way works in a process of its own, on one thread, twice: the second time is taken,
in CPU time, since machines are shared, together with the peak memory of the process. Ways alternate three times; the
table holds the ratios of medians. The slow ways run once.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from rich.console import Console
from rich.table import Table

from spectramind.calibration.kill_chain import calibrate_visit
from spectramind.calibration.options import CalibrationOptions
from spectramind.data.frames import read_exposure
from spectramind.data.layout import Dataset, open_dataset
from spectramind.instruments import INSTRUMENTS
from spectramind.simulation.dataset import simulate_dataset
from spectramind.simulation.options import SimulationOptions
from spectramind.transit.fit import fit_planet
from spectramind.transit.options import TransitOptions
from spectramind.types import CalibratedVisit

ROUNDS = 3
ONE_THREAD = {
    name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS", "NUMBA_NUM_THREADS")
}
READ, FUSED, PLAIN, PEER, FIT = "read", "fused", "plain", "peer", "fit"
WAYS = {
    READ: "read both files: polars.read_parquet",
    FUSED: "calibrate (reading included)",
    PLAIN: "the same, calibration.engine=plain",
    PEER: "pandas and whole-frame NumPy, means only",
    FIT: "fit the planet",
}
SLOW = {PLAIN, PEER}


def main(root: Path | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        if root is None:
            options = SimulationOptions(train_planets=1, test_planets=1, two_visit_fraction=0.0, cut_fraction=0.0)
            root = simulate_dataset(Path(folder) / "data", options, seed=1, workers=2).root
            for path in root.glob("train/*/*_signal_0.parquet"):
                pl.read_parquet(path).write_parquet(path)
        measured: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
        for number in range(ROUNDS):
            for way, found in measured.items():
                if number == 0 or way not in SLOW:
                    found.append(_measure(way, root))
        first_use = _measure(FUSED, root, NUMBA_CACHE_DIR=str(Path(folder) / "cold"))["first_cpu"]
    cpu = {way: float(np.median([found["cpu"] for found in rounds])) for way, rounds in measured.items()}
    table = Table(
        "step", "CPU time / reading", "peak memory, GiB", title="One planet, one visit, full size, one thread"
    )
    for way, name in WAYS.items():
        peak = max(found["peak_gib"] for found in measured[way])
        table.add_row(name, f"{cpu[way] / cpu[READ]:.2f}", f"{peak:.2f}")
    console = Console()
    console.print(table)
    extra = (first_use - float(np.median([found["first_cpu"] for found in measured[FUSED]]))) / cpu[READ]
    console.print(f"Compiling the kernels, once per machine, costs {extra:.0f} times the reading.")


def _measure(way: str, root: Path, **environment: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--way", way, str(root)]
    done = subprocess.run(command, env={**os.environ, **ONE_THREAD, **environment}, capture_output=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _one_way(way: str, root: Path) -> None:
    dataset = open_dataset(root)
    planet = dataset.planets("train")[0]
    files = dataset.visit_files("train", planet, 0)
    signals = [path for path in files.values() if "signal" in path.name]
    work: Callable[[], Any]
    if way == READ:
        work = lambda: [pl.read_parquet(path) for path in signals]  # noqa: E731
    elif way == PEER:
        work = lambda: [_peer(dataset, planet, instrument.name) for instrument in INSTRUMENTS]  # noqa: E731
    elif way == FIT:
        visit = _calibrate(dataset, planet, CalibrationOptions())
        work = lambda: fit_planet([visit], dataset.star("train", planet), TransitOptions())  # noqa: E731
    else:
        options = replace(CalibrationOptions(), engine=way)
        work = lambda: _calibrate(dataset, planet, options)  # noqa: E731
    first = _cpu(work)
    cpu = first if way in SLOW else _cpu(work)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"first_cpu": first, "cpu": cpu, "peak_gib": peak}))


def _calibrate(dataset: Dataset, planet: str, options: CalibrationOptions) -> CalibratedVisit:
    return calibrate_visit(
        lambda instrument: read_exposure(dataset, "train", planet, 0, instrument), planet, 0, options, INSTRUMENTS
    )


def _peer(dataset: Dataset, planet: str, name: str) -> np.ndarray:
    """The usual way: every step on all frames at once. No outliers, no variance, no optimal weights, no foreground."""
    import pandas as pd

    files = dataset.visit_files("train", planet, 0)
    instrument = next(instrument for instrument in INSTRUMENTS if instrument.name == name)
    shape = instrument.rows, instrument.columns
    dark, dead, flat, linear = (
        pd.read_parquet(files[f"{name}_{kind}"]).to_numpy() for kind in ("dark", "dead", "flat", "linear_corr")
    )
    adc, integration = dataset.adc("train", planet, instrument), dataset.axes[name].integration_s
    frames = pd.read_parquet(files[f"{name}_signal"]).to_numpy().astype(np.float64).reshape(-1, *shape)
    frames = frames / adc.gain + adc.offset
    coefficients = linear.reshape(-1, *shape)
    linearised = np.zeros_like(frames)
    for coefficient in coefficients[::-1]:
        linearised = linearised * frames + coefficient
    frames = linearised - dark * integration[:, None, None]
    frames = np.where(dead.astype(bool), np.nan, frames / flat)
    pairs = frames[1::2] - frames[::2]
    return np.asarray(np.nansum(pairs, axis=1 if instrument.dispersed else (1, 2)))


def _cpu(work: Callable[[], Any]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


if __name__ == "__main__":
    if "--way" in sys.argv:
        _one_way(sys.argv[2], Path(sys.argv[3]))
    else:
        main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
