"""Parquet files of one detector array or a few columns: the footer is checked before anything is allocated."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from spectramind.errors import QuarantineError

_CURE = "Restore the file from its source."
_UNREADABLE = (OSError, ValueError, pl.exceptions.PolarsError, pl.exceptions.PanicException)
"""What the Parquet readers raise on damaged files; Polars' panic does not derive from Exception."""


def _unreadable(path: Path, error: BaseException) -> QuarantineError:
    return QuarantineError(path, "a readable Parquet file", str(error).splitlines()[0][:160], _CURE)


def _checked_footer(path: Path) -> tuple[pl.LazyFrame, int, list[str]]:
    """The file, unread, and the rows and columns that its footer claims."""
    if not path.is_file():
        raise QuarantineError(path, "a file", "nothing", _CURE)
    try:
        table = pl.scan_parquet(path, use_statistics=False, glob=False)
        names = table.collect_schema().names()
        return table, int(table.select(pl.len()).collect().item()), names
    except _UNREADABLE as error:
        raise _unreadable(path, error) from None


def _read(path: Path, table: pl.LazyFrame) -> pl.DataFrame:
    try:
        return table.collect()
    except _UNREADABLE as error:
        raise _unreadable(path, error) from None


def read_array(path: Path, rows: int, columns: int) -> NDArray[Any]:
    """The whole file as one (rows, columns) array, columns in file order, in the file's own type.

    QuarantineError if the file is missing, damaged, of another shape, holds missing values or is not numeric.
    """
    frame = _numbers(path, rows, columns, range(columns))
    return frame.to_numpy(order="c")


def read_series(path: Path, rows: int, columns: int, wanted: Sequence[int]) -> list[NDArray[Any]]:
    """The `wanted` columns (rows,) by their place in the file, in its own type, as they were decoded: read-only.

    QuarantineError as for `read_array`.
    """
    frame = _numbers(path, rows, columns, wanted)
    copied = pl.Boolean in frame.dtypes  # bits are not bytes
    return [column.to_numpy(allow_copy=copied) for column in frame.get_columns()]


def _numbers(path: Path, rows: int, columns: int, wanted: Sequence[int]) -> pl.DataFrame:
    table, found, names = _checked_footer(path)
    if (found, len(names)) != (rows, columns):
        raise QuarantineError(path, f"{rows} rows x {columns} columns", f"{found} x {len(names)}", _CURE)
    frame = _read(path, table.select(pl.col([names[place] for place in wanted])))
    if frame.height != rows:
        raise QuarantineError(path, f"{rows} rows", f"{frame.height}", _CURE)
    kinds = set(frame.dtypes)
    if not all(kind.is_numeric() or kind == pl.Boolean for kind in kinds):
        raise QuarantineError(path, "numbers", ", ".join(sorted(str(kind) for kind in kinds))[:80], _CURE)
    if any(column.null_count() for column in frame.get_columns()):
        raise QuarantineError(path, "a value in every cell", "missing values", _CURE)
    return frame.rechunk()


def read_columns(path: Path, longest: int) -> dict[str, NDArray[np.float64]]:
    """Each column of a small table without its padding: trailing nulls and NaNs are cut off.

    QuarantineError if the file is missing or damaged, has over `longest` rows or a column that is not numeric.
    """
    table, rows, _ = _checked_footer(path)
    if rows > longest:
        raise QuarantineError(path, f"at most {longest} rows", str(rows), _CURE)
    columns = {}
    for column in _read(path, table).iter_columns():
        if not column.dtype.is_numeric():
            raise QuarantineError(path, f"numbers in column {column.name}", str(column.dtype), _CURE)
        values = column.cast(pl.Float64).to_numpy()
        used = np.flatnonzero(~np.isnan(values))
        columns[column.name] = values[: used[-1] + 1 if used.size else 0]
    return columns
