import numpy as np
import pytest

from spectramind.data.tables import planet_identifier, read_table
from spectramind.errors import InputError


@pytest.mark.parametrize(
    "content",
    [
        b"planet_id,Rs\n7,1.5\n",
        b"\xef\xbb\xbfplanet_id,Rs\r\n7,1.5\r\n",
        b"planet_id;Rs\n7;1.5\n",
        b'"planet_id", Rs\n"7.0", 1.5\n\n',
    ],
)
def test_marks_line_ends_and_semicolons_do_not_matter(tmp_path, content):
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    table = read_table(path)
    assert table.planet_ids() == ("7",)
    np.testing.assert_array_equal(table.floats(("Rs",)), [[1.5]])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"planet_id,Rs\n",
        b"planet_id,Rs\n7\n",
        b"planet_id,Rs,Rs\n7,1,1\n",
        b"planet_id,Rs\n7,\xff\xfe\n",
        "planet_id,Rs\n7,1\n".encode("utf-16-le"),
        b'planet_id,Rs\n7,"1\n',
        "planet_id,Rs,näme\n7,1,2\n".encode("latin-1"),
    ],
)
def test_damaged_tables_are_refused(tmp_path, content):
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"table\.csv"):
        read_table(path)


def test_a_decimal_comma_is_refused_not_misread(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("planet_id;Rs\n7;1,5\n")
    with pytest.raises(InputError, match="row 1, column Rs"):
        read_table(path).floats(("Rs",))


def test_tabs_are_refused_not_misread(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("planet_id\tRs\n7\t1.5\n")
    with pytest.raises(InputError, match="columns planet_id"):
        read_table(path).planet_ids()


def test_duplicate_planets_are_refused(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("planet_id,Rs\n7,1\n7.0,1\n")
    with pytest.raises(InputError, match="7 repeated"):
        read_table(path).planet_ids()


@pytest.mark.parametrize("name", ["../../etc", "/etc/passwd", "a\0b", "x" * 300, "", "7.5", "=cmd", "ä"])
def test_unsafe_planet_ids_are_refused(name):
    with pytest.raises(InputError, match="planet ids"):
        planet_identifier(name, "table.csv")
