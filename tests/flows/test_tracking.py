"""MLflow on a database of its own, and without one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from flows.tracking import Destination, flatten, tracked_run


def test_many_parameters_metrics_and_files_arrive(tmp_path: Path) -> None:
    destination = Destination.of(tmp_path, None, "experiment")
    parameters = {"group": {f"key_{number}": number for number in range(150)}, "long": "x" * 9000}
    figure = tmp_path / "figure.svg"
    figure.write_text("<svg/>")
    with tracked_run(destination, tmp_path / "spool.jsonl", print, "name", parameters, {"tag": "word"}) as tracker:
        tracker.metrics({"finite": 0.5, "infinite": float("inf")})
        tracker.files([figure], "figures")
    assert tracker.warnings == []
    assert not tracker.spool.exists()
    import mlflow

    run = mlflow.MlflowClient(destination.uri).get_run(str(tracker.run_id))
    assert run.info.status == "FINISHED"
    assert len(run.data.params) == 151
    assert run.data.params["group.key_149"] == "149"
    assert run.data.metrics == {"finite": 0.5}
    assert run.data.tags["tag"] == "word"
    assert list((tmp_path / "mlartifacts").rglob("figure.svg"))


def test_an_exception_marks_the_run_failed_and_passes(tmp_path: Path) -> None:
    destination = Destination.of(tmp_path, None, "experiment")
    with (
        pytest.raises(ZeroDivisionError),
        tracked_run(destination, tmp_path / "spool.jsonl", print, "name", {}, {}) as tracker,
    ):
        raise ZeroDivisionError
    import mlflow

    assert mlflow.MlflowClient(destination.uri).get_run(str(tracker.run_id)).info.status == "FAILED"


def test_a_failing_store_is_told_once_and_everything_is_spooled(tmp_path: Path) -> None:
    told: list[str] = []
    destination = Destination.of(tmp_path, "http://user:secret@127.0.0.1:9", "experiment")
    with tracked_run(destination, tmp_path / "spool.jsonl", told.append, "name", {"a": 1}, {}) as tracker:
        tracker.metrics({"loss": 1.0})
    events = [json.loads(line) for line in tracker.spool.read_text().splitlines()]
    assert [event["event"] for event in events] == ["start", "metrics", "finish"]
    assert events[0]["parameters"] == {"a": "1"}
    assert events[1]["values"] == {"loss": 1.0}
    assert len(told) == 1
    assert "secret" not in told[0]


@pytest.mark.slow
def test_processes_that_start_together_share_one_new_database(tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
from flows.tracking import Destination, tracked_run
store = Path(sys.argv[1])
with tracked_run(Destination.of(store, None, "experiment"), store / "spool.jsonl", print, "name", {}, {}) as tracker:
    tracker.metrics({"value": 1.0})
sys.exit(bool(tracker.warnings))
"""
    started = [subprocess.Popen([sys.executable, "-c", program, str(tmp_path)]) for _ in range(4)]
    assert [process.wait(timeout=120) for process in started] == [0, 0, 0, 0]


def test_flatten_joins_keys_with_dots() -> None:
    assert flatten({"a": {"b": {"c": 1}, "d": 2}, "e": 3}) == {"a.b.c": 1, "a.d": 2, "e": 3}
