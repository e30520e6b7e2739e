"""Who uses a store: a lock shared by all runs at work on it, and for each run the list of units that it needs.

The kernel frees the lock of a process that dies. The lists are `runs/<digest of the run's path>.txt`: the run's
directory, then a unit a line, appended before the run goes on.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from flows.store_layout import StoreLayout
from spectramind.errors import StoreError
from spectramind.provenance.units import Place


@dataclass(frozen=True)
class Reference:
    """What the run in the directory `run` needs: `units` of the store; `file` says so."""

    file: Path
    run: Path
    units: frozenset[Path]


@dataclass
class StoreUse:
    """A run at work on the store at `root`; its list is `file`."""

    root: Path
    file: Path
    descriptor: int

    @classmethod
    def begin(cls, layout: StoreLayout, run: Path) -> StoreUse:
        """Wait until nothing is being removed from the store, and hold it for `run`. Raises OSError."""
        layout.references.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(layout.use_lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        directory = str(run.resolve())
        file = layout.references / f"{hashlib.sha256(directory.encode()).hexdigest()[:16]}.txt"
        file.write_text(f"{directory}\n", encoding="utf-8")
        return cls(layout.root.resolve(), file, descriptor)

    def needs(self, units: Iterable[Place]) -> None:
        """Note units; what is in S3 storage is never removed from here and needs no note."""
        here = [unit.resolve() for unit in units if isinstance(unit, Path)]
        lines = "".join(f"{unit.relative_to(self.root)}\n" for unit in here if unit.is_relative_to(self.root))
        with self.file.open("a", encoding="utf-8") as stream:
            stream.write(lines)

    def end(self) -> None:
        """Let go of the store, also for processes that have inherited the lock; once."""
        fcntl.flock(self.descriptor, fcntl.LOCK_UN)
        os.close(self.descriptor)


def references(layout: StoreLayout) -> list[Reference]:
    """The list of every run, whether or not its directory is still there."""
    root, found = layout.root.resolve(), []
    for file in sorted(layout.references.glob("*.txt")):
        directory, *units = file.read_text(encoding="utf-8").splitlines() or [""]
        if directory:
            found.append(Reference(file, Path(directory), frozenset(root / unit for unit in units)))
    return found


@contextmanager
def sole_use(layout: StoreLayout) -> Iterator[None]:
    """The store without any run at work on it; runs that start wait for the end of the block.

    Raises StoreError at once if a run is at work.
    """
    layout.root.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(layout.use_lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            raise StoreError(f"{layout.root}: a run is at work on this store; repeat when it has ended") from error
        yield
    finally:
        os.close(descriptor)
