"""Bad data sets through the command line. Each fault is a row of one of three tables, by what must become of it:

    STOPPING   the data set cannot be used: exit code 2, one line that names file and cure, no results
    UNUSABLE   one planet cannot be used: set aside by name, answered with the flagged fallback
    USABLE     the planet is used: masked or repaired within the noise, or with a wider sigma and a flag

All planets of one outcome share a run, and all runs one store, so that only what a fault touches is computed. Damage to
what a run has made is told of elsewhere: cubes in `test_end_to_end` and `test_visit_units`, checkpoints in
`models/test_analytic`, submissions in `submission/test_checks`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import replace as replace_fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest
from conftest import SEED, TINY, copy_linked
from typer.testing import CliRunner, Result

from flows.cli import app
from flows.spectra_files import read_predictions
from spectramind.cubes.store import read_cube
from spectramind.instruments import AIRS, FGS1
from spectramind.simulation.dataset import SimulatedDataset, draw_planets, write_planet
from spectramind.submission.checks import check_submission
from spectramind.types import LightCurve, Quality

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_server")]

SIGNAL, CALIBRATION = "FGS1_signal_0.parquet", "FGS1_calibration_0"
AIRS_SIGNAL, AIRS_CALIBRATION = "AIRS-CH0_signal_0.parquet", "AIRS-CH0_calibration_0"
DEAD_COLUMN = 200
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


def command(name: str, root: Path, store: Path, out: Path, *settings: str) -> Result:
    places = (f"data.root={root}", f"outputs.store={store}", f"outputs.dir={out}", "dask.scheduler=synchronous")
    return CliRunner(env={"COLUMNS": "400"}).invoke(app, [name, *places, *settings])


def calibrate(root: Path, store: Path, out: Path) -> Result:
    return command("calibrate", root, store, out)


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


def same_as(kind: type) -> Callable[[np.ndarray], np.ndarray]:
    return lambda values: values.astype(kind)


def constant(value: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda values: np.full_like(values, value)


def unknown(share: float) -> Callable[[np.ndarray], np.ndarray]:
    """That share of the pixels is not a number."""

    def change(values: np.ndarray) -> np.ndarray:
        values = values.astype(np.float64)
        values.ravel()[: int(share * values.size)] = np.nan
        return values

    return change


def saturated(share: float) -> Callable[[np.ndarray], np.ndarray]:
    """That share of the frames is at the converter's upper end."""

    def change(counts: np.ndarray) -> np.ndarray:
        counts[:: round(1 / share)] = 65_535
        return counts

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


def shuffle_columns(path: Path) -> None:
    frame = pl.read_parquet(path)
    path.unlink()
    frame.select(np.random.default_rng(0).permutation(frame.columns).tolist()).write_parquet(path)


def folder_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


