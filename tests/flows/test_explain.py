"""`corel-train` and `explain` on finished runs of the simulated data set, through the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from flows.cli import app
from flows.passport import PASSPORT
from spectramind.simulation.dataset import SimulatedDataset
from spectramind.uncertainty.noise_passport import DEPTHS, TERMS

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_server")]

FAST = ("model.learning_iterations=5", "model.kernel_widths=[1.0]", "tracking.enable=false")
NETWORK = (
    *("model=small", "train=fast_smoke", "train.device=cpu", "model.folds=2"),
    *("model.ssm.d_model=16", "model.ssm.d_state=8", "model.ssm.head_dim=8", "model.ssm.n_layers=1"),
    *("model.gnn.hidden_dim=16", "model.gnn.n_layers=1", "model.fusion.dim=32", "model.fusion.hidden=16"),
    "model.ssm.export_step_latents=true",
)
EDGES = ("--edges", "--edge-epochs", "2")


def invoke(*arguments: str) -> Result:
    return CliRunner(env={"COLUMNS": "400"}).invoke(app, arguments)


def run(simulated: SimulatedDataset, store: Path, out: Path, *settings: str) -> Result:
    places = (f"data.root={simulated.root}", f"outputs.store={store}", f"outputs.dir={out}")
    result = invoke("run", *places, "dask.scheduler=synchronous", *FAST, *settings)
    assert result.exit_code == 0, result.output
    return result


def explain(finished: Path, store: Path, out: Path, *options: str) -> Result:
    return invoke("explain", str(finished), *options, f"outputs.store={store}", f"outputs.dir={out}")


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def said(simulated: SimulatedDataset, store: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run with networks, and what it printed."""
    out = tmp_path_factory.mktemp("network")
    return out, run(simulated, store, out, *NETWORK).output


@pytest.fixture(scope="module")
def finished(said: tuple[Path, str]) -> Path:
    return said[0]


