"""`spectramind preflight`: will a run fit into a Kaggle notebook? From rates measured on this machine."""

from __future__ import annotations

import json
import os
import resource
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic

from flows.calibrate import CalibratedUnits, Calibration, cube_job
from flows.fit import fit_job
from flows.history import EVENTS
from flows.journal import Journal
from flows.run_directory import METRICS, RESOLVED, RunDirectory, verify_run
from flows.selftest import Check, libraries, print_checks, submission_format, submission_template, writable
from flows.store_layout import StoreLayout
from flows.store_use import references
from flows.temporary_server import HOST
from flows.units import calibrate_unit, fit_unit
from flows.workspace import Visit, Workspace
from settings.resolve import resolve
from settings.tree import Settings
from spectramind.data.layout import SPLITS, Split, open_dataset
from spectramind.errors import InputError, SettingsError, SpectraMindError
from spectramind.instruments import INSTRUMENTS
from spectramind.provenance.environment import environment_snapshot

ROUNDS = 2
"""Planets per worker that are timed; as many go before them, while every process imports and compiles."""

MEMORY_SHARE = 0.9
"""Of the machine's memory, what all workers together may use at their peaks."""


@dataclass(frozen=True)
class Plan:
    """What to forecast: so many test planets, train planets (None: those of the data set), within `limit_hours`."""

    planets: int
    train_planets: int | None
    limit_hours: float


@dataclass(frozen=True)
class Rates:
    """Seconds of wall-clock per planet with all workers busy, and the largest memory of one worker, in bytes."""

    digest_s: float
    calibrate_s: float
    fit_s: float
    timed: int
    workers: int
    peak_bytes: int

    @property
    def planet_s(self) -> float:
        return self.digest_s + self.calibrate_s + self.fit_s


def preflight(settings: Settings, plan: Plan) -> None:
    """Print a table of PASS and FAIL. Raises InputError if a check failed."""
    if settings.dask.address:
        raise InputError("dask.address", "no cluster in a notebook", settings.dask.address, "Leave it empty.")
    dataset = open_dataset(Path(str(settings.data.root)))
    train = len(dataset.planets("train")) if plan.train_planets is None else plan.train_planets
    rates = measured(settings)
    checks = [
        Check("libraries", libraries),
        Check("time for calibration and fits", lambda: _units_time(rates, plan, train)),
        Check("time for training", lambda: _training_text(settings, train)),
        Check("time in all", lambda: _whole_time(settings, rates, plan, train)),
        Check("time budget", lambda: _budget(settings, plan)),
        Check("memory", lambda: _memory(rates)),
        Check("no network", lambda: _offline(settings)),
        Check("submission format", submission_format),
        Check("submission template", lambda: submission_template(settings)),
        Check("store is writable", lambda: writable(settings)),
    ]
    if failed := print_checks(checks, settings.runtime.debug):
        cure = "See the lines marked FAIL."
        raise InputError("preflight", f"all of {len(checks)} checks to pass", f"{failed} that failed", cure)


def measured(settings: Settings) -> Rates:
    """Calibrate and fit a few planets of the data set, with its workers, in a temporary store."""
    from dask.system import CPU_COUNT

    workers = 1 if settings.dask.scheduler == "synchronous" else settings.dask.workers or CPU_COUNT
    dataset = open_dataset(Path(str(settings.data.root)))
    split: Split = max(SPLITS, key=lambda name: len(dataset.planets(name)))
    chosen = dataset.planets(split)[: 2 * ROUNDS * workers]
    if len(chosen) < 2:
        raise InputError(dataset.root, "two planets to measure", str(len(chosen)), "Choose another data set.")
    half = len(chosen) // 2
    with tempfile.TemporaryDirectory(prefix="spectramind-") as name, ExitStack() as resources:
        rates = _timed(_in(settings, Path(name), chosen), split, chosen[:half], chosen[half:], workers, resources)
    who = resource.RUSAGE_SELF if settings.dask.scheduler == "synchronous" else resource.RUSAGE_CHILDREN
    return replace(rates, peak_bytes=resource.getrusage(who).ru_maxrss * 1024)  # workers have ended


def _in(settings: Settings, folder: Path, planets: Sequence[str]) -> Settings:
    data = replace(settings.data, planets=tuple(planets), max_planets=None, truth=None)
    outputs = replace(settings.outputs, dir=folder / "run", store=folder / "store", cache=folder / "store")
    calibration = replace(settings.calibration, stage="features")
    return settings.model_copy(update={"data": data, "outputs": outputs, "calibration": calibration})


def _timed(
    settings: Settings, split: Split, warm: Sequence[str], timed: Sequence[str], workers: int, resources: ExitStack
) -> Rates:
    run = resources.enter_context(RunDirectory.create(settings, "preflight"))
    work = Workspace(settings, run, resources)
    started = monotonic()
    every = [visit for visit in work.visits if visit.split == split]
    digest_s = (monotonic() - started) / len({visit.planet_id for visit in work.visits})
    _made(work, split, [visit for visit in every if visit.planet_id in warm])
    calibrate_s, fit_s = _made(work, split, [visit for visit in every if visit.planet_id in timed])
    return Rates(digest_s, calibrate_s / len(timed), fit_s / len(timed), len(timed), workers, 0)


