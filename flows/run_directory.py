"""The directory of one run: who made it, with what, what came out, and a manifest that is written last."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout

from flows.journal import DebugLog, Journal, finite_json, now
from flows.store_layout import StoreLayout
from flows.store_use import StoreUse
from settings.tree import Settings, settings_hash, without_credentials
from spectramind import __version__
from spectramind.errors import BudgetReached, SpectraMindError, StoreError
from spectramind.provenance.digests import code_digest, file_digest
from spectramind.provenance.environment import environment_snapshot
from spectramind.provenance.units import Place

CHECKPOINT, OUT_OF_FOLD = Path("checkpoints", "best.ckpt"), "out_of_fold.parquet"
"""The trained predictor of a run, and its predictions of held-out planets."""

METRICS, RUN_MANIFEST, PROMOTION = "metrics.json", "manifest.json", "promotion.json"
RECOVERY = "recovery"
"""What a gated promotion measured on injected planets."""

RESOLVED, SUMMARY, DATA_DIGESTS = "resolved_config.yaml", "run_hash_summary_v50.json", "data_digests.json"
"""What repeats a run: its settings, what they met, and the digest of each file of the data set."""

RESULT_FOLDERS = (
    *("calibration", "checkpoints", "predictions", "diagnostics", "submission"),
    *("corel", "explain", "recovery"),
)
"""Folders of a run whose files its manifest lists, beside the files at the top."""

RESULT_FILES = (
    *(RESOLVED, SUMMARY, DATA_DIGESTS, METRICS, PROMOTION),
    *("sweep.json", "leaderboard.md", "leaderboard.html", "leaderboard.csv", "top.zip"),
)
"""Files at the top of a run, or of a sweep, that its manifest lists if they are there."""


@dataclass
class RunDirectory:
    """An open run. As a context manager it records how the run ended and writes the manifest of one that succeeded."""

    path: Path
    settings: Settings
    command: str
    arguments: tuple[str, ...]
    journal: Journal
    lock: FileLock = field(repr=False)
    use: StoreUse = field(repr=False)
    started: float = field(default_factory=time.monotonic)
    data_rev: str | None = None

    @classmethod
    def create(cls, settings: Settings, command: str, arguments: Sequence[str] = ()) -> RunDirectory:
        """`outputs.dir`, or a new `outputs/<date>/<time>-<id>`, with its settings and environment written down.

        Raises StoreError if it or the store cannot be written, or another process is using it, SettingsError if the
        storage of outputs.store does not answer.
        """
        with store_errors(settings.outputs.local):
            _require_writable(settings.outputs.local)
        if bucket := StoreLayout.of(settings.outputs).bucket:
            bucket.require_writable()
        path = settings.outputs.dir or new_directory(Path("outputs").absolute())
        with store_errors(path):
            _require_writable(path)
            lock = _lock(path)
            use = StoreUse.begin(StoreLayout.of(settings.outputs), path)
            run = cls(path, settings, command, tuple(arguments), Journal(path / "events.jsonl"), lock, use)
            run._begin()
        return run

    def folder(self, name: str) -> Path:
        """The folder `name` of the run, made if needed."""
        folder = self.path / name
        with store_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        return folder

    def discard(self, name: str) -> None:
        """Remove the folder `name` that an earlier run left in this directory."""
        folder = self.path / name
        with store_errors(folder), suppress(FileNotFoundError):
            shutil.rmtree(folder)

    def write_json(self, name: str, value: Any) -> Path:
        """Write `value` to the file `name` of the run, all at once."""
        path = self.path / name
        with store_errors(path):
            write_atomically(path, json.dumps(finite_json(value), indent=1, allow_nan=False) + "\n")
        return path

    def needs(self, units: Iterable[Place]) -> None:
        """Note units of the store that this run stands on."""
        with store_errors(self.use.file):
            self.use.needs(units)

    def add_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Add to `metrics.json`; a metric of the same name is replaced."""
        self.write_json(METRICS, {**self.metrics(), **metrics})

    def metrics(self) -> dict[str, Any]:
        """What `metrics.json` holds so far."""
        path = self.path / METRICS
        known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        return known

    def set_data(self, digest: str, files: Mapping[str, str]) -> None:
        """Record the data set that the run works on: the digest of all, and of each of its `files` by name."""
        self.data_rev = digest
        self.write_json(DATA_DIGESTS, files)
        self._write_summary()

    def __enter__(self) -> RunDirectory:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._end(error)
        except SpectraMindError:
            # The failure of the run itself says more than that its end could not be written down.
            if error is None:
                raise
        finally:
            self.use.end()
            self.lock.release()

    def _begin(self) -> None:
        for name in (RUN_MANIFEST, METRICS, DATA_DIGESTS, PROMOTION):
            (self.path / name).unlink(missing_ok=True)
        write_atomically(self.path / RESOLVED, self.settings.to_yaml())
        self._write_summary()
        self.journal.event(
            "start", command=self.command, arguments=self.arguments, config_hash=settings_hash(self.settings)
        )

    def _write_summary(self) -> None:
        summary = {
            "version": __version__,
            "command": self.command,
            "arguments": without_credentials(self.arguments),
            "created_utc": now(),
            "seed": self.settings.runtime.seed,
            "config_hash": settings_hash(self.settings),
            "sm_config_hash": os.environ.get("SM_CONFIG_HASH", "unknown"),
            "data_rev": self.data_rev,
            "code_digests": dict(code_digests()),
            "working_directory": str(Path.cwd()),
            **environment_snapshot(),
        }
        self.write_json(SUMMARY, summary)

    def _end(self, error: BaseException | None) -> None:
        status = _status(error)
        message = None if error is None else f"{type(error).__name__}: {error}"
        seconds = round(time.monotonic() - self.started, 3)
        with store_errors(self.path):
            self.journal.event("end", status=status, seconds=seconds, error=message, data_rev=self.data_rev)
            if status in ("completed", "budget reached"):
                self._write_manifest(status)
        facts = {
            "run": self.path,
            "config_hash": settings_hash(self.settings),
            "data_rev": self.data_rev,
            "seconds": seconds,
            "error": message,
        }
        with store_errors(self.settings.outputs.local):
            DebugLog.of(self.settings.outputs.local).entry(self.command, status, self.arguments, facts)

    def _write_manifest(self, status: str) -> None:
        summary = json.loads((self.path / SUMMARY).read_text(encoding="utf-8"))
        manifest = {
            "status": status,
            "command": self.command,
            "created_utc": now(),
            "git_sha": summary["git_commit"],
            "config_hash": summary["config_hash"],
            "data_rev": self.data_rev,
            "dataset": self.settings.data.root and self.settings.data.root.name,
            "seed": self.settings.runtime.seed,
            "metrics": self.metrics(),
            "files": {str(path.relative_to(self.path)): _description(path) for path in self._results()},
        }
        self.write_json(RUN_MANIFEST, manifest)

    def _results(self) -> list[Path]:
        top = [self.path / name for name in RESULT_FILES]
        below = [path for name in RESULT_FOLDERS for path in (self.path / name).rglob("*")]
        return sorted(path for path in (*top, *below) if path.is_file())


