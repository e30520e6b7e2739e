"""Spectra in files that a command is pointed at."""

from __future__ import annotations

from pathlib import Path

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


def read_truth(path: Path) -> tuple[tuple[str, ...], Floats]:
    """Planet ids and true depths (planets, 283) of a CSV in train.csv's format. Raises InputError."""
    table = read_table(path)
    depths = table.floats(WAVELENGTH_COLUMNS)
    if not np.all(np.isfinite(depths) & (depths >= 0) & (depths < 1)):
        raise InputError(path, "depths from 0 to 1 in every cell", "others", "Restore the file.")
    return table.planet_ids(), depths


def finished_part(path: Path) -> Path:
    """`path`, which a finished run has. InputError if it is not there."""
    if not path.exists():
        cure = "Name the directory of a run that has trained and predicted."
        raise InputError(path, "a part of a finished run", "no such file", cure)
    return path
