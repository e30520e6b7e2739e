"""Damaged data sets through the command line: a fault stops the run with one line or sets one planet aside by name.

The faults are calibrated from one warm store, so that only what they touch is computed.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest
from conftest import copy_linked
from typer.testing import CliRunner, Result

from flows.cli import app
from spectramind.instruments import FGS1
from spectramind.simulation.dataset import SimulatedDataset
from spectramind.submission.checks import check_submission

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_server")]

SIGNAL, CALIBRATION = "FGS1_signal_0.parquet", "FGS1_calibration_0"
AIRS_SIGNAL, AIRS_CALIBRATION = "AIRS-CH0_signal_0.parquet", "AIRS-CH0_calibration_0"
FAST = ("model.learning_iterations=5", "model.kernel_widths=[1.0]", "tracking.enable=false")


@dataclass(frozen=True)
class Faulty:
    """A data set of its own to damage; `planet` is the folder of its first test planet."""

    root: Path
    planet: Path
    train_ids: tuple[str, ...]
    test_ids: tuple[str, ...]


@pytest.fixture
def faulty(simulated: SimulatedDataset, tmp_path: Path) -> Faulty:
    root = copy_linked(simulated.root, tmp_path / "data")
    return Faulty(root, root / "test" / simulated.test_ids[0], simulated.train_ids, simulated.test_ids)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of all tests: what the first of them calibrates, the others find there."""
    return tmp_path_factory.mktemp("store")


def calibrate(root: Path, store: Path, out: Path) -> Result:
    arguments = (f"data.root={root}", f"outputs.store={store}", f"outputs.dir={out}", "dask.scheduler=synchronous")
    return CliRunner().invoke(app, ["calibrate", *arguments])


def quality(out: Path) -> Any:
    return json.loads((out / "calibration" / "data_quality.json").read_text(encoding="utf-8"))


def replace(path: Path, content: bytes) -> None:
    """The file is a hard link: it is replaced, not written into."""
    path.unlink()
    path.write_bytes(content)


def truncate(share: float, path: Path) -> None:
    content = path.read_bytes()
    replace(path, content[: int(share * len(content))])


def rewrite(change: Callable[[np.ndarray], np.ndarray], path: Path) -> None:
    """Replace the numbers of a detector file by `change(numbers)`."""
    values = change(pl.read_parquet(path).to_numpy().copy())
    path.unlink()
    pl.DataFrame(values, schema=[f"column_{number}" for number in range(values.shape[1])]).write_parquet(path)


