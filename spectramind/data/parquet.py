"""Parquet files of one detector array or a few columns: the footer is checked before anything is allocated."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from spectramind.errors import QuarantineError

_CURE = "Restore the file from its source."
_UNREADABLE = (OSError, ValueError, pa.ArrowException, pl.exceptions.PolarsError, pl.exceptions.PanicException)
"""What the Parquet readers raise on damaged files; Polars' panic does not derive from Exception."""


def _unreadable(path: Path, error: BaseException) -> QuarantineError:
    return QuarantineError(path, "a readable Parquet file", str(error).splitlines()[0][:160], _CURE)


def _footer_shape(path: Path) -> tuple[int, int]:
    """Rows and columns that the footer claims; QuarantineError if it contradicts itself."""
    if not path.is_file():
        raise QuarantineError(path, "a file", "nothing", _CURE)
    try:
        footer = pq.read_metadata(path)
        rows = [footer.row_group(group).num_rows for group in range(footer.num_row_groups)]
    except _UNREADABLE as error:
        raise _unreadable(path, error) from None
    if sum(rows) != footer.num_rows or any(count < 0 for count in rows):
        raise QuarantineError(path, f"row groups of {footer.num_rows} rows in all", f"{sum(rows)}", _CURE)
    return footer.num_rows, footer.num_columns


def read_array(path: Path, rows: int, columns: int, wanted: Sequence[int] | None = None) -> NDArray[Any]:
    """The file as one (rows, columns) array in the file's own type, each column contiguous; or only the `wanted`
    columns by their place in the file.

    QuarantineError if the file is missing, damaged, of another shape, holds missing values or is not numeric.
    """
    found = _footer_shape(path)
    if found != (rows, columns):
        raise QuarantineError(path, f"{rows} rows x {columns} columns", f"{found[0]} x {found[1]}", _CURE)
    wanted = None if wanted is None or len(wanted) == columns else list(wanted)
    try:
        frame = pl.read_parquet(path, columns=wanted, use_statistics=False, glob=False)
    except _UNREADABLE as error:
        raise _unreadable(path, error) from None
    expected = (rows, columns if wanted is None else len(wanted))
    if frame.shape != expected:
        raise QuarantineError(
            path, f"{expected[0]} rows x {expected[1]} columns", f"{frame.height} x {frame.width}", _CURE
        )
    kinds = set(frame.dtypes)
    if not all(kind.is_numeric() or kind == pl.Boolean for kind in kinds):
        raise QuarantineError(path, "numbers", ", ".join(sorted(str(kind) for kind in kinds))[:80], _CURE)
    if any(column.null_count() for column in frame.iter_columns()):
        raise QuarantineError(path, "a value in every cell", "missing values", _CURE)
    return frame.to_numpy(order="fortran")


def read_columns(path: Path, longest: int) -> dict[str, NDArray[np.float64]]:
    """Each column of a small table without its padding: trailing nulls and NaNs are cut off.

    QuarantineError if the file is missing or damaged, has over `longest` rows or a column that is not numeric.
    """
    rows, _ = _footer_shape(path)
    if rows > longest:
        raise QuarantineError(path, f"at most {longest} rows", str(rows), _CURE)
    try:
        frame = pl.read_parquet(path, use_statistics=False, glob=False)
    except _UNREADABLE as error:
        raise _unreadable(path, error) from None
    columns = {}
    for column in frame.iter_columns():
        if not column.dtype.is_numeric():
            raise QuarantineError(path, f"numbers in column {column.name}", str(column.dtype), _CURE)
        values = column.cast(pl.Float64).to_numpy()
        used = np.flatnonzero(~np.isnan(values))
        columns[column.name] = values[: used[-1] + 1 if used.size else 0]
    return columns
