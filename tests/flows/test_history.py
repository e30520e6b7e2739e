"""The list of runs: finished, failed, killed and damaged ones."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from flows.history import RunRow, analyze_log, read_runs
from flows.run_directory import RunDirectory
from settings.resolve import resolve
from settings.tree import settings_hash
from spectramind.errors import InputError


def opened(folder: Path, name: str, *arguments: str) -> RunDirectory:
    places = (f"outputs.dir={folder}/{name}", f"outputs.store={folder}/store")
    return RunDirectory.create(resolve([*places, *arguments]), "run", arguments)


@pytest.fixture
def runs(tmp_path: Path) -> dict[str, RunRow]:
    with opened(tmp_path, "good", "runtime.seed=7") as run:
        run.journal.event("warning", message="odd")
        run.add_metrics({"test": {"official": 0.5}, "out_of_fold": {"score": 0.25}})
    with pytest.raises(RuntimeError, match="lost"), opened(tmp_path, "day/failed") as run:
        raise RuntimeError("lost")
    killed = opened(tmp_path, "killed")  # never closed
    with killed.journal.path.open("ab") as stream:
        stream.write(b'{"event": "end", "status": "comp')
    killed.lock.release()
    killed.use.end()
    for name, content in {"torn": "{", "text": '"x"', "bytes": "\udcff"}.items():
        with opened(tmp_path, f"damaged/{name}") as run:
            run.add_metrics({"out_of_fold": {"score": 0.1}})
        for file in ("metrics.json", "run_hash_summary_v50.json", "manifest.json"):
            (run.path / file).write_bytes(content.encode(errors="surrogateescape"))
    (tmp_path / "frozen").mkdir()
    for name in ("run_manifest.json", "run_hash_summary_v50.json"):
        (tmp_path / "frozen" / name).write_text("{}")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "events.jsonl").write_text("")
    return {row.run: row for row in read_runs(tmp_path)}


def test_each_run_is_listed_with_what_it_says_of_itself(runs: dict[str, RunRow]) -> None:
    damaged = {f"damaged/{name}" for name in ("torn", "text", "bytes")}
    assert set(runs) == {"good", "day/failed", "killed", "empty", *damaged}
    good = runs["good"]
    assert (good.command, good.status, good.score, good.score_of) == ("run", "completed", 0.5, "test.official")
    assert (good.warnings, good.problems) == (1, "")
    assert good.settings_hash == settings_hash(resolve(["runtime.seed=7"]))
    assert good.git
    assert good.seconds is not None
    assert (runs["day/failed"].status, runs["day/failed"].problems) == ("failed", "")
    assert (runs["killed"].status, runs["killed"].problems) == ("unfinished", "events.jsonl has damaged lines")
    assert runs["empty"].status == "unfinished"
    for name in damaged:
        assert runs[name].status == "completed"
        assert runs[name].score is None
        assert "metrics.json is damaged" in runs[name].problems
        assert "run_hash_summary_v50.json is damaged" in runs[name].problems


def test_a_directory_used_again_shows_its_last_run(tmp_path: Path) -> None:
    with opened(tmp_path, "run") as run:
        run.journal.event("warning", message="of the first")
    with pytest.raises(RuntimeError), opened(tmp_path, "run"):
        raise RuntimeError
    (row,) = read_runs(tmp_path)
    assert (row.status, row.warnings) == ("failed", 0)


def test_both_files_hold_every_run(runs: dict[str, RunRow], tmp_path: Path) -> None:
    analyze_log(tmp_path, tmp_path / "runs.md", tmp_path / "tables" / "runs.csv")
    with (tmp_path / "tables" / "runs.csv").open(encoding="utf-8") as stream:
        rows = {row["run"]: row for row in csv.DictReader(stream)}
    assert set(rows) == set(runs)
    assert json.loads(rows["good"]["score"]) == 0.5
    lines = (tmp_path / "runs.md").read_text(encoding="utf-8").splitlines()
    assert sum(line.startswith(("| good |", "| killed |")) for line in lines) == 2
    assert {line.count("|") for line in lines if line.startswith("| ")} == {12, 6}
    group = next(line for line in lines if line.startswith(f"| {runs['good'].settings_hash} |"))
    assert "| 1 | 1 | 0.5 |" in group


def test_a_folder_without_runs_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected directories of runs"):
        analyze_log(tmp_path, None, None)
