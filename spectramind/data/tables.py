"""Small text tables: comma- or semicolon-separated, with or without byte-order mark, read strictly."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spectramind.errors import InputError
from spectramind.types import Floats

PLANET_ID = re.compile(r"[0-9A-Za-z_-]{1,64}")
_WHOLE_NUMBER = re.compile(r"([0-9]+)\.0+")


def planet_identifier(text: str, where: str | Path) -> str:
    """`text` as a planet id: a whole number written as `123.0` loses its fraction; InputError for anything unsafe."""
    whole = _WHOLE_NUMBER.fullmatch(text)
    name = whole.group(1) if whole else text
    if not PLANET_ID.fullmatch(name):
        raise InputError(
            where,
            "planet ids of 1 to 64 letters, digits, '_' or '-'",
            ascii(text[:80]),
            "Correct or remove this row.",
        )
    return name


@dataclass(frozen=True)
class Table:
    """A text table: `columns` in file order, `rows` of as many cells."""

    path: Path
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def require(self, names: tuple[str, ...]) -> None:
        """InputError unless every one of `names` is a column."""
        missing = [name for name in names if name not in self.columns]
        if missing:
            found = ", ".join(self.columns[:12])
            raise InputError(self.path, f"columns {', '.join(missing[:6])}", f"columns {found}", "Add the columns.")

    def planet_ids(self) -> tuple[str, ...]:
        """The `planet_id` column; InputError for unsafe or repeated ids."""
        self.require(("planet_id",))
        position = self.columns.index("planet_id")
        ids = tuple(planet_identifier(row[position], self.path) for row in self.rows)
        repeated = sorted({name for name in ids if ids.count(name) > 1}) if len(set(ids)) < len(ids) else []
        if repeated:
            raise InputError(
                self.path, "each planet once", f"{', '.join(repeated[:5])} repeated", "Remove the duplicates."
            )
        return ids

    def floats(self, names: tuple[str, ...]) -> Floats:
        """Cells of the columns `names` as numbers (rows, names); an empty cell is NaN, other text an InputError."""
        self.require(names)
        positions = [self.columns.index(name) for name in names]
        values = np.empty((len(self.rows), len(names)))
        for line, row in enumerate(self.rows):
            for place, position in enumerate(positions):
                text = row[position]
                try:
                    values[line, place] = float(text) if text else np.nan
                except ValueError:
                    raise InputError(
                        self.path,
                        f"a number in row {line + 1}, column {names[place]}",
                        ascii(text[:40]),
                        "Write decimals with a point.",
                    ) from None
        return values


def read_table(path: Path) -> Table:
    """The table in `path`. InputError if it is missing, not UTF-8, empty, ragged, or has a column twice."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(
            path, "a readable file", error.strerror or "an error", "Check the path and its rights."
        ) from None
    except UnicodeDecodeError:
        raise InputError(path, "a UTF-8 text table", "another encoding", "Save the file as UTF-8.") from None
    if "\0" in text:
        raise InputError(path, "a UTF-8 text table", "binary data", "Save the file as UTF-8.")
    header = text.splitlines()[0] if text.strip() else ""
    delimiter = ";" if ";" in header and "," not in header else ","
    try:
        lines = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True) if row]
    except csv.Error as error:
        raise InputError(path, "a well-formed table", str(error), "Save the file again as CSV.") from None
    if len(lines) < 2:
        raise InputError(path, "a header and at least one row", f"{len(lines)} lines", "Restore the file.")
    columns, *rows = [tuple(cell.strip() for cell in row) for row in lines]
    if len(set(columns)) < len(columns):
        raise InputError(path, "each column once", "a repeated column name", "Rename or remove one.")
    for number, row in enumerate(rows, start=1):
        if len(row) != len(columns):
            raise InputError(path, f"{len(columns)} cells in row {number}", f"{len(row)}", "Restore the row.")
    return Table(path, columns, tuple(rows))
