"""Options of the calibrated cubes and of the spreading of work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from spectramind.options import option


@dataclass(frozen=True)
class CubeOptions:
    """How a calibrated visit is laid out on disk; the values stored do not depend on it."""

    time_chunk: int = option(512, "time bins per chunk (all spectral bins together)", ge=1, le=1_000_000)
    compression_level: int = option(3, "Zstandard level: higher is smaller and slower", ge=1, le=22)


@dataclass(frozen=True)
class DaskOptions:
    """Where units of work run; results do not depend on it."""

    scheduler: Literal["processes", "threads", "synchronous"] = option(
        "processes", "local workers: processes, threads of this process, or synchronous (one after the other, here)"
    )
    workers: int = option(0, "number of local workers; 0 is one per available CPU core", ge=0, le=1024)
    address: str = option("", "address of a running Dask scheduler, tcp://HOST:PORT; used instead of local workers")
    redo: int = option(2, "how often a unit is redone after the process that worked on it died", ge=0, le=100)
