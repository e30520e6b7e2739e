from __future__ import annotations

import hashlib
import importlib
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spectramind.errors import InputError, StoreError
from spectramind.provenance.digests import RACY_NS, FileDigests, canonical_json, code_digest, digest_json

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=20,
)


def reversed_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: reversed_keys(value[key]) for key in reversed(value)}
    return [reversed_keys(item) for item in value] if isinstance(value, list) else value


@given(json_values)
def test_the_order_of_keys_does_not_matter(value: Any) -> None:
    assert digest_json(value) == digest_json(reversed_keys(value))


@given(json_values, json_values)
def test_digests_differ_where_the_text_does(one: Any, other: Any) -> None:
    assert (digest_json(one) == digest_json(other)) == (canonical_json(one) == canonical_json(other))


def test_a_known_digest() -> None:
    # printf '{"a":[1,2.5,null],"b":"\\u00b5m"}' | sha256sum
    text = rb'{"a":[1,2.5,null],"b":"\u00b5m"}'
    assert digest_json({"b": "µm", "a": (1, 2.5, None)}) == hashlib.sha256(text).hexdigest()


def test_dataclasses_count_as_their_fields() -> None:
    @dataclass(frozen=True)
    class Knobs:
        bins: tuple[int, ...] = (1, 2)

    assert digest_json({"knobs": Knobs()}) == digest_json({"knobs": {"bins": [1, 2]}})


@pytest.mark.parametrize("value", [Path("/data"), {1: 2}, {"a", "b"}, object()])
def test_what_differs_between_machines_is_refused(value: Any) -> None:
    with pytest.raises(TypeError):
        digest_json(value)


def test_not_a_number_is_refused() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        digest_json({"a": float("nan")})


def old_file(path: Path, content: bytes) -> Path:
    """A file last modified an hour ago; its change time is now, as nobody can set that."""
    path.write_bytes(content)
    os.utime(path, (1.7e9, 1.7e9))
    return path


@pytest.fixture
def no_reading_twice(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were read."""
    read: list[str] = []
    original = hashlib.file_digest

    def record(file: Any, algorithm: str) -> Any:
        read.append(Path(file.name).name)
        return original(file, algorithm)

    monkeypatch.setattr(hashlib, "file_digest", record)
    return read


def test_an_unchanged_file_is_read_once(
    tmp_path: Path, no_reading_twice: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = old_file(tmp_path / "frames", b"abc")
    later = file.stat().st_ctime_ns + RACY_NS
    monkeypatch.setattr("time.time_ns", lambda: later)
    digests = FileDigests(tmp_path / "index.sqlite")
    assert digests.digest(file) == digests.digest(file) == hashlib.sha256(b"abc").hexdigest()
    assert no_reading_twice == ["frames"]
    assert digests.digest(file, fresh=True) == hashlib.sha256(b"abc").hexdigest()
    assert no_reading_twice == ["frames", "frames"]


def test_a_changed_file_of_the_same_size_and_time_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = old_file(tmp_path / "frames", b"abc")
    later = file.stat().st_ctime_ns + RACY_NS
    monkeypatch.setattr("time.time_ns", lambda: later)
    digests = FileDigests(tmp_path / "index.sqlite")
    digests.digest(file)
    os.utime(file, ns=(0, 0))  # lets the clock of change times tick
    old_file(file, b"abd")
    assert digests.digest(file) == hashlib.sha256(b"abd").hexdigest()


def test_a_file_touched_just_now_is_not_remembered(tmp_path: Path, no_reading_twice: list[str]) -> None:
    file = tmp_path / "fresh"
    file.write_bytes(b"abc")
    digests = FileDigests(tmp_path / "index.sqlite")
    assert digests.digest(file) == digests.digest(file)
    assert no_reading_twice == ["fresh", "fresh"]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="frames: expected a readable file, found No such file"):
        FileDigests(tmp_path / "index.sqlite").digest(tmp_path / "frames")


def test_a_damaged_index_is_named(tmp_path: Path) -> None:
    (tmp_path / "index.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(StoreError, match=r"index.sqlite.*may be deleted"):
        FileDigests(tmp_path / "index.sqlite").digest(old_file(tmp_path / "frames", b"abc"))


def digest_folder(folder: Path) -> list[str]:
    digests = FileDigests(folder / "index.sqlite")
    files = sorted(folder.glob("frames*"))
    digests.remember({file: hashlib.sha256(file.read_bytes()).hexdigest() for file in files[:10]})
    return [digests.digest(file) for file in files]


def test_eight_processes_share_one_index(tmp_path: Path) -> None:
    expected = []
    for number in range(20):
        (tmp_path / f"frames{number:02d}").write_bytes(b"x" * number)
        expected.append(hashlib.sha256(b"x" * number).hexdigest())
    with ProcessPoolExecutor(8, mp_context=get_context("fork")) as pool:
        assert list(pool.map(digest_folder, [tmp_path] * 8)) == [expected] * 8


def test_an_edited_module_changes_the_digest_of_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "edited_package"
    (package / "inner").mkdir(parents=True)
    for name in ("__init__.py", "inner/__init__.py", "inner/dark.py"):
        (package / name).write_text("x = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    before = code_digest("edited_package")
    assert code_digest("edited_package") == before
    (package / "inner" / "dark.py").write_bytes(b"x = 1\r\n")
    assert code_digest("edited_package") == before
    whole = code_digest("edited_package.inner.dark"), code_digest("edited_package.inner")
    (package / "inner" / "dark.py").write_text("x = 2\n")
    assert code_digest("edited_package") != before
    assert (code_digest("edited_package.inner.dark"), code_digest("edited_package.inner")) != whole
    assert "edited_package.inner.dark" not in sys.modules


def test_code_without_source_is_refused() -> None:
    with pytest.raises(ModuleNotFoundError):
        code_digest("spectramind.nowhere.at_all")
    with pytest.raises(ValueError, match="no source"):
        code_digest("spectramind.nowhere")
