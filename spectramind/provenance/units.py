"""Units of work on disk: a directory that is either finished and verifiable, or redone.

For a unit in S3 storage the same functions hand over to `provenance.s3_units`.

A unit is written into a hidden sibling directory, given its manifest last, made durable and renamed into place. It
counts as done when the manifest is there, names the same identity, and every output has the digest that the manifest
records. A kill at any instant therefore leaves a finished unit or none; what a dead builder left behind is removed when
the unit is built again. One lock per unit lets each be computed once; the kernel frees it when its owner dies.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import socket
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout

from spectramind.errors import InputError, StoreError
from spectramind.provenance.digests import FileDigests, digest_json, file_digest
from spectramind.provenance.environment import environment_snapshot
from spectramind.provenance.s3 import S3Path

MANIFEST = "manifest.json"
IDENTITY_KEYS = {"kind", "inputs", "settings", "code"}
POLL_S = 0.05

Identity = Mapping[str, Any]
"""What a unit depends on: `kind` a word, `inputs` {name: digest}, `settings` the slice in use, `code` a digest."""

Place = Path | S3Path
"""Where a unit is: a directory, or the objects below a key."""

AnyPlace = TypeVar("AnyPlace", bound=Place)
Value = TypeVar("Value")


@dataclass(frozen=True)
class UnitResult:
    """A finished unit. `digest` covers identity and outputs, never times; `computed` tells whether this call built it;
    `details` is what the writer returned when the unit was built."""

    path: Place
    digest: str
    computed: bool
    details: Mapping[str, Any] = field(default_factory=dict)


def unit_path(parent: AnyPlace, identity: Identity) -> AnyPlace:
    """Where the unit of this identity lives below `parent`."""
    return parent / digest_json(identity)[:16]  # type: ignore[return-value]


def build_unit(
    target: Place,
    identity: Identity,
    write: Callable[[Path], Mapping[str, Any] | None],
    *,
    digests: FileDigests | None = None,
    patience_s: float = 3600.0,
) -> UnitResult:
    """The finished unit at `target`; built by `write(folder)` unless it is there already.

    `write` fills an empty folder with regular files and may return JSON-able details for the manifest. `digests`
    remembers which files were verified, so that later runs need not read them. While another process builds the
    unit, this call waits up to `patience_s` seconds and then uses what that process made.

    Raises StoreError if the store cannot be read or written or the other process takes too long; nothing unfinished
    is then visible at `target`. Other exceptions of `write` pass through.
    """
    if isinstance(target, S3Path):
        from spectramind.provenance import s3_units

        return s3_units.build_unit(target, identity, write)
    if set(identity) != IDENTITY_KEYS:
        raise ValueError(f"a unit's identity has the keys {sorted(IDENTITY_KEYS)}, not {sorted(identity)}")
    found = find_unit(target, identity, digests)
    if found is not None:
        return found
    with _unit_lock(target, patience_s):
        found = find_unit(target, identity, digests)
        if found is not None:
            return found
        _remove_leftovers(target)
        return _build(target, identity, write, digests)


def find_unit(target: Path, identity: Identity, digests: FileDigests | None = None) -> UnitResult | None:
    """The unit at `target` if it is finished, has this identity and verifies; else None."""
    try:
        manifest = read_manifest(target)
    except StoreError:
        return None
    if digest_json(manifest["identity"]) != digest_json(identity) or verify_unit(target, digests):
        return None
    return UnitResult(target, manifest["digest"], computed=False, details=manifest["details"])


def find_digest(parent: AnyPlace, digest: str) -> tuple[AnyPlace, dict[str, Any]] | None:
    """The unit below `parent` that has this digest, whatever code made it, and its manifest; None if there is none. Its
    files are verified when it is read."""
    if isinstance(parent, S3Path):
        names = {name.split("/")[0] for name in parent.objects() if name.endswith(f"/{MANIFEST}")}
    else:
        names = {path.parent.name for path in parent.glob(f"*/{MANIFEST}")}
    for name in sorted(name for name in names if not name.startswith(".")):
        unit: Any = parent / name
        manifest = parse_manifest(unit, (unit / MANIFEST).read_bytes())
        if manifest["digest"] == digest:
            return unit, manifest
    return None


def verify_unit(path: Place, digests: FileDigests | None = None, *, full: bool = False) -> list[str]:
    """What is wrong with a unit, one sentence each; empty if it is sound.

    With `digests`, files that have not been touched since they were verified are not read again; `full` (and a missing
    index) reads every byte. Raises StoreError if the index of digests cannot be used.
    """
    if isinstance(path, S3Path):
        from spectramind.provenance import s3_units

        return s3_units.verify_unit(path, full=full)
    try:
        manifest = read_manifest(path)
        files = _files_below(path)
    except StoreError as error:
        return [str(error)]
    outputs: dict[str, dict[str, Any]] = manifest["outputs"]
    del files[MANIFEST]
    problems = [f"{name} is missing" for name in sorted(outputs.keys() - files.keys())]
    problems += [f"{name} does not belong there" for name in sorted(files.keys() - outputs.keys())]
    names = sorted(outputs.keys() & files.keys())
    try:
        found = _digest_files([files[name] for name in names], digests, full)
    except (InputError, OSError) as error:
        return [*problems, str(error)]
    problems += [
        f"{name} has changed" for name, sha in zip(names, found, strict=True) if sha != outputs[name]["sha256"]
    ]
    if manifest["digest"] != unit_digest(manifest["identity"], outputs):
        problems.append(f"{MANIFEST} has changed")
    return problems


def read_unit(path: Place, read: Callable[[Path], Value]) -> Value:
    """`read(path)` after every byte of the unit was verified. Raises StoreError naming the unit if it is damaged."""
    if isinstance(path, S3Path):
        from spectramind.provenance import s3_units

        return s3_units.read_unit(path, read)
    problems = verify_unit(path, full=True)
    if problems:
        raise StoreError(f"{path}: damaged ({'; '.join(problems[:3])}). Run again: it is then computed anew.")
    return read(path)


def build_and_read(build: Callable[[], UnitResult], read: Callable[[Path], Value]) -> tuple[UnitResult, Value]:
    """Build or find a unit and read it; if it turns out to be damaged, it is discarded and built again, once."""
    result = build()
    try:
        return result, read_unit(result.path, read)
    except StoreError:
        if not discard_unit(result.path, only_damaged=True):
            raise
    result = build()
    return result, read_unit(result.path, read)


def discard_unit(path: Place, *, only_damaged: bool = False, patience_s: float = 3600.0) -> bool:
    """Remove a unit so that it is built again; returns whether something was removed.

    `only_damaged` spares a unit that verifies, for example because another process has rebuilt it meanwhile.
    Raises StoreError if it cannot be removed.
    """
    if isinstance(path, S3Path):
        from spectramind.provenance import s3_units

        return s3_units.discard_unit(path, only_damaged=only_damaged)
    if not path.exists():
        return False
    with _unit_lock(path, patience_s), _store_errors(path):
        if not path.exists() or (only_damaged and not verify_unit(path, full=True)):
            return False
        # Renamed first: a unit is never visible in parts.
        path.rename(_hidden_sibling(path))
        _remove_leftovers(path)
        return True


def set_aside(path: Path, target: Path) -> bool:
    """Move a unit out of the store in one step, unless a process is building it; returns whether it was moved."""
    try:
        with _unit_lock(_built_unit(path), 0.0), _store_errors(path):
            path.rename(target)
            return True
    except StoreError:
        return False


def is_being_built(path: Path) -> bool:
    """Whether a process is building the unit at `path`, or the one that `path` is an unfinished sibling of."""
    lock = _lock_file(_built_unit(path))
    if not lock.exists():
        return False
    try:
        with FileLock(lock, timeout=0):
            return False
    except Timeout:
        return True


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of the unit at `path`. Raises StoreError if it is missing or damaged."""
    try:
        return parse_manifest(path, (path / MANIFEST).read_bytes())
    except FileNotFoundError as error:
        raise StoreError(f"{path}: not finished, it has no {MANIFEST}. Run again: it is then computed.") from error
    except OSError as error:
        raise StoreError(f"{path}: damaged {MANIFEST} ({error}). Run again: it is then computed anew.") from error