@pytest.fixture(scope="module")
def explained(finished: Path, store: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """`explain/` of all planets, and what the command printed; the store's units are as they were."""
    units = sorted(path for part in ("cubes", "fits", "models") for path in (store / part).rglob("*"))
    result = explain(finished, store, tmp_path_factory.mktemp("explaining"))
    assert result.exit_code == 0, result.output
    assert sorted(path for part in ("cubes", "fits", "models") for path in (store / part).rglob("*")) == units
    return finished / "explain", result.output


def test_a_run_tells_how_honest_its_sigmas_are(said: tuple[Path, str]) -> None:
    out, printed = said
    for instrument, found in read(out / "metrics.json")["out_of_fold"]["statistics"].items():
        if instrument != "all":
            assert f"{instrument}: errors / sigma have standard deviation {found['z_std']:.3f}" in printed


def test_a_run_writes_the_noise_passport_of_its_predictions(finished: Path, simulated: SimulatedDataset) -> None:
    table = pd.read_parquet(finished / "predictions" / PASSPORT)
    assert set(table["planet_id"]) == set(simulated.test_ids)
    assert list(table["depth"]) == [*DEPTHS] * len(simulated.test_ids)
    np.testing.assert_allclose(table[list(TERMS)].sum(axis=1), 1.0, rtol=1e-9)
    np.testing.assert_allclose(table["averages_down"], 1.0 - table["orbit"] - table["prior"], rtol=1e-9)
    assert (table["visits"] == 1).all()
    assert table["visits_chi2"].isna().all()


def test_an_explanation_adds_up(explained: tuple[Path, str], simulated: SimulatedDataset) -> None:
    folder, printed = explained
    summary = read(folder / "summary.json")
    assert set(summary["planets"]) == set(simulated.test_ids)
    assert summary["checks"]["passport_sum_error"] < 1e-11
    assert summary["checks"]["attribution_sum_error"] < 1e-6
    assert summary["network"]["shap_additivity_error"] < 1e-4
    assert summary["network"]["integrated_gradients_completeness_error"] <= 0.01
    assert "terms sum to the variance" in printed
    own, written = (pd.read_parquet(at / PASSPORT) for at in (folder, folder.parent / "predictions"))
    pd.testing.assert_frame_equal(own, written)


def test_attributions_give_the_change_of_each_depth(explained: tuple[Path, str]) -> None:
    """What the tables say, against the sums that they should have."""
    folder, _ = explained
    heads = pd.read_parquet(folder / "heads_shap.parquet")
    given = pd.read_parquet(folder / "attribution.parquet")
    bins = given.groupby("planet_id")["wl"].unique()
    for planet, rows in heads.groupby("planet_id"):
        with np.load(folder / f"step_latents_{planet}.npz") as latents:
            assert {latents[name].shape[1] for name in latents} == {256}
        assert sorted(rows["wl"].unique()) == sorted(bins[planet])
        sigma = read(folder / f"sigma_{planet}.json")
        assert len(sigma) == 283
        for told in sigma.values():
            assert sum(told["terms"].values()) == pytest.approx(1.0, rel=1e-9)
            assert told["visits"] == {"number": 1, "chi2": None, "change_ppm": None}
            assert told["neighbours"][0]["gain"] != 0
        for name in ("noise", "heads_shap", "integrated_gradients"):
            assert (folder / f"{name}_{planet}.png").stat().st_size > 5000
    nodes = pd.read_parquet(folder / "node_importance.parquet")
    assert len(nodes) == 283 * nodes["planet_id"].nunique() == 283 * heads["planet_id"].nunique()
    stated = pd.read_parquet(folder.parent / "predictions" / "predictions.parquet").set_index("planet_id")
    planet = str(stated.index[0])
    told = read(folder / f"sigma_{planet}.json")["wl_7"]["stated_sigma_ppm"]
    assert told == pytest.approx(1e6 * stated.loc[planet, "sigma_7"])


def test_attributions_lie_beside_the_rules_that_are_broken(explained: tuple[Path, str]) -> None:
    folder, printed = explained
    table = pd.read_parquet(folder / "shap_symbolic.parquet").set_index("planet_id")
    violations = pd.read_parquet(folder.parent / "predictions" / "violations.parquet").set_index("planet_id")
    given = pd.read_parquet(folder / "attribution.parquet")
    for planet, own in table.groupby(level=0):
        top = own[own["top"]]
        assert len(top) == 24
        assert top["attribution_ppm"].min() >= own.loc[~own["top"], "attribution_ppm"].max()
        sums = given[given["planet_id"] == planet].groupby("wl")["attribution_ppm"].agg(lambda x: x.abs().sum())
        np.testing.assert_allclose(top["attribution_ppm"], sums, rtol=1e-9)
        assert (top["network_ppm"] > 0).any()
        broken = violations.loc[planet].set_index("rule")["penalty"]
        np.testing.assert_allclose(own["smoothness"].sum(), 0.1 * broken["smoothness"], rtol=1e-9)
        told = read(folder / f"shap_symbolic_{planet}.json")
        assert [row["wl"] for row in told["bins"]] == top["wl"].tolist()
        assert told["attribution_sum_error"] < 1e-6
        assert (folder / f"shap_symbolic_{planet}.png").stat().st_size > 5000
    share = read(folder / "summary.json")["rules"]["penalty_in_top_bins"]
    assert f"physical rules: {share:.0%} of what they cost" in printed
    for molecule, told in read(folder / "summary.json")["bands"].items():
        assert f"{molecule}: of its windows' contrast with the continuum {told['own']:.0%}" in printed
        assert f"at most {told['chance_limit']:.0%} at 95 %" in printed


def test_one_planet_can_be_explained(
    finished: Path, explained: tuple[Path, str], simulated: SimulatedDataset, store: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(finished, tmp_path / "copy", ignore=shutil.ignore_patterns("explain"))
    result = explain(copy, store, tmp_path / "out", "--planet", simulated.test_ids[1], *EDGES)
    assert result.exit_code == 0, result.output
    one, all_ = (pd.read_parquet(at / "heads_shap.parquet") for at in (copy / "explain", explained[0]))
    same = all_[all_["planet_id"] == simulated.test_ids[1]].reset_index(drop=True)
    pd.testing.assert_frame_equal(one, same)
    edges = pd.read_parquet(copy / "explain" / "edges.parquet")
    assert list(edges) == ["planet_id", "source_wl", "target_wl", "edge_type", "importance"]
    assert set(edges["planet_id"]) == {simulated.test_ids[1]}
    assert edges["importance"].between(0, 1).all()
    assert edges["importance"].nunique() > len(edges) / 2
    ends = ["source_wl", "target_wl"]
    attended = pd.read_parquet(copy / "explain" / "attention.parquet")
    pd.testing.assert_frame_equal(edges[ends], attended[ends])
    shutil.rmtree(copy / "checkpoints" / "best.ckpt" / "networks")
    without = explain(copy, store, tmp_path / "without", *EDGES)
    assert without.exit_code == 2
    assert "no networks" in without.stderr


def test_what_cannot_be_explained_is_named(
    finished: Path, simulated: SimulatedDataset, store: Path, tmp_path: Path
) -> None:
    unknown = explain(finished, store, tmp_path / "a", "--planet", "nowhere")
    assert unknown.exit_code == 2
    assert "none of nowhere" in unknown.stderr
    (tmp_path / "empty").mkdir()
    for command in (("explain",), ("corel-train", str(simulated.root / "train.csv"))):
        name, *rest = command
        places = (f"outputs.store={store}", f"outputs.dir={tmp_path / name}")
        nothing = invoke(name, str(tmp_path / "empty"), *rest, *places)
        assert nothing.exit_code == 2
        assert "a part of a finished run" in nothing.stderr


def test_a_store_that_lost_a_cube_is_no_reason_to_calibrate_again(
    finished: Path, simulated: SimulatedDataset, store: Path, tmp_path: Path
) -> None:
    cubes = store / "cubes" / "test" / f"{simulated.test_ids[0]}_0"
    cubes.rename(tmp_path / "away")
    try:
        result = explain(finished, store, tmp_path / "out", "--planet", simulated.test_ids[0])
        assert result.exit_code == 2
        assert "no longer there" in result.stderr
        assert "--config" in result.stderr
        assert not cubes.exists()
    finally:
        (tmp_path / "away").rename(cubes)


def test_a_run_tells_the_steps_of_its_intervals(simulated: SimulatedDataset, store: Path, tmp_path: Path) -> None:
    """Temperature, then the graph network, then the planet's own light curves, then the conformal step."""
    small = ("corel.min_planets=5", "corel.epochs=1", "corel.hidden=8", "corel.layers=1", "corel.instance=true")
    fewer = ("uncertainty.stage=instrument", "uncertainty.min_planets=5", "intervals.method=corel")
    out = tmp_path / "run"
    printed = run(simulated, store, out, *fewer, *small).output
    told = read(out / "metrics.json")["intervals"]
    assert told["method"] == "corel"
    assert [step["step"] for step in told["steps"]] == ["temperature", "corel", "instance", "conformal"]
    words = " -> ".join(step["step"] if step["kept"] else f"({step['step']})" for step in told["steps"])
    assert f"Intervals (corel, {told['planets']} planets): {words}" in printed
    assert "  instance: " in printed
    events = [json.loads(line) for line in (out / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    (event,) = [event for event in events if event["event"] == "intervals"]
    assert event["steps"] == told["steps"]
    again = run(simulated, store, tmp_path / "split", *fewer[:2])
    assert "Intervals (split, 9 planets): " in again.output
    parts = (read(path / "predictions" / "intervals.json")["method"] for path in (out, tmp_path / "split"))
    assert list(parts) == ["corel", "split"]
    wrong = invoke("run", f"data.root={simulated.root}", f"outputs.dir={tmp_path / 'wrong'}", "intervals.method=own")
    assert wrong.exit_code == 2
    assert "one of corel, region, split, found 'own'" in wrong.stderr
    assert not (tmp_path / "wrong" / "calibration").exists()


@pytest.mark.parametrize("few", [True, False])
def test_conformal_network_of_a_finished_run(
    few: bool, finished: Path, simulated: SimulatedDataset, store: Path, tmp_path: Path
) -> None:
    """Nine planets are few: split-conformal intervals alone. A lower limit lets the network train on five of them."""
    settings = () if few else ("corel.min_planets=5", "corel.epochs=1", "corel.hidden=8", "corel.layers=1")
    places = (f"outputs.store={store}", f"outputs.dir={tmp_path}")
    result = invoke("corel-train", str(finished), str(simulated.root / "train.csv"), *settings, *places)
    assert result.exit_code == 0, result.output
    report = read(tmp_path / "corel" / "report.json")
    assert report["network"] is not few
    assert "nothing else" in report["promise"]
    assert ("too few planets for a network" in result.output) is few
    intervals = pd.read_parquet(tmp_path / "corel" / "intervals.parquet")
    assert set(intervals["planet_id"]) == set(simulated.test_ids)
    assert set(intervals["level"]) == {0.68, 0.8, 0.9, 0.95}
    assert (intervals["low"] < intervals["high"]).all()
    assert (intervals["band_low"] <= intervals["low"]).all()
    curves = pd.read_csv(tmp_path / "corel" / "coverage_curves.csv")
    by_bin = pd.read_parquet(tmp_path / "corel" / "coverage_by_bin.parquet")
    assert len(by_bin) == 283 * len(curves)
    for name in ("delta_coverage.csv", "coverage.png", "network.safetensors"):
        assert (tmp_path / "corel" / name).is_file()
