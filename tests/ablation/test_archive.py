"""The archive of the best runs tells when a member is missing, changed or foreign."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path

import pytest

from spectramind.ablation.archive import pack_runs, verify_archive
from spectramind.errors import InputError


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    runs = {}
    for name in ("000", "001"):
        folder = tmp_path / name
        (folder / "checkpoints").mkdir(parents=True)
        (folder / "checkpoints" / "weights").write_text(name)
        (folder / "not_listed").write_text("scratch")
        listed = {"checkpoints/weights": {"sha256": hashlib.sha256(name.encode()).hexdigest(), "bytes": 3}}
        (folder / "manifest.json").write_text(json.dumps({"files": listed}))
        runs[name] = folder
    pack_runs(tmp_path / "top.zip", runs)
    pack_runs(tmp_path / "again.zip", runs)
    assert (tmp_path / "top.zip").read_bytes() == (tmp_path / "again.zip").read_bytes()
    return tmp_path / "top.zip"


def rewritten(archive: Path, **changes: str | None) -> Path:
    """A copy in which members have other content, or (None) are left out, or are new."""
    copy = archive.with_name("copy.zip")
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(copy, "w") as target:
        contents = {name: source.read(name).decode() for name in source.namelist()}
        for name, content in {**contents, **changes}.items():
            if content is not None:
                target.writestr(name, content)
    return copy


def test_an_archive_holds_what_the_manifests_list_and_verifies(archive: Path) -> None:
    assert verify_archive(archive) == []
    with zipfile.ZipFile(archive) as opened:
        assert sorted(opened.namelist()) == [
            *("000/checkpoints/weights", "000/manifest.json", "001/checkpoints/weights", "001/manifest.json")
        ]


def test_changes_are_told(archive: Path) -> None:
    assert verify_archive(rewritten(archive, **{"000/checkpoints/weights": "other"})) == [
        "000/checkpoints/weights: changed since the manifest was written"
    ]
    assert verify_archive(rewritten(archive, **{"001/checkpoints/weights": None})) == [
        "001/checkpoints/weights: missing"
    ]
    assert verify_archive(rewritten(archive, **{"002/weights": "new"})) == ["002/weights: in no manifest"]
    archive.write_bytes(archive.read_bytes()[:100])
    with pytest.raises(InputError, match="an archive of runs"):
        verify_archive(archive)
