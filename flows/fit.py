"""Calibrated visits to transit fits: part of the flows `train-v50` and `predict-v50`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.batches import make_units
from flows.calibrate import Calibration, require_enough
from flows.contracts import judge
from flows.tables import fits_table
from flows.units import FIT, FIT_SUMMARY, FitJob, fit_identity, fit_unit
from flows.workspace import Workspace
from spectramind.data.layout import Split, usable_star
from spectramind.errors import SettingsError
from spectramind.provenance.s3_units import fetch_unit
from spectramind.provenance.units import unit_path
from spectramind.transit.fit import PlanetFit
from spectramind.types import Star


@dataclass(frozen=True)
class Fits:
    """The fits of a split in the store, `digests` by planet in the split's order; `lost` planets with the reason."""

    stars: dict[str, Star]
    paths: dict[str, Path]
    digests: dict[str, str]
    lost: dict[str, str]

    @property
    def planets(self) -> tuple[str, ...]:
        return tuple(self.digests)

    def load(self) -> tuple[list[PlanetFit], list[Star]]:
        """Every fit with its star."""
        return [PlanetFit.load(self.paths[p] / FIT) for p in self.planets], [self.stars[p] for p in self.planets]

    def summaries(self) -> dict[str, dict[str, Any]]:
        """The summary numbers of every fit."""
        return {p: json.loads((self.paths[p] / FIT_SUMMARY).read_text(encoding="utf-8")) for p in self.planets}


def fit_split(work: Workspace, split: Split, calibration: Calibration) -> Fits:
    """Fit every planet of a split that has a usable visit."""
    if split in work.fits:
        return work.fits[split]
    if work.settings.calibration.stage != "features":
        raise SettingsError(f"calibration.stage={work.settings.calibration.stage} makes no fits; leave it out")
    jobs = {planet: fit_job(work, split, planet, calibration) for planet in calibration.planets(split)}
    with work.progress(f"Fitting {split} planets", len(jobs), len(jobs)) as progress:
        rows = make_units(work, f"fit {split}", fit_unit, list(jobs.values()), progress)
    digests = {planet: row["digest"] for planet, row in zip(jobs, rows, strict=True) if row["digest"]}
    failed = {planet: row["reason"] for planet, row in zip(jobs, rows, strict=True) if not row["digest"]}
    paths = _local(work, split, {planet: jobs[planet] for planet in digests})
    stars = {planet: jobs[planet].star for planet in digests}
    lost = {**calibration.reasons(split), **failed}
    fits = Fits(stars, paths, digests, lost)
    if digests or not work.cut_short:
        table = fits_table({(split, planet): summary for planet, summary in fits.summaries().items()})
        for row, reason in judge(work, "fits", table, f"fits_{split}").quarantined.items():
            failed[row[0]] = lost[row[0]] = reason
            for known in (digests, paths, stars):
                known.pop(row[0], None)
    for planet, reason in failed.items():
        work.warn(f"set aside: planet {planet} ({split}): {reason}")
        work.set_aside.update({units.visit.key: reason for units in calibration.visits[split, planet]})
    require_enough(work, split, lost)
    work.fits[split] = fits
    return fits


def _local(work: Workspace, split: Split, jobs: Mapping[str, FitJob]) -> dict[str, Path]:
    """Where the fits are on this machine; those of a store in S3 storage are copied."""

    def place(planet_id: str) -> Path:
        target, identity = jobs[planet_id].target, jobs[planet_id].identity
        if isinstance(target, Path):
            return target
        copy = unit_path(work.layout.fit_copy(split, planet_id), identity)
        fetch_unit(target, copy, identity, work.digests)
        return copy

    return {planet: place(planet) for planet in jobs}


def fit_job(work: Workspace, split: Split, planet_id: str, calibration: Calibration) -> FitJob:
    """The transit fit of one planet."""
    star = usable_star(work.dataset.star(split, planet_id))
    visits = calibration.visits[split, planet_id]
    options = work.settings.transit
    cubes = {f"visit_{v.visit.visit}/{name}": digest for v in visits for name, digest in v.digests.items()}
    identity = fit_identity(star, cubes, options)
    target = unit_path(work.layout.fit_unit(split, planet_id), identity)
    return FitJob(star, tuple(v.jobs for v in visits), target, identity, options, work.layout.digest_index)
