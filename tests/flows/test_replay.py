"""A finished run repeated from its own files, with a real Prefect server and store."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import copy_linked

from flows.replay import Original, replay
from flows.run_directory import RunDirectory
from settings.resolve import resolve
from spectramind.errors import InputError, SpectraMindError
from spectramind.provenance.digests import file_digest
from spectramind.simulation.dataset import SimulatedDataset

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_server")]

SUBMISSION = "submission/submission.csv"


@pytest.fixture(scope="module")
def first(simulated: SimulatedDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run that was started with relative paths, with its data set and store beside it."""
    from flows.end_to_end import spectramind_v50

    folder = tmp_path_factory.mktemp("replay")
    copy_linked(simulated.root, folder / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        places = ("data.root=data", "outputs.dir=run", "outputs.store=store", "tracking.enable=false")
        tiny = ("dask.scheduler=synchronous", "model.learning_iterations=5", "model.kernel_widths=[1.0]")
        settings = resolve([*places, *tiny])
        with RunDirectory.create(settings, "run") as run:
            spectramind_v50(settings, run)
    return folder / "run"


def again(original: Original, out: Path, *, fresh: bool = False, strict: bool = False) -> Path:
    from flows.end_to_end import spectramind_v50

    settings = original.settings(fresh, out)
    with RunDirectory.create(settings, original.command) as run:
        replay(original, settings, run, spectramind_v50, strict)
    return run.path


@pytest.mark.parametrize("fresh", [False, True])
def test_a_replay_gives_the_same_submission_from_anywhere(
    first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], fresh: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    made = again(Original.read(first), tmp_path / "again", fresh=fresh, strict=True)
    assert file_digest(made / SUBMISSION) == file_digest(first / SUBMISSION)
    assert (made / "store" / "cubes").is_dir() is fresh
    shown = capsys.readouterr().out
    assert "different" not in shown
    assert shown.count(" equal ") > 10


def test_what_has_changed_is_named_and_a_different_result_fails(
    first: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    original = Original.read(first)
    labels = first.parent / "data" / "train.csv"
    before = labels.read_text()
    labels.unlink()  # its bytes are shared with other copies of the data set
    header, row, *others = before.splitlines()
    planet, _, *depths = row.split(",")
    labels.write_text("\n".join([header, ",".join([planet, "0.02", *depths]), *others]) + "\n")
    try:
        with pytest.raises(InputError, match=r"data: as it was then, train\.csv now"):
            again(original, tmp_path / "strict", strict=True)
        assert not (tmp_path / "strict" / "submission").exists()
        with pytest.raises(SpectraMindError, match=r"differs from .* in .*metrics"):
            again(original, tmp_path / "other")
    finally:
        labels.write_text(before)
    events = [json.loads(line) for line in (tmp_path / "other" / "events.jsonl").read_text().splitlines()]
    told = [event["message"] for event in events if event["event"] == "warning"]
    assert any("data was as it was, is train.csv" in message for message in told)
    assert "different" in capsys.readouterr().out


def test_other_code_and_another_lock_are_named(first: Path, tmp_path: Path) -> None:
    original = Original.read(first)
    summary = {**original.summary, "code_digests": {"flows": "0" * 64}, "poetry_lock_hash": "1" * 64}
    with pytest.raises(InputError, match=r"code of flows: 0{16} then, .*lock: 1{16} then"):
        again(replace(original, summary=summary), tmp_path / "again", strict=True)


def test_other_code_that_gives_the_same_is_no_difference(
    first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.contracts.code_digest", lambda *_names: "0" * 64)
    made = again(Original.read(first), tmp_path / "again")
    quality = [json.loads((run / "calibration" / "data_quality.json").read_text()) for run in (first, made)]
    assert quality[1].pop("lineage")["code"] == "0" * 64 != quality[0].pop("lineage")["code"]
    assert quality[0] == quality[1]


def test_only_a_finished_and_unchanged_run_is_replayed(first: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(first, tmp_path / "copy"))
    (copy / SUBMISSION).write_text("")
    with pytest.raises(InputError, match=r"submission\.csv: changed"):
        Original.read(copy)
    with pytest.raises(InputError, match="not complete"):
        Original.read(tmp_path)
    places = [f"outputs.dir={tmp_path}/scaled", f"outputs.store={tmp_path}/store"]
    with RunDirectory.create(resolve(places), "calibrate-temp") as run:
        pass
    with pytest.raises(InputError, match="found one of calibrate-temp"):
        Original.read(run.path)
