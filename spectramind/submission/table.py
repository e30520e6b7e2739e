"""The two tables of a submission, as CSV text.

wide   planet_id,wl_1..wl_N,sigma_1..sigma_N   one row per planet: what the challenge accepts (567 columns for N = 283)
long   planet_id,bin_id,mu,sigma               one row per planet and bin; bin_id b is wl_(b+1), counted from 0

Numbers are written in the shortest form that reads back to the same bits. Readers take only tables that are well
formed; `checks` tells what is wrong with those that are not.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spectramind.errors import InputError
from spectramind.instruments import N_WAVELENGTHS
from spectramind.types import Spectra

LONG_HEADER = ("planet_id", "bin_id", "mu", "sigma")
SAFE_PLANET_ID = re.compile(r"[0-9A-Za-z_][0-9A-Za-z_-]{0,63}")
"""Ids that no spreadsheet takes for a formula and no CSV reader needs quotes for."""
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(inf|infinity|nan)", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True)
class CsvTable:
    """Header and rows of a CSV file, as text."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def wide_header(n_bins: int = N_WAVELENGTHS) -> tuple[str, ...]:
    """Columns of the wide table."""
    bins = range(1, n_bins + 1)
    return ("planet_id", *(f"wl_{i}" for i in bins), *(f"sigma_{i}" for i in bins))


def wide_csv(spectra: Spectra) -> str:
    """The wide table of `spectra`, rows in its order. Raises InputError on a planet id that is not safe."""
    lines = [",".join(wide_header(spectra.mean.shape[1]))]
    for planet_id, mean, sigma in _rows(spectra):
        lines.append(",".join((planet_id, *map(repr, mean), *map(repr, sigma))))
    return "\n".join(lines) + "\n"


def long_csv(spectra: Spectra) -> str:
    """The long table of `spectra`, planet by planet. Raises InputError on a planet id that is not safe."""
    lines = [",".join(LONG_HEADER)]
    for planet_id, mean, sigma in _rows(spectra):
        lines.extend(f"{planet_id},{b},{mu!r},{s!r}" for b, (mu, s) in enumerate(zip(mean, sigma, strict=True)))
    return "\n".join(lines) + "\n"


