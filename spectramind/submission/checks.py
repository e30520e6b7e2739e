"""The self-test of a submission: everything that would void it, by row and column.

Nothing is corrected here, least of all clipped: a negative depth or a sigma of zero is a fault to be found where it
arose.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from spectramind.errors import InputError
from spectramind.instruments import N_WAVELENGTHS
from spectramind.metrics.score import ideal_sigmas
from spectramind.submission.table import (
    LONG_HEADER,
    SAFE_PLANET_ID,
    CsvTable,
    parse_number,
    read_csv,
    read_template,
    wide_header,
)
from spectramind.types import Floats, Spectra

Severity = Literal["error", "warning"]
MAX_NAMED = 100
"""Cells named for each kind of fault; the rest are counted."""


@dataclass(frozen=True)
class Problem:
    """One fault. `planet` and `column` are empty where it concerns the whole table or row."""

    severity: Severity
    planet: str
    column: str
    found: str
    expected: str

    def __str__(self) -> str:
        planet = f"planet {self.planet}, " if self.planet else ""
        column = f"column {self.column}, " if self.column else ""
        return f"{self.severity}: {planet}{column}found {self.found}, expected {self.expected}"


def check_submission(source: Path | Spectra, expected_ids: Sequence[str] | None = None) -> list[Problem]:
    """All faults of a wide table (a file or spectra to be written as one), errors first, none if it is valid.

    `expected_ids`: the planets of the template in its order; without them the set and order of planets are not checked.
    Raises InputError only if the file is no CSV at all.
    """
    table = read_csv(source) if isinstance(source, Path) else None
    if table is not None:
        problems = _header_problems(table.header, wide_header())
        if problems:
            return problems
        problems, planet_ids, mean, sigma = _parse(table)
    else:
        assert isinstance(source, Spectra)
        planet_ids, mean, sigma = source.planet_ids, source.mean, source.sigma
        shape = (len(planet_ids), N_WAVELENGTHS)
        if mean.shape != shape or sigma.shape != shape:
            return [Problem("error", "", "", f"mean {mean.shape} and sigma {sigma.shape}", f"both {shape}")]
        problems = []
    problems += _planet_problems(planet_ids, expected_ids)
    problems += _value_problems(planet_ids, mean, sigma)
    return sorted(problems, key=lambda problem: problem.severity)


def require_valid(source: Path | Spectra, expected_ids: Sequence[str] | None = None) -> list[Problem]:
    """Raises InputError that names the first error; returns the warnings."""
    problems = check_submission(source, expected_ids)
    errors = [problem for problem in problems if problem.severity == "error"]
    if errors:
        first = errors[0]
        place = [str(source) if isinstance(source, Path) else "submission"]
        place += [f"planet {first.planet}"] * bool(first.planet) + [f"column {first.column}"] * bool(first.column)
        raise InputError(
            ", ".join(place),
            first.expected,
            first.found,
            f"{len(errors)} errors in all. Correct the predictions where the faults arise.",
        )
    return problems


def check_long_table(path: Path) -> list[Problem]:
    """Faults of a long table: each row against the JSON schema, then each bin exactly once per planet.

    The schema takes about 50 microseconds a row: a quarter of a minute for 1,100 planets.
    """
    table = read_csv(path)
    problems = _header_problems(table.header, LONG_HEADER)
    if problems:
        return problems
    problems = [
        Problem("error", row[0] if row else f"on line {line}", "", f"{len(row)} cells", f"{len(LONG_HEADER)}")
        for line, row in enumerate(table.rows, start=2)
        if len(row) != len(LONG_HEADER)
    ]
    problems = _limited(problems) or list(islice(validate_records(map(_record, table.rows)), MAX_NAMED))
    if problems:
        return problems
    seen: dict[str, list[int]] = {}
    for planet_id, bin_id, _, _ in table.rows:
        seen.setdefault(planet_id, []).append(int(bin_id))
    return [
        Problem(
            "error", planet_id, "bin_id", f"{len(bins)} rows, {len(set(bins))} bins", f"each of 0..{N_WAVELENGTHS - 1}"
        )
        for planet_id, bins in seen.items()
        if sorted(bins) != list(range(N_WAVELENGTHS))
    ]


@cache
def long_schema() -> dict[str, Any]:
    """JSON schema of one row of the long table."""
    schema: dict[str, Any] = json.loads(files(__package__).joinpath("schema.json").read_text(encoding="utf-8"))
    return schema


def validate_records(records: Iterable[Mapping[str, Any]]) -> Iterator[Problem]:
    """Faults of long-table rows {planet_id, bin_id, mu, sigma} against the JSON schema."""
    from jsonschema import Draft202012Validator

    validator = Draft202012Validator(long_schema())
    for record in records:
        for error in validator.iter_errors(record):
            column = str(error.path[0]) if error.path else ""
            expected = f"{error.validator} {error.validator_value}"
            yield Problem("error", str(record.get("planet_id", "")), column, repr(error.instance), expected)


def diff_lines(submission: Path, template: Path | None = None) -> list[str]:
    """What separates a wide table from the template, as the lines of a diff: - expected, + found. Empty if valid.

    Warnings are not differences. Raises InputError if a file is no CSV, or the template has other columns.
    """
    expected_ids = read_template(template) if template is not None else None
    errors = [p for p in check_submission(submission, expected_ids) if p.severity == "error"]
    if not errors:
        return []
    lines = [f"--- {template.name if template else 'schema'}", f"+++ {submission.name}"]
    for problem in errors:
        place = ", ".join(filter(None, (problem.planet and f"planet {problem.planet}", problem.column)))
        lines += [f"@@ {place or 'table'} @@", f"-{problem.expected}", f"+{problem.found}"]
    return lines


def _header_problems(header: tuple[str, ...], expected: tuple[str, ...]) -> list[Problem]:
    if header == expected:
        return []
    problems = [Problem("error", "", name, "no such column", "the column") for name in expected if name not in header]
    problems += [
        Problem("error", "", name, f"column {i + 1} of {len(header)}", "no such column, or only once")
        for i, name in enumerate(header)
        if name not in expected or name in header[:i]
    ]
    if not problems:
        i = next(i for i, name in enumerate(header) if name != expected[i])
        problems.append(Problem("error", "", header[i], f"as column {i + 1}", f"{expected[i]} in this place"))
    return _limited(problems)


def _parse(table: CsvTable) -> tuple[list[Problem], tuple[str, ...], Floats, Floats]:
    """Numbers of the well-formed rows; the others are problems, as are cells that are no numbers (0.5 stands in)."""
    problems, planet_ids, values = [], [], []
    for line, row in enumerate(table.rows, start=2):
        if len(row) != len(table.header):
            name = row[0] if row else f"on line {line}"
            problems.append(Problem("error", name, "", f"{len(row)} cells", f"{len(table.header)}"))
            continue
        numbers = [parse_number(cell) for cell in row[1:]]
        for column, cell, number in zip(table.header[1:], row[1:], numbers, strict=True):
            if number is None:
                problems.append(Problem("error", row[0], column, repr(cell[:40]) if cell else "empty cell", "a number"))
        planet_ids.append(row[0])
        values.append([0.5 if number is None else number for number in numbers])
    array = np.array(values, dtype=float).reshape(-1, 2 * N_WAVELENGTHS)
    return _limited(problems), tuple(planet_ids), array[:, :N_WAVELENGTHS], array[:, N_WAVELENGTHS:]


def _planet_problems(planet_ids: Sequence[str], expected_ids: Sequence[str] | None) -> list[Problem]:
    unsafe = [p for p in planet_ids if not SAFE_PLANET_ID.fullmatch(p)]
    problems = [Problem("error", p[:64], "planet_id", repr(p[:64]), "letters, digits, _ and -") for p in unsafe]
    counts: dict[str, int] = {}
    for p in planet_ids:
        counts[p] = counts.get(p, 0) + 1
    problems += [Problem("error", p, "planet_id", f"{n} rows", "one row") for p, n in counts.items() if n > 1]
    if not planet_ids:
        problems.append(Problem("error", "", "planet_id", "no planet", "at least one row"))
    if expected_ids is None:
        return _limited(problems)
    expected = set(expected_ids)
    problems += [Problem("error", p, "planet_id", "no row", "one row") for p in expected_ids if p not in counts]
    problems += [Problem("error", p, "planet_id", "a row", "no such planet") for p in counts if p not in expected]
    if not problems and tuple(planet_ids) != tuple(expected_ids):
        i = next(i for i, p in enumerate(planet_ids) if p != expected_ids[i])
        problems.append(
            Problem("error", planet_ids[i], "planet_id", f"as row {i + 1}", f"planet {expected_ids[i]} there")
        )
    return _limited(problems)


def _value_problems(planet_ids: Sequence[str], mean: Floats, sigma: Floats) -> list[Problem]:
    def named(bad: NDArray[np.bool_], values: Floats, prefix: str, expected: str, severity: Severity) -> list[Problem]:
        cells = np.argwhere(bad)
        problems = [
            Problem(severity, planet_ids[row], f"{prefix}_{b + 1}", repr(float(values[row, b])), expected)
            for row, b in cells[:MAX_NAMED]
        ]
        return problems + _rest(len(cells), severity)

    problems = []
    for prefix, values in (("wl", mean), ("sigma", sigma)):
        finite = np.isfinite(values)
        problems += named(~finite, values, prefix, "a finite number", "error")
        problems += named(finite & (values > 1), values, prefix, "a transit depth, at most 1", "error")
    problems += named(mean < 0, mean, "wl", "no negative number", "error")
    problems += named(sigma <= 0, sigma, "sigma", "a positive number", "error")
    floor = ideal_sigmas(N_WAVELENGTHS)
    problems += named((sigma > 0) & (sigma < floor), sigma, "sigma", "no less than the score's ideal sigma", "warning")
    return problems


def _record(row: Sequence[str]) -> dict[str, Any]:
    """One long row as a JSON record. Cells that are no JSON number, nan and inf included, stay text."""
    planet_id, bin_id, mu, sigma = row
    return {
        "planet_id": planet_id,
        "bin_id": int(bin_id) if bin_id.isascii() and bin_id.isdigit() and len(bin_id) < 10 else bin_id,
        "mu": _json_number(mu),
        "sigma": _json_number(sigma),
    }


def _json_number(cell: str) -> float | str:
    number = parse_number(cell)
    return number if number is not None and np.isfinite(number) else cell


def _limited(problems: list[Problem]) -> list[Problem]:
    return problems[:MAX_NAMED] + _rest(len(problems), "error")


def _rest(count: int, severity: Severity) -> list[Problem]:
    if count <= MAX_NAMED:
        return []
    return [Problem(severity, "", "", f"{count - MAX_NAMED} more of the last kind", "none")]
