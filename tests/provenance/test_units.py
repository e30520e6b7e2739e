from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from spectramind.errors import InputError, StoreError
from spectramind.provenance.digests import FileDigests, digest_json
from spectramind.provenance.units import (
    build_and_read,
    build_unit,
    discard_unit,
    find_digest,
    find_unit,
    read_manifest,
    read_unit,
    unit_path,
    verify_unit,
)

IDENTITY = {"kind": "cube", "inputs": {"raw": "ab"}, "settings": {"bins": [1, 2], "on": True}, "code": "cd"}


def write(folder: Path) -> dict[str, Any]:
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "deep" / "er" / "data").write_bytes(b"0123456789")
    (folder / "table.json").write_text("{}")
    return {"rows": (1, 2)}


def never(folder: Path) -> None:
    raise AssertionError("the unit is finished")


@pytest.fixture
def index(tmp_path: Path) -> FileDigests:
    return FileDigests(tmp_path / "digests.sqlite")


@pytest.fixture
def unit(tmp_path: Path, index: FileDigests) -> Path:
    return build_unit(tmp_path / "store" / "unit", IDENTITY, write, digests=index).path


def flip_a_bit_unseen(file: Path) -> None:
    """Changed content with the size and the modification time of the original."""
    stat = file.stat()
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_a_unit_is_found_by_its_digest_whatever_code_made_it(tmp_path: Path) -> None:
    made = {}
    for code in ("old", "new"):
        identity = {**IDENTITY, "code": code}
        made[code] = build_unit(unit_path(tmp_path, identity), identity, write)
    shutil.copytree(made["old"].path, tmp_path / ".copy")
    for code, unit in made.items():
        found = find_digest(tmp_path, unit.digest)
        assert found is not None
        assert (found[0], found[1]["identity"]["code"]) == (unit.path, code)
    assert find_digest(tmp_path, "0" * 64) is None
    assert find_digest(tmp_path / "nothing", made["old"].digest) is None


def test_a_finished_unit_is_found_and_not_computed_again(tmp_path: Path, index: FileDigests) -> None:
    first = build_unit(tmp_path / "unit", IDENTITY, write, digests=index)
    second = build_unit(tmp_path / "unit", IDENTITY, never, digests=index)
    assert (first.computed, second.computed) == (True, False)
    assert first.digest == second.digest
    assert first.details == second.details == {"rows": [1, 2]}


def test_the_manifest_tells_identity_outputs_and_environment(unit: Path) -> None:
    manifest = read_manifest(unit)
    assert manifest["identity"] == IDENTITY
    assert manifest["outputs"]["deep/er/data"] == {
        "sha256": "84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882",  # printf 0123456789 | sha256sum
        "size": 10,
    }
    assert manifest["environment"]["python"]
    assert manifest["created_utc"].endswith("+00:00")


def test_the_digest_depends_on_content_not_on_time_or_place(tmp_path: Path, unit: Path) -> None:
    again = build_unit(tmp_path / "elsewhere", IDENTITY, write)
    assert again.digest == read_manifest(unit)["digest"]
    other = build_unit(tmp_path / "other", {**IDENTITY, "code": "ce"}, write)
    assert other.digest != again.digest


def test_the_place_follows_from_the_identity(tmp_path: Path) -> None:
    assert unit_path(tmp_path, IDENTITY) == tmp_path / digest_json(IDENTITY)[:16]
    assert unit_path(tmp_path, {**IDENTITY, "settings": {}}) != unit_path(tmp_path, IDENTITY)


def test_an_identity_is_complete() -> None:
    with pytest.raises(ValueError, match="code"):
        build_unit(Path("unit"), {"kind": "cube"}, write)


def remove_chunk(unit: Path) -> None:
    (unit / "deep" / "er" / "data").unlink()


def add_file(unit: Path) -> None:
    (unit / "deep" / "stray").touch()


def edit(unit: Path) -> None:
    (unit / "table.json").write_text("[]")


def flip(unit: Path) -> None:
    flip_a_bit_unseen(unit / "deep" / "er" / "data")


def remove_manifest(unit: Path) -> None:
    (unit / "manifest.json").unlink()


def truncate_manifest(unit: Path) -> None:
    (unit / "manifest.json").write_bytes((unit / "manifest.json").read_bytes()[:100])


