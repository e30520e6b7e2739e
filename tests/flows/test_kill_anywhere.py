"""A run that was killed and finished gives what an undisturbed run gives."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from spectramind.simulation.dataset import SimulatedDataset

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "kill_anywhere.py"
FAST = (
    "model.learning_iterations=2",
    "model.kernel_widths=[1.0]",
    "tracking.enable=false",
    "dask.workers=1",
    "data.max_planets=8",
)


@pytest.mark.slow
def test_killed_twice_then_finished_gives_the_digests_of_an_undisturbed_run(simulated: SimulatedDataset) -> None:
    command = [sys.executable, str(PROGRAM), str(simulated.root), "--kills", "2", "--seed", "3", *FAST]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    kills = [line for line in done.stdout.splitlines() if line.endswith(" nothing")]
    assert len(kills) == 2, done.stdout
    assert "all equal" in done.stdout.splitlines()[-1]
