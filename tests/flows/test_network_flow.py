"""The network in the flows: trained in units of the store, used only where it wins, and repeatable."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from flows.network import LAST, VIOLATIONS
from flows.run_directory import RunDirectory
from settings.resolve import resolve
from spectramind.errors import BudgetReached
from spectramind.simulation.dataset import SimulatedDataset

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_server")]

NETWORK = (
    *("model=small", "train=fast_smoke", "train.device=cpu", "model.folds=2"),
    *("model.ssm.d_model=16", "model.ssm.d_state=8", "model.ssm.head_dim=8", "model.ssm.n_layers=1"),
    *("model.gnn.hidden_dim=16", "model.gnn.n_layers=1", "model.fusion.dim=32", "model.fusion.hidden=16"),
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


def run(simulated: SimulatedDataset, store: Path, out: Path, *arguments: str) -> Path:
    from flows.end_to_end import spectramind_v50

    common = (f"data.root={simulated.root}", f"data.truth={simulated.truth / 'test.csv'}", f"outputs.store={store}")
    quick = ("dask.scheduler=synchronous", "model.learning_iterations=5", "model.kernel_widths=[1.0]")
    settings = resolve([*common, *quick, f"outputs.dir={out}", *NETWORK, *arguments], None, {})
    with RunDirectory.create(settings, "test") as directory:
        spectramind_v50(settings, directory)
    return out


@pytest.fixture(scope="module")
def first(simulated: SimulatedDataset, store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(simulated, store, tmp_path_factory.mktemp("first"))


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def epochs(out: Path, event: str = "epoch") -> list[dict[str, Any]]:
    lines = (out / "events.jsonl").read_text(encoding="utf-8").splitlines()
    return [line for line in map(json.loads, lines) if line["event"] == event]


def test_the_metrics_tell_what_the_network_wins(first: Path) -> None:
    found = read(first / "metrics.json")["out_of_fold"]
    assert found["network_weight"] in (0.0, 0.25, 0.5, 0.75, 1.0)
    assert found["score"] >= found["score_analytic"]
    assert found["network_gain_low"] <= found["network_gain"] <= found["network_gain_high"]
    assert "smoothness" in found["violations"]


def test_every_fold_goes_through_the_curriculum(first: Path) -> None:
    told = [(event["fold"], event["phase"], event["epoch"]) for event in epochs(first)]
    assert told == [(fold, *at) for fold in (0, 1) for at in (("mae", 0), ("supervised", 0), ("supervised", 1))]
    assert (first / "checkpoints" / f"network_0-0_{LAST}").is_file()


def test_curves_model_and_aliases_are_in_mlflow(first: Path, store: Path) -> None:
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{store / 'mlflow.db'}")
    version = client.get_model_version_by_alias("spectramind-v50", "candidate")
    assert int(client.get_model_version_by_alias("spectramind-v50", "champion").version) == 1
    curve = client.get_metric_history(str(version.run_id), "network_1-0/supervised/val/gll")
    assert [point.step for point in curve] == [0, 1]
    assert curve[1].value == pytest.approx(epochs(first)[-1]["val/gll"])


def test_a_second_run_trains_nothing_and_gives_the_same(
    first: Path, simulated: SimulatedDataset, store: Path, tmp_path: Path
) -> None:
    second = run(simulated, store, tmp_path)
    assert epochs(second) == []
    for name in ("predictions/predictions.parquet", f"predictions/{VIOLATIONS}"):
        assert (second / name).read_bytes() == (first / name).read_bytes()


def test_a_rule_switched_off_changes_metrics_and_violations(
    first: Path, simulated: SimulatedDataset, store: Path, tmp_path: Path
) -> None:
    changes = ("symbolic.smoothness.enabled=false", "train.loader.workers=1", "train.validation_steps=2")
    second = run(simulated, store, tmp_path, *changes, "tracking.enable=false")
    before, after = (read(out / "metrics.json")["out_of_fold"] for out in (first, second))
    assert set(before["violations"]) - set(after["violations"]) == {"smoothness"}
    assert after["score_network"] != before["score_network"]
    assert [(event["fold"], event["step"]) for event in epochs(second, "validation")] == [(0, 2), (1, 2)]
    rules = set(pd.read_parquet(first / "predictions" / VIOLATIONS)["rule"])
    assert rules - set(pd.read_parquet(second / "predictions" / VIOLATIONS)["rule"]) == {"smoothness"}


class _Clock:
    """Time enough for so many looks at it after the fits."""

    def __init__(self, looks: int) -> None:
        self.looks = looks

    def __call__(self) -> bool:
        self.looks -= 1
        return self.looks < 0


def test_a_training_out_of_time_delivers_and_goes_on_later(
    first: Path, simulated: SimulatedDataset, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.workspace import Workspace

    clock = _Clock(9)

    def out_of_time(work: Workspace) -> bool:
        work.cut_short = work.cut_short or clock()
        return work.cut_short

    seed = ("train.mask.kind=block", "tracking.enable=false")
    with monkeypatch.context() as patched:
        patched.setattr(Workspace, "out_of_time", out_of_time)
        with pytest.raises(BudgetReached) as stopped:
            run(simulated, store, tmp_path / "short", *seed)
    assert stopped.value.exit_code == 75
    assert read(tmp_path / "short" / "metrics.json")["out_of_fold"]["network_weight"] == 0.0
    assert (tmp_path / "short" / "submission" / "submission.csv").is_file()
    resumed = epochs(run(simulated, store, tmp_path / "on", *seed))
    assert resumed
    assert len(resumed) < len(epochs(first))


def test_a_network_with_weight_is_served_in_another_process(
    first: Path, simulated: SimulatedDataset, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weight is put in by hand, since so small a network wins nothing."""
    from spectramind.training import mixture

    def half(analytic: Any, network: Any, *_: Any) -> mixture.Mixture:
        return mixture.Mixture(0.5, *mixture.mix(analytic, network, 0.5), {"network_weight": 0.5})

    monkeypatch.setattr(mixture, "choose_mixture", half)
    out = run(simulated, store, tmp_path / "run", "train.mc_dropout_passes=3")
    written = pd.read_parquet(out / "predictions" / "predictions.parquet").set_index("planet_id")
    analytic = pd.read_parquet(first / "predictions" / "predictions.parquet").set_index("planet_id")
    assert np.abs(written / analytic - 1).to_numpy().max() > 1e-6
    stars = pd.read_csv(simulated.root / "test_star_info.csv", dtype={"planet_id": str})
    planets = stars["planet_id"]
    stars["fit"] = [str(next((store / "fits" / "test" / planet).glob("*/fit.npz"))) for planet in planets]
    cubes = [[str(next((store / "cubes" / "test" / f"{p}_0" / "FGS1").glob("[0-9a-f]*")))] for p in planets]
    stars["fgs1"] = [json.dumps(folders) for folders in cubes]
    stars.to_csv(tmp_path / "input.csv", index=False)
    program = """
import sys, mlflow, pandas as pd
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model("models:/spectramind-v50@candidate")
model.predict(pd.read_csv(sys.argv[2], dtype={"planet_id": str})).to_parquet(sys.argv[3])
"""
    arguments = [f"sqlite:///{store / 'mlflow.db'}", str(tmp_path / "input.csv"), str(tmp_path / "output.parquet")]
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "PYTHONPATH": ""}
    subprocess.run([sys.executable, "-c", program, *arguments], check=True, cwd=tmp_path, env=environment)
    served = pd.read_parquet(tmp_path / "output.parquet").set_index("planet_id")
    pd.testing.assert_frame_equal(served, written, rtol=1e-9)


def test_networks_start_from_one_of_simulated_planets(
    first: Path, simulated: SimulatedDataset, store: Path, tmp_path: Path
) -> None:
    sizes = ("train_planets=8", "test_planets=1", "airs_frames=120", "fgs1_frames=240", "two_visit_fraction=0.0")
    arguments = (*(f"simulation.{size}" for size in sizes), "train.pretrain=simulated", "tracking.enable=false")
    out = run(simulated, store, tmp_path / "run", *arguments)
    before = epochs(out / "pretraining")
    assert [(event["fold"], event["phase"]) for event in before] == [(None, "mae"), *[(None, "supervised")] * 2]
    scratch, started = (next(e for e in epochs(at) if e["phase"] == "supervised") for at in (first, out))
    assert started["val/gll"] != scratch["val/gll"]
    again = run(simulated, store, tmp_path / "again", *arguments)
    assert epochs(again) == epochs(again / "pretraining") == []
