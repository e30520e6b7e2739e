"""Removing from a real store: by age and size, never what is needed, also with other processes at work."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flows.collect import Item, Limits, collect, planned
from flows.run_directory import RunDirectory
from flows.store_layout import StoreLayout
from settings.resolve import resolve
from settings.tree import Settings
from spectramind.errors import StoreError
from spectramind.provenance.units import UnitResult, build_unit, unit_path, verify_unit

OLD = Limits(days=10.0)
YEAR = 365 * 86400.0


def configured(folder: Path, run: str) -> Settings:
    places = (f"outputs.dir={folder}/{run}", f"outputs.store={folder}/store")
    return resolve([*places, "tracking.uri=", f"tracking.experiment={run}"])


def unit(settings: Settings, name: str) -> UnitResult:
    """A fit of a kilobyte, made a year ago."""
    identity = {"kind": "fit", "inputs": {"name": name}, "settings": {}, "code": "c"}
    target = unit_path(StoreLayout.of(settings.outputs).fit_unit("train", name).resolve(), identity)  # type: ignore[union-attr]

    def write(folder: Path) -> None:
        (folder / "fit.npz").write_bytes(name[:1].encode() * 1024)

    made = build_unit(target, identity, write)
    aged(target / "manifest.json")
    return made


def aged(path: Path) -> None:
    then = path.stat().st_mtime - YEAR
    os.utime(path, (then, then))


def finished(folder: Path, name: str, *units: str, age: bool = True) -> Path:
    """The directory of a run that stands on `units`."""
    settings = configured(folder, name)
    with RunDirectory.create(settings, "train") as run:
        run.needs([unit(settings, needed).path for needed in units])
    if age:
        for file in run.path.iterdir():
            aged(file)
    return run.path


def plan(folder: Path, limits: Limits = OLD, aliased: tuple[dict[str, str], ...] = ()) -> tuple[set[str], set[str]]:
    """Names of what goes and of what stays; a unit is named by its planet."""
    going, kept = planned(StoreLayout.of(configured(folder, "x").outputs), aliased, limits)

    def name(item: Item) -> str:
        return item.path.name if item.kind == "run" else item.path.parent.name

    return {name(item) for item in going}, {name(item) for item in kept}


def test_old_units_that_no_run_needs_go(tmp_path: Path) -> None:
    unit(configured(tmp_path, "x"), "orphan")
    finished(tmp_path, "new", "used", age=False)
    assert plan(tmp_path) == ({"orphan"}, {"used", "new"})
    assert plan(tmp_path, Limits(days=1000.0)) == (set(), {"orphan", "used", "new"})


def test_an_old_run_goes_with_what_only_it_needs(tmp_path: Path) -> None:
    finished(tmp_path, "old", "own", "shared")
    finished(tmp_path, "new", "shared", age=False)
    assert plan(tmp_path) == ({"old", "own"}, {"new", "shared"})
    assert plan(tmp_path, Limits(days=10.0, units_only=True)) == (set(), {"old", "own", "new", "shared"})


def test_a_run_whose_directory_was_removed_needs_nothing(tmp_path: Path) -> None:
    import shutil

    shutil.rmtree(finished(tmp_path, "gone", "unit"))
    assert plan(tmp_path) == ({"unit"}, set())


def test_what_a_model_with_an_alias_was_made_from_stays(tmp_path: Path) -> None:
    champion = finished(tmp_path, "champion", "fit")
    model = unit(configured(tmp_path, "x"), "model")
    tags = {"run_directory": str(champion), "model_digest": model.digest}
    assert plan(tmp_path, aliased=(tags,)) == (set(), {"champion", "fit", "model"})
    assert plan(tmp_path, Limits(0.0, most_bytes=0), (tags,)) == (set(), {"champion", "fit", "model"})


def test_a_directory_with_other_files_and_a_sweep_around_a_kept_run_stay(tmp_path: Path) -> None:
    (finished(tmp_path, "mine", "a") / "thesis.tex").write_text("")
    finished(tmp_path, "sweep", "b")
    finished(tmp_path, "sweep/runs/000", "c", age=False)
    assert plan(tmp_path) == (set(), {"mine", "sweep", "000", "a", "b", "c"})


def test_an_old_sweep_goes_with_its_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = finished(tmp_path, "sweep", "a")
    inside = finished(tmp_path, "sweep/runs/000", "b")
    (inside / "output.log").write_bytes(bytes(1 << 20))
    aged(inside / "output.log")
    collect(configured(tmp_path, "x"), OLD, act=True)
    assert not sweep.exists()
    assert not list((tmp_path / "store" / "fits" / "train").glob("*/*/manifest.json"))
    assert "freed 0.001 GiB" in capsys.readouterr().out  # each byte counted once


def test_the_oldest_go_until_the_rest_is_small_enough(tmp_path: Path) -> None:
    finished(tmp_path, "new", "used", age=False)
    for name in ("1", "2", "3"):
        unit(configured(tmp_path, "x"), name)
    aged(next((tmp_path / "store" / "fits" / "train" / "2").glob("*/manifest.json")))
    everything = sum(item.bytes for item in planned(StoreLayout(tmp_path / "store"), (), Limits(1e6))[1])
    assert plan(tmp_path, Limits(1e6, everything)) == (set(), {"1", "2", "3", "used", "new"})
    assert plan(tmp_path, Limits(1e6, everything - 1)) == ({"2"}, {"1", "3", "used", "new"})
    assert plan(tmp_path, Limits(1e6, 0)) == ({"1", "2", "3", "used", "new"}, set())


def test_nothing_goes_without_yes_and_everything_planned_with_it(tmp_path: Path) -> None:
    old = finished(tmp_path, "old", "own", "shared")
    new = finished(tmp_path, "new", "shared", age=False)
    settings, fits = configured(tmp_path, "x"), tmp_path / "store" / "fits" / "train"
    collect(settings, OLD, act=False)
    assert len(list(fits.glob("*/*/manifest.json"))) == 2
    collect(settings, OLD, act=True)
    assert [path.parents[1].name for path in fits.glob("*/*/manifest.json")] == ["shared"]
    assert verify_unit(next(fits.glob("shared/*[0-9a-f]"))) == []
    assert not old.exists()
    assert new.exists()
    assert not list(tmp_path.glob(".*"))
    assert not (tmp_path / "store" / ".trash").exists()
    assert plan(tmp_path) == (set(), {"new", "shared"})


def test_what_a_killed_call_had_moved_aside_is_deleted_by_the_next(tmp_path: Path) -> None:
    old = finished(tmp_path, "old", "own")
    leftover = old.rename(old.with_name(f".old.{'0' * 32}.removed"))
    (tmp_path / "store" / ".trash" / "x").mkdir(parents=True)
    collect(configured(tmp_path, "x"), OLD, act=True)
    assert not leftover.exists()
    assert not (tmp_path / "store" / ".trash").exists()
    assert not list((tmp_path / "store" / "runs").iterdir())


def test_nothing_is_removed_while_another_process_is_at_work(tmp_path: Path) -> None:
    """The other process uses an old unit that no list names yet."""
    made = unit(configured(tmp_path, "x"), "orphan")
    program = (
        "import sys\n"
        "from flows.run_directory import RunDirectory\n"
        "from settings.resolve import resolve\n"
        f"settings = resolve(['outputs.dir={tmp_path}/busy', 'outputs.store={tmp_path}/store'])\n"
        "with RunDirectory.create(settings, 'run'):\n"
        "    print('started', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    busy = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert busy.stdout is not None
        assert busy.stdout.readline() == "started\n"
        with pytest.raises(StoreError, match="at work"):
            collect(configured(tmp_path, "x"), OLD, act=True)
        assert verify_unit(made.path) == []
        busy.kill()  # the kernel frees what a killed process held
        busy.wait()
        collect(configured(tmp_path, "x"), OLD, act=True)
        assert not Path(str(made.path)).exists()
    finally:
        busy.kill()
        busy.communicate()


def test_a_unit_that_is_being_built_stays(tmp_path: Path) -> None:
    from filelock import FileLock

    made = unit(configured(tmp_path, "x"), "orphan")
    path = Path(str(made.path))
    unfinished = path.with_name(f".{path.name}.{'0' * 32}.partial")
    unfinished.mkdir()
    aged(unfinished)
    with FileLock(path.with_name(f".{path.name}.lock")):
        assert plan(tmp_path) == (set(), {"orphan"})
        collect(configured(tmp_path, "x"), OLD, act=True)
        assert verify_unit(path) == []
        assert unfinished.is_dir()
    collect(configured(tmp_path, "x"), OLD, act=True)
    assert {file.name for file in path.parent.iterdir()} == {f".{path.name}.lock"}


def test_an_unreadable_registry_stops_it(tmp_path: Path) -> None:
    made = unit(configured(tmp_path, "x"), "orphan")
    (tmp_path / "store" / "mlflow.db").write_text("no database")
    with pytest.raises(StoreError, match="which models are in use"):
        collect(configured(tmp_path, "x"), OLD, act=True)
    assert verify_unit(made.path) == []
