"""Commands that are killed and finished, or that share a store, give what one undisturbed process gives."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from spectramind.simulation.dataset import SimulatedDataset

pytestmark = pytest.mark.slow

PROGRAMS = Path(__file__).parents[2] / "benchmarks"
FAST = ("model.learning_iterations=2", "model.kernel_widths=[1.0]", "tracking.enable=false", "dask.workers=1")


def measure(program: str, *arguments: str) -> list[str]:
    """The lines that a program of `benchmarks/` prints; it fails if anything differs."""
    command = [sys.executable, str(PROGRAMS / program), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


def test_a_run_killed_twice_then_finished_gives_the_digests_of_an_undisturbed_one(simulated: SimulatedDataset) -> None:
    lines = measure("kill_anywhere.py", str(simulated.root), "--kills", "2", "--seed", "3", *FAST, "data.max_planets=8")
    assert len([line for line in lines if line.endswith(" nothing")]) == 2
    assert "all equal" in lines[-2]


def test_a_calibration_killed_at_five_instants_redoes_one_unit_at_most(simulated: SimulatedDataset) -> None:
    fast = ("--warm", "dask.scheduler=synchronous", "data.max_planets=1")
    lines = measure("kill_anywhere.py", str(simulated.root), "--command", "calibrate", "--kills", "5", *fast)
    assert len([line for line in lines if line.endswith(" nothing")]) == 5
    assert lines[-1].startswith("5 kills")
    assert int(lines[-1].split()[-2]) <= 1


def test_five_processes_on_one_store_make_each_unit_once(simulated: SimulatedDataset) -> None:
    fast = ("dask.scheduler=synchronous", "data.max_planets=1")
    lines = measure("one_store.py", str(simulated.root), *fast, "--processes", "5")
    assert [line.split()[0] for line in lines] == ["1", "5"]
    assert all("6 units made, all equal" in line for line in lines)
