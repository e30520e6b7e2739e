"""Damage that nobody thought of: any file of a visit, changed at random, is refused by name or calibrated soundly."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from spectramind.calibration.kill_chain import calibrate_exposure
from spectramind.calibration.options import CalibrationOptions
from spectramind.data.frames import read_exposure
from spectramind.data.layout import Dataset, open_dataset
from spectramind.data.parquet import LARGEST_FOOTER
from spectramind.errors import QuarantineError
from spectramind.instruments import FGS1, INSTRUMENTS
from spectramind.simulation.dataset import simulate_dataset
from spectramind.simulation.options import SimulationOptions
from spectramind.types import LightCurve, Quality

DRAWS = 25
KINDS = (pl.Int8, pl.Int16, pl.Int64, pl.UInt64, pl.Float32, pl.Float64, pl.String, pl.Boolean, pl.Decimal(20, 3))
EXTREMES = (np.nan, np.inf, -np.inf, 1e300, -1e300, 1e-320, 0.0, -1.0, 0.5, 65_535.0, 65_536.0)
MOST_MEMORY = 200e6

Damage = Callable[[Path, np.random.Generator], None]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    options = SimulationOptions(
        train_planets=1, test_planets=1, airs_frames=24, fgs1_frames=48, cut_fraction=0, two_visit_fraction=0
    )
    return open_dataset(simulate_dataset(tmp_path_factory.mktemp("damaged") / "set", options, seed=3).root)


def files(dataset: Dataset) -> dict[str, Path]:
    return dataset.visit_files("train", dataset.planets("train")[0], 0)


def calibrated(dataset: Dataset, name: str) -> LightCurve:
    """The light curve of the instrument that the file `name` belongs to."""
    instrument = next(i for i in INSTRUMENTS if name.startswith(i.name))
    raw = read_exposure(dataset, "train", dataset.planets("train")[0], 0, instrument)
    return calibrate_exposure(raw, CalibrationOptions())[0]


def attempt(dataset: Dataset, name: str) -> LightCurve | QuarantineError:
    try:
        return calibrated(dataset, name)
    except QuarantineError as refusal:
        return refusal


def write(path: Path, values: np.ndarray) -> None:
    pl.DataFrame(values, schema=[f"column_{n}" for n in range(values.shape[1])]).write_parquet(path)


def flip_bits(path: Path, rng: np.random.Generator) -> None:
    """Anywhere, or in the footer, where they do most."""
    content = bytearray(path.read_bytes())
    first = 0 if rng.random() < 0.5 else max(0, len(content) - 3000)
    for place in rng.integers(first, len(content), rng.integers(1, 40)):
        content[place] ^= 1 << int(rng.integers(8))
    path.write_bytes(content)


def cut(path: Path, rng: np.random.Generator) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: rng.integers(len(content))])


def insert_bytes(path: Path, rng: np.random.Generator) -> None:
    content, noise = path.read_bytes(), rng.bytes(int(rng.integers(1, 2000)))
    place, skipped = int(rng.integers(len(content))), len(noise) * int(rng.integers(2))
    path.write_bytes(content[:place] + noise + content[place + skipped :])


def take_another_file(path: Path, rng: np.random.Generator) -> None:
    others = sorted(path.parents[2].rglob("*.parquet"))
    shutil.copyfile(others[int(rng.integers(len(others)))], path.with_suffix(".other"))
    path.with_suffix(".other").rename(path)


def change_type(path: Path, rng: np.random.Generator) -> None:
    """Of every column or of one."""
    frame, kind = pl.read_parquet(path), KINDS[int(rng.integers(len(KINDS)))]
    names = frame.columns if rng.random() < 0.5 else frame.columns[:1]
    frame.with_columns(pl.col(names).cast(pl.Float64).cast(kind, strict=False)).write_parquet(path)


def nest_a_column(path: Path, rng: np.random.Generator) -> None:
    frame = pl.read_parquet(path)
    frame.with_columns(pl.concat_list(frame.columns[0]).alias(frame.columns[0])).write_parquet(path)


def transpose(path: Path, rng: np.random.Generator) -> None:
    write(path, pl.read_parquet(path).to_numpy().T)


def permute_columns(path: Path, rng: np.random.Generator) -> None:
    frame = pl.read_parquet(path)
    frame.select(rng.permutation(frame.columns).tolist()).write_parquet(path)


def set_extremes(path: Path, rng: np.random.Generator) -> None:
    values = pl.read_parquet(path).to_numpy().astype(float)
    values[rng.random(values.shape) < 10 ** rng.uniform(-4, 0)] = EXTREMES[int(rng.integers(len(EXTREMES)))]
    write(path, values)


def misstate_footer(path: Path, rng: np.random.Generator) -> None:
    content = path.read_bytes()
    length = int(rng.choice([0, 1, 100, len(content), 2**31 - 1, 2**32 - 1]))
    path.write_bytes(content[:-8] + length.to_bytes(4, "little") + content[-4:])


DAMAGES: tuple[Damage, ...] = (
    *(flip_bits, cut, insert_bytes, take_another_file, change_type, nest_a_column),
    *(transpose, permute_columns, set_extremes, misstate_footer),
)


@contextmanager
def bounded_memory() -> Iterator[None]:
    """Fails if the process's memory grows by more than the limit inside the block, however briefly."""
    if not sys.platform.startswith("linux"):
        pytest.skip("the kernel does not tell the highest memory use")
    Path("/proc/self/clear_refs").write_text("5")  # the highest use becomes the present one
    before = highest_memory()
    yield
    assert highest_memory() - before < MOST_MEMORY


