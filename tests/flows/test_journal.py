"""Journals that many processes write, that are cut short, that grow."""

from __future__ import annotations

import json
import math
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from flows import journal
from flows.journal import DebugLog, Journal, finite_json


def _write_many(path: Path, writer: int) -> None:
    for number in range(100):
        Journal(path).event("step", writer=writer, number=number, text="x" * 2000)


def test_lines_of_several_processes_stay_whole(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with ProcessPoolExecutor(4) as pool:
        list(pool.map(_write_many, [path] * 4, range(4)))
    events = Journal(path).read()
    assert sorted((event["writer"], event["number"]) for event in events) == [
        (writer, number) for writer in range(4) for number in range(100)
    ]


@pytest.mark.parametrize("torn", ["", '{"event": "st', "x" * 10_000])
def test_a_torn_last_line_is_dropped(tmp_path: Path, torn: str) -> None:
    path = tmp_path / "events.jsonl"
    Journal(path).event("first")
    with path.open("a") as stream:
        stream.write(torn)
    Journal(path).event("second")
    assert [event["event"] for event in Journal(path).read()] == ["first", "second"]


def test_every_value_becomes_json(tmp_path: Path) -> None:
    values = {"a": math.nan, "b": np.float32(0.5), "c": (1, -math.inf), "d": tmp_path, "e": np.int64(3), "f": {1: None}}
    assert finite_json(values) == {"a": None, "b": 0.5, "c": [1, None], "d": str(tmp_path), "e": 3, "f": {"1": None}}


def test_credentials_do_not_reach_the_journals(tmp_path: Path) -> None:
    Journal(tmp_path / "events.jsonl").event("start", arguments=["tracking.uri=https://me:secret@host"])
    log = DebugLog.of(tmp_path)
    log.entry("run", "failed", ["tracking.uri=https://me:secret@host"], {"error": "https://me:secret@host refused"})
    assert "secret" not in (tmp_path / "events.jsonl").read_text() + log.path.read_text()


def test_the_debug_log_rotates_and_keeps_five(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "LOG_BYTES", 300)
    log = DebugLog.of(tmp_path)
    for number in range(30):
        log.entry("run", "completed", [f"runtime.seed={number}"], {"config_hash": "0" * 64})
    files = sorted(path.name for path in log.path.parent.glob("*.md*"))
    assert files == ["v50_debug_log.md", *(f"v50_debug_log.md.{number}" for number in range(1, 6))]
    assert all((log.path.parent / name).stat().st_size <= 300 for name in files)
    assert "runtime.seed=29" in log.path.read_text()
    assert "runtime.seed=29" not in (log.path.parent / files[1]).read_text()


def test_an_entry_has_no_foreign_lines(tmp_path: Path) -> None:
    log = DebugLog.of(tmp_path)
    log.entry("run", "failed", ["a=1"], {"error": "two\nlines", "run": None})
    assert log.path.read_text().splitlines()[1:] == ["- arguments: `a=1`", "- error: two lines", ""]
    assert json.dumps(log.path.read_text())
