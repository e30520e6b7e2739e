"""Wide and long tables: columns, order, and round trips to the last bit."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from spectramind.errors import InputError
from spectramind.submission.table import (
    in_order,
    long_csv,
    read_csv,
    read_long,
    read_template,
    read_wide,
    wide_csv,
    wide_header,
)
from spectramind.types import Spectra

planet_ids = st.lists(
    st.from_regex(r"[0-9A-Za-z_][0-9A-Za-z_-]{0,12}", fullmatch=True), min_size=1, max_size=4, unique=True
)
depths = st.floats(0, 1, allow_subnormal=True)


@st.composite
def tables(draw: st.DrawFn) -> Spectra:
    ids = draw(planet_ids)
    shape = (len(ids), draw(st.integers(1, 5)))
    return Spectra(tuple(ids), draw(arrays(float, shape, elements=depths)), draw(arrays(float, shape, elements=depths)))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(tables())
def test_round_trips(tmp_path: Path, spectra: Spectra) -> None:
    for write, read in ((wide_csv, read_wide), (long_csv, read_long)):
        path = tmp_path / "table.csv"
        path.write_text(write(spectra))
        back = read(path)
        assert back.planet_ids == spectra.planet_ids
        assert np.array_equal(back.mean, spectra.mean)
        assert np.array_equal(back.sigma, spectra.sigma)


def test_wide_columns() -> None:
    header = wide_header()
    assert len(header) == 567
    assert (header[0], header[1], header[283], header[284], header[-1]) == (
        "planet_id",
        "wl_1",
        "wl_283",
        "sigma_1",
        "sigma_283",
    )


def test_bin_id_counts_from_zero_where_wl_counts_from_one(tmp_path: Path) -> None:
    mean = np.arange(1, 284)[None] * 1e-4
    spectra = Spectra(("a",), mean, mean / 100)
    (tmp_path / "wide.csv").write_text(wide_csv(spectra))
    (tmp_path / "long.csv").write_text(long_csv(spectra))
    wide, long = read_csv(tmp_path / "wide.csv"), read_csv(tmp_path / "long.csv")
    assert [row[1] for row in long.rows] == [str(b) for b in range(283)]
    for _, bin_id, mu, sigma in long.rows:
        assert wide.rows[0][wide.header.index(f"wl_{int(bin_id) + 1}")] == mu
        assert wide.rows[0][wide.header.index(f"sigma_{int(bin_id) + 1}")] == sigma


def test_shortest_form_of_numbers() -> None:
    spectra = Spectra(("7",), np.array([[0.1, 0.01468]]), np.array([[1e-6, 0.0001]]))
    assert wide_csv(spectra) == "planet_id,wl_1,wl_2,sigma_1,sigma_2\n7,0.1,0.01468,1e-06,0.0001\n"
    assert long_csv(spectra) == "planet_id,bin_id,mu,sigma\n7,0,0.1,1e-06\n7,1,0.01468,0.0001\n"


def test_order_of_the_template() -> None:
    spectra = Spectra(("b", "a"), np.array([[2.0], [1.0]]), np.array([[0.2], [0.1]]), flags=(("cut",), ()))
    ordered = in_order(spectra, ("a", "b"))
    assert ordered.planet_ids == ("a", "b")
    assert ordered.mean[:, 0].tolist() == [1.0, 2.0]
    assert ordered.flags == ((), ("cut",))
    for other in (("a",), ("a", "b", "c"), ("a", "a"), ("a", "c")):
        with pytest.raises(InputError):
            in_order(spectra, other)


@pytest.mark.parametrize("planet_id", ["=1+1", "+1", "-1", "@x", "a,b", 'a"b', "a\n", "", "x" * 65, "é"])
def test_unsafe_ids_are_not_written(planet_id: str) -> None:
    with pytest.raises(InputError, match="planet ids of letters"):
        wide_csv(Spectra((planet_id,), np.ones((1, 2)), np.ones((1, 2))))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty file"),
        ("planet_id,wl_1\na,1\n", "columns"),
        ("planet_id,wl_1,sigma_1\na,1\n", "line 2.*3 cells, found 2"),
        ("planet_id,wl_1,sigma_1\na,1,x\n", "planet a, column sigma_1"),
        ("planet_id,wl_1,sigma_1\na,1_0,1\n", "planet a, column wl_1"),
        ("planet_id,wl_1,sigma_1\na,1,1\na,1,1\n", "planet a twice"),
        ('planet_id,wl_1,sigma_1\n"a', "CSV file in UTF-8"),
    ],
)
def test_malformed_wide_tables(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "wide.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        read_wide(tmp_path / "wide.csv")


@pytest.mark.parametrize(
    "rows", ["a,0,1,1\na,0,1,1\n", "a,0,1,1\na,2,1,1\n", "a,0,1,1\nb,1,1,1\n", "a,0.5,1,1\n", "a,nan,1,1\n"]
)
def test_malformed_long_tables(tmp_path: Path, rows: str) -> None:
    (tmp_path / "long.csv").write_text("planet_id,bin_id,mu,sigma\n" + rows)
    with pytest.raises(InputError, match="bin_id"):
        read_long(tmp_path / "long.csv")


def test_missing_and_binary_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Name an existing file"):
        read_csv(tmp_path / "none.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="UTF-8"):
        read_csv(tmp_path / "binary.csv")


@pytest.mark.data
@pytest.mark.skipif("SPECTRAMIND_REAL_DATA" not in os.environ, reason="SPECTRAMIND_REAL_DATA is not set")
def test_real_template() -> None:
    path = Path(os.environ["SPECTRAMIND_REAL_DATA"]) / "sample_submission.csv"
    assert read_csv(path).header == wide_header()
    assert read_template(path) == read_wide(path).planet_ids
