"""The YAML of settings: safe, bounded, with the scalars of YAML 1.2."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from settings import yaml_text
from spectramind.errors import SettingsError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("-3", -3),
        ("1e-3", 1e-3),
        ("1.5E6", 1.5e6),
        (".5", 0.5),
        ("012", "012"),
        ("0x10", "0x10"),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("2025-01-01", "2025-01-01"),
        ("no", "no"),
        ("On", "On"),
        ("true", True),
        ("null", None),
        ("~", None),
        ("", None),
        ("'3'", "3"),
        ("[1, a, null]", [1, "a", None]),
        ("{a: {b: 1}}", {"a": {"b": 1}}),
    ],
)
def test_scalars(text: str, value: object) -> None:
    parsed = yaml_text.parse(text, "test")
    assert parsed == value
    assert type(parsed) is type(value)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abcxyz_", min_size=1), inner, max_size=3),
    max_leaves=12,
)


@given(PLAIN)
@example("\x85")
@example("a\u2028b")
def test_written_values_read_back_equal(value: object) -> None:
    assert yaml_text.parse(yaml_text.dump(value), "test") == value


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.system [ls]",
        "!!python/name:os.system",
        "!custom 3",
        "a: 1\na: 2",
        "? [1, 2]\n: 3",
        "a: *missing",
        "{a: 1",
        "--- 1\n--- 2",
        "[" * 50 + "]" * 50,
        "a: &a [1]\nb: [" + ", ".join(["*a"] * 200) + "]",
        "a: " + "x" * (2**20 + 1),
        "\x00",
    ],
)
def test_what_is_not_plain_is_refused(text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        yaml_text.parse(text, "here")
    assert str(caught.value).startswith("here: ")


def test_billion_laughs_is_refused_at_once() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 15)]
    with pytest.raises(SettingsError, match="aliases"):
        yaml_text.parse("\n".join(lines), "bomb")


def test_files_may_have_a_byte_order_mark_and_may_be_empty(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_bytes(b"\xef\xbb\xbfruntime: {seed: 1}\r\n")
    assert yaml_text.read(file) == {"runtime": {"seed": 1}}
    file.write_text("# nothing\n")
    assert yaml_text.read(file) == {}
