"""Flow `calibrate`: raw frames to calibrated cubes and transit fits, judged by the data contracts.

Each instrument of a visit is a unit of its own, so that a run of one stage leaves what a later run of all takes up.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import floor

from prefect import flow

from flows.batches import make_units
from flows.contracts import judge, publish_data_quality
from flows.published import run_directory
from flows.run_directory import RunDirectory
from flows.steps import scatter_table
from flows.tables import Statistics, light_curves_table, planets_table, raw_visits_table, steps_table
from flows.units import CubeJob, calibrate_unit, cube_identity
from flows.workspace import ABSENT, OUT_OF_TIME, Visit, VisitKey, Workspace, workspace
from settings.tree import Settings
from spectramind.cubes.store import STATISTICS
from spectramind.data.layout import SPLITS, Split
from spectramind.errors import InputError
from spectramind.instruments import AIRS, FGS1, INSTRUMENTS, Instrument
from spectramind.provenance.digests import digest_json
from spectramind.provenance.units import unit_path

STAGES: dict[str, tuple[Instrument, ...]] = {"fgs1": (FGS1,), "airs": (AIRS,), "features": INSTRUMENTS}
"""The instruments that each `calibration.stage` calibrates."""


@dataclass(frozen=True)
class CalibratedUnits:
    """A calibrated visit in the store: the jobs that make its cubes, and the cubes' digests by instrument."""

    visit: Visit
    jobs: tuple[CubeJob, ...]
    digests: dict[str, str]


@dataclass(frozen=True)
class Calibration:
    """Usable visits by split and planet, and what was set aside: visit to reason."""

    visits: dict[tuple[Split, str], tuple[CalibratedUnits, ...]]
    quarantined: dict[VisitKey, str]

    def planets(self, split: Split) -> tuple[str, ...]:
        """The planets of a split of which at least one visit is usable."""
        return tuple(planet for kind, planet in self.visits if kind == split)

    def reasons(self, split: Split) -> dict[str, str]:
        """Planet to reason, for the planets of a split without a usable visit."""
        usable = set(self.planets(split))
        return {
            planet: reason
            for (kind, planet, _), reason in self.quarantined.items()
            if kind == split and planet not in usable
        }


@flow(name="calibrate")
def calibrate(settings: Settings, run: RunDirectory | None = None) -> Calibration:
    """Calibrate the data set into the store and fit its planets, as far as the stage says; write `calibration/`."""
    from flows.fit import fit_split

    with workspace(settings, run, "calibrate") as work:
        run_directory(work.run.path)
        if work.calibration is None:
            work.calibration = _calibrate(work)
            if settings.calibration.stage == "features":
                for split in SPLITS:
                    if work.calibration.planets(split):
                        fit_split(work, split, work.calibration)
                publish_data_quality(work)
        return work.calibration


def _calibrate(work: Workspace) -> Calibration:
    planets = planets_table(work.dataset, work.planets, work.visits)
    unfit = {row[:2]: reason for row, reason in judge(work, "raw_metadata", planets).quarantined.items()}
    visits, refused = _calibrated_visits(work)
    for visit in work.visits:
        if reason := unfit.get((visit.planet_id, visit.split)):
            refused.setdefault(visit.key, reason)
    judge(work, "raw_visits", raw_visits_table(work.visits, ABSENT, refused))
    statistics = [
        Statistics.read(*units.visit.key, job.target / STATISTICS, units.digests[job.instrument.name])
        for units in visits
        for job in units.jobs
    ]
    for row, reason in judge(work, "calibrated_visits", light_curves_table(statistics)).quarantined.items():
        planet_id, split, number, _instrument = row
        refused.setdefault(_key(split, planet_id, int(number)), reason)
    usable: dict[tuple[Split, str], tuple[CalibratedUnits, ...]] = {}
    for units in visits:
        if units.visit.key not in refused:
            planet = units.visit.split, units.visit.planet_id
            usable[planet] = (*usable.get(planet, ()), units)
    calibration = Calibration(usable, refused)
    for key, reason in refused.items():
        work.warn(f"set aside: planet {key[1]} ({key[0]}), visit {key[2]}: {reason}")
    work.statistics, work.set_aside = statistics, dict(calibration.quarantined)
    work.run.set_data(work.data_revision, work.file_digests)
    work.console.print(scatter_table(steps_table(statistics)))
    publish_data_quality(work)
    require_enough(work, "train", calibration.reasons("train"))
    require_enough(work, "test", calibration.reasons("test"))
    return calibration


