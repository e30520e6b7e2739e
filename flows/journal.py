"""What happened: `events.jsonl` of a run for programs, `v50_debug_log.md` of all invocations for people.

Both are appended to by any number of processes; a line or an entry is there entirely or not at all.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from settings.tree import without_credentials

LOG_BYTES = 8 * 2**20
LOG_BACKUPS = 5


def now() -> str:
    """Coordinated universal time, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def finite_json(value: Any) -> Any:
    """`value` as JSON can hold it: numbers that are not finite become null, other objects their text."""
    if isinstance(value, Mapping):
        return {str(key): finite_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite_json(item) for item in value]
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    item = getattr(value, "item", None)
    return finite_json(item()) if callable(item) else str(value)


@dataclass(frozen=True)
class Journal:
    """The `events.jsonl` at `path`: one JSON object a line. Holds no handle, so it can be sent to other processes."""

    path: Path

    def event(self, name: str, **fields: Any) -> None:
        """Append one event with its time and process id."""
        record = {"time": now(), "event": name, "pid": os.getpid(), **fields}
        line = json.dumps(without_credentials(finite_json(record)), ensure_ascii=False, allow_nan=False)
        with _locked(self.path) as descriptor:
            _drop_torn_line(descriptor)
            _write_all(descriptor, f"{line}\n".encode())

    def read(self) -> list[dict[str, Any]]:
        """All events so far."""
        return [json.loads(line) for line in self.path.read_text(encoding="utf-8").splitlines()]


@dataclass(frozen=True)
class DebugLog:
    """The `v50_debug_log.md` at `path`, one entry per invocation; rotated at 8 MB, five older ones are kept."""

    path: Path

    @classmethod
    def of(cls, store: Path) -> DebugLog:
        return cls(store / "logs" / "v50_debug_log.md")

    def entry(self, command: str, status: str, arguments: Sequence[str], facts: Mapping[str, Any]) -> None:
        """Append an entry: when, which `command`, how it ended, its arguments, and `facts` such as hashes and times."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lines = [f"## {now()} {command}: {status}", f"- arguments: `{' '.join(arguments) or '-'}`"]
        lines += [f"- {name}: {_one_line(value)}" for name, value in facts.items() if value is not None]
        text = without_credentials("\n".join(lines)) + "\n\n"
        with _locked(self.path.with_suffix(".lock")):
            self._rotate(len(text.encode()))
            with _locked(self.path) as descriptor:
                _write_all(descriptor, text.encode())

    def _rotate(self, coming: int) -> None:
        if not self.path.exists() or self.path.stat().st_size + coming <= LOG_BYTES:
            return
        for number in range(LOG_BACKUPS - 1, 0, -1):
            older = self._backup(number)
            if older.exists():
                older.replace(self._backup(number + 1))
        self.path.replace(self._backup(1))

    def _backup(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")


def _one_line(value: Any) -> str:
    return " ".join(str(value).split())


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    """A descriptor of `path`, open for appending and locked against other processes and threads."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _drop_torn_line(descriptor: int) -> None:
    """Cut off a last line without its end, left by a process that was killed or ran out of disk while writing."""
    size = os.fstat(descriptor).st_size
    end = size
    while end:
        start = max(0, end - 4096)
        newline = os.pread(descriptor, end - start, start).rfind(b"\n")
        if newline >= 0:
            end = start + newline + 1
            break
        end = start
    if end < size:
        os.ftruncate(descriptor, end)
