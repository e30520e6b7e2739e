"""The flows on a tiny simulated data set, with a real Prefect server, MLflow database and store."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import copy_linked

from flows.run_directory import RunDirectory
from settings.resolve import resolve
from settings.tree import Settings
from spectramind.provenance.digests import file_digest
from spectramind.simulation.dataset import SimulatedDataset
from spectramind.submission.checks import check_submission

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_server")]

RESULTS = (
    "submission/submission.csv",
    "submission/submission_long.csv",
    "submission/submission.zip",
    "predictions/predictions.parquet",
    "predictions/intervals.parquet",
    "checkpoints/best.ckpt/model/model.safetensors",
    "calibration/data_quality.json",
    "calibration/data_quality.html",
    "metrics.json",
    "diagnostics/score_ledger.csv",
    "submission/coverage_certificate.json",
)


@dataclass(frozen=True)
class Finished:
    """A finished run: its directory and the states of its tasks by name."""

    path: Path
    states: dict[str, str]

    def digests(self) -> dict[str, str]:
        return {name: file_digest(self.path / name) for name in RESULTS}

    def json(self, name: str) -> Any:
        return json.loads((self.path / name).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def first(simulated: SimulatedDataset, store: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return whole_run(simulated.root, store, tmp_path_factory.mktemp("first"), truth(simulated))


def truth(simulated: SimulatedDataset) -> str:
    return f"data.truth={simulated.truth / 'test.csv'}"


def configured(root: Path, store: Path, out: Path, *arguments: str) -> Settings:
    common = (f"data.root={root}", f"outputs.store={store}", f"outputs.dir={out}", "dask.scheduler=synchronous")
    return resolve([*common, "model.learning_iterations=5", "model.kernel_widths=[1.0]", *arguments], None, {})


def run_flow(flow: Any, settings: Settings) -> Finished:
    from prefect import tags
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import TaskRunFilter, TaskRunFilterTags

    mark = settings.outputs.dir.as_posix()  # type: ignore[union-attr]
    with RunDirectory.create(settings, "test") as run, tags(mark):
        flow(settings, run)
    with get_client(sync_client=True) as client:
        marked = TaskRunFilter(tags=TaskRunFilterTags(all_=[mark]))
        states = {task.name: str(task.state_name) for task in client.read_task_runs(task_run_filter=marked, limit=200)}
    return Finished(run.path, states)


def whole_run(root: Path, store: Path, out: Path, *arguments: str) -> Finished:
    from flows.end_to_end import spectramind_v50

    return run_flow(spectramind_v50, configured(root, store, out, *arguments))


def test_a_run_ends_in_a_valid_scored_submission(first: Finished, simulated: SimulatedDataset) -> None:
    assert check_submission(first.path / "submission" / "submission.csv", simulated.test_ids) == []
    scores = first.json("metrics.json")["test"]
    assert 0.0 <= scores["official"] <= 1.0
    assert scores["train_mean"] == pytest.approx(0.0, abs=1e-9)
    assert 0.0 <= first.json("metrics.json")["out_of_fold"]["score"] <= 1.0


def test_a_run_is_a_whole_bundle_of_evidence(first: Finished) -> None:
    from flows.run_directory import verify_run

    listed = set(first.json("manifest.json")["files"])
    assert listed >= {
        *("resolved_config.yaml", "run_hash_summary_v50.json", "data_digests.json", "metrics.json"),
        *("calibration/data_quality.json", "predictions/covariance.zarr/zarr.json", "predictions/flags.json", *RESULTS),
        *(f"submission/{name}" for name in ("manifest.json", "coverage_certificate.md", "sbom.cdx.json")),
    }
    assert verify_run(first.path) == []
    submitted = first.json("submission/manifest.json")
    assert set(submitted) >= {
        "version",
        "git_commit",
        "config_hash",
        "dvc_rev",
        "docker_image",
        "generated_at",
        "metrics",
    }
    assert set(submitted["files"]) | {"manifest.json"} == {p.name for p in (first.path / "submission").iterdir()}
    summary, data = first.json("run_hash_summary_v50.json"), first.json("data_digests.json")
    assert submitted["config_hash"] == summary["config_hash"]
    assert summary["data_rev"] == first.json("manifest.json")["data_rev"]
    assert {"train.csv", "train_star_info.csv"} <= set(data)
    assert sum(name.startswith("test/") for name in data) >= 3 * 2


def test_what_the_registered_model_was_made_from_is_never_removed(first: Finished, store: Path) -> None:
    from flows.collect import Limits, planned
    from flows.store_layout import StoreLayout
    from flows.tracking import Destination, aliased_models

    layout = StoreLayout(store)
    aliased = aliased_models(Destination.of(store, None, "spectramind_v50"))
    _, kept = planned(layout, aliased, Limits(0.0, most_bytes=0))
    reasons = {item.path: item.kept for item in kept}
    assert reasons[first.path.resolve()] == "its model has an alias in the registry"
    assert "a model in use was made from it" in {reasons.get(path.resolve()) for path in layout.models.iterdir()}
    cubes = {path.parent.resolve() for path in (store / "cubes").glob("*/*/*/*/manifest.json")}
    assert cubes
    assert cubes <= reasons.keys()


def test_the_self_test_names_what_is_wrong_with_either_table(first: Finished, tmp_path: Path, capsys: Any) -> None:
    from flows.selftest import submission_report
    from spectramind.errors import InputError

    folder = copy_linked(first.path / "submission", tmp_path / "submission")
    submission_report(folder, None)
    for name, row, column in (("submission.csv", 1, 7), ("submission_long.csv", 8, 2)):
        lines = (folder / name).read_text(encoding="utf-8").splitlines()
        cells = lines[row].split(",")
        cells[column] = "-1"
        lines[row] = ",".join(cells)
        (folder / name).unlink()
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    capsys.readouterr()
    with pytest.raises(InputError, match="differences"):
        submission_report(folder, None)
    planet, out = cells[0], capsys.readouterr().out
    assert f"@@ planet {planet}, wl_7 @@" in out
    assert f"submission_long.csv: error: planet {planet}, column mu, found -1" in out


def test_the_ledger_adds_up_to_what_the_score_lacks(first: Finished) -> None:
    metrics, ledgers = first.json("metrics.json"), first.json("diagnostics/score_ledger.json")
    for name, score in (("out_of_fold", metrics["out_of_fold"]["score"]), ("test", metrics["test"]["official"])):
        total = metrics["score_ledger"][name]
        lost = sum(total["all"][part] for part in ("bias", "sigma", "unavoidable")) + total["clip"]
        assert lost == pytest.approx(1 - score, abs=1e-9)
        assert len(ledgers[name]["rows"]) == 1 + 2 + 283 + ledgers[name]["planets"]
    table = pd.read_csv(first.path / "diagnostics" / "score_ledger.csv")
    assert set(table["predictions"]) == {"out_of_fold", "test"}
    noise = first.json("diagnostics/noise_ledger.json")
    assert noise["gains"] == metrics["noise_ledger"]
    assert all(gain["all"] == pytest.approx(gain["FGS1"] + gain["AIRS-CH0"]) for gain in noise["gains"].values())
    assert max(noise["gains"], key=lambda term: noise["gains"][term]["all"]) in ("photon", "prior")


def test_the_covariance_is_that_of_the_submitted_sigmas(first: Finished) -> None:
    from flows.covariance_file import read_covariance
    from flows.spectra_files import read_predictions

    submitted = read_predictions(first.path / "submission" / "submission.csv")
    covariance = read_covariance(first.path / "predictions" / "covariance.zarr", submitted.planet_ids).dense()
    np.testing.assert_allclose(np.sqrt(np.diagonal(covariance, axis1=1, axis2=2)), submitted.sigma, rtol=1e-6)
    correlation = covariance / (submitted.sigma[:, :, None] * submitted.sigma[:, None, :])
    assert np.linalg.eigvalsh(correlation).min() > 0


def test_intervals_go_with_the_predictions(first: Finished, simulated: SimulatedDataset) -> None:
    table = pd.read_parquet(first.path / "predictions" / "intervals.parquet")
    assert len(table) == 4 * len(simulated.test_ids) * 283
    wide = pd.read_parquet(first.path / "predictions" / "predictions.parquet").set_index("planet_id")
    planet, factors = simulated.test_ids[1], first.json("submission/coverage_certificate.json")["levels"]
    rows = table[(table["planet_id"] == planet) & (table["level"] == 0.8)].set_index("wl")
    mean, sigma = wide.loc[planet].to_numpy()[:283], wide.loc[planet].to_numpy()[283:]
    np.testing.assert_allclose(rows["low"] + rows["high"], 2 * mean, rtol=1e-9)
    np.testing.assert_allclose(rows["band_high"], mean + factors[1]["simultaneous"]["factor"] * sigma, rtol=1e-9)
    assert (rows["band_low"] <= rows["low"]).all()
    assert np.isinf(table.loc[table["level"] == 0.95, ["low", "high"]]).all(axis=None)  # nine planets are too few


def test_the_certificate_goes_with_the_submission(first: Finished, simulated: SimulatedDataset) -> None:
    certificate, manifest = first.json("submission/coverage_certificate.json"), first.json("submission/manifest.json")
    for name in ("coverage_certificate.json", "coverage_certificate.md"):
        assert manifest["sha256"][name] == file_digest(first.path / "submission" / name).removeprefix("sha256:")
    observed = first.json("metrics.json")["out_of_fold"]["statistics"]
    assert certificate["planets"] == len(simulated.train_ids) - 1
    for level in certificate["levels"]:
        assert len(level["bins"]) == 283
        for name, found in level["instruments"].items():
            assert found["observed"] == observed[name]["coverage"][f"{100 * level['level']:.0f}"]["observed"]
    assert certificate["levels"][-1]["simultaneous"]["factor"] is None  # 9 planets promise no band of 95 %
    comparison = certificate["exchangeability"]
    assert (comparison["n_first"], comparison["n_second"]) == (9, 3)
    assert comparison["least_p_value"] <= comparison["p_value"] <= 1
    assert "too few planets" in (first.path / "submission" / "coverage_certificate.md").read_text(encoding="utf-8")


def test_a_damaged_train_planet_is_set_aside_by_name(first: Finished, simulated: SimulatedDataset) -> None:
    damaged = simulated.train_ids[-1]
    quality = first.json("calibration/data_quality.json")
    assert [row["planet_id"] for row in quality["quarantined"]] == [damaged]
    assert "FGS1_signal_0.parquet" in quality["quarantined"][0]["reason"]
    assert damaged in (first.path / "calibration" / "data_quality.html").read_text(encoding="utf-8")
    assert first.json("metrics.json")["out_of_fold"]["planets"] == len(simulated.train_ids) - 1


def test_a_second_run_computes_nothing_and_gives_the_same_files(
    first: Finished, simulated: SimulatedDataset, store: Path, tmp_path: Path
) -> None:
    second = whole_run(simulated.root, store, tmp_path, truth(simulated))
    tasks = {name: state for name, state in second.states.items() if not is_flow(name)}
    assert len(tasks) > 10
    assert set(tasks.values()) == {"Cached"}
    assert second.digests() == first.digests()


def test_one_knob_recomputes_only_what_depends_on_it(
    first: Finished, simulated: SimulatedDataset, store: Path, tmp_path: Path
) -> None:
    changed = whole_run(simulated.root, store, tmp_path, truth(simulated), "uncertainty.max_factor=3")
    recomputed = {name for name, state in changed.states.items() if state != "Cached" and not is_flow(name)}
    assert {"train", "predict"} <= recomputed
    assert not any(name.startswith(("calibrate", "fit", "contract raw", "contract cal")) for name in recomputed)


def test_stages_run_alone_and_a_later_run_takes_up_what_they_made(simulated: SimulatedDataset, tmp_path: Path) -> None:
    from flows.calibrate import calibrate

    def run(stage: str) -> tuple[set[str], set[str]]:
        """Names of the tasks that computed something, and the instruments with cubes."""
        settings = configured(simulated.root, tmp_path / "store", tmp_path / stage, f"calibration.stage={stage}")
        states = run_flow(calibrate, settings).states
        made = {cube.parent.parent.name for cube in (tmp_path / "store" / "cubes").glob("*/*/*/*/cube.zarr")}
        return {name for name, state in states.items() if state != "Cached"}, made

    computed, instruments = run("fgs1")
    assert instruments == {"FGS1"}
    assert not any(name.startswith("fit") for name in computed)
    computed, instruments = run("airs")
    assert instruments == {"FGS1", "AIRS-CH0"}
    assert not any("FGS1" in name for name in computed)
    computed, _ = run("features")
    assert not any(name.startswith("calibrate") for name in computed)
    assert {"fit train 1/1", "fit test 1/1"} <= computed


def test_a_damaged_cube_is_made_again(
    first: Finished, simulated: SimulatedDataset, store: Path, tmp_path: Path
) -> None:
    from flows.calibrate import calibrate

    cubes = store / "cubes" / "train" / f"{simulated.train_ids[0]}_0"
    chunk = next(cubes.glob("AIRS-CH0/*/cube.zarr/AIRS-CH0/flux/c*"))
    intact = chunk.read_bytes()
    chunk.write_bytes(intact[:-1] + bytes([intact[-1] ^ 1]))
    again = run_flow(calibrate, configured(simulated.root, store, tmp_path))
    assert [name for name in again.states if name.endswith("(again)")] == ["calibrate train AIRS-CH0 1/1 (again)"]
    assert chunk.read_bytes() == intact


def test_an_unusable_test_planet_gets_the_flagged_fallback(
    first: Finished, simulated: SimulatedDataset, store: Path, tmp_path: Path
) -> None:
    root, lost = copy_linked(simulated.root, tmp_path / "data"), simulated.test_ids[0]
    (root / "test" / lost / "AIRS-CH0_calibration_0" / "dark.parquet").unlink()
    finished = whole_run(root, store, tmp_path / "run")
    assert finished.json("predictions/flags.json")[lost] == ["fallback"]
    assert lost not in set(pd.read_parquet(finished.path / "predictions" / "intervals.parquet")["planet_id"])
    table = pd.read_csv(finished.path / "submission" / "submission.csv", dtype={"planet_id": str}).set_index(
        "planet_id"
    )
    usable = list(simulated.train_ids[:-1])
    labels = pd.read_csv(root / "train.csv", dtype={"planet_id": str}).set_index("planet_id").loc[usable]
    np.testing.assert_allclose(table.loc[lost].to_numpy()[:283], labels.mean().to_numpy(), rtol=1e-9)
    np.testing.assert_allclose(table.loc[lost].to_numpy()[283:], labels.std(ddof=0).to_numpy(), rtol=1e-9)


def test_sigma_is_scaled_anew_without_training(first: Finished, simulated: SimulatedDataset, tmp_path: Path) -> None:
    from flows.covariance_file import read_covariance
    from flows.scaling import calibrate_temperature
    from flows.spectra_files import read_predictions
    from spectramind.uncertainty.scaling import SigmaScaling

    def again(name: str, *arguments: str) -> Path:
        settings = configured(simulated.root, tmp_path / "store", tmp_path / name, *arguments)
        with RunDirectory.create(settings, "calibrate-temp") as run:
            calibrate_temperature(first.path, simulated.root / "train.csv", settings, run)
        return tmp_path / name

    before = read_predictions(first.path / "predictions" / "predictions.parquet")
    same = read_predictions(again("same") / "predictions" / "predictions.parquet")
    np.testing.assert_allclose(same.sigma, before.sigma, rtol=1e-12)
    np.testing.assert_array_equal(same.mean, before.mean)
    again("other")
    other = again("other", "uncertainty.min_planets=4", "uncertainty.min_gain=0")  # replaces what is there
    scaling = SigmaScaling.load(other / "checkpoints" / "sigma_scaling.json")
    scaled = read_predictions(other / "predictions" / "predictions.parquet")
    np.testing.assert_allclose(scaled.sigma, scaling.apply(before.sigma), rtol=1e-12)  # nine planets left it as it was
    covariance = read_covariance(other / "predictions" / "covariance.zarr", scaled.planet_ids).dense()
    np.testing.assert_allclose(np.sqrt(np.diagonal(covariance, axis1=1, axis2=2)), scaled.sigma, rtol=1e-5)
    metrics = json.loads((other / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["before"]["score"] == pytest.approx(
        first.json("metrics.json")["out_of_fold"]["score_before_scaling"]
    )
    assert set(metrics["sigma_scaling"]["AIRS-CH0"]["gains"]) == {"temperature", "bins", "power"}


class _Clock:
    """An hour passes with every look at it."""

    def __init__(self, run_started: float) -> None:
        self.now = run_started

    def __call__(self) -> float:
        self.now += 3600.0
        return self.now


def test_a_used_up_budget_delivers_the_fallback_for_planets_not_reached(
    simulated: SimulatedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    from flows import workspace
    from spectramind.errors import BudgetReached

    batches = 2 * 5 + 2 * 3 + 5 + 1  # calibrations of both instruments and splits, train fits, the first test fit
    monkeypatch.setattr("flows.batches.SMALLEST_BATCH", 1)
    monkeypatch.setattr(workspace, "monotonic", _Clock(time.monotonic()))
    budget = f"runtime.budget_hours={(batches + 0.5) / workspace.UNITS_SHARE}"
    with pytest.raises(BudgetReached, match=r"time budget of .* reached") as stopped:
        whole_run(simulated.root, tmp_path / "store", tmp_path / "run", budget, "tracking.enable=false")
    assert stopped.value.exit_code == 75
    assert check_submission(tmp_path / "run" / "submission" / "submission.csv", simulated.test_ids) == []
    flags = json.loads((tmp_path / "run" / "predictions" / "flags.json").read_text(encoding="utf-8"))
    assert [planet for planet, words in flags.items() if words == ["fallback"]] == sorted(simulated.test_ids[1:])
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["status"] == "budget reached"


def test_a_budget_too_small_for_a_prediction_says_how_to_go_on(
    simulated: SimulatedDataset, store: Path, tmp_path: Path
) -> None:
    from spectramind.errors import BudgetReached

    with pytest.raises(BudgetReached, match="goes on from here"):
        whole_run(simulated.root, store, tmp_path, "runtime.budget_hours=1e-9")


def test_too_many_lost_planets_stop_the_run(simulated: SimulatedDataset, store: Path, tmp_path: Path) -> None:
    from flows.calibrate import calibrate
    from spectramind.errors import InputError

    root = copy_linked(simulated.root, tmp_path / "data")
    for planet in simulated.train_ids[:3]:
        (root / "train" / planet / "FGS1_calibration_0" / "flat.parquet").unlink()
    with pytest.raises(InputError, match="set aside") as stopped:
        run_flow(calibrate, configured(root, store, tmp_path / "run"))
    assert stopped.value.exit_code == 2
    quality = json.loads((tmp_path / "run" / "calibration" / "data_quality.json").read_text(encoding="utf-8"))
    assert {row["planet_id"] for row in quality["quarantined"]} == {*simulated.train_ids[:3], simulated.train_ids[-1]}


def test_training_survives_a_broken_mlflow(
    first: Finished, simulated: SimulatedDataset, store: Path, tmp_path: Path
) -> None:
    from flows.train import train_v50

    settings = configured(simulated.root, store, tmp_path, "tracking.uri=sqlite:////proc/nowhere/mlflow.db")
    finished = run_flow(train_v50, settings)
    events = [json.loads(line)["event"] for line in (tmp_path / "tracking_spool.jsonl").read_text().splitlines()]
    assert events[0] == "start"
    assert {"metrics", "model", "finish"} <= set(events)
    assert (finished.path / "checkpoints" / "best.ckpt" / "model" / "model.json").is_file()


def test_the_run_is_in_mlflow_with_its_settings_and_metrics(first: Finished, store: Path) -> None:
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{store / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("spectramind_v50")
    assert experiment is not None
    run = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"])[0]
    assert run.info.status == "FINISHED"
    assert run.data.params["model.learning_iterations"] == "5"
    assert run.data.metrics["oof/score"] == pytest.approx(first.json("metrics.json")["out_of_fold"]["score"])
    assert run.data.metrics["test/official"] == pytest.approx(first.json("metrics.json")["test"]["official"])
    assert {"repo_sha", "config_hash", "data_rev"} <= set(run.data.tags)
    newest = max(int(found.version) for found in client.search_model_versions("name='spectramind-v50'"))
    assert int(client.get_model_version_by_alias("spectramind-v50", "candidate").version) == newest


def test_the_registered_model_predicts_the_same_in_another_process(
    first: Finished, simulated: SimulatedDataset, store: Path, tmp_path: Path
) -> None:
    stars = pd.read_csv(simulated.root / "test_star_info.csv", dtype={"planet_id": str})
    stars["fit"] = [str(next((store / "fits" / "test" / planet).glob("*/fit.npz"))) for planet in stars["planet_id"]]
    stars.to_csv(tmp_path / "input.csv", index=False)
    program = """
import sys, mlflow, pandas as pd
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model("models:/spectramind-v50/1")
model.predict(pd.read_csv(sys.argv[2], dtype={"planet_id": str})).to_parquet(sys.argv[3])
"""
    arguments = [f"sqlite:///{store / 'mlflow.db'}", str(tmp_path / "input.csv"), str(tmp_path / "output.parquet")]
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "PYTHONPATH": ""}
    subprocess.run([sys.executable, "-c", program, *arguments], check=True, cwd=tmp_path, env=environment)
    served = pd.read_parquet(tmp_path / "output.parquet").set_index("planet_id")
    written = pd.read_parquet(first.path / "predictions" / "predictions.parquet").set_index("planet_id")
    pd.testing.assert_frame_equal(served, written, rtol=1e-12)


def is_flow(name: str) -> bool:
    """Prefect lists a flow called by another among the tasks of that one."""
    return name.startswith(("calibrate-", "train-v50", "predict-v50", "submit-"))
