"""Writes a checked submission: submission.csv, submission_long.csv, submission.zip, what goes with it, manifest.json.

The zip holds the wide table alone, at its root, and has the same bytes for the same numbers. All files are complete
before the first takes its name, and the manifest comes last: a directory with a manifest holds a whole submission.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from spectramind.errors import InputError, StoreError
from spectramind.provenance.units import sync_path
from spectramind.submission.checks import require_valid
from spectramind.submission.table import in_order, long_csv, wide_csv
from spectramind.types import Spectra

WIDE_NAME, LONG_NAME, ZIP_NAME, MANIFEST_NAME = (
    "submission.csv",
    "submission_long.csv",
    "submission.zip",
    "manifest.json",
)


@dataclass(frozen=True)
class Origin:
    """Where a submission comes from; None where there is no such thing."""

    version: str
    git_commit: str | None = None
    config_hash: str | None = None
    dvc_rev: str | None = None
    docker_image: str | None = None


def write_bundle(
    directory: Path,
    spectra: Spectra,
    expected_ids: Sequence[str] | None,
    origin: Origin,
    metrics: Mapping[str, Any],
    generated_at: datetime | None = None,
    companions: Mapping[str, bytes] | None = None,
) -> dict[str, Any]:
    """Writes tables, zip and manifest into `directory` and returns the manifest.

    `expected_ids`: planets of the template, whose order the tables take. `metrics` are plain numbers, texts and nested
    mappings; numbers that are not finite become null. `companions`: further files by name, which the manifest lists and
    the zip leaves out. Raises InputError, and writes nothing, if the submission is not valid; StoreError if the
    directory cannot be written.
    """
    if expected_ids is not None and sorted(expected_ids) == sorted(spectra.planet_ids):
        spectra = in_order(spectra, expected_ids)
    require_valid(spectra, expected_ids)
    wide = wide_csv(spectra).encode()
    contents = {WIDE_NAME: wide, LONG_NAME: long_csv(spectra).encode(), ZIP_NAME: deterministic_zip(WIDE_NAME, wide)}
    contents |= companions or {}
    moment = generated_at or datetime.now(UTC)
    manifest = {
        **asdict(origin),
        "generated_at": moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "files": sorted(contents),
        "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in sorted(contents.items())},
        "metrics": _json_ready(metrics),
    }
    text = json.dumps(manifest, indent=2, allow_nan=False) + "\n"
    try:
        _write_together(directory, {**contents, MANIFEST_NAME: text.encode()})
    except OSError as error:
        raise StoreError(f"{directory}: the submission could not be written: {error.strerror}") from error
    return manifest


def verify_bundle(directory: Path) -> list[str]:
    """What is wrong with a written submission, one line each: files missing or changed, another table in the zip."""
    try:
        manifest = json.loads((directory / MANIFEST_NAME).read_text(encoding="utf-8"))
        digests = dict(manifest["sha256"])
    except FileNotFoundError:
        return [f"{MANIFEST_NAME}: missing, the submission is not complete"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(directory / MANIFEST_NAME, "a submission's manifest", str(error), "Submit again.") from error
    problems = []
    for name, digest in digests.items():
        path = directory / name
        if not path.is_file():
            problems.append(f"{name}: missing")
        elif hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            problems.append(f"{name}: changed since the manifest was written")
    if not problems:
        with zipfile.ZipFile(directory / ZIP_NAME) as archive:
            if archive.namelist() != [WIDE_NAME] or archive.read(WIDE_NAME) != (directory / WIDE_NAME).read_bytes():
                problems.append(f"{ZIP_NAME}: does not hold {WIDE_NAME} alone")
    return problems


def deterministic_zip(name: str, content: bytes) -> bytes:
    """A zip archive of one file whose bytes depend on name and content alone."""
    member = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    member.create_system = 3
    member.external_attr = 0o644 << 16
    member.compress_type = zipfile.ZIP_DEFLATED
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(member, content, compresslevel=6)
    return buffer.getvalue()


def _write_together(directory: Path, contents: Mapping[str, bytes]) -> None:
    """Writes all files under temporary names, then renames them in order; a manifest of before goes first."""
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".submission-", dir=directory) as scratch:
        for name, content in contents.items():
            with open(Path(scratch) / name, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        (directory / MANIFEST_NAME).unlink(missing_ok=True)
        for name in contents:
            os.replace(Path(scratch) / name, directory / name)
    sync_path(directory)


def _json_ready(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _json_ready(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json_ready(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
