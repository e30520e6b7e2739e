"""The champion moves for a model that recovers injected spectra, and for no other; with a real MLflow and simulator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import TINY, copy_linked

from flows.run_directory import RunDirectory, verify_run
from flows.tracking import CANDIDATE, CHAMPION, REGISTERED_MODEL, Destination
from settings.resolve import resolve
from settings.tree import Settings
from spectramind.simulation.dataset import SimulatedDataset

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_server")]

QUICK = (
    *("dask.scheduler=synchronous", "model.learning_iterations=2", "model.kernel_widths=[1.0]"),
    *("data.max_planets=8", "uncertainty.min_planets=4"),
)
GATED = (
    *("tracking.promotion=gated", "recovery.planets=4", "recovery.thin=1"),
    *(f"simulation.airs_frames={TINY.airs_frames}", f"simulation.fgs1_frames={TINY.fgs1_frames}"),
    # Eight planets with few frames train a coarse model.
    *("recovery.bias_fgs1_ppm=200", "recovery.bias_airs_ppm=200", "recovery.z_factor=5"),
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


def settings(root: Path, store: Path, out: Path, *arguments: str) -> Settings:
    return resolve([f"data.root={root}", f"outputs.store={store}", f"outputs.dir={out}", *QUICK, *arguments], None, {})


def train(root: Path, store: Path, out: Path, *arguments: str) -> dict[str, Any]:
    from flows.train import train_v50

    chosen = settings(root, store, out, *arguments)
    with RunDirectory.create(chosen, "test") as run:
        train_v50(chosen, run)
    assert verify_run(out) == []
    decision: dict[str, Any] = json.loads((out / "promotion.json").read_text(encoding="utf-8"))
    return decision


def aliases(store: Path) -> dict[str, str]:
    from mlflow import MlflowClient

    found = MlflowClient(Destination.of(store, None, "any").uri).get_registered_model(REGISTERED_MODEL).aliases
    return {name: str(version) for name, version in found.items()}


def test_a_model_that_recovers_what_was_injected_is_promoted_once(
    simulated: SimulatedDataset, store: Path, tmp_path: Path
) -> None:
    first = train(simulated.root, store, tmp_path / "first", *GATED)
    assert (first["promoted"], first["refused"], first["champion"]) == (True, [], None)
    assert [row["instrument"] for row in first["recovery"]] == ["FGS1", "AIRS-CH0"]
    assert all(row["planets"] == 4 for row in first["recovery"])
    assert aliases(store) == {CANDIDATE: "1", CHAMPION: "1"}
    assert (tmp_path / "first" / "recovery" / "recovered.parquet").is_file()
    from prefect.artifacts import Artifact

    shown = {key: Artifact.get(key) for key in ("promotion", "held-out-planets", "run-directory")}
    assert "| AIRS-CH0 | 4 |" in str(shown["promotion"].data)
    assert "data:image/svg+xml;base64," in str(shown["held-out-planets"].data)
    assert str(tmp_path / "first") in str(shown["run-directory"].data)
    again = train(simulated.root, store, tmp_path / "again", *GATED)
    assert again == first
    assert not (tmp_path / "again" / "injection").exists()


def test_a_model_that_is_no_better_on_held_out_planets_stays_a_candidate(
    simulated: SimulatedDataset, store: Path, tmp_path: Path
) -> None:
    decision = train(simulated.root, store, tmp_path / "run", *GATED, "model.learning_iterations=1")
    assert not decision["promoted"]
    assert decision["held_out"]["planets"] == 8
    assert decision["held_out"]["low"] <= 0
    assert decision["recovery"] is None
    assert aliases(store) == {CANDIDATE: "2", CHAMPION: "1"}


def test_a_model_trained_on_wrong_labels_is_refused_by_what_it_recovers(
    simulated: SimulatedDataset, tmp_path: Path
) -> None:
    """Its own held-out planets have the same wrong labels, and cannot tell."""
    root = copy_linked(simulated.root, tmp_path / "data")
    labels = pd.read_csv(root / "train.csv", dtype={"planet_id": str})
    labels.iloc[:, 1:] += 0.002
    (root / "train.csv").unlink()
    labels.to_csv(root / "train.csv", index=False)
    decision = train(root, tmp_path / "store", tmp_path / "run", *GATED)
    assert not decision["promoted"]
    assert any("mean error" in reason for reason in decision["refused"])
    assert all(row["bias_ppm"] > 1000 for row in decision["recovery"])
    assert aliases(tmp_path / "store") == {CANDIDATE: "1"}


def test_a_sweep_registers_its_first_row_once(simulated: SimulatedDataset, store: Path, tmp_path: Path) -> None:
    from flows.ablate import ablate

    sweep = ("ablation.sweep=['uncertainty.stage=none,global']", "ablation.register_best=true")
    before = int(aliases(store)[CANDIDATE])
    for name in ("night", "next"):
        chosen = settings(simulated.root, store, tmp_path / name, *sweep)
        with RunDirectory.create(chosen, "ablate") as run:
            ablate(chosen, run)
        decision = json.loads((tmp_path / name / "promotion.json").read_text(encoding="utf-8"))
        assert decision["version"] == str(before + 1)
        assert decision["held_out"]["planets"] == 8
        assert aliases(store)[CANDIDATE] == str(before + 1)
        assert "promotion.json" in json.loads((tmp_path / name / "manifest.json").read_text())["files"]
