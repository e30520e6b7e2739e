"""The directory of a run."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from flows.journal import DebugLog, Journal
from flows.run_directory import RunDirectory
from settings.resolve import resolve
from settings.tree import Settings, settings_hash
from spectramind.errors import BudgetReached, InputError, StoreError


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return resolve([f"outputs.dir={tmp_path}/run", f"outputs.store={tmp_path}/store", "runtime.seed=7"])


def _start(folder: Path) -> str:
    os.chdir(folder)
    with RunDirectory.create(resolve([f"outputs.store={folder}/store"]), "run") as run:
        return str(run.path)


def test_fifty_runs_in_one_second_have_fifty_directories(tmp_path: Path) -> None:
    with ProcessPoolExecutor(8) as pool:
        paths = set(pool.map(_start, [tmp_path] * 50))
    assert len(paths) == 50
    for path in map(Path, paths):
        day, run = path.relative_to(tmp_path / "outputs").parts
        assert [len(part) for part in day.split("-")] == [4, 2, 2]
        assert [len(part) for part in run.split("-")] == [2, 2, 2, 6]
    assert DebugLog.of(tmp_path / "store").path.read_text().count("## ") == 50


def test_a_run_leaves_its_settings_its_environment_and_a_manifest(settings: Settings) -> None:
    with RunDirectory.create(settings, "run", ["runtime.seed=7"]) as run:
        (run.folder("submission") / "submission.csv").write_text("planet_id\n")
        run.set_data("abc", {"train.csv": "def"})
        run.add_metrics({"score": 0.5})
        run.add_metrics({"nll": float("nan")})
        assert not (run.path / "manifest.json").exists()
    assert resolve([], run.path / "resolved_config.yaml") == settings
    summary = json.loads((run.path / "run_hash_summary_v50.json").read_text())
    assert summary["config_hash"] == settings_hash(settings)
    assert summary["data_rev"] == "abc"
    named = {"git_commit", "dvc_rev", "docker_image", "poetry_lock_hash", "cuda_version", "torch_version"}
    named |= {"code_digests", "working_directory", "cpu_model", "cpu_count", "ram_bytes", "gpus", "libraries"}
    assert json.loads((run.path / "data_digests.json").read_text()) == {"train.csv": "def"}
    assert named <= set(summary)
    assert json.loads((run.path / "metrics.json").read_text()) == {"score": 0.5, "nll": None}
    manifest = json.loads((run.path / "manifest.json").read_text())
    assert manifest["metrics"] == {"score": 0.5, "nll": None}
    assert manifest["seed"] == 7
    assert set(manifest["files"]) == {
        "data_digests.json",
        "metrics.json",
        "resolved_config.yaml",
        "run_hash_summary_v50.json",
        "submission/submission.csv",
    }
    for name, entry in manifest["files"].items():
        content = (run.path / name).read_bytes()
        assert entry == {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    events = Journal(run.path / "events.jsonl").read()
    assert [event["event"] for event in events] == ["start", "end"]
    entry = DebugLog.of(settings.outputs.store).path.read_text()
    assert "run: completed" in entry
    assert settings_hash(settings) in entry
    assert "- data_rev: abc" in entry


@pytest.mark.parametrize(
    ("error", "status", "manifest"),
    [
        (InputError("a.csv", "b", "c", "d"), "failed", False),
        (RuntimeError("odd"), "failed", False),
        (KeyboardInterrupt(), "interrupted", False),
        (BudgetReached("time is up"), "budget reached", True),
    ],
)
def test_the_end_is_recorded(settings: Settings, error: BaseException, status: str, manifest: bool) -> None:
    with pytest.raises(type(error)), RunDirectory.create(settings, "run") as run:
        raise error
    end = Journal(run.path / "events.jsonl").read()[-1]
    assert (end["status"], type(error).__name__ in end["error"]) == (status, True)
    assert (run.path / "manifest.json").exists() is manifest
    assert f"run: {status}" in DebugLog.of(settings.outputs.store).path.read_text()


def test_a_directory_used_again_is_unfinished_until_the_end(settings: Settings) -> None:
    with RunDirectory.create(settings, "run") as run:
        run.add_metrics({"score": 0.5})
    with RunDirectory.create(settings, "run") as run:
        assert not (run.path / "manifest.json").exists()
        assert run.metrics() == {}
    assert (run.path / "manifest.json").exists()


def test_two_runs_cannot_share_a_directory(settings: Settings) -> None:
    with (
        RunDirectory.create(settings, "run"),
        pytest.raises(StoreError, match="another run is writing"),
    ):
        RunDirectory.create(settings, "run")


def test_a_killed_run_does_not_block_the_next(settings: Settings) -> None:
    program = (
        "import os, signal\n"
        "from flows.run_directory import RunDirectory\n"
        "from settings.resolve import resolve\n"
        f"places = ['outputs.dir={settings.outputs.dir}', 'outputs.store={settings.outputs.store}']\n"
        "RunDirectory.create(resolve(places), 'run')\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -9
    with RunDirectory.create(settings, "run") as run:
        pass
    assert (run.path / "manifest.json").exists()


@pytest.mark.parametrize("key", ["outputs.dir", "outputs.store"])
def test_a_place_that_cannot_be_written_stops_at_once(tmp_path: Path, key: str) -> None:
    (tmp_path / "file").write_text("in the way")
    places = {"outputs.dir": f"{tmp_path}/run", "outputs.store": f"{tmp_path}/store", key: f"{tmp_path}/file/below"}
    settings = resolve([f"{name}={place}" for name, place in places.items()])
    with pytest.raises(StoreError, match="cannot be written"):
        RunDirectory.create(settings, "run")


def test_a_read_only_file_system_stops_at_once() -> None:
    settings = resolve(["outputs.dir=/proc/run", "outputs.store=/proc/store"])
    with pytest.raises(StoreError, match="cannot be written"):
        RunDirectory.create(settings, "run")
