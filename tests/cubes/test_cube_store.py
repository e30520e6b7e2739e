from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from spectramind.cubes.options import CubeOptions
from spectramind.cubes.store import read_cube, write_cube
from spectramind.errors import StoreError
from spectramind.instruments import AIRS, FGS1, INSTRUMENTS, Instrument
from spectramind.provenance.units import UnitResult, build_and_read, build_unit
from spectramind.types import CalibratedVisit, LightCurve, Quality, StepStatistics

N_TIMES = 70
IDENTITY = {"kind": "cube", "inputs": {"raw": "ab"}, "settings": {}, "code": "cd"}


def light_curve(instrument: Instrument, seed: int = 0) -> LightCurve:
    random = np.random.default_rng(seed)
    shape = N_TIMES, instrument.n_bins
    flux = random.normal(1e5, 300, shape)
    variance = random.uniform(1, 2, shape)
    quality = random.choice([0, 1, 3], shape).astype(np.uint8)
    flux[3], variance[3], quality[3] = np.nan, np.inf, Quality.UNUSABLE
    channels = {"jitter_x": random.normal(size=N_TIMES), "centroid_x": random.normal(size=N_TIMES)}
    return LightCurve(
        instrument,
        flux,
        variance,
        quality,
        time_h=np.linspace(0.05, 7.45, N_TIMES),
        wavelength_um=np.linspace(1.95, 3.9, instrument.n_bins),
        n_pairs=np.full(N_TIMES, 12),
        foreground=np.zeros(instrument.n_bins),
        channels=channels if instrument is FGS1 else {},
    )


@pytest.fixture(scope="module")
def visit() -> CalibratedVisit:
    steps = (
        StepStatistics("adc", 1.0, 2.0, 0.1, np.nan, 0.5, 3.0, 2.0),
        StepStatistics("dark", 2.0, 1 / 3, 0.1, 0.2, 1.0, 2.0, np.nan),
    )
    return CalibratedVisit(
        planet_id="0042",
        visit=1,
        curves={instrument.name: light_curve(instrument) for instrument in INSTRUMENTS},
        steps={instrument.name: steps for instrument in INSTRUMENTS},
        summary={"FGS1": {"snr": 1234.5, "worst": -np.inf}, "AIRS-CH0": {"snr": 0.1 + 0.2}},
    )


@pytest.fixture
def folder(tmp_path: Path, visit: CalibratedVisit) -> Path:
    write_cube(tmp_path, visit, {"dataset_revision": "abc"}, CubeOptions(time_chunk=32))
    return tmp_path


def assert_same_curve(one: LightCurve, other: LightCurve) -> None:
    assert one.instrument == other.instrument
    arrays = [field.name for field in fields(LightCurve) if field.name not in ("instrument", "channels")]
    pairs = [(getattr(one, name), getattr(other, name)) for name in arrays]
    assert list(one.channels) == list(other.channels)
    pairs += [(one.channels[name], other.channels[name]) for name in one.channels]
    for left, right in pairs:
        assert left.dtype == right.dtype
        assert left.tobytes() == right.tobytes()


def test_a_visit_comes_back_bit_for_bit(folder: Path, visit: CalibratedVisit) -> None:
    found = read_cube(folder)
    assert (found.planet_id, found.visit) == ("0042", 1)
    assert list(found.curves) == list(visit.curves)
    for name, curve in visit.curves.items():
        assert_same_curve(found.curves[name], curve)
    assert repr(found.steps) == repr(visit.steps)
    assert found.summary == visit.summary


