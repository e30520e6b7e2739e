"""A run whose store cannot be written ends with one line and nothing half written, and is finished once it can."""

from __future__ import annotations

import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from flows.cli import app
from spectramind.provenance.units import MANIFEST, verify_unit
from spectramind.simulation.dataset import SimulatedDataset

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_server")]


def calibrate(simulated: SimulatedDataset, folder: Path) -> Result:
    places = (f"data.root={simulated.root}", f"outputs.store={folder / 'store'}", f"outputs.dir={folder / 'run'}")
    return CliRunner().invoke(app, ["calibrate", *places, "data.max_planets=2", "dask.scheduler=synchronous"])


def units(folder: Path) -> list[Path]:
    """Finished cubes: two train and two test planets, two instruments each."""
    return [path.parent for path in (folder / "store" / "cubes").rglob(MANIFEST)]


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """What a full disk does to this process: no file grows beyond `size` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def stopped_with_one_line(done: Result, message: str) -> bool:
    assert done.exit_code == 1, done.output
    return re.fullmatch(rf"error: {message}\n", done.stderr) is not None


def test_a_full_disk_is_named_and_leaves_only_whole_units(simulated: SimulatedDataset, tmp_path: Path) -> None:
    with largest_file(100_000):
        done = calibrate(simulated, tmp_path)
    assert stopped_with_one_line(
        done, r"\S+/store/cubes/\S+: cannot be written \(File too large, more than \d+ bytes .+\)\. Raise .+"
    ), done.stderr
    assert not any(verify_unit(unit) for unit in units(tmp_path))
    assert not any(unit.parent.name == "AIRS-CH0" for unit in units(tmp_path))
    assert not list((tmp_path / "store" / "cubes").rglob("*.partial"))
    assert not (tmp_path / "run" / "manifest.json").exists()
    assert calibrate(simulated, tmp_path).exit_code == 0
    assert len(units(tmp_path)) == 8
    assert not any(verify_unit(unit) for unit in units(tmp_path))


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("store", r"\S+/store: cannot be written \(File exists\).+"),
        ("store/cubes", r"\S+/store/cubes/\S+: cannot be written \(Not a directory\)\. .+"),
        ("run", r"\S+/run: cannot be written \(File exists\).+"),
        ("run/calibration", r"\S+/run/calibration: cannot be written \(File exists\).+"),
    ],
)
def test_a_file_in_the_place_of_a_folder_is_named(
    place: str, message: str, simulated: SimulatedDataset, tmp_path: Path
) -> None:
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).write_text("in the way")
    done = calibrate(simulated, tmp_path)
    assert stopped_with_one_line(done, message), done.stderr
    assert (tmp_path / place).read_text() == "in the way"
    assert not (tmp_path / "run" / "manifest.json").exists()
