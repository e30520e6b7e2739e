"""`spectramind freeze`: the evidence of a finished run in one folder that verifies itself, and a tag in git."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from flows.history import FROZEN
from flows.journal import now
from flows.run_directory import DATA_DIGESTS, METRICS, RESOLVED, RUN_MANIFEST, SUMMARY, code_digests, verify_run
from spectramind.errors import InputError, StoreError
from spectramind.provenance.digests import file_digest
from spectramind.provenance.environment import ROOT
from spectramind.provenance.sbom import SBOM, sbom
from spectramind.provenance.units import sync_path

MANIFEST, LOCK, CHECKPOINTS = "manifest.json", "requirements.lock", "checkpoints.json"
EVIDENCE = (RESOLVED, SUMMARY, DATA_DIGESTS, METRICS)
"""Files of the run that are copied as they are, beside its submission and its data-quality report."""


@dataclass(frozen=True)
class GitState:
    """The checkout's commit, and why it does not stand for the code: empty if it does."""

    commit: str
    problems: tuple[str, ...]


def freeze(tag: str, run: Path, frozen: Path, root: Path = ROOT, *, git_tag: bool, allow_dirty: bool) -> Path:
    """Write the folder `frozen`/`tag` with the evidence of the finished `run`, and verify it; with `git_tag` also tag.

    InputError if the run is not finished or has changed, if the folder is there already, or if the checkout at `root`
    differs from its commit or from the code of the run and `allow_dirty` does not say otherwise; with `git_tag` also if
    the tag is there already or git does not know who makes it.
    """
    if problems := verify_run(run):
        raise InputError(run, "a finished and unchanged run", "; ".join(problems[:3]), "Choose another run.")
    target = frozen / tag
    if target.exists():
        raise InputError(target, "no such folder yet", "one", "Choose another tag.")
    state = git_state(root, json.loads((run / SUMMARY).read_text(encoding="utf-8")))
    if state.problems and (git_tag or not allow_dirty):
        cure = "Commit, and run again." + ("" if git_tag else " --allow-dirty freezes all the same, and says so.")
        raise InputError(root, "a clean checkout of the run's code", "; ".join(state.problems), cure)
    if git_tag:
        _require_taggable(root, tag)
    _write(target, run, root, state)
    if problems := verify_frozen(target):
        raise StoreError(f"{target}: damaged ({'; '.join(problems[:3])}); remove it and repeat")
    if git_tag:
        digest = file_digest(target / MANIFEST)
        _git(root, "tag", "--annotate", tag, "--message", f"Frozen {tag}, manifest sha256 {digest}", state.commit)
    console = Console()
    for problem in state.problems:
        console.print(f"[yellow]warning[/] {escape(problem)}", soft_wrap=True, highlight=False)
    console.print(f"frozen    {escape(str(target))}  (verified)", soft_wrap=True, highlight=False)
    if git_tag:
        console.print(f"tag       {escape(tag)} at {state.commit}", soft_wrap=True, highlight=False)
    return target


def git_state(root: Path, summary: dict[str, Any]) -> GitState:
    """Commit of the checkout at `root`; what differs from it, and from the run that `summary` is of."""
    try:
        commit = _git(root, "rev-parse", "HEAD")
        changed = _git(root, "status", "--porcelain").splitlines()
    except InputError:
        return GitState("unknown", (f"{root} is no git checkout",))
    problems = [f"{len(changed)} files differ from the commit ({', '.join(line[3:] for line in changed[:3])})"] * bool(
        changed
    )
    then, here = summary["code_digests"], code_digests()
    problems += [f"{name} is not the code of the run" for name in here if here[name] != then.get(name)]
    return GitState(commit, tuple(problems))


def verify_frozen(folder: Path) -> list[str]:
    """What is wrong with a frozen folder, one line each."""
    try:
        files = dict(json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        return [f"{MANIFEST}: damaged ({error})"]
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - {MANIFEST}
    problems = [f"{name}: missing" for name in sorted(files.keys() - there)]
    problems += [f"{name}: does not belong there" for name in sorted(there - files.keys())]
    changed = (name for name in sorted(there & files.keys()) if file_digest(folder / name) != files[name])
    return [*problems, *(f"{name}: changed" for name in changed)]


def _write(target: Path, run: Path, root: Path, state: GitState) -> None:
    """Beside its place, then renamed: a folder that is there is whole."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as name:
            folder = Path(name) / target.name
            folder.mkdir()
            for file in EVIDENCE:
                if (run / file).is_file():
                    shutil.copy(run / file, folder / file)
            shutil.copy(run / RUN_MANIFEST, folder / FROZEN)
            for part in ("submission", "calibration", "diagnostics"):
                if (run / part).is_dir():
                    shutil.copytree(run / part, folder / part)
            if (root / LOCK).is_file():
                shutil.copy(root / LOCK, folder / LOCK)
            (folder / SBOM).write_bytes(sbom())
            _json(folder / CHECKPOINTS, _checkpoints(run))
            files = sorted(path for path in folder.rglob("*") if path.is_file())
            _json(
                folder / MANIFEST,
                {
                    "tag": target.name,
                    "frozen_utc": now(),
                    "git_commit": state.commit,
                    "differs": list(state.problems),
                    "files": {path.relative_to(folder).as_posix(): file_digest(path) for path in files},
                },
            )
            for path in [*files, folder / MANIFEST]:
                sync_path(path)
            folder.rename(target)
            sync_path(target.parent)
    except OSError as error:
        raise StoreError(f"{target}: cannot be written ({error.strerror or error})") from error


def _checkpoints(run: Path) -> dict[str, str]:
    """Digest of each file of the run's checkpoints, which are too large to copy."""
    files: dict[str, dict[str, str]] = json.loads((run / RUN_MANIFEST).read_text(encoding="utf-8"))["files"]
    return {name: described["sha256"] for name, described in files.items() if name.startswith("checkpoints/")}


def _json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _require_taggable(root: Path, tag: str) -> None:
    _git(root, "var", "GIT_COMMITTER_IDENT")  # fails, and says why, where git does not know who tags
    if _git(root, "tag", "--list", tag):
        raise InputError(root, f"no tag {tag} yet", "one", "Choose another tag.")


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except subprocess.CalledProcessError as error:
        raise InputError(root, f"`git {arguments[0]}` to work", error.stderr.strip(), "Repair it.") from error
    except (OSError, subprocess.SubprocessError) as error:
        raise InputError(root, "git", str(error), "Install it.") from error
    return done.stdout.rstrip()