@settings(max_examples=10, deadline=None)
@given(
    values=npst.arrays(np.float64, st.tuples(st.integers(1, 9), st.just(AIRS.n_bins)), elements=st.floats(width=64)),
    time_chunk=st.integers(1, 12),
)
def test_any_values_in_any_chunks_come_back(
    values: Any, time_chunk: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    times = len(values)
    curve = replace(
        light_curve(AIRS),
        flux=values,
        variance=np.abs(values),
        quality=np.zeros(values.shape, np.uint8),
        time_h=np.zeros(times),
        n_pairs=np.zeros(times, np.int64),
    )
    folder = tmp_path_factory.mktemp("cube")
    write_cube(folder, CalibratedVisit("1", 0, {"AIRS-CH0": curve}, {}, {}), {}, CubeOptions(time_chunk=time_chunk))
    assert_same_curve(read_cube(folder).curves["AIRS-CH0"], curve)
    shutil.rmtree(folder)


def content(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_same_visit_gives_the_same_bytes(folder: Path, visit: CalibratedVisit, tmp_path: Path) -> None:
    again = tmp_path / "again"
    again.mkdir()
    write_cube(again, visit, {"dataset_revision": "abc"}, CubeOptions(time_chunk=32))
    first = {name: digest for name, digest in content(folder).items() if not name.startswith("again")}
    assert content(again) == first


def test_zarr_opens_a_chunked_and_checksummed_cube(folder: Path, visit: CalibratedVisit) -> None:
    root = zarr.open(folder / "cube.zarr", mode="r")
    assert dict(root.attrs)["dataset_revision"] == "abc"
    assert dict(root.attrs)["planet_id"] == "0042"
    flux = root["AIRS-CH0/flux"]
    assert flux.metadata.zarr_format == 3
    assert flux.chunks == (32, 282)
    codecs = [codec.to_dict() for codec in flux.metadata.codecs]
    assert [codec["name"] for codec in codecs] == ["bytes", "zstd", "crc32c"]
    assert codecs[1]["configuration"]["checksum"] is True
    for _, group in root.groups():
        for _, array in group.arrays():
            assert {"units", "long_name"} <= set(array.attrs)


def test_xarray_opens_a_cube_with_its_coordinates(folder: Path, visit: CalibratedVisit) -> None:
    curve = visit.curves["AIRS-CH0"]
    dataset = xr.open_zarr(folder / "cube.zarr", group="AIRS-CH0", consolidated=False)
    assert dict(dataset.sizes) == {"time": N_TIMES, "wavelength": 282}
    assert dataset.flux.dims == ("time", "wavelength")
    assert dataset.flux.chunks is not None
    assert dataset.quality.dtype == np.uint8
    np.testing.assert_array_equal(dataset.time, curve.time_h)
    np.testing.assert_array_equal(dataset.flux.sel(wavelength=1.95), curve.flux[:, 0])
    assert (dataset.flux.units, dataset.time.units, dataset.wavelength.units) == ("electron", "h", "um")
    white = xr.open_zarr(folder / "cube.zarr", group="FGS1", consolidated=False)
    np.testing.assert_array_equal(white.centroid_x, visit.curves["FGS1"].channels["centroid_x"])


def chunk(folder: Path) -> Path:
    return folder / "cube.zarr" / "AIRS-CH0" / "flux" / "c.1.0"


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("damage", [Path.unlink, truncate])
@pytest.mark.parametrize("name", ["cube.zarr/AIRS-CH0/flux/c.1.0", "cube.zarr/FGS1/foreground/c.0", "statistics.json"])
def test_a_missing_or_cut_file_is_told(folder: Path, name: str, damage: Callable[[Path], None]) -> None:
    damage(folder / name)
    with pytest.raises(StoreError, match=str(folder)):
        read_cube(folder)


def test_flipped_bits_of_a_chunk_are_told(folder: Path) -> None:
    intact = chunk(folder).read_bytes()
    random = np.random.default_rng(1)
    for position in random.integers(0, 8 * len(intact), 25):
        flipped = bytearray(intact)
        flipped[position // 8] ^= 1 << (position % 8)
        chunk(folder).write_bytes(flipped)
        with pytest.raises(StoreError, match="checksum"):
            read_cube(folder)


def test_a_chunk_lost_from_a_finished_unit_is_made_again(tmp_path: Path, visit: CalibratedVisit) -> None:
    def build() -> UnitResult:
        return build_unit(tmp_path / "unit", IDENTITY, lambda folder: write_cube(folder, visit, {}))

    first = build()
    (tmp_path / "unit/cube.zarr/AIRS-CH0/flux/c.0.0").unlink()
    result, found = build_and_read(build, read_cube)
    assert (result.computed, result.digest) == (True, first.digest)
    assert_same_curve(found.curves["AIRS-CH0"], visit.curves["AIRS-CH0"])


def test_arrays_that_disagree_are_refused(tmp_path: Path, visit: CalibratedVisit) -> None:
    curve = replace(visit.curves["FGS1"], time_h=np.zeros(N_TIMES - 1))
    with pytest.raises(ValueError, match="FGS1 flux has shape"):
        write_cube(tmp_path, replace(visit, curves={"FGS1": curve}), {})


def test_no_channel_hides_an_array(tmp_path: Path, visit: CalibratedVisit) -> None:
    curve = replace(visit.curves["FGS1"], channels={"flux": np.zeros(N_TIMES)})
    with pytest.raises(ValueError, match="channel cannot be called flux"):
        write_cube(tmp_path, replace(visit, curves={"FGS1": curve}), {})
