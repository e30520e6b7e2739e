"""A zip archive of run directories that can be checked without anything else."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path

from spectramind.errors import InputError

MANIFEST = "manifest.json"
_EPOCH = (1980, 1, 1, 0, 0, 0)


def pack_runs(target: Path, runs: Mapping[str, Path]) -> None:
    """Write `target` with each run directory under its name: its manifest and the files that this lists.

    The archive takes its name when it is complete, and has the same bytes for the same files. Raises OSError.
    """
    partial = target.with_name(f".{target.name}.partial")
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, folder in runs.items():
            manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            for file in (MANIFEST, *sorted(manifest["files"])):
                member = zipfile.ZipInfo(f"{name}/{file}", date_time=_EPOCH)
                member.create_system, member.external_attr = 3, 0o644 << 16
                member.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(member, (folder / file).read_bytes())
    with partial.open("rb") as file_on_disk:
        os.fsync(file_on_disk.fileno())
    partial.replace(target)


def verify_archive(path: Path) -> list[str]:
    """What is wrong with an archive of `pack_runs`, one line each: members missing, changed or not listed.

    Raises InputError if it is no such archive.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
            manifests = sorted(name for name in names if name.count("/") == 1 and name.endswith(f"/{MANIFEST}"))
            problems, listed = [], set(manifests)
            for manifest in manifests:
                folder = manifest.removesuffix(MANIFEST)
                for file, described in json.loads(archive.read(manifest))["files"].items():
                    listed.add(folder + file)
                    if folder + file not in names:
                        problems.append(f"{folder}{file}: missing")
                    elif hashlib.sha256(archive.read(folder + file)).hexdigest() != described["sha256"]:
                        problems.append(f"{folder}{file}: changed since the manifest was written")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise InputError(path, "an archive of runs with manifests", str(error), "Run the sweep again.") from error
    return [*problems, *(f"{name}: in no manifest" for name in sorted(names - listed))]