def require_enough(work: Workspace, split: Split, lost: dict[str, str]) -> None:
    """InputError if more planets of a split are lost than `allowed_losses`; the report is written before.

    Planets that the time budget kept from being worked on are not lost.
    """
    lost = {planet: reason for planet, reason in lost.items() if reason != OUT_OF_TIME}
    total, limit = len(work.planets[split]), work.settings.data.quarantine_limit
    allowed = allowed_losses(split, total, limit)
    if total and len(lost) > allowed:
        publish_data_quality(work)
        names = "; ".join(f"{planet}: {reason}" for planet, reason in list(lost.items())[:3])
        raise InputError(
            work.dataset.root / split,
            f"at most {allowed} of {total} {split} planets set aside",
            f"{len(lost)} ({names})",
            f"Restore their files, or raise data.quarantine_limit ({limit:g}); "
            f"{work.run.path / 'calibration' / 'data_quality.html'} has them all.",
        )


def allowed_losses(split: Split, total: int, limit: float) -> int:
    """How many of `total` planets may be set aside.

    Of the train split the share `limit`, rounded down; but one always, so that a small data set survives a bad file. A
    test planet is answered by the fallback, flagged, and ends the run only if no other is left.
    """
    allowed = max(floor(limit * total + 1e-9), 1) if split == "train" else total
    return min(allowed, total - 1)


def _calibrated_visits(work: Workspace) -> tuple[list[CalibratedUnits], dict[VisitKey, str]]:
    """Every visit calibrated; and the visits whose files are unusable."""
    instruments = STAGES[work.settings.calibration.stage]
    calibrated = {visit.key: CalibratedUnits(visit, (), {}) for visit in work.visits}
    refused: dict[VisitKey, str] = {}
    planets = sum(map(len, work.planets.values()))
    for instrument in instruments:
        with work.progress(f"Calibrating {instrument.name}", len(work.visits), planets) as progress:
            for split in SPLITS:
                visits = [visit for visit in work.visits if visit.split == split]
                jobs = [cube_job(work, visit, instrument) for visit in visits]
                rows = make_units(work, f"calibrate {split} {instrument.name}", calibrate_unit, jobs, progress)
                for visit, job, row in zip(visits, jobs, rows, strict=True):
                    if row["digest"] is None:
                        refused.setdefault(visit.key, row["reason"])
                    else:
                        made = calibrated[visit.key]
                        digests = {**made.digests, instrument.name: row["digest"]}
                        calibrated[visit.key] = CalibratedUnits(visit, (*made.jobs, job), digests)
    return [units for key, units in calibrated.items() if key not in refused], refused


def cube_job(work: Workspace, visit: Visit, instrument: Instrument) -> CubeJob:
    """The calibration of one instrument of a visit."""
    options, cubes = work.settings.calibration.options, work.settings.cubes
    identity = cube_identity(visit.planet_id, visit.visit, instrument, visit.inputs, options, cubes)
    return CubeJob(
        root=work.dataset.root,
        metadata_digest=digest_json(work.metadata),
        split=visit.split,
        planet_id=visit.planet_id,
        visit=visit.visit,
        instrument=instrument,
        target=unit_path(work.layout.cube_unit(*visit.key, instrument.name), identity),
        identity=identity,
        calibration=options,
        cubes=cubes,
        digest_index=work.layout.digest_index,
    )


def _key(split: str, planet_id: str, visit: int) -> VisitKey:
    return ("train" if split == "train" else "test"), planet_id, visit
