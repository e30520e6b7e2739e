"""Spectra in files that a command is pointed at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np

from spectramind.data.layout import WAVELENGTH_COLUMNS
from spectramind.data.tables import read_table
from spectramind.errors import InputError
from spectramind.submission.table import read_wide, wide_header
from spectramind.types import Floats, Spectra


def read_predictions(path: Path) -> Spectra:
    """Means and sigmas of a wide CSV or of a Parquet file with the same columns. Raises InputError."""
    if path.suffix != ".parquet":
        return read_wide(path)
    import polars as pl

    columns = wide_header()
    try:
        table = pl.read_parquet(path, columns=list(columns))
    except (OSError, pl.exceptions.PolarsError) as error:
        found = str(error).splitlines()[0]
        raise InputError(path, "a Parquet table of predictions", found, "Name the file that a run wrote.") from error
    values = table.select(pl.col(columns[1:]).cast(pl.Float64)).to_numpy()
    mean, sigma = np.hsplit(values, 2)
    return Spectra(tuple(map(str, table["planet_id"])), mean, sigma)


def read_covariance(path: Path, planet_ids: Sequence[str]) -> Floats:
    """Covariances (planets, 283, 283) of these planets, from the Zarr array that a run wrote. Raises InputError."""
    import zarr

    array = zarr.open_array(path, mode="r")
    listed = [str(planet_id) for planet_id in cast("list[str]", array.attrs["planet_ids"])]
    unknown = sorted(set(planet_ids) - set(listed))
    if unknown:
        raise InputError(path, "the covariance of all predicted planets", f"none of {unknown[0]}", "Predict again.")
    rows = np.array([listed.index(planet_id) for planet_id in planet_ids])
    return np.asarray(array.oindex[rows], dtype=float)


def read_truth(path: Path) -> tuple[tuple[str, ...], Floats]:
    """Planet ids and true depths (planets, 283) of a CSV in train.csv's format. Raises InputError."""
    table = read_table(path)
    depths = table.floats(WAVELENGTH_COLUMNS)
    if not np.all(np.isfinite(depths) & (depths >= 0) & (depths < 1)):
        raise InputError(path, "depths from 0 to 1 in every cell", "others", "Restore the file.")
    return table.planet_ids(), depths
