"""What the flows of one run share: settings, run directory, data set, store, workers, progress, results so far."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

from flows.interval_methods import interval_method
from flows.progress import Progress, progress_bars
from flows.run_directory import RunDirectory
from flows.store_layout import StoreLayout
from flows.units import CALIBRATION_TABLES
from spectramind.cubes.parallel import Outcome, map_units, shared_workers
from spectramind.data.layout import SPLITS, VISIT_FILES, Dataset, Split, open_dataset
from spectramind.errors import BudgetReached, InputError, QuarantineError, SettingsError
from spectramind.instruments import N_WAVELENGTHS
from spectramind.provenance.digests import FileDigests, digest_json
from spectramind.types import Floats

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bars

    from flows.calibrate import Calibration
    from flows.figures import Figures
    from flows.fit import Fits
    from flows.predict import Prediction
    from flows.quality import SuiteResult
    from flows.tables import Statistics
    from flows.train import Training
    from settings.tree import Settings

Item = TypeVar("Item")
Value = TypeVar("Value")

VisitKey = tuple[Split, str, int]

OUT_OF_TIME = "not reached within runtime.budget_hours"
"""Why a unit was not made, as far as the clock is to blame."""

UNITS_SHARE = 0.9
"""Of the time budget, what calibrations and fits may use; training, prediction and packing need the rest."""

ABSENT = "absent"
"""Stands for the digest of a file that is not there or cannot be read."""


@dataclass(frozen=True)
class Visit:
    """One visit of one planet, with the digests of its files."""

    split: Split
    planet_id: str
    visit: int
    inputs: Mapping[str, str]

    @property
    def key(self) -> VisitKey:
        return self.split, self.planet_id, self.visit


class Workspace:
    """One run at work. A plain class: Prefect shows parameters in its UI and need not look inside."""

    def __init__(self, settings: Settings, run: RunDirectory, resources: ExitStack) -> None:
        self.settings = settings
        self.run = run
        self.layout = StoreLayout.of(settings.outputs)
        self.digests = FileDigests(self.layout.digest_index)
        self.calibration: Calibration | None = None
        self.fits: dict[Split, Fits] = {}
        self.training: Training | None = None
        self.prediction: Prediction | None = None
        self.verdicts: dict[str, SuiteResult] = {}
        self.statistics: list[Statistics] = []
        self.figures: Figures | None = None
        self.seconds: dict[Path, float | None] = {}
        self.set_aside: dict[VisitKey, str] = {}
        self.cut_short = False
        self._resources = resources

    @cached_property
    def dataset(self) -> Dataset:
        """The data set at `data.root`. InputError if its metadata are unusable, SettingsError if none is named."""
        if self.settings.data.root is None:
            raise SettingsError("data.root is not set: give the folder of a data set, data.root=FOLDER")
        return open_dataset(Path(self.settings.data.root))

    @cached_property
    def metadata(self) -> dict[str, str]:
        """Digest of each metadata file."""
        files = self.dataset.metadata_files()
        return dict(zip(files, self.digests.digest_all(files.values()), strict=True))

    @cached_property
    def planets(self) -> dict[Split, tuple[str, ...]]:
        """The planets of each split that `data.planets` and `data.max_planets` select."""
        wanted, most = set(self.settings.data.planets), self.settings.data.max_planets
        unknown = wanted.difference(*(self.dataset.planets(split) for split in SPLITS))
        if unknown:
            where, found = self.dataset.root, ", ".join(sorted(unknown))
            raise InputError(where, "the planets of data.planets", f"no {found}", "Correct data.planets.")
        selected: dict[Split, tuple[str, ...]] = {}
        for split in SPLITS:
            planets = self.dataset.planets(split)
            selected[split] = tuple(p for p in planets if not wanted or p in wanted)[:most]
        return selected

    @cached_property
    def visits(self) -> tuple[Visit, ...]:
        """Every visit of the selected planets, its files digested."""
        tables = {name: digest for name, digest in self.metadata.items() if name in CALIBRATION_TABLES}

        def describe(key: VisitKey) -> Visit:
            try:
                files = self.dataset.visit_files(*key)
            except QuarantineError:  # told again, and then noted, when the visit is read
                return Visit(*key, dict.fromkeys(VISIT_FILES, ABSENT))
            return Visit(*key, {**tables, **{name: self._digest(path) for name, path in files.items()}})

        keys: list[VisitKey] = [
            (split, planet, visit)
            for split in SPLITS
            for planet in self.planets[split]
            for visit in self.dataset.visits(split, planet)[: 1 if self.settings.data.visits == "first" else None]
        ]
        # Hashing releases the interpreter's lock: threads read several files at a time.
        with (
            self.progress("Checking files", len(keys), sum(map(len, self.planets.values()))) as progress,
            ThreadPoolExecutor() as pool,
        ):
            visits = []
            for visit in pool.map(describe, keys):
                visits.append(visit)
                progress.advance()
        return tuple(visits)

    @cached_property
    def data_revision(self) -> str:
        """Digest of every file that the run reads: the version of the data set."""
        visits = {f"{v.split}/{v.planet_id}/{v.visit}": dict(v.inputs) for v in self.visits}
        return digest_json({"metadata": self.metadata, "visits": visits})

    @property
    def file_digests(self) -> dict[str, str]:
        """Digest of each file that the run reads; those of a visit as split/planet/visit/name."""
        files = dict(self.metadata)
        for visit in self.visits:
            place = f"{visit.split}/{visit.planet_id}/{visit.visit}"
            own = {f"{place}/{name}": digest for name, digest in visit.inputs.items() if name not in self.metadata}
            files.update(own)
        return files

    def labels(self, planet_ids: tuple[str, ...]) -> Floats:
        """True depths (planets, 283) of these train planets."""
        listed, depths = self.dataset.labels()
        row = {planet: index for index, planet in enumerate(listed)}
        chosen: Floats = depths[[row[planet] for planet in planet_ids]].reshape(-1, N_WAVELENGTHS)
        return chosen

    def spread(
        self,
        function: Callable[[Item], Value],
        items: list[Item],
        on_result: Callable[[Outcome[Item, Value]], None] | None = None,
    ) -> list[Outcome[Item, Value]]:
        """`map_units` on workers that live as long as the run."""
        return map_units(function, items, self.settings.dask, on_result, self._workers)

    def out_of_time(self) -> bool:
        """Whether no further unit may be begun; once so, the run ends with BudgetReached."""
        spent = monotonic() - self.run.started
        self.cut_short = self.cut_short or spent > UNITS_SHARE * 3600 * self.settings.runtime.budget_hours
        return self.cut_short

    @contextmanager
    def progress(self, description: str, units: int, planets: int) -> Iterator[Progress]:
        """A progress bar with rate and time left, for `units` that are the work on so many `planets`."""
        progress = Progress(self._bars, description, units, planets)
        try:
            yield progress
        finally:
            progress.close()

    @property
    def console(self) -> Console:
        """The terminal, shared with the progress bars."""
        return self._bars.console

    def warn(self, message: str) -> None:
        """Tell the terminal and the journal."""
        self.console.print(f"[yellow]warning[/yellow] {_escape(message)}", highlight=False)
        self.run.journal.event("warning", message=message)

    def _digest(self, path: Path) -> str:
        try:
            return self.digests.digest(path)
        except InputError:
            return ABSENT

    @cached_property
    def _workers(self) -> Any:
        return self._resources.enter_context(shared_workers(self.settings.dask))

    @cached_property
    def _bars(self) -> Bars:
        return self._resources.enter_context(progress_bars())


_current: ContextVar[Workspace | None] = ContextVar("workspace", default=None)


@contextmanager
def workspace(settings: Settings, run: RunDirectory | None, command: str) -> Iterator[Workspace]:
    """The workspace of the flow under way, or a new one; without `run`, in a new run directory for `command`.

    A new one ends with BudgetReached if its time budget has kept some units from being made.
    """
    current = _current.get()
    if current is not None and current.settings is settings:
        yield current
        return
    interval_method(settings.intervals.method)  # an unknown one is told before hours of work, not after
    with ExitStack() as resources:
        run = run or resources.enter_context(RunDirectory.create(settings, command))
        opened = Workspace(settings, run, resources)
        token = _current.set(opened)
        try:
            yield opened
        except InputError as error:
            # Too few planets for the next step, for want of time.
            if opened.cut_short:
                raise BudgetReached(_budget_message(opened)) from error
            raise
        finally:
            _current.reset(token)
        if opened.cut_short:
            raise BudgetReached(_budget_message(opened))


def _budget_message(work: Workspace) -> str:
    hours, report = work.settings.runtime.budget_hours, work.run.path / "calibration" / "data_quality.html"
    return f"time budget of {hours:g} h reached, what was not is in {report}; the same command goes on from here"


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)
