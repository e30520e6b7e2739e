"""`flags.json` beside predictions: words of doubt about a planet, and which planets the fallback predicted."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flows.spectra_files import finished_part

FLAGS = "flags.json"

FALLBACK_FLAG = "fallback"
"""Marks a planet whose prediction is the mean of the training planets."""

Flags = Mapping[str, Sequence[str]]
"""Words by planet; planets without any are left out."""


def write_flags(folder: Path, flags: Flags) -> None:
    (folder / FLAGS).write_text(json.dumps(flags, indent=1, sort_keys=True), encoding="utf-8")


def read_flags(folder: Path) -> Flags:
    """Raises InputError if the folder has none."""
    flags: Flags = json.loads(finished_part(folder / FLAGS).read_text(encoding="utf-8"))
    return flags


def by_fallback(planet_ids: Sequence[str], flags: Flags) -> NDArray[np.bool_]:
    """(planets,): whether the fallback predicted it."""
    return np.array([FALLBACK_FLAG in flags.get(planet, ()) for planet in planet_ids], dtype=bool)