def parse_manifest(unit: Place, content: bytes) -> dict[str, Any]:
    """The manifest of `unit` from the file's content. Raises StoreError if it is damaged."""
    try:
        manifest = json.loads(content)
        if not isinstance(manifest["digest"], str) or not isinstance(manifest["details"], dict):
            raise TypeError("wrong types")
        if set(manifest["identity"]) != IDENTITY_KEYS or not all("sha256" in o for o in manifest["outputs"].values()):
            raise KeyError("incomplete")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{unit}: damaged {MANIFEST} ({error}). Run again: it is then computed anew.") from error
    return dict(manifest)


def _build(
    target: Path,
    identity: Identity,
    write: Callable[[Path], Mapping[str, Any] | None],
    digests: FileDigests | None,
) -> UnitResult:
    partial = _hidden_sibling(target)
    try:
        with _store_errors(target):
            partial.mkdir()
        with _store_errors(target, while_writing=True):
            details = write(partial) or {}
        with _store_errors(target):
            outputs = _describe_outputs(partial)
            manifest = {
                "identity": identity,
                "digest": unit_digest(identity, outputs),
                "outputs": outputs,
                "details": dict(details),
                "environment": environment_snapshot(),
                "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
            }
            text = json.dumps(manifest, indent=1, sort_keys=True, allow_nan=False)
            (partial / MANIFEST).write_text(text + "\n", encoding="utf-8")
            _sync_tree(partial)
            if target.exists():  # unfinished, damaged or of another identity
                target.rename(_hidden_sibling(target))
            partial.rename(target)
            sync_path(target.parent)
    finally:
        _remove_leftovers(target)
    if digests is not None:
        digests.remember({target / name: output["sha256"] for name, output in outputs.items()})
    return UnitResult(target, str(manifest["digest"]), computed=True, details=json.loads(text)["details"])


