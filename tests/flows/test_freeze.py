"""A state frozen: the folder verifies, tells what is not clean, and is tagged in a real repository."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from flows.freeze import freeze, verify_frozen
from flows.run_directory import RunDirectory
from settings.resolve import resolve
from spectramind.errors import InputError
from spectramind.provenance.digests import file_digest


def git(root: Path, *arguments: str) -> str:
    who = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    return subprocess.run(
        ["git", "-C", str(root), *who, *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "checkout"
    root.mkdir()
    git(root, "init", "--quiet")
    (root / "requirements.lock").write_text("numpy==2\n")
    git(root, "add", ".")
    git(root, "commit", "--quiet", "--message", "first")
    for variable in ("GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL"):
        monkeypatch.setenv(variable, "t@example.org")
    return root


@pytest.fixture
def run(tmp_path: Path) -> Path:
    settings = resolve([f"outputs.dir={tmp_path}/run", f"outputs.store={tmp_path}/store"])
    with RunDirectory.create(settings, "run") as opened:
        (opened.folder("submission") / "submission.csv").write_text("planet_id\n")
        (opened.folder("checkpoints") / "model.safetensors").write_bytes(b"weights")
        opened.set_data("abc", {"train.csv": "def"})
        opened.add_metrics({"score": 0.5})
    return opened.path


def test_a_clean_state_is_frozen_and_tagged(run: Path, checkout: Path, tmp_path: Path) -> None:
    folder = freeze("v1", run, tmp_path / "frozen", checkout, git_tag=True, allow_dirty=False)
    files = json.loads((folder / "manifest.json").read_text())
    assert files["differs"] == []
    assert files["git_commit"] == git(checkout, "rev-parse", "HEAD") == git(checkout, "rev-parse", "v1^{commit}")
    assert git(checkout, "cat-file", "-t", "v1") == "tag"
    assert file_digest(folder / "manifest.json") in git(checkout, "tag", "--list", "--format=%(contents)", "v1")
    assert set(files["files"]) == {
        *("resolved_config.yaml", "run_hash_summary_v50.json", "data_digests.json", "metrics.json"),
        *("run_manifest.json", "checkpoints.json", "requirements.lock", "sbom.cdx.json", "submission/submission.csv"),
    }
    weights = run / "checkpoints" / "model.safetensors"
    assert json.loads((folder / "checkpoints.json").read_text()) == {
        "checkpoints/model.safetensors": file_digest(weights)
    }
    assert [path.name for path in folder.parent.iterdir()] == ["v1"]
    with pytest.raises(InputError, match="no such folder yet"):
        freeze("v1", run, tmp_path / "frozen", checkout, git_tag=False, allow_dirty=False)


def test_a_frozen_folder_tells_what_has_changed(run: Path, checkout: Path, tmp_path: Path) -> None:
    folder = freeze("v1", run, tmp_path, checkout, git_tag=False, allow_dirty=False)
    assert verify_frozen(folder) == []
    (folder / "metrics.json").write_text("{}")
    (folder / "requirements.lock").unlink()
    (folder / "more").write_text("")
    assert verify_frozen(folder) == [
        "requirements.lock: missing",
        "more: does not belong there",
        "metrics.json: changed",
    ]


def test_files_that_differ_from_the_commit_are_named(run: Path, checkout: Path, tmp_path: Path) -> None:
    (checkout / "requirements.lock").write_text("numpy==3\n")
    frozen = tmp_path / "frozen"
    with pytest.raises(InputError, match=r"1 files differ from the commit \(requirements\.lock\)"):
        freeze("v1", run, frozen, checkout, git_tag=False, allow_dirty=False)
    with pytest.raises(InputError, match="clean checkout"):
        freeze("v1", run, frozen, checkout, git_tag=True, allow_dirty=True)
    assert not frozen.exists()
    folder = freeze("v1", run, frozen, checkout, git_tag=False, allow_dirty=True)
    assert "requirements.lock" in json.loads((folder / "manifest.json").read_text())["differs"][0]
    assert git(checkout, "tag") == ""


def test_nothing_is_written_where_no_tag_can_be_made(
    run: Path, checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(checkout, "tag", "taken")
    with pytest.raises(InputError, match="expected no tag taken yet"):
        freeze("taken", run, tmp_path / "frozen", checkout, git_tag=True, allow_dirty=False)
    for variable in ("GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL", "EMAIL"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    git(checkout, "config", "user.useConfigOnly", "true")
    with pytest.raises(InputError, match="tell me who you are"):
        freeze("v1", run, tmp_path / "frozen", checkout, git_tag=True, allow_dirty=False)
    assert not (tmp_path / "frozen").exists()


def test_a_run_that_has_changed_or_is_of_other_code_is_not_frozen(run: Path, checkout: Path, tmp_path: Path) -> None:
    (run / "metrics.json").write_text("{}")
    with pytest.raises(InputError, match=r"metrics\.json: changed"):
        freeze("v1", run, tmp_path / "frozen", checkout, git_tag=False, allow_dirty=True)


def test_without_a_repository_it_says_so(run: Path, tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    with pytest.raises(InputError, match="is no git checkout"):
        freeze("v1", run, tmp_path / "frozen", tmp_path / "plain", git_tag=False, allow_dirty=False)