def _made(work: Workspace, split: Split, visits: Sequence[Visit]) -> tuple[float, float]:
    """Calibrate and fit `visits`: the seconds of each. Raises what the first unit raises that cannot be made."""
    jobs = {visit.key: [cube_job(work, visit, instrument) for instrument in INSTRUMENTS] for visit in visits}
    started = monotonic()
    made = work.spread(calibrate_unit, [job for cubes in jobs.values() for job in cubes])
    calibrate_s = monotonic() - started
    cubes = {outcome.item.target: outcome.value for outcome in made}
    units: dict[tuple[Split, str], tuple[CalibratedUnits, ...]] = {}
    for visit in visits:
        own = jobs[visit.key]
        digests = {job.instrument.name: done.digest for job in own if (done := cubes[job.target]) is not None}
        if len(digests) == len(own):  # a planet whose files are unusable has taken its time, too
            key = split, visit.planet_id
            units[key] = (*units.get(key, ()), CalibratedUnits(visit, tuple(own), digests))
    calibration = Calibration(units, {})
    fits = [fit_job(work, split, planet, calibration) for planet in calibration.planets(split)]
    if not fits:
        failed = next(outcome.error for outcome in made if outcome.error is not None)
        raise InputError(work.dataset.root, "planets to measure", f"none usable ({failed})", "Restore the files.")
    started = monotonic()
    work.spread(fit_unit, fits)
    return calibrate_s, monotonic() - started


def _training_seconds(settings: Settings, planets: int) -> tuple[float, Path] | None:
    """Of the newest run on the store that trained the same model, in proportion to the planets; and that run."""
    found: list[tuple[float, float, Path]] = []
    for reference in references(StoreLayout.of(settings.outputs)):
        run = reference.run
        if verify_run(run) or not (run / METRICS).is_file():
            continue
        try:
            known = resolve([], run / RESOLVED)
        except SettingsError:  # of another version of this project
            continue
        trained = [event for event in Journal(run / EVENTS).read() if event["event"] == "trained"]
        learned_from = json.loads((run / METRICS).read_text(encoding="utf-8")).get("out_of_fold", {}).get("planets")
        same = (known.model, known.train) == (settings.model, settings.train)
        if same and trained and trained[-1]["seconds"] is not None and learned_from:
            seconds = float(trained[-1]["seconds"]) * planets / learned_from
            found.append(((run / EVENTS).stat().st_mtime, seconds, run))
    return max(found)[1:] if found else None


def _units_time(rates: Rates, plan: Plan, train: int) -> str:
    hours = _units_hours(rates, plan, train)
    parts = f"files {rates.digest_s:.2f}, calibration {rates.calibrate_s:.2f}, fit {rates.fit_s:.2f} s a planet"
    text = f"{hours:.2f} h for {plan.planets} test and {train} train planets ({parts}; {rates.timed} timed, "
    text += f"{rates.workers} workers)"
    if hours > plan.limit_hours:
        raise SpectraMindError(f"{text}, beyond {plan.limit_hours:g} h")
    return text


def _training_text(settings: Settings, train: int) -> str:
    seconds, run = _training(settings, train)
    return "no train planets" if run is None else f"{seconds / 3600:.2f} h, as {run} took, by the number of planets"


def _whole_time(settings: Settings, rates: Rates, plan: Plan, train: int) -> str:
    hours = _units_hours(rates, plan, train) + _training(settings, train)[0] / 3600
    text = f"{hours:.2f} of {plan.limit_hours:g} h"
    if hours > plan.limit_hours:
        raise SpectraMindError(f"{text}: use more cores, or a store that holds the train planets")
    return text


def _units_hours(rates: Rates, plan: Plan, train: int) -> float:
    return rates.planet_s * (plan.planets + train) / 3600


def _training(settings: Settings, train: int) -> tuple[float, Path | None]:
    if train == 0:
        return 0.0, None
    found = _training_seconds(settings, train)
    if found is None:
        raise SpectraMindError("not known: no run on outputs.store has trained this model; `spectramind train` does")
    return found


def _budget(settings: Settings, plan: Plan) -> str:
    """The run ends by itself before the notebook is ended."""
    hours = settings.runtime.budget_hours
    if hours >= plan.limit_hours:
        raise SpectraMindError(f"runtime.budget_hours={hours:g} is not below {plan.limit_hours:g} (runtime=kaggle is)")
    return f"runtime.budget_hours={hours:g}, below {plan.limit_hours:g}"


def _memory(rates: Rates) -> str:
    total = int(environment_snapshot()["ram_bytes"])
    needed = rates.workers * rates.peak_bytes
    text = f"{rates.workers} workers of {rates.peak_bytes / 2**30:.2f} GiB of {total / 2**30:.1f} GiB"
    if needed > MEMORY_SHARE * total:
        raise SpectraMindError(f"{text}: lower dask.workers")
    return text


def _offline(settings: Settings) -> str:
    """Nothing in settings or environment is reached over the network; the temporary server is on this machine."""
    addresses = {
        "outputs.store": "" if isinstance(settings.outputs.store, Path) else str(settings.outputs.store),
        "tracking.uri": settings.tracking.uri if settings.tracking.enable else "",
        "PREFECT_API_URL": os.environ.get("PREFECT_API_URL", ""),
    }
    here = ("sqlite:", "file:", f"http://{HOST}:")
    reached = [name for name, value in addresses.items() if "://" in value and not value.startswith(here)]
    if reached:
        raise SpectraMindError(f"{', '.join(reached)} {'are' if len(reached) > 1 else 'is'} an address")
    return "no setting is an address"