def forge_manifest(unit: Path) -> None:
    manifest = json.loads((unit / "manifest.json").read_text())
    manifest["outputs"]["table.json"]["sha256"] = "0" * 64
    (unit / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (remove_chunk, "deep/er/data is missing"),
        (add_file, "deep/stray does not belong"),
        (edit, "table.json has changed"),
        (flip, "deep/er/data has changed"),
        (remove_manifest, "has no manifest.json"),
        (truncate_manifest, "damaged manifest.json"),
        (forge_manifest, "manifest.json has changed"),
    ],
)
def test_a_damaged_unit_is_told_and_rebuilt(
    unit: Path, index: FileDigests, damage: Callable[[Path], None], problem: str
) -> None:
    before = read_manifest(unit)["digest"]
    damage(unit)
    assert problem in "; ".join(verify_unit(unit))
    assert problem in "; ".join(verify_unit(unit, index))
    with pytest.raises(StoreError, match=str(unit)):
        read_unit(unit, lambda path: None)
    rebuilt = build_unit(unit, IDENTITY, write, digests=index)
    assert rebuilt.computed
    assert rebuilt.digest == before
    assert verify_unit(unit, full=True) == []


def test_rot_that_no_stat_shows_is_caught_when_the_unit_is_read(
    unit: Path, index: FileDigests, monkeypatch: pytest.MonkeyPatch
) -> None:
    flip_a_bit_unseen(unit / "deep" / "er" / "data")
    # The index believes that the file is untouched: what a flip on the medium itself looks like.
    index.remember({unit / "deep/er/data": read_manifest(unit)["outputs"]["deep/er/data"]["sha256"]})
    assert find_unit(unit, IDENTITY, index) is not None
    built = []

    def build() -> Any:
        result = build_unit(unit, IDENTITY, write, digests=index)
        built.append(result.computed)
        return result

    result, content = build_and_read(build, lambda path: (path / "deep/er/data").read_bytes())
    assert content == b"0123456789"
    assert built == [False, True]
    assert result.computed


def test_reading_a_sound_unit_passes_on_its_readers_error(unit: Path) -> None:
    def read(path: Path) -> None:
        raise StoreError("cannot decode")

    with pytest.raises(StoreError, match="cannot decode"):
        build_and_read(lambda: build_unit(unit, IDENTITY, never), read)


def test_another_identity_at_the_same_place_replaces_the_unit(unit: Path) -> None:
    changed = {**IDENTITY, "settings": {"bins": [1, 3], "on": True}}
    assert find_unit(unit, changed) is None
    assert build_unit(unit, changed, write).computed
    assert find_unit(unit, IDENTITY) is None


def test_discarding(unit: Path) -> None:
    assert not discard_unit(unit, only_damaged=True)
    assert discard_unit(unit)
    assert not unit.exists()
    assert not discard_unit(unit)


def test_a_failing_writer_leaves_nothing_and_its_error_passes(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        write(folder)
        raise InputError("raw.parquet", "frames", "none", "Fetch it again.")

    def read_missing_input(folder: Path) -> None:
        (tmp_path.parent / "nowhere" / "raw.parquet").read_bytes()

    with pytest.raises(InputError):
        build_unit(tmp_path / "unit", IDENTITY, fail)
    with pytest.raises(FileNotFoundError):
        build_unit(tmp_path / "unit", IDENTITY, read_missing_input)
    assert [path.name for path in tmp_path.iterdir()] == [".unit.lock"]


def test_links_are_no_outputs(tmp_path: Path) -> None:
    def link(folder: Path) -> None:
        (folder / "link").symlink_to("/etc/hostname")

    with pytest.raises(StoreError, match="regular files only"):
        build_unit(tmp_path / "unit", IDENTITY, link)


def test_a_file_where_a_folder_belongs_is_named(tmp_path: Path) -> None:
    (tmp_path / "store").touch()
    with pytest.raises(StoreError, match="store/unit: cannot be written"):
        build_unit(tmp_path / "store" / "unit", IDENTITY, write)


def test_a_moved_store_is_still_sound(unit: Path, index: FileDigests) -> None:
    moved = unit.parent.with_name("moved")
    shutil.move(unit.parent, moved)
    assert not build_unit(moved / "unit", IDENTITY, never, digests=index).computed
