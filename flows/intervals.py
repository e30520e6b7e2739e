"""Conformal intervals of the predicted planets: a table beside the predictions, and how it was made."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from flows.interval_methods import HeldOut, Intervals, interval_method
from flows.journal import finite_json
from settings.tree import Settings
from spectramind.errors import InputError
from spectramind.metrics.statistics import COVERAGE_LEVELS
from spectramind.types import Floats, Spectra
from spectramind.uncertainty.scaling import STEPS, SigmaScaling

INTERVALS, INTERVALS_REPORT = "intervals.parquet", "intervals.json"


def held_out_planets(
    spectra: Spectra, truth: Floats, evidence: Floats | None, wavelengths_um: Floats, settings: Settings
) -> HeldOut:
    """What a method of intervals reads: held-out `spectra`, their true depths, and its settings."""
    symbolic = settings.symbolic
    return HeldOut(
        *(spectra.mean, spectra.sigma, truth, evidence, COVERAGE_LEVELS, wavelengths_um),
        symbolic.windows,
        symbolic.seam_continuity.seam_index,
        settings.corel,
        settings.runtime.seed,
    )


def write_intervals(
    folder: Path,
    method: str,
    held_out: HeldOut,
    predicted: Spectra,
    evidence: Floats | None,
    fallback: Collection[str],
) -> None:
    """One row per planet, level and bin: `low`, `high` hold the bin, `band_low`, `band_high` all bins of the planet at
    once; infinite where the held-out planets are too few for the level. Beside it, as JSON, what the method tells.

    `evidence` (instruments, planets, numbers) of the `predicted` planets. Those predicted by the `fallback` have no
    rows: the errors of fits say nothing of them. Raises InputError if the method gives no such limits.
    """
    made = interval_method(method)(held_out)
    kept = np.array([planet not in fallback for planet in predicted.planet_ids])
    planets = [planet for planet, keep in zip(predicted.planet_ids, kept, strict=True) if keep]
    own = predicted.mean[kept], predicted.sigma[kept], None if evidence is None else evidence[:, kept]
    limits = (*made.limits(*own, band=False), *made.limits(*own, band=True))
    _require_limits(method, limits, (len(made.levels), *own[0].shape))
    interval_table(made.levels, planets, limits).to_parquet(folder / INTERVALS, index=False)
    told = finite_json(_told(method, made, limits[1] - limits[0]))
    (folder / INTERVALS_REPORT).write_text(json.dumps(told, indent=1, allow_nan=False), encoding="utf-8")


def interval_table(levels: Sequence[float], planets: Sequence[str], limits: Sequence[Floats]) -> pd.DataFrame:
    """The rows of `write_intervals` from the four limits, each (levels, planets, bins)."""
    keys = pd.MultiIndex.from_product(
        [levels, planets, range(1, limits[0].shape[2] + 1)], names=["level", "planet_id", "wl"]
    )
    columns = ("low", "high", "band_low", "band_high")
    numbers = {name: values.ravel() for name, values in zip(columns, limits, strict=True)}
    return pd.DataFrame(numbers, index=keys).reset_index()


def interval_log(folder: Path, scaling: SigmaScaling) -> tuple[dict[str, Any], list[str]]:
    """Of what `write_intervals` left in `folder`: metrics, with all steps from the sigma scaling on in their order, and
    the same for the terminal."""
    told = json.loads((folder / INTERVALS_REPORT).read_text(encoding="utf-8"))
    groups = scaling.groups.values()
    tried = [step for step in STEPS if any(step in group.gains for group in groups)]
    steps = {**{step: any(step in group.kept for group in groups) for step in tried}, **told["steps"]}
    lines = told.pop("lines")
    words = " -> ".join(step if kept else f"({step})" for step, kept in steps.items())
    note = "" if all(steps.values()) else "; in brackets: tried and dropped"
    told["steps"] = [{"step": step, "kept": kept} for step, kept in steps.items()]
    return told, [f"Intervals ({told['method']}, {told['planets']} planets): {words}{note}", *(f"  {x}" for x in lines)]


def interval_coverage(table: Path, planets: Sequence[str], truth: Floats) -> dict[str, dict[str, float]]:
    """By level, how many of the true depths (planets, 283) of these planets lie inside the intervals of `table`: of all
    bins, of the bins with fewest and most, and of planets with all bins inside the band. Empty if none is in it."""
    frame = pd.read_parquet(table)
    row = {planet: number for number, planet in enumerate(planets)}
    covered = {}
    for level, own in frame[frame["planet_id"].isin(row)].groupby("level"):
        known = truth[[row[planet] for planet in own["planet_id"][:: truth.shape[1]]]].ravel()
        inside = own["low"].le(known) & own["high"].ge(known)
        band = (own["band_low"].le(known) & own["band_high"].ge(known)).groupby(own["planet_id"]).all()
        by_bin = inside.groupby(own["wl"]).mean()
        numbers = {"all": inside.mean(), "least": by_bin.min(), "most": by_bin.max(), "band": band.mean()}
        covered[f"{level:g}"] = {name: float(value) for name, value in numbers.items()}
    return covered


def coverage_line(covered: Mapping[str, Mapping[str, float]]) -> str:
    """The same for people."""
    parts = (
        f"{float(level):.0%}: {found['all']:.1%} (bins {found['least']:.0%} to {found['most']:.0%})"
        for level, found in covered.items()
    )
    return f"test depths inside their intervals  {', '.join(parts)}"


def _told(method: str, made: Intervals, width: Floats) -> dict[str, Any]:
    widths = {f"{level:g}": float(1e6 * values.mean()) for level, values in zip(made.levels, width, strict=True)}
    numbers: Mapping[str, Any] = {"method": method, "planets": made.n_planets, "width_ppm": widths}
    return {**numbers, "steps": dict(made.steps), "lines": list(made.lines), "numbers": dict(made.numbers)}


def _require_limits(method: str, limits: Sequence[Floats], shape: tuple[int, ...]) -> None:
    for low, high in (limits[:2], limits[2:]):
        if low.shape == high.shape == shape and bool(np.all(low <= high)):
            continue
        found = f"{low.shape} and {high.shape}" if (low.shape, high.shape) != (shape, shape) else "others"
        expected = f"lower limits of shape {shape}, and upper ones not below them"
        raise InputError(f"method {method} of intervals", expected, found, "Correct the method, or choose another.")
