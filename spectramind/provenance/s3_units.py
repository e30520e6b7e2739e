"""Units of work in S3-compatible storage: as on disk, with objects for files.

A unit is built in a local scratch directory, put object by object, and given its manifest last. The manifest also
notes the entity tag of each object as it was put: an object whose tag is still that one has not been touched, any other
is read and its digest compared. Objects have no locks: two processes may build a unit at the same time, and since both
put the same bytes, either's manifest describes them.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from spectramind.errors import StoreError
from spectramind.provenance import units
from spectramind.provenance.digests import FileDigests, digest_json
from spectramind.provenance.s3 import S3Path, Stored
from spectramind.provenance.units import MANIFEST, Identity, UnitResult, Value, parse_manifest, unit_digest

REQUESTS = 16
"""Objects of a unit that are put or read at the same time."""


def fetch_unit(unit: S3Path, target: Path, identity: Identity, digests: FileDigests | None = None) -> UnitResult:
    """The same unit at `target` on this machine, copied there unless it is there already."""

    def copy(folder: Path) -> None:
        read_unit(unit, lambda source: shutil.copytree(source, folder, dirs_exist_ok=True))

    return units.build_unit(target, identity, copy, digests=digests)


def build_unit(target: S3Path, identity: Identity, write: Callable[[Path], Mapping[str, Any] | None]) -> UnitResult:
    """As `units.build_unit`."""
    found = _find(target, identity)
    if found is not None:
        return found
    with TemporaryDirectory(prefix="spectramind-") as scratch:
        folder = Path(scratch, target.name)
        result = units.build_unit(folder, identity, write)
        found = _find(target, identity)  # another process may have been faster
        if found is not None:
            return found
        _put(folder, target)
    return UnitResult(target, result.digest, computed=True, details=result.details)


def verify_unit(target: S3Path, *, full: bool = False) -> list[str]:
    """As `units.verify_unit`; raises StoreError if the storage does not answer."""
    manifest = _manifest(target)
    return [f"{target}: no sound {MANIFEST}"] if manifest is None else _problems(target, manifest, full)


def read_unit(target: S3Path, read: Callable[[Path], Value]) -> Value:
    """As `units.read_unit`; `read` gets a copy on this machine, which is removed afterwards."""
    manifest = _manifest(target)
    with TemporaryDirectory(prefix="spectramind-") as scratch:
        folder = Path(scratch)
        problems = ["no sound manifest"] if manifest is None else _problems(target, manifest, full=True, copy=folder)
        if problems:
            raise StoreError(f"{target}: damaged ({'; '.join(problems[:3])}). Run again: it is then computed anew.")
        return read(folder)


def discard_unit(target: S3Path, *, only_damaged: bool = False) -> bool:
    """As `units.discard_unit`."""
    if only_damaged and not verify_unit(target, full=True):
        return False
    (target / MANIFEST).remove()  # without it the unit is unfinished, and its objects are put again
    return True


def _find(target: S3Path, identity: Identity) -> UnitResult | None:
    manifest = _manifest(target)
    if manifest is None or digest_json(manifest["identity"]) != digest_json(identity):
        return None
    if _problems(target, manifest):
        return None
    return UnitResult(target, manifest["digest"], computed=False, details=manifest["details"])


def _manifest(target: S3Path) -> dict[str, Any] | None:
    """None if it is missing or damaged; a storage that does not answer is another matter, and raises StoreError."""
    try:
        content = (target / MANIFEST).read_bytes()
    except FileNotFoundError:
        return None
    try:
        return parse_manifest(target, content)
    except StoreError:
        return None


def _problems(target: S3Path, manifest: Mapping[str, Any], full: bool = False, copy: Path | None = None) -> list[str]:
    """What is wrong with a unit, one sentence each. `full` reads every object, and writes it to `copy` if given."""
    outputs: dict[str, dict[str, Any]] = manifest["outputs"]
    there = target.objects()
    problems = [f"{name} is missing" for name in sorted(outputs.keys() - there.keys())]
    problems += [f"{name} does not belong there" for name in sorted(there.keys() - outputs.keys() - {MANIFEST})]
    suspect = [name for name in sorted(outputs.keys() & there.keys()) if full or _touched(there[name], outputs[name])]

    def changed(name: str) -> bool:
        try:
            content = (target / name).read_bytes()
        except FileNotFoundError:  # removed since it was listed
            return True
        if copy is not None:
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes(content)
        return hashlib.sha256(content).hexdigest() != str(outputs[name]["sha256"])

    problems += [
        f"{name} has changed" for name, differs in zip(suspect, _each(changed, suspect), strict=True) if differs
    ]
    if manifest["digest"] != unit_digest(manifest["identity"], outputs):
        problems.append(f"{MANIFEST} has changed")
    return problems


def _touched(found: Stored, noted: Mapping[str, Any]) -> bool:
    return found.e_tag is None or (found.size, found.e_tag) != (noted["size"], noted.get("e_tag"))


def _put(folder: Path, target: S3Path) -> None:
    manifest = units.read_manifest(folder)
    outputs: dict[str, dict[str, Any]] = manifest["outputs"]
    (target / MANIFEST).remove()
    strangers = target.objects().keys() - outputs.keys()
    _each(lambda name: (target / name).remove(), strangers)
    stored = _each(lambda name: (target / name).write_bytes((folder / name).read_bytes()), outputs)
    for output, entry in zip(outputs.values(), stored, strict=True):
        output["e_tag"] = entry.e_tag
    text = json.dumps(manifest, indent=1, sort_keys=True, allow_nan=False)
    (target / MANIFEST).write_bytes(f"{text}\n".encode())


def _each(function: Callable[[str], Any], names: Iterable[str]) -> list[Any]:
    with ThreadPoolExecutor(REQUESTS) as pool:
        return list(pool.map(function, names))
