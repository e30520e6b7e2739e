"""The notebook's code cells, run in order as the notebook runs them, on a tiny data set."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from spectramind.simulation.dataset import SimulatedDataset, simulate_dataset
from spectramind.simulation.options import SimulationOptions
from spectramind.submission.checks import check_submission

KAGGLE = Path(__file__).parents[2] / "infra" / "kaggle"
FAST = "dask.scheduler=synchronous model.kind=analytic model.learning_iterations=5 model.kernel_widths=[1.0]"


@pytest.fixture(scope="module")
def attached(tmp_path_factory: pytest.TempPathFactory) -> SimulatedDataset:
    """The data set where the notebook looks for it."""
    options = SimulationOptions(
        train_planets=10, test_planets=2, thin=100, fgs1_thin=400, two_visit_fraction=0.0, cut_fraction=0.0
    )
    return simulate_dataset(tmp_path_factory.mktemp("input") / "ariel-data-challenge-2025", options, 3, workers=1)


def code_cells() -> list[str]:
    notebook = json.loads((KAGGLE / "submission.ipynb").read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    assert all(cell["outputs"] == [] for cell in notebook["cells"] if cell["cell_type"] == "code")
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


def executed(attached: SimulatedDataset, folder: Path, **variables: str) -> str:
    """What the cells print; the submission is then in `folder`."""
    places = {"INPUT": str(attached.root.parent), "WORKING": str(folder), "SCRATCH": str(folder / "tmp")}
    environment = {f"NOTEBOOK_{name}": value for name, value in {**places, "SETTINGS": FAST, **variables}.items()}
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(code_cells())],
        env={**os.environ, **environment, "PYTHONPATH": str(KAGGLE.parents[1])},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr
    assert check_submission(folder / "submission.csv", attached.test_ids) == []
    return done.stdout


@pytest.mark.slow
def test_the_cells_end_in_the_submission_of_a_complete_run(attached: SimulatedDataset, tmp_path: Path) -> None:
    out = executed(attached, tmp_path)
    assert out.endswith("complete\nsubmitted: the run's predictions\n")
    made = tmp_path / "tmp" / "run" / "submission" / "submission.csv"
    assert (tmp_path / "submission.csv").read_bytes() == made.read_bytes()


@pytest.mark.slow
def test_a_budget_that_is_reached_still_ends_in_a_valid_submission(attached: SimulatedDataset, tmp_path: Path) -> None:
    """Exit code 75 before anything could be predicted."""
    out = executed(attached, tmp_path, SETTINGS=f"{FAST} runtime.budget_hours=1e-9")
    assert "time budget reached" in out
    assert_is_the_spread_of_the_labels(tmp_path / "submission.csv", attached.root)


def test_without_any_time_left_the_fallback_is_submitted(attached: SimulatedDataset, tmp_path: Path) -> None:
    out = executed(attached, tmp_path, LIMIT_HOURS="0")
    assert "ended with None" in out
    assert_is_the_spread_of_the_labels(tmp_path / "submission.csv", attached.root)


def assert_is_the_spread_of_the_labels(submission: Path, root: Path) -> None:
    table = pd.read_csv(submission).to_numpy(float)[:, 1:]
    labels = pd.read_csv(root / "train.csv").to_numpy(float)[:, 1:]
    np.testing.assert_allclose(table, np.tile(np.r_[labels.mean(axis=0), labels.std(axis=0)], (len(table), 1)))


def test_the_script_that_collects_wheels_says_how_it_is_called() -> None:
    done = subprocess.run(["bash", str(KAGGLE / "wheels.sh")], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "FOLDER" in done.stderr