def pipe_instead(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


UNUSABLE: dict[str, tuple[str, Callable[[Path], None]]] = {
    "10 % of the file": (SIGNAL, partial(truncate, 0.10)),
    "50 % of the file": (SIGNAL, partial(truncate, 0.50)),
    "99 % of the file": (AIRS_SIGNAL, partial(truncate, 0.99)),
    "empty file": (SIGNAL, partial(truncate, 0.0)),
    "random bytes": (SIGNAL, random_bytes),
    "footer of a million million rows": (SIGNAL, partial(claim_rows, 10**12)),
    "no signal": (AIRS_SIGNAL, Path.unlink),
    "one frame too few": (SIGNAL, partial(rewrite, lambda frames: frames[1:])),
    "half of the frames": (SIGNAL, partial(rewrite, lambda frames: frames[::2])),
    "one FGS1 column too few": (SIGNAL, partial(rewrite, lambda frames: frames[:, 1:])),
    "one AIRS column too few": (AIRS_SIGNAL, partial(rewrite, lambda frames: frames[:, 1:])),
    "columns in another order": (SIGNAL, shuffle_columns),
    "text in place of counts": (SIGNAL, partial(rewrite, same_as(str))),
    "negative counts": (SIGNAL, partial(rewrite, lambda frames: frames.astype(np.int64) - 100_000)),
    "fractions of counts": (SIGNAL, partial(rewrite, lambda frames: frames + 0.5)),
    "many samples not a number": (SIGNAL, partial(rewrite, unknown(0.01))),
    "frames of zeros": (SIGNAL, partial(rewrite, constant(0))),
    "constant frames": (SIGNAL, partial(rewrite, constant(500))),
    "half of the frames saturated": (SIGNAL, partial(rewrite, saturated(0.5))),
    "saturated frames": (AIRS_SIGNAL, partial(rewrite, constant(65_535))),
    "no dark": (f"{AIRS_CALIBRATION}/dark.parquet", Path.unlink),
    "dark not a number": (f"{CALIBRATION}/dark.parquet", partial(rewrite, unknown(0.05))),
    "transposed dark": (f"{AIRS_CALIBRATION}/dark.parquet", partial(rewrite, np.transpose)),
    "flat of zeros": (f"{CALIBRATION}/flat.parquet", partial(rewrite, constant(0.0))),
    "linearity of degree four": (
        f"{CALIBRATION}/linear_corr.parquet",
        partial(rewrite, lambda terms: terms[: 5 * FGS1.rows]),
    ),
    "all pixels dead": (f"{AIRS_CALIBRATION}/dead.parquet", partial(rewrite, constant(True))),
    "link out of the data set": (SIGNAL, link_out),
    "folder in place of a file": (f"{CALIBRATION}/read.parquet", folder_instead),
    "pipe in place of a file": (SIGNAL, pipe_instead),
}
"""Fault to the file that it damages, and how: the planet cannot be used."""


@dataclass(frozen=True)
class Answer:
    """What a run says of one test planet; `curves` by instrument, None for a planet that was set aside."""

    mean: np.ndarray
    sigma: np.ndarray
    flags: list[str]
    notes: list[str]
    curves: dict[str, LightCurve] | None


def within(sigmas: float) -> Callable[[Answer, Answer], bool]:
    """The spectrum is that of the undamaged planet, but for so many sigmas; and it is one, not a stand-in."""

    def holds(found: Answer, clean: Answer) -> bool:
        close = (np.abs(found.mean - clean.mean) < sigmas * clean.sigma) & (found.sigma < 5 * clean.sigma)
        return bool(close.all()) and "fallback" not in found.flags

    return holds


def one_frame_is_masked(found: Answer, clean: Answer) -> bool:
    assert found.curves is not None
    assert clean.curves is not None
    curve, intact = found.curves["FGS1"], clean.curves["FGS1"]
    (hit,) = np.flatnonzero(curve.quality[:, 0] & Quality.SATURATED)
    return curve.n_pairs[hit] < intact.n_pairs[hit] and curve.variance[hit, 0] > intact.variance[hit, 0]


def one_bin_is_interpolated(found: Answer, clean: Answer) -> bool:
    """Its sigma is twice that of its neighbours."""
    assert found.curves is not None
    curve, place = found.curves["AIRS-CH0"], AIRS.last - DEAD_COLUMN
    sigma = np.sqrt(curve.variance)
    neighbours = (sigma[:, place - 1] + sigma[:, place + 1]) / 2
    flagged = curve.quality[:, place] & Quality.REPAIRED_PIXEL
    return bool(flagged.all() and (sigma[:, place] > 1.99 * neighbours).all() and within(1.0)(found, clean))


def cosmic_rays_are_rejected(found: Answer, clean: Answer) -> bool:
    assert found.curves is not None
    noted = all((curve.quality & Quality.OUTLIER_REMOVED).any() for curve in found.curves.values())
    return noted and within(0.1)(found, clean)


def nothing_is_known(found: Answer, clean: Answer) -> bool:
    return bool(found.flags and (found.sigma > 20 * clean.sigma).all())


def less_is_known(found: Answer, clean: Answer) -> bool:
    return within(4.0)(found, clean) and found.sigma.mean() > 1.3 * clean.sigma.mean()


def the_star_is_doubted(found: Answer, clean: Answer) -> bool:
    return found.notes != [] and within(4.0)(found, clean)


def unchanged(planet: Path) -> None:
    """The planet's files are fine; its star is not."""


def dead_column(planet: Path) -> None:
    def change(dead: np.ndarray) -> np.ndarray:
        dead[:, DEAD_COLUMN] = True
        return dead

    rewrite(change, planet / AIRS_CALIBRATION / "dead.parquet")


def strike(planet: Path) -> None:
    """A cosmic ray of about ten thousand times a pixel's noise in the star's light of both instruments."""

    def change(columns: int, row: int, column: int) -> Callable[[np.ndarray], np.ndarray]:
        def hit(counts: np.ndarray) -> np.ndarray:
            counts[61, row * columns + column] = 65_534
            return counts

        return hit

    rewrite(change(32, 15, 16), planet / SIGNAL)
    rewrite(change(356, 15, 150), planet / AIRS_SIGNAL)


def mid_transit_at(hours: float) -> Callable[[Path], None]:
    """The same planet observed when its transit was elsewhere in the window, or outside it."""

    def observe(planet: Path) -> None:
        same = replace_fields(draw_planets(SEED, "test", TINY, None)[0], planet_id=planet.name, mid_time_h=(hours,))
        shutil.rmtree(planet)
        write_planet(planet.parents[1], same, TINY, SEED)

    return observe


def signal(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    return lambda planet: rewrite(change, planet / SIGNAL)


USABLE: dict[str, tuple[Callable[[Path], None], dict[str, str], Callable[[Answer, Answer], bool]]] = {
    "counts as float64": (signal(same_as(np.float64)), {}, within(1e-9)),
    "counts as float32": (signal(same_as(np.float32)), {}, within(1e-9)),
    "counts as int32": (signal(same_as(np.int32)), {}, within(1e-9)),
    "counts as int64": (signal(same_as(np.int64)), {}, within(1e-9)),
    "a few samples not a number": (signal(unknown(0.0005)), {}, within(1.0)),
    "a few dark pixels not a number": (
        lambda planet: rewrite(unknown(0.0005), planet / AIRS_CALIBRATION / "dark.parquet"),
        {},
        within(1.0),
    ),
    "one saturated frame": (signal(saturated(1 / 240)), {}, one_frame_is_masked),
    "dead wavelength": (dead_column, {}, one_bin_is_interpolated),
    "cosmic rays": (strike, {}, cosmic_rays_are_rejected),
    "no transit": (mid_transit_at(40.0), {}, nothing_is_known),
    "transit at the edge": (mid_transit_at(0.0), {}, less_is_known),
    "eccentricity above one": (unchanged, {"e": "1.2"}, the_star_is_doubted),
    "inclination above 90": (unchanged, {"i": "91"}, the_star_is_doubted),
    "radius in metres": (unchanged, {"Rs": "6.96e8"}, the_star_is_doubted),
    "no temperature": (unchanged, {"Ts": "nan"}, the_star_is_doubted),
    "negative period": (unchanged, {"P": "-3"}, the_star_is_doubted),
    "orbit of zero": (unchanged, {"sma": "0"}, the_star_is_doubted),
}
"""Fault to what it does to the planet's files, to its row of the star table, and what must then hold."""


@dataclass(frozen=True)
class Finished:
    """One run in which every fault has a test planet of its own."""

    root: Path
    folder: Path
    store: Path
    terminal: str
    test_ids: tuple[str, ...]

    def answer(self, planet: str) -> Answer:
        spectra = read_predictions(self.folder / "predictions" / "predictions.parquet")
        row = spectra.planet_ids.index(planet)
        flags = json.loads((self.folder / "predictions" / "flags.json").read_text(encoding="utf-8"))
        notes = quality(self.folder)["notes"].get(planet, [])
        return Answer(spectra.mean[row], spectra.sigma[row], flags.get(planet, []), notes, self._curves(planet))

    def _curves(self, planet: str) -> dict[str, LightCurve] | None:
        units = list((self.store / "cubes" / "test" / f"{planet}_0").glob("*/*/manifest.json"))
        return {k: v for unit in units for k, v in read_cube(unit.parent).curves.items()} or None


@pytest.fixture(scope="module")
def finished(simulated: SimulatedDataset, store: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("faults")
    root = copy_linked(simulated.root, folder / "data")
    header, star, *others = (root / "test_star_info.csv").read_text(encoding="utf-8").splitlines()
    rows = [header, star, *others]
    for number, (name, damage) in enumerate(UNUSABLE.values()):
        planet = copy_linked(root / "test" / simulated.test_ids[0], root / "test" / f"unusable_{number}")
        damage(planet / name)
        rows.append(",".join([planet.name, *star.split(",")[1:]]))
    for number, (change, parameters, _) in enumerate(USABLE.values()):
        planet = copy_linked(root / "test" / simulated.test_ids[0], root / "test" / f"usable_{number}")
        change(planet)
        columns = header.replace('"', "").split(",")
        row = {**dict(zip(columns, star.split(","), strict=True)), **parameters, "planet_id": planet.name}
        rows.append(",".join(row.values()))
    replace(root / "test_star_info.csv", "\n".join(rows).encode() + b"\n")
    done = command("run", root, store, folder / "run", *FAST)
    assert done.exit_code == 0, done.output
    assert "Traceback" not in done.output
    listed = tuple(row.partition(",")[0] for row in rows[1:])
    return Finished(root, folder / "run", store, " ".join(done.stdout.split()), listed)


@pytest.mark.parametrize("fault", UNUSABLE)
def test_an_unusable_planet_is_set_aside_by_name(fault: str, finished: Finished) -> None:
    planet, file = f"unusable_{list(UNUSABLE).index(fault)}", Path(UNUSABLE[fault][0]).name
    (row,) = [row for row in quality(finished.folder)["quarantined"] if row["planet_id"] == planet]
    assert re.fullmatch(rf"\S+/{planet}/\S*{file}: expected .+, found .+\. .+", row["reason"])
    assert f"set aside: planet {planet} (test), visit 0: " in finished.terminal
    assert f"planet {planet}: predicted by the mean of the training planets with a wide sigma" in finished.terminal
    assert finished.answer(planet).flags == ["fallback"]


@pytest.mark.parametrize("fault", USABLE)
def test_a_usable_planet_is_used(fault: str, finished: Finished) -> None:
    found, clean = (finished.answer(p) for p in (f"usable_{list(USABLE).index(fault)}", finished.test_ids[0]))
    assert found.curves is not None
    assert np.isfinite(found.mean).all()
    assert (found.sigma > 0).all()
    assert "fallback" not in found.flags
    assert USABLE[fault][2](found, clean)


def test_faults_leave_a_whole_submission_and_a_failing_run_none(
    finished: Finished, simulated: SimulatedDataset, store: Path
) -> None:
    table = finished.folder / "submission" / "submission.csv"
    assert check_submission(table, finished.test_ids) == []
    row = pd.read_csv(table, dtype={"planet_id": str}).set_index("planet_id").loc["unusable_0"].to_numpy()
    labels = pd.read_csv(finished.root / "train.csv", dtype={"planet_id": str}).set_index("planet_id")
    used = labels.loc[list(simulated.train_ids[:-1])]
    np.testing.assert_allclose(row, [*used.mean(), *used.std(ddof=0)], rtol=1e-9)

    root = copy_linked(finished.root, finished.folder / "data")
    edit("wavelengths.csv", reverse_cells)(Faulty(root, root, (), ()))
    failed = command("run", root, store, finished.folder, *FAST)
    assert failed.exit_code == 2
    assert re.fullmatch(r"error: \S+wavelengths.csv: expected .+, found .+\. .+\n", failed.stderr)
    assert not (finished.folder / "submission").exists()
    assert not (finished.folder / "manifest.json").exists()


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


def swap_cells(text: str) -> str:
    header, row = text.splitlines()
    first, second, *others = row.split(",")
    return f"{header}\n{','.join([first, others.pop(), second, *others])}\n"


def one_more_column(text: str) -> str:
    header, row = text.splitlines()
    return f"{header},wl_284\n{row},3.95\n"


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
    "shuffled wavelengths": ("wavelengths.csv", edit("wavelengths.csv", swap_cells)),
    "282 wavelengths": ("wavelengths.csv", edit("wavelengths.csv", without_last_column)),
    "284 wavelengths": ("wavelengths.csv", edit("wavelengths.csv", one_more_column)),
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
