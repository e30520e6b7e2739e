"""Parquet files of one detector array or a few columns: the footer is checked before anything is allocated."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from spectramind.errors import QuarantineError

LARGEST_FOOTER = 32 << 20
"""Bytes; the widest challenge file's has 2 MB, and reading one takes twenty times its size of memory."""
_NUMBERED = re.compile(r"column_[0-9]{1,9}")
_CURE = "Restore the file from its source."
_UNREADABLE = (OSError, ValueError, pl.exceptions.PolarsError, pl.exceptions.PanicException)
"""What the Parquet readers raise on damaged files; Polars' panic does not derive from Exception."""


def _unreadable(path: Path, error: BaseException) -> QuarantineError:
    return QuarantineError(path, "a readable Parquet file", str(error).splitlines()[0][:160], _CURE)


def _checked_footer(path: Path) -> tuple[pl.LazyFrame, int, list[str]]:
    """The file, unread, and the rows and columns that its footer claims.

    QuarantineError if it is huge, or numbers the columns in another order than the challenge does.
    """
    if not path.is_file():
        raise QuarantineError(path, "a file", "nothing", _CURE)
    try:
        if (size := _footer_bytes(path)) > LARGEST_FOOTER:
            raise QuarantineError(path, f"a footer of at most {LARGEST_FOOTER} bytes", f"{size}", _CURE)
        table = pl.scan_parquet(path, use_statistics=False, glob=False)
        names = table.collect_schema().names()
        rows = int(table.select(pl.len()).collect().item())
    except _UNREADABLE as error:
        raise _unreadable(path, error) from None
    numbers = [int(name[7:]) for name in names if _NUMBERED.fullmatch(name)]
    if numbers != sorted(numbers):
        raise QuarantineError(path, "columns in the order of their numbers", "another order", _CURE)
    return table, rows, names


def _read(path: Path, table: pl.LazyFrame) -> pl.DataFrame:
    try:
        return table.collect()
    except _UNREADABLE as error:
        raise _unreadable(path, error) from None


def _footer_bytes(path: Path) -> int:
    """What the end of a Parquet file says about the length of its footer; 0 for other files."""
    with path.open("rb") as file:
        file.seek(-min(path.stat().st_size, 8), os.SEEK_END)
        length, magic = file.read(4), file.read(4)
    return int.from_bytes(length, "little") if magic == b"PAR1" else 0


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
    if not all(kind.is_integer() or kind.is_float() or kind == pl.Boolean for kind in kinds):
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
