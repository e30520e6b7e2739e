"""SHA-256 digests of settings, files and source code: what a cached result is keyed by."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import sqlite3
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any

from spectramind.errors import InputError, StoreError

RACY_NS = 2_000_000_000
"""A file modified this recently may change again within one tick of its file system's clock (FAT's is 2 s)."""

LOCK_TIMEOUT_S = 60.0


def canonical_json(obj: Any) -> str:
    """JSON text that depends on the content alone: keys sorted, ASCII, shortest exact floats.

    Takes what JSON has, plus tuples and dataclasses. Raises TypeError for anything else (a path, for one, differs
    between machines) and for keys that are not strings, ValueError for NaN and infinities.
    """
    return json.dumps(_plain(obj), sort_keys=True, separators=(",", ":"), allow_nan=False)


def _plain(obj: Any) -> Any:
    if is_dataclass(obj) and not isinstance(obj, type):
        return _plain(asdict(obj))
    if isinstance(obj, Mapping):
        for key in obj:
            if not isinstance(key, str):
                raise TypeError(f"keys must be strings, not {key!r}")
        return {key: _plain(value) for key, value in obj.items()}
    if isinstance(obj, (list, tuple)):
        return [_plain(value) for value in obj]
    return obj


def digest_json(obj: Any) -> str:
    """SHA-256 of `canonical_json(obj)`: independent of the order of keys and of the machine."""
    return hashlib.sha256(canonical_json(obj).encode("ascii")).hexdigest()


def code_digest(*names: str) -> str:
    """SHA-256 of the source of the named modules and packages (with all that they contain), line ends normalised.

    Raises ModuleNotFoundError or ValueError for a name that has no source file.
    """
    sources = {}
    for name in names:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            raise ValueError(f"{name}: no source file")
        origin = Path(spec.origin)
        for file in origin.parent.rglob("*.py") if spec.submodule_search_locations else [origin]:
            text = file.read_bytes().replace(b"\r\n", b"\n")
            sources[f"{name}:{file.relative_to(origin.parent).as_posix()}"] = hashlib.sha256(text).hexdigest()
    return digest_json(sources)


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _signature(status: os.stat_result) -> str:
    return f"{status.st_size}:{status.st_mtime_ns}:{status.st_ctime_ns}:{status.st_ino}"


@dataclass(frozen=True)
class FileDigests:
    """SHA-256 of files, remembered in a small SQLite file so that an unchanged file is read once.

    Unchanged means: same path, size, modification time, change time and inode. A file touched less than two seconds ago
    is never remembered, because a second change within the clock's tick would go unseen. No connection outlives a
    call, so one object serves threads, forked and spawned processes alike. The index uses SQLite's rollback journal
    rather than WAL, which needs shared memory that network file systems lack.
    """

    index_path: Path

    def digest(self, path: Path, *, fresh: bool = False) -> str:
        """SHA-256 of the content of `path`; `fresh` reads it again whatever is remembered.

        Raises InputError for a file that cannot be read or changes meanwhile, StoreError if the index fails.
        """
        return self.digest_all([path], fresh=fresh)[0]

    def digest_all(self, paths: Iterable[Path], *, fresh: bool = False) -> list[str]:
        """Like `digest`, for many files with one look into the index."""
        names = [os.path.abspath(path) for path in paths]
        known = {} if fresh else self._recall(names)
        computed: dict[str, tuple[str, str]] = {}
        for name in names:
            if name not in known:
                known[name], signature = _read_digest(Path(name))
                if signature:
                    computed[name] = signature, known[name]
        self._store(computed)
        return [known[name] for name in names]

    def remember(self, digests: Mapping[Path, str]) -> None:
        """Take over digests of files that the caller has just written and will not write again."""
        rows = {os.path.abspath(path): (_signature(os.stat(path)), digest) for path, digest in digests.items()}
        self._store(rows)

    def _recall(self, names: list[str]) -> dict[str, str]:
        known = {}
        with self._connection() as connection:
            connection.execute("BEGIN")
            for name in names:
                row = connection.execute("SELECT signature, sha256 FROM files WHERE path = ?", (name,)).fetchone()
                if row is not None and _unchanged(name, row[0]):
                    known[name] = str(row[1])
            connection.execute("COMMIT")
        return known

    def _store(self, rows: Mapping[str, tuple[str, str]]) -> None:
        if not rows:
            return
        with self._connection() as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(
                "INSERT OR REPLACE INTO files VALUES (?, ?, ?)",
                [(name, signature, digest) for name, (signature, digest) in rows.items()],
            )
            connection.execute("COMMIT")

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        try:
            self.index_path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.index_path, timeout=LOCK_TIMEOUT_S, isolation_level=None)) as connection:
                connection.execute("PRAGMA synchronous = NORMAL")
                connection.execute(
                    "CREATE TABLE IF NOT EXISTS files (path TEXT PRIMARY KEY, signature TEXT, sha256 TEXT)"
                )
                yield connection
        except (sqlite3.Error, OSError) as error:
            raise StoreError(
                f"{self.index_path}: cannot use the index of file digests ({error}). Check free space and permissions; "
                "the file only saves reading files twice and may be deleted."
            ) from error


def _unchanged(name: str, signature: str) -> bool:
    try:
        return _signature(os.stat(name)) == signature
    except OSError:
        return False


def _read_digest(path: Path) -> tuple[str, str]:
    """Digest and signature of a file; the signature is empty if the file is too young to be remembered."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a named pipe would wait for a writer
            raise InputError(path, "a regular file", "a folder or a special file", "Restore the file.")
        with path.open("rb") as file:
            before = os.fstat(file.fileno())
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            after = os.fstat(file.fileno())
    except OSError as error:
        raise InputError(path, "a readable file", error.strerror or str(error), "Restore the file.") from error
    if _signature(before) != _signature(after):
        raise InputError(path, "a file at rest", "one that changes while it is read", "Run again when it is complete.")
    racy = time.time_ns() - max(after.st_mtime_ns, after.st_ctime_ns) < RACY_NS
    return digest, "" if racy else _signature(after)