def read_csv(path: Path) -> CsvTable:
    """Header and rows as text. Raises InputError if the file is missing, not UTF-8, not CSV or empty."""
    try:
        rows = tuple(
            tuple(row) for row in csv.reader(io.StringIO(path.read_bytes().decode("utf-8"), newline=""), strict=True)
        )
    except OSError as error:
        raise InputError(path, "a CSV file", error.strerror or "none", "Name an existing file.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(path, "a CSV file in UTF-8", str(error), "Write the table again.") from error
    if not rows:
        raise InputError(path, "a CSV table with a header", "an empty file", "Write the table again.")
    return CsvTable(rows[0], rows[1:])


def read_wide(path: Path) -> Spectra:
    """Inverse of `wide_csv`. Raises InputError, naming row and column, on a table that is not well formed."""
    table = read_csv(path)
    n_bins = max(1, (len(table.header) - 1) // 2)
    _require_header(path, table, wide_header(n_bins))
    values = np.array([_numbers(path, table, line) for line in range(len(table.rows))]).reshape(-1, 2 * n_bins)
    return Spectra(_unique(path, [row[0] for row in table.rows]), values[:, :n_bins], values[:, n_bins:])


def read_long(path: Path) -> Spectra:
    """Inverse of `long_csv`; rows may come in any order. Raises InputError on a table that is not well formed."""
    table = read_csv(path)
    _require_header(path, table, LONG_HEADER)
    values = np.array([_numbers(path, table, line) for line in range(len(table.rows))]).reshape(-1, 3)
    planet_ids = tuple(dict.fromkeys(row[0] for row in table.rows))
    number = {planet_id: i for i, planet_id in enumerate(planet_ids)}
    planet = np.array([number[row[0]] for row in table.rows], dtype=np.intp)
    n_bins = len(table.rows) // max(1, len(planet_ids))
    expected = np.arange(len(planet_ids) * n_bins)
    if not np.array_equal(np.sort(planet * n_bins + values[:, 0]), expected):
        raise InputError(path, f"each bin_id 0..{n_bins - 1} once per planet", "others", "Write the table again.")
    bin_id = values[:, 0].astype(np.intp)
    mean, sigma = np.empty((2, len(planet_ids), n_bins))
    mean[planet, bin_id], sigma[planet, bin_id] = values[:, 1], values[:, 2]
    return Spectra(planet_ids, mean, sigma)


def read_template(path: Path) -> tuple[str, ...]:
    """Planet ids of `sample_submission.csv` in its order. Raises InputError unless its columns are the challenge's."""
    table = read_csv(path)
    _require_header(path, table, wide_header())
    return _unique(path, [row[0] for row in table.rows if row])


def in_order(spectra: Spectra, planet_ids: Sequence[str]) -> Spectra:
    """The predictions with rows in the order of `planet_ids`. Raises InputError unless the planets are the same."""
    predicted = set(spectra.planet_ids)
    missing = [p for p in planet_ids if p not in predicted]
    extra = sorted(predicted - set(planet_ids))
    if missing or extra or len(predicted) != len(spectra.planet_ids) or len(planet_ids) != len(predicted):
        raise InputError(
            "predictions",
            f"one row for each of {len(planet_ids)} planets",
            f"{len(spectra.planet_ids)} rows, missing {missing[:3]}, extra {extra[:3]}",
            "Predict exactly the planets of the template.",
        )
    return spectra.of(planet_ids)


def parse_number(cell: str) -> float | None:
    """The cell as a float, None if it is not a decimal number, `inf` or `nan`."""
    return float(cell) if _NUMBER.fullmatch(cell) else None


def _rows(spectra: Spectra) -> Iterator[tuple[str, list[float], list[float]]]:
    mean, sigma = spectra.mean.astype(np.float64).tolist(), spectra.sigma.astype(np.float64).tolist()
    for planet_id, mean_row, sigma_row in zip(spectra.planet_ids, mean, sigma, strict=True):
        if not SAFE_PLANET_ID.fullmatch(planet_id):
            raise InputError(
                "submission", "planet ids of letters, digits, _ and -", repr(planet_id), "Rename the planet."
            )
        yield planet_id, mean_row, sigma_row


def _require_header(path: Path, table: CsvTable, header: tuple[str, ...]) -> None:
    if table.header != header:
        wrong = next((i for i, (a, b) in enumerate(zip(table.header, header, strict=False)) if a != b), None)
        found = f"{len(table.header)} columns" if wrong is None else f"{table.header[wrong]!r} as column {wrong + 1}"
        raise InputError(
            path, f"the {len(header)} columns {', '.join(header[:3])} ...", found, "Write the table again."
        )


def _numbers(path: Path, table: CsvTable, line: int) -> list[float]:
    row = table.rows[line]
    if len(row) != len(table.header):
        raise InputError(
            f"{path}, line {line + 2}", f"{len(table.header)} cells", f"{len(row)}", "Write the table again."
        )
    numbers = []
    for column, cell in zip(table.header[1:], row[1:], strict=True):
        number = parse_number(cell)
        if number is None:
            raise InputError(
                f"{path}, planet {row[0]}, column {column}", "a number", repr(cell), "Write the table again."
            )
        numbers.append(number)
    return numbers


def _unique(path: Path, planet_ids: list[str]) -> tuple[str, ...]:
    seen: set[str] = set()
    for planet_id in planet_ids:
        if planet_id in seen:
            raise InputError(path, "one row per planet", f"planet {planet_id} twice", "Keep one of them.")
        seen.add(planet_id)
    return tuple(planet_ids)