@cache
def code_digests() -> Mapping[str, str]:
    """Digest of the sources of each package: a commit says nothing of files that differ from it."""
    return {package: code_digest(package) for package in ("spectramind", "flows", "settings")}


def verify_run(path: Path) -> list[str]:
    """What is wrong with a run directory, one line each: not finished, or files missing or changed since."""
    try:
        manifest = json.loads((path / RUN_MANIFEST).read_text(encoding="utf-8"))
        files, status = dict(manifest["files"]), manifest["status"]
    except FileNotFoundError:
        return ["manifest.json: missing, the run is not complete"]
    except (ValueError, KeyError, TypeError) as error:
        return [f"manifest.json: damaged ({error})"]
    problems = [] if status == "completed" else [f"manifest.json: the run ended with {status}"]
    for name, described in files.items():
        if not (path / name).is_file():
            problems.append(f"{name}: missing")
        elif _description(path / name) != described:
            problems.append(f"{name}: changed since the manifest was written")
    return problems


def write_atomically(path: Path, text: str) -> None:
    """Replace the file `path` by `text`: readers see the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fchmod(stream.fileno(), 0o644)
            os.fsync(stream.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@contextmanager
def store_errors(place: Path) -> Iterator[None]:
    """Tell an OSError inside the block as StoreError about `place`."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise StoreError(
            f"{error.filename or place}: cannot be written ({reason}); "
            "free space or choose another outputs.dir and outputs.store"
        ) from error


def _require_writable(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as probe:
        probe.write(b"\0")
        probe.flush()


def new_directory(parent: Path) -> Path:
    """A directory of its own for this run, however many start in the same second."""
    start = datetime.now()
    while True:
        path = parent / f"{start:%Y-%m-%d}" / f"{start:%H-%M-%S}-{secrets.token_hex(3)}"
        with store_errors(path):
            try:
                path.mkdir(parents=True)
            except FileExistsError:
                continue
        return path


def _lock(path: Path) -> FileLock:
    lock = FileLock(path / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise StoreError(f"{path}: another run is writing here; wait for it or choose another outputs.dir") from error
    return lock


def _status(error: BaseException | None) -> str:
    if error is None:
        return "completed"
    if isinstance(error, BudgetReached):
        return "budget reached"
    return "failed" if isinstance(error, Exception) else "interrupted"


def _description(path: Path) -> dict[str, Any]:
    return {"sha256": file_digest(path), "bytes": path.stat().st_size}