def constant(value: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda values: np.full_like(values, value)


def unknown(share: float) -> Callable[[np.ndarray], np.ndarray]:
    """That share of the pixels is not a number."""

    def change(values: np.ndarray) -> np.ndarray:
        values.ravel()[: int(share * values.size)] = np.nan
        return values

    return change


def varint(number: int) -> bytes:
    """Thrift's compact coding of a positive number."""
    number, groups = 2 * number, []
    while number > 127:
        groups.append(number & 127 | 128)
        number >>= 7
    return bytes([*groups, number])


def claim_rows(rows: int, path: Path) -> None:
    """A footer that speaks of `rows` rows in every place where it gave their number."""
    content = path.read_bytes()
    length = int.from_bytes(content[-8:-4], "little")
    body, footer = content[: -8 - length], content[-8 - length : -8]
    footer = footer.replace(varint(pq.read_metadata(path).num_rows), varint(rows))
    replace(path, body + footer + len(footer).to_bytes(4, "little") + b"PAR1")
    assert pq.read_metadata(path).num_rows == rows


def link_out(path: Path) -> None:
    outside = path.parents[3] / "outside.parquet"
    shutil.move(path, outside)
    path.symlink_to(outside)


def random_bytes(path: Path) -> None:
    replace(path, np.random.default_rng(0).bytes(5000))


def folder_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


def pipe_instead(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


UNUSABLE: dict[str, tuple[str, Callable[[Path], None]]] = {
    "10 % of the file": (SIGNAL, functools.partial(truncate, 0.10)),
    "50 % of the file": (SIGNAL, functools.partial(truncate, 0.50)),
    "99 % of the file": (AIRS_SIGNAL, functools.partial(truncate, 0.99)),
    "empty file": (SIGNAL, functools.partial(truncate, 0.0)),
    "random bytes": (SIGNAL, random_bytes),
    "footer of a million million rows": (SIGNAL, functools.partial(claim_rows, 10**12)),
    "no signal": (AIRS_SIGNAL, Path.unlink),
    "half of the frames": (SIGNAL, functools.partial(rewrite, lambda frames: frames[::2])),
    "one column too few": (AIRS_SIGNAL, functools.partial(rewrite, lambda frames: frames[:, 1:])),
    "text in place of counts": (SIGNAL, functools.partial(rewrite, lambda frames: frames.astype(str))),
    "negative counts": (SIGNAL, functools.partial(rewrite, lambda frames: frames.astype(np.int64) - 100_000)),
    "constant frames": (SIGNAL, functools.partial(rewrite, constant(500))),
    "saturated frames": (AIRS_SIGNAL, functools.partial(rewrite, constant(65_535))),
    "no dark": (f"{AIRS_CALIBRATION}/dark.parquet", Path.unlink),
    "dark not a number": (f"{CALIBRATION}/dark.parquet", functools.partial(rewrite, unknown(0.05))),
    "transposed dark": (f"{AIRS_CALIBRATION}/dark.parquet", functools.partial(rewrite, np.transpose)),
    "flat of zeros": (f"{CALIBRATION}/flat.parquet", functools.partial(rewrite, constant(0.0))),
    "linearity of degree four": (
        f"{CALIBRATION}/linear_corr.parquet",
        functools.partial(rewrite, lambda terms: terms[: 5 * FGS1.rows]),
    ),
    "all pixels dead": (f"{AIRS_CALIBRATION}/dead.parquet", functools.partial(rewrite, constant(True))),
    "link out of the data set": (SIGNAL, link_out),
    "folder in place of a file": (f"{CALIBRATION}/read.parquet", folder_instead),
    "pipe in place of a file": (SIGNAL, pipe_instead),
}
"""Fault to the file that it damages, and how: the planet cannot be used."""


@pytest.fixture(scope="module")
def set_aside(simulated: SimulatedDataset, store: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Any]:
    """Terminal and data-quality report of one run in which every fault has a test planet of its own."""
    folder = tmp_path_factory.mktemp("unusable")
    root = copy_linked(simulated.root, folder / "data")
    stars = (root / "test_star_info.csv").read_text(encoding="utf-8")
    star = stars.splitlines()[1].partition(",")[2]
    for number, (name, damage) in enumerate(UNUSABLE.values()):
        planet = copy_linked(root / "test" / simulated.test_ids[0], root / "test" / f"fault_{number}")
        damage(planet / name)
        stars += f"fault_{number},{star}\n"
    replace(root / "test_star_info.csv", stars.encode())
    done = calibrate(root, store, folder / "run")
    assert done.exit_code == 0, done.output
    assert "Traceback" not in done.output
    return " ".join(done.stdout.split()), quality(folder / "run")


@pytest.mark.parametrize("fault", UNUSABLE)
def test_an_unusable_planet_is_set_aside_by_name(fault: str, set_aside: tuple[str, Any]) -> None:
    planet, file = f"fault_{list(UNUSABLE).index(fault)}", Path(UNUSABLE[fault][0]).name
    terminal, document = set_aside
    (row,) = [row for row in document["quarantined"] if row["planet_id"] == planet]
    assert re.fullmatch(rf"\S+/{planet}/\S*{file}: expected .+, found .+\. .+", row["reason"])
    assert f"set aside: planet {planet} (test), visit 0: " in terminal


def test_sound_planets_are_calibrated_next_to_unusable_ones(
    set_aside: tuple[str, Any], simulated: SimulatedDataset
) -> None:
    calibrated = {row["planet_id"] for row in set_aside[1]["light_curves"]}
    assert calibrated == {*simulated.train_ids[:-1], *simulated.test_ids}


def test_a_planet_whose_files_may_not_be_read_is_set_aside(faulty: Faulty, store: Path, tmp_path: Path) -> None:
    content = (faulty.planet / SIGNAL).read_bytes()
    replace(faulty.planet / SIGNAL, content)
    (faulty.planet / SIGNAL).chmod(0)
    if os.access(faulty.planet / SIGNAL, os.R_OK):
        pytest.skip("permissions do not bind this user")
    assert calibrate(faulty.root, store, tmp_path / "run").exit_code == 0
    assert faulty.planet.name in {row["planet_id"] for row in quality(tmp_path / "run")["quarantined"]}


def test_the_good_one_of_two_visits_is_used(faulty: Faulty, store: Path, tmp_path: Path) -> None:
    for path in list(faulty.planet.iterdir()):
        second = path.with_name(path.name.replace("_0", "_1"))
        copy_linked(path, second) if path.is_dir() else os.link(path, second)
    truncate(0.5, faulty.planet / SIGNAL)
    done = calibrate(faulty.root, store, tmp_path / "run")
    assert done.exit_code == 0, done.output
    rows = [row for row in quality(tmp_path / "run")["quarantined"] if row["split"] == "test"]
    assert [(row["planet_id"], row["visit"]) for row in rows] == [(faulty.planet.name, 0)]
    curves = {(row["planet_id"], row["visit"]) for row in quality(tmp_path / "run")["light_curves"]}
    assert (faulty.planet.name, 1) in curves
    assert (faulty.planet.name, 0) not in curves


def edit(name: str, change: Callable[[str], str]) -> Callable[[Faulty], None]:
    """Replace the text of a table."""

    def damage(faulty: Faulty) -> None:
        text = (faulty.root / name).read_text(encoding="utf-8")
        changed = change(text)
        assert changed != text
        replace(faulty.root / name, changed.encode())

    return damage


def cell(name: str, column: str, value: str) -> Callable[[Faulty], None]:
    """Set one cell of a table's first row."""

    def change(text: str) -> str:
        header, first, *rest = text.splitlines()
        cells = first.split(",")
        cells[[heading.strip('"') for heading in header.split(",")].index(column)] = value
        return "\n".join([header, ",".join(cells), *rest]) + "\n"

    return edit(name, change)


def repeat_row(text: str) -> str:
    return text + text.splitlines()[1] + "\n"


def reverse_cells(text: str) -> str:
    header, row = text.splitlines()
    return f"{header}\n{','.join(reversed(row.split(',')))}\n"


def without_last_column(text: str) -> str:
    return "".join(f"{line.rpartition(',')[0]}\n" for line in text.splitlines())


def without_folder(split: str) -> Callable[[Faulty], None]:
    return lambda faulty: shutil.rmtree(sorted((faulty.root / split).iterdir())[0])


def empty(faulty: Faulty) -> None:
    shutil.rmtree(faulty.root)
    faulty.root.mkdir()


def other_rows(text: str) -> str:
    """The first planet's row under a planet that has no frames."""
    first = text.splitlines()[1]
    return f"{text}777,{first.partition(',')[2]}\n"


STOPPING: dict[str, tuple[str, Callable[[Faulty], None]]] = {
    "no data set": ("data", lambda faulty: shutil.rmtree(faulty.root)),
    "empty folder": ("adc_info.csv", empty),
    "no time axes": ("axis_info.parquet", lambda faulty: (faulty.root / "axis_info.parquet").unlink()),
    "half of the time axes": (
        "axis_info.parquet",
        lambda faulty: truncate(0.5, faulty.root / "axis_info.parquet"),
    ),
    "time axes of a million million rows": (
        "axis_info.parquet",
        lambda faulty: claim_rows(10**12, faulty.root / "axis_info.parquet"),
    ),
    "reversed wavelengths": ("wavelengths.csv", edit("wavelengths.csv", reverse_cells)),
    "282 wavelengths": ("wavelengths.csv", edit("wavelengths.csv", without_last_column)),
    "gain of zero": ("adc_info.csv", cell("adc_info.csv", "FGS1_adc_gain", "0")),
    "negative gain": ("adc_info.csv", cell("adc_info.csv", "AIRS-CH0_adc_gain", "-0.4")),
    "gain not a number": ("adc_info.csv", cell("adc_info.csv", "FGS1_adc_gain", "nan")),
    "no gain": ("adc_info.csv", edit("adc_info.csv", without_last_column)),
    "planet twice in the star table": ("test_star_info.csv", edit("test_star_info.csv", repeat_row)),
    "planet twice in the labels": ("train.csv", edit("train.csv", repeat_row)),
    "test planet without frames": ("test", edit("test_star_info.csv", other_rows)),
    "test folder missing": ("test", without_folder("test")),
    "frames of an unlisted test planet": ("test", lambda faulty: (faulty.root / "test" / "777").mkdir()),
    "id that leads out of the data set": ("test_star_info.csv", cell("test_star_info.csv", "planet_id", "../../etc")),
    "label not a number": ("train.csv", cell("train.csv", "wl_7", "nan")),
    "negative label": ("train.csv", cell("train.csv", "wl_7", "-0.01")),
    "label above one": ("train.csv", cell("train.csv", "wl_7", "1.5")),
    "text in the star table": ("train_star_info.csv", cell("train_star_info.csv", "Rs", "big")),
    "table of another encoding": (
        "train.csv",
        lambda faulty: replace(faulty.root / "train.csv", "planet_id,wl_1\n1,½\n".encode("utf-16")),
    ),
}
"""Fault to what the message names, and the damage: the data set cannot be used."""


@pytest.mark.parametrize("fault", STOPPING)
def test_an_unusable_data_set_stops_with_one_line(fault: str, faulty: Faulty, store: Path, tmp_path: Path) -> None:
    named, damage = STOPPING[fault]
    damage(faulty)
    done = calibrate(faulty.root, store, tmp_path / "run")
    assert done.exit_code == 2, done.output
    assert re.fullmatch(rf"error: \S*/{named}: expected .+, found .+\. .+\n", done.stderr)
    assert done.stdout == ""
    assert not {"manifest.json", "calibration", "submission"} & {path.name for path in (tmp_path / "run").iterdir()}


def test_doubtful_planets_are_noted_and_used(faulty: Faulty, store: Path, tmp_path: Path) -> None:
    cell("train_star_info.csv", "e", "1.2")(faulty)
    cell("test_star_info.csv", "i", "93")(faulty)
    shutil.rmtree(faulty.root / "train" / faulty.train_ids[1])
    done = calibrate(faulty.root, store, tmp_path / "run")
    assert done.exit_code == 0, done.output
    document = quality(tmp_path / "run")
    assert document["notes"] == {
        faulty.train_ids[0]: ["implausible star row: e"],
        faulty.test_ids[0]: ["implausible star row: i"],
        faulty.train_ids[1]: ["no folder of frames"],
    }
    assert [row["planet_id"] for row in document["quarantined"]] == [faulty.train_ids[-1]]


HARMLESS: dict[str, Callable[[Faulty], None]] = {
    "byte-order mark": edit("train.csv", lambda text: "\ufeff" + text),
    "carriage returns": edit("test_star_info.csv", lambda text: text.replace("\n", "\r\n")),
    "semicolons": edit("train_star_info.csv", lambda text: text.replace(",", ";")),
    "a few dark pixels not a number": lambda faulty: rewrite(
        unknown(0.0005), faulty.planet / AIRS_CALIBRATION / "dark.parquet"
    ),
    "counts of another type": lambda faulty: rewrite(lambda counts: counts.astype(float), faulty.planet / SIGNAL),
}
"""What a data set may differ in without harm."""


def test_harmless_differences_set_nothing_aside(faulty: Faulty, store: Path, tmp_path: Path) -> None:
    for difference in HARMLESS.values():
        difference(faulty)
    done = calibrate(faulty.root, store, tmp_path / "run")
    assert done.exit_code == 0, done.output
    document = quality(tmp_path / "run")
    assert [row["planet_id"] for row in document["quarantined"]] == [faulty.train_ids[-1]]
    assert document["notes"] == {}
    assert len({row["planet_id"] for row in document["light_curves"]}) == 12


def run(faulty: Faulty, store: Path, out: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "spectramind", "run", f"data.root={faulty.root}", f"outputs.store={store}"]
    command += [f"outputs.dir={out}", "dask.scheduler=synchronous", *FAST]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    environment["COLUMNS"] = "400"
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)


def test_a_run_with_faults_ends_in_a_whole_submission_and_a_failing_one_in_none(
    faulty: Faulty, store: Path, tmp_path: Path
) -> None:
    truncate(0.5, faulty.planet / AIRS_SIGNAL)
    shutil.rmtree(faulty.root / "train" / faulty.train_ids[0])
    done = run(faulty, store, tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert f"planet {faulty.planet.name}: predicted by the mean of the training planets" in done.stdout
    table = tmp_path / "run" / "submission" / "submission.csv"
    assert check_submission(table, faulty.test_ids) == []
    row = pd.read_csv(table, dtype={"planet_id": str}).set_index("planet_id").loc[faulty.planet.name].to_numpy()
    labels = pd.read_csv(faulty.root / "train.csv", dtype={"planet_id": str}).set_index("planet_id")
    usable = labels.loc[list(faulty.train_ids[1:-1])]
    np.testing.assert_allclose(row, [*usable.mean(), *usable.std(ddof=0)], rtol=1e-9)

    edit("wavelengths.csv", reverse_cells)(faulty)
    failed = run(faulty, store, tmp_path / "run")
    assert failed.returncode == 2
    assert re.fullmatch(r"error: \S+wavelengths.csv: expected .+, found .+\. .+\n", failed.stderr)
    assert not (tmp_path / "run" / "submission").exists()
    assert not (tmp_path / "run" / "manifest.json").exists()