def unit_digest(identity: Identity, outputs: Mapping[str, Mapping[str, Any]]) -> str:
    """What identifies a unit's content: its identity and the digests of its outputs."""
    return digest_json({"identity": identity, "outputs": {name: output["sha256"] for name, output in outputs.items()}})


def _describe_outputs(folder: Path) -> dict[str, dict[str, Any]]:
    files = _files_below(folder)
    if not files:
        raise ValueError("a unit needs at least one output file")
    return {name: {"sha256": file_digest(file), "size": file.stat().st_size} for name, file in sorted(files.items())}


def _files_below(folder: Path) -> dict[str, Path]:
    """Regular files by their path relative to `folder`. Raises StoreError for links and special files."""
    files = {}
    for parent, folders, names in os.walk(folder):
        for name in [*folders, *names]:
            path = Path(parent, name)
            if path.is_symlink() or (name in names and not path.is_file()):
                raise StoreError(f"{path}: a unit holds regular files only. Remove it.")
        files.update({Path(parent, name).relative_to(folder).as_posix(): Path(parent, name) for name in names})
    return files


def _digest_files(files: list[Path], digests: FileDigests | None, full: bool) -> list[str]:
    if digests is None:
        return [file_digest(file) for file in files]
    return digests.digest_all(files, fresh=full)


def sync_path(path: Path) -> None:
    """Wait until a file or a directory's entries are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_tree(folder: Path) -> None:
    """Files before the directories that name them; many at a time, which the file system commits together."""
    directories = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(sync_path, _files_below(folder).values()))
        list(pool.map(sync_path, directories))


def _bytes_written(target: Path) -> int:
    """Size of what there is of a unit that could not be finished."""
    files = (path for partial in target.parent.glob(f".{target.name}.*.partial") for path in partial.rglob("*"))
    return sum(path.stat().st_size for path in files if path.is_file())


def _hidden_sibling(target: Path) -> Path:
    return target.with_name(f".{target.name}.{uuid.uuid4().hex}.partial")


def _built_unit(path: Path) -> Path:
    """The unit that `path` is, or that `path` is a hidden sibling of."""
    sibling = re.fullmatch(r"\.(.+)\.[0-9a-f]{32}\.partial", path.name)
    return path.with_name(sibling[1]) if sibling else path


def _lock_file(target: Path) -> Path:
    return target.with_name(f".{target.name}.lock")


def _remove_leftovers(target: Path) -> None:
    """Only under the unit's lock, where whoever began them is done with them."""
    for leftover in target.parent.glob(f".{target.name}.{'[0-9a-f]' * 32}.partial"):
        shutil.rmtree(leftover, ignore_errors=True)


@contextmanager
def _unit_lock(target: Path, patience_s: float) -> Iterator[None]:
    """Exclusive among all processes and threads. The lock file stays: removing it would let two waiters both win."""
    path = _lock_file(target)
    lock = FileLock(path, timeout=patience_s)
    try:
        with _store_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire(poll_interval=POLL_S)
            path.write_text(_owner(), encoding="utf-8")
        yield
    except Timeout as error:
        raise StoreError(
            f"{target}: still being built after {patience_s:.0f} s by {path.read_text(encoding='utf-8')}. "
            "Wait for that process or end it, then run again."
        ) from error
    finally:
        lock.release()


def _owner() -> str:
    """Who holds a lock, for people; exclusion itself rests on the kernel's lock, which dies with its owner."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        started = Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    except OSError:
        boot = started = "unknown"
    return f"process {os.getpid()} (start tick {started}) on {socket.gethostname()} (boot {boot})"


_CURES = {
    errno.ENOSPC: "Free some space or point outputs.store to another disk, then run again.",
    errno.EDQUOT: "Free some of your quota or point outputs.store to another disk, then run again.",
    errno.EFBIG: "Raise the limit on file sizes (ulimit -f), then run again.",
    errno.EROFS: "Point outputs.store to a writable folder.",
    errno.EACCES: "Make the folder writable or point outputs.store to another one.",
    errno.EPERM: "Make the folder writable or point outputs.store to another one.",
    errno.EMFILE: "Raise the limit on open files (ulimit -n), then run again.",
}
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_ONLY_WRITING = {*_NO_ROOM, errno.EROFS}


@contextmanager
def _store_errors(target: Path, *, while_writing: bool = False) -> Iterator[None]:
    """Turn the operating system's errors about `target` into StoreError.

    `while_writing`, when other files are read as well, errors that concern those pass.
    """
    try:
        yield
    except Timeout:
        raise
    except OSError as error:
        ours = error.errno in _ONLY_WRITING or str(error.filename).startswith(str(target.parent))
        if while_writing and not ours:
            raise
        reason = error.strerror or str(error)
        if error.errno in _NO_ROOM:
            needed, free = _bytes_written(target), shutil.disk_usage(target.parent).free
            reason += f", more than {needed} bytes needed, {free} bytes free on the disk"
        cure = _CURES.get(error.errno or 0, "Check the folder and run again.")
        raise StoreError(f"{target}: cannot be written ({reason}). {cure}") from error
