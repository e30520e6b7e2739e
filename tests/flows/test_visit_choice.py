"""Which visits of a planet a run uses."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from flows.workspace import workspace
from settings.resolve import resolve
from spectramind.simulation.dataset import SimulatedDataset


@pytest.mark.parametrize(("choice", "expected"), [("all", [0, 1]), ("first", [0])])
def test_all_visits_or_the_first_alone(
    choice: str, expected: list[int], simulated: SimulatedDataset, tmp_path: Path
) -> None:
    root = shutil.copytree(simulated.root, tmp_path / "set")
    planet = simulated.train_ids[0]
    for item in (root / "train" / planet).iterdir():
        again = item.with_name(item.name.replace("_0", "_1"))
        (shutil.copytree if item.is_dir() else shutil.copy)(item, again)
    places = [f"data.root={root}", f"outputs.dir={tmp_path / 'run'}", f"outputs.store={tmp_path / 'store'}"]
    settings = resolve([*places, f"data.planets=['{planet}']", f"data.visits={choice}"])
    with workspace(settings, None, "calibrate") as work:
        assert [visit.visit for visit in work.visits] == expected