def highest_memory() -> float:
    (found,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return 1024 * float(found)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_file_is_refused_by_name_or_calibrated_soundly(damage: Damage, dataset: Dataset) -> None:
    rng, names = np.random.default_rng(0), sorted(files(dataset))
    for _ in range(DRAWS):
        name = names[int(rng.integers(len(names)))]
        path = files(dataset)[name]
        intact = path.read_bytes()
        damage(path, rng)
        unchanged = path.read_bytes() == intact
        with bounded_memory():
            found = attempt(dataset, name)
        path.write_bytes(intact)
        if isinstance(found, QuarantineError):
            assert dataset.planets("train")[0] in found.where
            assert name.split("_")[0] in found.where
        else:
            measured = (found.quality & Quality.UNUSABLE) == 0
            assert (np.isfinite(found.flux) == measured).all(), name
            assert (np.isfinite(found.variance) == measured).all(), name
            assert damage is not permute_columns or unchanged, name


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.int32, np.int64, np.uint32])
def test_counts_of_another_type_give_the_same_light_curve(kind: type, dataset: Dataset) -> None:
    expected, path = calibrated(dataset, "FGS1_signal"), files(dataset)["FGS1_signal"]
    intact = path.read_bytes()
    write(path, pl.read_parquet(path).to_numpy().astype(kind))
    found = calibrated(dataset, "FGS1_signal")
    path.write_bytes(intact)
    np.testing.assert_array_equal(found.flux, expected.flux)


def test_a_huge_footer_is_refused_unread(dataset: Dataset) -> None:
    path = files(dataset)["FGS1_signal"]
    intact = path.read_bytes()
    column = pa.array([1], pa.uint16())
    table = pa.Table.from_arrays([column] * 20_000, names=[f"{n:_>2000}" for n in range(20_000)])
    pq.write_table(table, path, use_dictionary=False, write_statistics=False, store_schema=False)
    with bounded_memory(), pytest.raises(QuarantineError, match=f"at most {LARGEST_FOOTER} bytes"):
        read_exposure(dataset, "train", dataset.planets("train")[0], 0, FGS1)
    path.write_bytes(intact)
