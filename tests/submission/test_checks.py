"""Every fault that voids a submission is found, with its row and column."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spectramind.errors import InputError
from spectramind.submission.checks import (
    MAX_NAMED,
    Problem,
    check_long_table,
    check_submission,
    diff_lines,
    require_valid,
    validate_records,
)
from spectramind.submission.table import long_csv, wide_csv
from spectramind.types import Spectra

IDS = ("101", "102", "103")


def spectra(ids: tuple[str, ...] = IDS) -> Spectra:
    rng = np.random.default_rng(0)
    return Spectra(ids, rng.uniform(0.005, 0.03, (len(ids), 283)), rng.uniform(5e-5, 5e-4, (len(ids), 283)))


def cells() -> list[list[str]]:
    return [line.split(",") for line in wide_csv(spectra()).splitlines()]


def write(path: Path, rows: list[list[str]]) -> Path:
    path.write_text("\n".join(",".join(row) for row in rows) + "\n")
    return path


def put(row: int, column: str, value: str) -> Callable[[list[list[str]]], None]:
    def change(rows: list[list[str]]) -> None:
        rows[row][rows[0].index(column)] = value

    return change


def test_valid_submission(tmp_path: Path) -> None:
    path = write(tmp_path / "submission.csv", cells())
    assert check_submission(path, IDS) == []
    assert check_submission(spectra(), IDS) == []
    assert check_submission(spectra()) == []
    assert require_valid(path, IDS) == []
    assert diff_lines(path) == []


VALUE_FAULTS = [
    ("wl_5", "-1e-9", "-1e-09", "no negative number"),
    ("wl_5", "nan", "nan", "a finite number"),
    ("wl_1", "inf", "inf", "a finite number"),
    ("wl_1", "1e999", "inf", "a finite number"),
    ("wl_283", "1.5", "1.5", "a transit depth, at most 1"),
    ("sigma_1", "0", "0.0", "a positive number"),
    ("sigma_283", "-1e-4", "-0.0001", "a positive number"),
    ("sigma_7", "NaN", "nan", "a finite number"),
    ("sigma_7", "-inf", "-inf", "a finite number"),
    ("wl_9", "", "empty cell", "a number"),
    ("wl_9", "0.01abc", "'0.01abc'", "a number"),
    ("wl_9", "0_1", "'0_1'", "a number"),
    ("wl_9", " 0.1", "' 0.1'", "a number"),
]


@pytest.mark.parametrize(("column", "cell", "found", "expected"), VALUE_FAULTS)
def test_value_faults_name_planet_and_column(tmp_path: Path, column: str, cell: str, found: str, expected: str) -> None:
    rows = cells()
    put(2, column, cell)(rows)
    path = write(tmp_path / "submission.csv", rows)
    errors = [problem for problem in check_submission(path, IDS) if problem.severity == "error"]
    assert Problem("error", "102", column, found, expected) in errors
    assert {(problem.planet, problem.column) for problem in errors} == {("102", column)}
    with pytest.raises(InputError, match=f"planet 102, column {column}") as caught:
        require_valid(path, IDS)
    assert caught.value.exit_code == 2
    assert f"+{found}" in diff_lines(path)


def test_value_faults_of_arrays() -> None:
    good = spectra()
    for value, expected in ((-1e-12, "no negative number"), (np.nan, "a finite number")):
        mean = good.mean.copy()
        mean[1, 4] = value
        [problem] = check_submission(Spectra(IDS, mean, good.sigma), IDS)
        assert (problem.planet, problem.column, problem.expected) == ("102", "wl_5", expected)
    [problem] = check_submission(Spectra(IDS, good.mean[:, :5], good.sigma), IDS)
    assert "(3, 5)" in problem.found


def test_sigma_below_the_ideal_is_a_warning() -> None:
    good = spectra()
    sigma = good.sigma.copy()
    sigma[0, 0], sigma[2, 3] = 5e-7, 9e-6
    problems = require_valid(Spectra(IDS, good.mean, sigma), IDS)
    assert [(p.severity, p.planet, p.column) for p in problems] == [
        ("warning", "101", "sigma_1"),
        ("warning", "103", "sigma_4"),
    ]


def test_missing_extra_duplicate_planets() -> None:
    assert [str(p) for p in check_submission(spectra(("101", "103")), IDS)] == [
        "error: planet 102, column planet_id, found no row, expected one row"
    ]
    [extra] = check_submission(spectra((*IDS, "999")), IDS)
    assert (extra.planet, extra.found, extra.expected) == ("999", "a row", "no such planet")
    [duplicate] = check_submission(spectra((*IDS, "102")), IDS)
    assert (duplicate.planet, duplicate.found) == ("102", "2 rows")
    [order] = check_submission(spectra(("102", "101", "103")), IDS)
    assert (order.planet, order.expected) == ("102", "planet 101 there")
    assert check_submission(spectra(()), ())[0].expected == "at least one row"


def test_formulas_are_no_ids(tmp_path: Path) -> None:
    rows = cells()
    rows[1][0] = "=HYPERLINK(1)"
    [problem] = check_submission(write(tmp_path / "submission.csv", rows))
    assert (problem.column, problem.found) == ("planet_id", "'=HYPERLINK(1)'")


def test_header_faults(tmp_path: Path) -> None:
    def problems(change: Callable[[list[list[str]]], None]) -> list[Problem]:
        rows = cells()
        change(rows)
        return check_submission(write(tmp_path / "submission.csv", rows), IDS)

    renamed = problems(put(0, "wl_3", "wl_03"))
    assert [(p.column, p.found) for p in renamed] == [("wl_3", "no such column"), ("wl_03", "column 4 of 567")]
    doubled = problems(put(0, "wl_3", "wl_2"))
    assert [p.column for p in doubled] == ["wl_3", "wl_2"]

    def swap(rows: list[list[str]]) -> None:
        rows[0][1], rows[0][2] = rows[0][2], rows[0][1]

    [swapped] = problems(swap)
    assert (swapped.column, swapped.expected) == ("wl_2", "wl_1 in this place")

    def shorten(rows: list[list[str]]) -> None:
        for row in rows:
            row.pop()

    assert [p.column for p in problems(shorten)] == ["sigma_283"]


def test_wrong_count_of_cells(tmp_path: Path) -> None:
    rows = cells()
    rows[2].pop()
    problems = check_submission(write(tmp_path / "submission.csv", rows), IDS)
    assert ("102", "566 cells", "567") in [(p.planet, p.found, p.expected) for p in problems]


def test_many_faults_are_counted() -> None:
    good = spectra()
    problems = check_submission(Spectra(IDS, np.full_like(good.mean, np.nan), good.sigma), IDS)
    assert len(problems) == MAX_NAMED + 1
    assert problems[-1].found == f"{3 * 283 - MAX_NAMED} more of the last kind"


def test_no_csv_at_all(tmp_path: Path) -> None:
    (tmp_path / "submission.csv").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(InputError, match="CSV file"):
        check_submission(tmp_path / "submission.csv")


def test_diff_against_the_template(tmp_path: Path) -> None:
    template = write(tmp_path / "sample_submission.csv", cells())
    rows = cells()
    del rows[3]
    put(1, "sigma_2", "0.0")(rows)
    submission = write(tmp_path / "submission.csv", rows)
    assert diff_lines(submission, template) == [
        "--- sample_submission.csv",
        "+++ submission.csv",
        "@@ planet 103, planet_id @@",
        "-one row",
        "+no row",
        "@@ planet 101, sigma_2 @@",
        "-a positive number",
        "+0.0",
    ]


def test_long_table(tmp_path: Path) -> None:
    path = tmp_path / "submission_long.csv"
    text = long_csv(spectra(("101",)))
    path.write_text(text)
    assert check_long_table(path) == []
    lines = text.splitlines()
    for change, planet, column in [
        (lambda cells: [*cells[:2], "-0.1", cells[3]], "101", "mu"),
        (lambda cells: [*cells[:3], "0"], "101", "sigma"),
        (lambda cells: [*cells[:3], "nan"], "101", "sigma"),
        (lambda cells: [cells[0], "283", *cells[2:]], "101", "bin_id"),
        (lambda cells: [cells[0], "4", *cells[2:]], "101", "bin_id"),
        (lambda cells: ["=1", *cells[1:]], "=1", "planet_id"),
        (lambda cells: cells[:3], "101", ""),
    ]:
        changed = lines.copy()
        changed[10] = ",".join(change(lines[10].split(",")))
        path.write_text("\n".join(changed) + "\n")
        [problem] = check_long_table(path)
        assert (problem.planet, problem.column) == (planet, column)


numbers = st.one_of(st.floats(-0.1, 1.2), st.sampled_from([0.0, -0.0, 1.0, 1e-7]))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
@given(st.sampled_from(["7", "a-b", "-7", "=1", "a\n", ""]), st.integers(0, 282), numbers, numbers)
def test_schema_and_wide_check_agree(planet_id: str, bin_id: int, mu: float, sigma: float) -> None:
    mean, width = np.full((1, 283), 0.01), np.full((1, 283), 1e-4)
    mean[0, bin_id], width[0, bin_id] = mu, sigma
    wide_errors = [p for p in check_submission(Spectra((planet_id,), mean, width)) if p.severity == "error"]
    record = {"planet_id": planet_id, "bin_id": bin_id, "mu": mu, "sigma": sigma}
    assert bool(wide_errors) == bool(list(validate_records([record])))
