"""Sweeps on a tiny simulated data set, as their users meet them: killed and continued, in parallel, with bad values."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import finished_units

from flows.journal import Journal
from flows.sweep import PlannedRun, Sweep, read_results
from flows.tables import spectra_frame
from settings.resolve import resolve
from settings.tree import settings_hash
from spectramind.ablation.archive import verify_archive
from spectramind.data.layout import open_dataset
from spectramind.errors import InputError, SettingsError
from spectramind.simulation.dataset import SimulatedDataset
from spectramind.types import Floats, Spectra

FAST = (
    *("tracking.enable=false", "dask.scheduler=synchronous", "data.max_planets=8", "uncertainty.min_planets=4"),
    *("model.learning_iterations=2", "model.kernel_widths=[1.0]"),
)
AXES = ("uncertainty.objective=score,nll", "uncertainty.stage=none,power")
PATIENCE_S = 400


@dataclass(frozen=True)
class Command:
    """`ablate` with all that does not change from call to call."""

    root: Path
    folder: Path

    def start(self, name: str, *arguments: str) -> subprocess.Popen[str]:
        places = (
            f"data.root={self.root}",
            f"outputs.store={self.folder / 'store'}",
            f"outputs.dir={self.folder / name}",
        )
        command = [sys.executable, "-m", "spectramind", "ablate", *places, *FAST, *arguments]
        environment = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1"}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(command, cwd=self.folder, env=environment, text=True, **pipes)  # type: ignore[call-overload,no-any-return]

    def run(self, name: str, *arguments: str) -> tuple[int, str, str]:
        process = self.start(name, *arguments)
        out, err = process.communicate(timeout=PATIENCE_S)
        return process.returncode, out, err


@pytest.fixture(scope="module")
def command(simulated: SimulatedDataset, tmp_path_factory: pytest.TempPathFactory) -> Command:
    return Command(simulated.root, tmp_path_factory.mktemp("ablate"))


def starts(run: Path) -> list[str]:
    """Process ids of the processes that began the run in this directory."""
    events = [json.loads(line) for line in (run / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    return [event["pid"] for event in events if event["event"] == "start"]


def made(store: Path) -> dict[str, int]:
    """When each cube and fit in the store was made."""
    return {str(path): (path / "manifest.json").stat().st_mtime_ns for path in finished_units(store)}


def rows(sweep: Path) -> list[dict[str, Any]]:
    return list(csv.DictReader((sweep / "leaderboard.csv").open(encoding="utf-8")))


@pytest.mark.slow
def test_a_sweep_killed_in_the_middle_goes_on_without_repeating_anything(command: Command) -> None:
    sweep, arguments = command.folder / "grid", ("-m", *AXES, "ablation.top_n=2")
    process = command.start("grid", *arguments)
    end = time.monotonic() + PATIENCE_S
    while len(list(sweep.glob("runs/*/manifest.json"))) < 2:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    finished = {path.parent.name: starts(path.parent) for path in sweep.glob("runs/*/manifest.json")}
    assert 2 <= len(finished) < 4
    assert not (sweep / "leaderboard.csv").exists()
    shared = made(command.folder / "store")

    code, _, err = command.run("grid", *arguments)
    assert code == 0, err
    runs = {path.parent.name: starts(path.parent) for path in sweep.glob("runs/*/manifest.json")}
    assert sorted(runs) == ["000", "001", "002", "003"]
    assert {name: runs[name] for name in finished} == finished
    assert sum(len(pids) == 1 for pids in runs.values()) >= 3  # at most the one that was under way began twice
    assert made(command.folder / "store") == shared
    assert [len(starts(path)) for path in (sweep / "shared").iterdir()] == [1]

    found = rows(sweep)
    assert sorted(row["name"] for row in found) == sorted(runs)
    order = [row["name"] for row in found]
    markdown = (sweep / "leaderboard.md").read_text(encoding="utf-8")
    html = (sweep / "leaderboard.html").read_text(encoding="utf-8")
    assert re.findall(r"^\| \d+ \| (\d{3}) ", markdown, re.MULTILINE) == order
    assert re.findall(r'<td class="name">(\d{3})</td>', html) == order
    assert not re.findall(r'(?:src|href)="(?!data:)', html)
    for row in found:
        score = json.loads((sweep / "runs" / row["name"] / "metrics.json").read_text())["out_of_fold"]["score"]
        assert float(row["score"]) == pytest.approx(score, abs=1e-9)
    assert verify_archive(sweep / "top.zip") == []
    with zipfile.ZipFile(sweep / "top.zip") as archive:
        assert {name.partition("/")[0] for name in archive.namelist()} == set(order[:2])
    assert "top.zip" in json.loads((sweep / "manifest.json").read_text())["files"]

    code, _, err = command.run("grid", "-m", *AXES, "ablation.top_n=2", "model.shape_components=3")
    assert code == 2
    assert "holds a sweep with other settings" in err
    assert (sweep / "manifest.json").exists()


@pytest.mark.slow
def test_a_smart_sweep_in_parallel_visits_all_points_and_tells_which_runs_failed(command: Command) -> None:
    options = ("ablation.strategy=smart", "ablation.max_runs=4", "ablation.seeds=[1,2]", "ablation.parallel_runs=2")
    code, _, err = command.run("smart", "-m", "data.max_planets=7,8", *options)
    assert code == 1
    assert "2 of 4 runs failed" in err
    assert "expected at least 8" in err
    sweep = command.folder / "smart"
    listed = json.loads((sweep / "sweep.json").read_text(encoding="utf-8"))["runs"]
    assert [run["name"] for run in listed] == ["000-seed1", "000-seed2", "001-seed1", "001-seed2"]
    too_few = {run["name"] for run in listed if "data.max_planets=7" in run["arguments"]}
    assert set(json.loads((sweep / "metrics.json").read_text(encoding="utf-8"))["failed"]) == too_few
    assert [(row["data.max_planets"], row["seeds"], row["planets"]) for row in rows(sweep)] == [("8", "2", "8")]
    assert not (sweep / "manifest.json").exists()


def planned(root: Path, *arguments: str) -> Sweep:
    return Sweep.planned(resolve([f"data.root={root}", *arguments], None, {}))


def test_a_dry_run_lists_the_runs_and_writes_nothing(command: Command, tmp_path: Path) -> None:
    code, out, err = Command(command.root, tmp_path).run("dry", "--dry-run", "-m", *AXES, "ablation.seeds=[1,2]")
    assert code == 0, err
    listed = re.findall(r"^run (\S+) +(.*)$", out, re.MULTILINE)
    assert len(listed) == 8
    assert listed[1] == ("000-seed2", "uncertainty.objective=score uncertainty.stage=none runtime.seed=2")
    assert not list(tmp_path.iterdir())


def test_runs_are_capped_seeds_counted_and_kept_out_of_the_registry(tmp_path: Path) -> None:
    sweep = planned(tmp_path, "ablation=nightly", "ablation.max_runs=7", "ablation.seeds=[1,2,3]")
    runs = sweep.runs(tmp_path)
    assert len(runs) == 6
    assert {run.settings.runtime.seed for run in runs} == {1, 2, 3}
    assert {run.settings.tracking.experiment for run in runs} == {"spectramind_v50_ablate"}
    assert not any(run.settings.tracking.register_models for run in runs)
    assert len({run.path for run in runs}) == 6


def test_without_values_to_sweep_there_is_one_run(tmp_path: Path) -> None:
    assert [run.arguments for run in planned(tmp_path, "uncertainty.stage=none").runs(tmp_path)] == [()]


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        ("uncertainty.stage=none,best", "expected one of none"),
        ("uncertainty.stage=none,none", "distinct values"),
        ("uncertainty.stage", "KEY=VALUE"),
        ("uncertainty.stagee=none,global", "did you mean 'uncertainty.stage'"),
        ("dask.workers=1,2", "are the same run"),
        ("runtime.seed=1,2", r"ablation.seeds=\[1,2\]"),
        ("data=nominal,nothing", "no such preset"),
    ],
)
def test_a_sweep_that_cannot_be_run_is_refused_before_anything_is(tmp_path: Path, sweep: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        planned(tmp_path, f"ablation.sweep={json.dumps([sweep])}")
    with pytest.raises(SettingsError, match=r"ablation\.seeds"):
        planned(tmp_path, "ablation.seeds=[1,2]", "ablation.max_runs=1")


def finish(
    run: PlannedRun,
    planets: Sequence[str],
    truth: Floats,
    revision: str = "1",
    seconds: float = 2.0,
    violations: dict[str, float] | None = None,
) -> None:
    """What a run leaves behind that predicts these planets."""
    checkpoint = run.path / "checkpoints" / "best.ckpt"
    checkpoint.mkdir(parents=True)
    spectra = Spectra(tuple(planets), truth, np.full(truth.shape, 1e-4))
    spectra_frame(spectra).to_parquet(checkpoint / "out_of_fold.parquet", index=False)
    Journal(run.path / "events.jsonl").event("trained", seconds=seconds)
    (run.path / "metrics.json").write_text(json.dumps({"out_of_fold": {"violations": violations or {}}}))
    done = {"status": "completed", "config_hash": settings_hash(run.settings), "data_rev": revision, "files": {}}
    (run.path / "manifest.json").write_text(json.dumps(done))


def test_runs_are_judged_on_the_planets_that_all_of_them_predict(simulated: SimulatedDataset, tmp_path: Path) -> None:
    arguments = ('ablation.sweep=["calibration.cosmic_ray_sigma=4,5,6"]', "ablation.seeds=[1,2]")
    runs = planned(simulated.root, *arguments).runs(tmp_path)
    planets, truth = open_dataset(simulated.root).labels()
    finish(runs[0], planets, truth, seconds=2.0, violations={"smooth": 1.0, "positive": 9.0})
    finish(runs[1], planets[::-1], truth[::-1], seconds=4.0, violations={"smooth": 2.0, "positive": 9.0})
    finish(runs[2], planets[1:], truth[1:], violations={"smooth": 3.0})
    finish(runs[3], planets[:-1], truth[:-1], violations={"smooth": 3.0})
    finish(runs[4], planets, truth)  # the other seed of this configuration is missing
    results = read_results(runs)
    assert [candidate.name for candidate in results.candidates] == ["000", "001"]
    assert results.candidates[0].seconds == 3.0
    assert [candidate.violations for candidate in results.candidates] == [1.5, 3.0]  # of the rule that all runs have
    assert np.array_equal(results.truth, truth[1:-1])
    assert all(np.array_equal(found.mean, np.stack([truth[1:-1]] * 2)) for found in results.candidates)

    shutil.rmtree(runs[3].path)
    finish(runs[3], planets, truth, revision="2")
    with pytest.raises(InputError, match="another revision"):
        read_results(runs)
