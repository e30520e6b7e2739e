"""The challenge's files: tables and frames, byte for byte reproducible."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import csv, parquet

from spectramind.instruments import AIRS, FGS1, N_WAVELENGTHS, Instrument
from spectramind.simulation.axes import column_wavelengths_um, spectrum_wavelengths_um
from spectramind.types import Adc, CalibrationFrames, Floats, Star, TimeAxis

WAVELENGTH_NAMES = tuple(f"wl_{i + 1}" for i in range(N_WAVELENGTHS))
SIGMA_NAMES = tuple(f"sigma_{i + 1}" for i in range(N_WAVELENGTHS))
STAR_COLUMNS = ("Rs", "Ms", "Ts", "Mp", "e", "P", "sma", "i")
SAMPLE_VALUE = 0.456


def write_csv(path: Path, table: pa.Table) -> None:
    """A CSV without quotes around numbers and names, as pandas writes it."""
    csv.write_csv(table, path, csv.WriteOptions(quoting_style="none"))


def write_parquet(path: Path, table: pa.Table) -> None:
    """One row group, ZSTD, no dictionaries."""
    parquet.write_table(
        table,
        path,
        compression="zstd",
        use_dictionary=False,
        row_group_size=max(table.num_rows, 1),
        write_statistics=False,
    )


def write_columns(path: Path, columns: NDArray[np.generic]) -> None:
    """`columns` (C, N) as a table of C columns `column_0`.. of N rows each."""
    names = [f"column_{i}" for i in range(columns.shape[0])]
    write_parquet(path, pa.Table.from_arrays([pa.array(column) for column in columns], names=names))


def write_calibration(folder: Path, frames: CalibrationFrames) -> None:
    """The five reference files of one detector; `linear_corr` has its six powers stacked along the rows."""
    folder.mkdir(parents=True)
    stacked = frames.linear_corr.reshape(-1, frames.linear_corr.shape[-1])
    for name, frame in (
        ("dark", frames.dark),
        ("dead", frames.dead),
        ("flat", frames.flat),
        ("linear_corr", stacked),
        ("read", frames.read),
    ):
        write_columns(folder / f"{name}.parquet", np.ascontiguousarray(frame.T))


def write_signal(folder: Path, instrument: Instrument, visit: int, counts: NDArray[np.uint16]) -> None:
    """`counts` (pixels, frames): one row per frame, one column per pixel."""
    folder.mkdir(parents=True, exist_ok=True)
    write_columns(folder / f"{instrument.name}_signal_{visit}.parquet", counts)


def spectra_table(planet_ids: Sequence[str], spectra: Floats, names: Sequence[str] = WAVELENGTH_NAMES) -> pa.Table:
    """planet_id and one column per wavelength."""
    ids = pa.array([int(planet_id) for planet_id in planet_ids], pa.int64())
    return pa.Table.from_arrays([ids, *(pa.array(column) for column in spectra.T)], names=["planet_id", *names])


def star_table(stars: Sequence[Star]) -> pa.Table:
    """planet_id, Rs, Ms, Ts, Mp, e, P, sma, i."""
    ids = pa.array([int(star.planet_id) for star in stars], pa.int64())
    values = [pa.array([getattr(star, name) for star in stars], pa.float64()) for name in STAR_COLUMNS]
    return pa.Table.from_arrays([ids, *values], names=["planet_id", *STAR_COLUMNS])


def sample_submission(planet_ids: Sequence[str]) -> pa.Table:
    """The form of a submission, filled with one value: 567 columns."""
    values = np.full((len(planet_ids), 2 * N_WAVELENGTHS), SAMPLE_VALUE)
    return spectra_table(planet_ids, values, WAVELENGTH_NAMES + SIGMA_NAMES)


def wavelength_table() -> pa.Table:
    """wl_1..wl_283 in one row."""
    return pa.Table.from_arrays([pa.array([value]) for value in spectrum_wavelengths_um()], names=WAVELENGTH_NAMES)


def adc_table(fgs1: Adc, airs: Adc) -> pa.Table:
    """One row of converter constants."""
    named = [(FGS1.name, fgs1), (AIRS.name, airs)]
    row = {f"{name}_adc_{key}": [getattr(adc, key)] for name, adc in named for key in ("offset", "gain")}
    return pa.table(row)


def axis_table(fgs1: TimeAxis, airs: TimeAxis) -> pa.Table:
    """Time and wavelength axes, the shorter columns padded with NaN."""
    columns = {
        f"{AIRS.name}-axis0-h": airs.time_h,
        f"{AIRS.name}-axis2-um": column_wavelengths_um(AIRS),
        f"{AIRS.name}-integration_time": airs.integration_s,
        f"{FGS1.name}-axis0-h": fgs1.time_h,
    }
    length = max(column.size for column in columns.values())
    padded = {name: np.pad(c, (0, length - c.size), constant_values=np.nan) for name, c in columns.items()}
    return pa.table({name: pa.array(column, from_pandas=False) for name, column in padded.items()})
