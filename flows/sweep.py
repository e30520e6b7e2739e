"""The runs of a sweep: which there are, which are done, and what they say of planets that they have not seen."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from flows.journal import Journal
from flows.run_directory import CHECKPOINT, OUT_OF_FOLD, RunDirectory, verify_run
from flows.spectra_files import read_predictions
from settings.groups import EXPERIMENT
from settings.resolve import swept, with_overrides
from settings.tree import Settings, settings_hash
from spectramind.ablation.leaderboard import Candidate
from spectramind.ablation.points import Axis, Point, select_points, space_size
from spectramind.data.layout import open_dataset
from spectramind.errors import InputError, SettingsError
from spectramind.types import Floats, Spectra

SWEEP = "sweep.json"
SEEDS_KEY = "runtime.seed"


@dataclass(frozen=True)
class PlannedRun:
    """One run: the `configuration` it belongs to, its name and directory, its overrides and all its settings."""

    configuration: str
    name: str
    path: Path
    arguments: tuple[str, ...]
    settings: Settings

    @property
    def is_done(self) -> bool:
        """Whether the directory holds a finished, undamaged run of these very settings."""
        if verify_run(self.path):
            return False
        manifest = json.loads((self.path / "manifest.json").read_text(encoding="utf-8"))
        return bool(manifest["config_hash"] == settings_hash(self.settings))


@dataclass
class Sweep:
    """The axes of a sweep and the points chosen so far; `points` grows only if the choice depends on results."""

    settings: Settings
    axes: tuple[Axis, ...]
    points: list[Point]

    @classmethod
    def planned(cls, settings: Settings) -> Sweep:
        """The sweep that `settings.ablation` describes, as far as it has come if it is in `outputs.dir` already.

        SettingsError for values that no run can take, and if `outputs.dir` has another sweep.
        """
        options, axes = settings.ablation, _axes(settings.ablation.sweep)
        if len(set(options.seeds)) < len(options.seeds) or len(options.seeds) > options.max_runs:
            limit = f"at most ablation.max_runs={options.max_runs}"
            raise SettingsError(f"ablation.seeds={list(options.seeds)}: expected distinct seeds, {limit} of them")
        for axis in axes:
            _require_distinct([f"{axis.key}={choice}" for choice in axis.choices], settings)
        sweep = cls(settings, axes, [])
        if settings.outputs.dir is not None and (settings.outputs.dir / SWEEP).is_file():
            sweep.points = sweep._points_in(settings.outputs.dir / SWEEP)
        elif options.strategy != "smart":
            sweep.points = select_points(axes, options.strategy, sweep.most_points, settings.runtime.seed)
        sweep.runs(Path())
        return sweep

    @property
    def size(self) -> int:
        """Combinations that there are."""
        return space_size(self.axes)

    @property
    def most_points(self) -> int:
        """Configurations that the sweep ends with."""
        options = self.settings.ablation
        return min(options.max_runs // max(len(options.seeds), 1), self.size)

    def __str__(self) -> str:
        return f"{self.most_points} of {self.size} combinations ({self.settings.ablation.strategy})"

    def runs(self, folder: Path) -> list[PlannedRun]:
        """The runs of all points so far, in `folder`/runs. SettingsError if two would be the same."""
        seeds = self.settings.ablation.seeds or (None,)
        points = enumerate(self.points)
        runs = [self._run(folder, f"{number:03d}", point, seed) for number, point in points for seed in seeds]
        known: dict[str, PlannedRun] = {}
        for run in runs:
            twin = known.setdefault(settings_hash(run.settings), run)
            if twin is not run:
                raise _same_run(" ".join(twin.arguments), " ".join(run.arguments))
        return runs

    def write(self, run: RunDirectory) -> None:
        """Write `sweep.json`, the list of runs chosen so far."""
        listed = [
            {"name": planned.name, "arguments": planned.arguments, "config_hash": settings_hash(planned.settings)}
            for planned in self.runs(run.path)
        ]
        run.write_json(SWEEP, {"identity": self._identity(), "points": self.points, "runs": listed})

    def choices(self, configuration: str) -> dict[str, str]:
        """Axis to choice of a configuration."""
        return dict(zip((axis.key for axis in self.axes), self.points[int(configuration)], strict=True))

    def _points_in(self, path: Path) -> list[Point]:
        try:
            known = json.loads(path.read_text(encoding="utf-8"))
            identity, points = known["identity"], [tuple(point) for point in known["points"]]
        except (ValueError, KeyError, TypeError) as error:
            cure = "Choose another outputs.dir."
            raise InputError(path, "the list of a sweep's runs", str(error), cure) from error
        if identity != self._identity():
            raise SettingsError(f"{path.parent} holds a sweep with other settings; choose another outputs.dir")
        return points

    def _identity(self) -> dict[str, Any]:
        """What a sweep that goes on must have in common with the one that began."""
        options = self.settings.ablation
        return {
            "settings": settings_hash(self.settings),
            "data": None if self.settings.data.root is None else str(self.settings.data.root),
            "axes": [[axis.key, *axis.choices] for axis in self.axes],
            "strategy": options.strategy,
            "max_runs": options.max_runs,
            "seeds": list(options.seeds),
            # The order of the runs so far is what the estimator learns from.
            "metric": options.metric if options.strategy == "smart" else None,
        }

    def _run(self, folder: Path, configuration: str, point: Point, seed: int | None) -> PlannedRun:
        arguments = [f"{axis.key}={choice}" for axis, choice in zip(self.axes, point, strict=True)]
        name = configuration if seed is None else f"{configuration}-seed{seed}"
        if seed is not None:
            arguments.append(f"{SEEDS_KEY}={seed}")
        settings = with_overrides(self.settings, arguments)
        tracking = replace(settings.tracking, register_models=False)
        if tracking.experiment == EXPERIMENT:
            tracking = replace(tracking, experiment=f"{EXPERIMENT}_ablate")
        path = folder.absolute() / "runs" / name
        own = settings.model_copy(update={"tracking": tracking, "outputs": replace(settings.outputs, dir=path)})
        return PlannedRun(configuration, name, path, tuple(arguments), own)


@dataclass(frozen=True)
class Results:
    """Candidates of the configurations whose runs are all done, and the truth (planets, bins) to judge them by."""

    candidates: tuple[Candidate, ...]
    truth: Floats


def read_results(runs: Sequence[PlannedRun]) -> Results:
    """Held-out predictions of the finished runs, on the planets that all of them predict.

    Raises InputError if there is no such planet, or if the data set changed between runs.
    """
    by_configuration: dict[str, list[PlannedRun]] = {}
    for run in runs:
        by_configuration.setdefault(run.configuration, []).append(run)
    whole = {name: group for name, group in by_configuration.items() if all(run.is_done for run in group)}
    if not whole:
        return Results((), np.empty((0, 0)))
    finished = [run for group in whole.values() for run in group]
    _require_one_revision(finished)
    spectra = {run.name: read_predictions(run.path / CHECKPOINT / OUT_OF_FOLD) for run in finished}
    common = set.intersection(*(set(found.planet_ids) for found in spectra.values()))
    data_root = finished[0].settings.data.root
    assert data_root is not None
    listed, labels = open_dataset(data_root).labels()
    rows = [row for row, planet in enumerate(listed) if planet in common]
    if not rows:
        where = finished[0].path.parent
        raise InputError(where, "planets that all runs predict", "none", "Sweep settings that keep planets in common.")
    planets = tuple(listed[row] for row in rows)
    rules = sorted(set.intersection(*(set(_penalties(run)) for run in finished)))
    candidates = tuple(_candidate(name, group, spectra, planets, rules) for name, group in whole.items())
    return Results(candidates, np.asarray(labels[rows]))


def _candidate(
    name: str,
    runs: Sequence[PlannedRun],
    spectra: Mapping[str, Spectra],
    planets: tuple[str, ...],
    rules: Sequence[str],
) -> Candidate:
    chosen = [_of_planets(spectra[run.name], planets) for run in runs]
    seconds = [_training_seconds(run.path) for run in runs]
    return Candidate(
        name,
        np.stack([found.mean for found in chosen]),
        np.stack([found.sigma for found in chosen]),
        float(np.mean([value for value in seconds if value is not None])) if None not in seconds else None,
        _violations(runs, rules),
    )


def _of_planets(spectra: Spectra, planets: Sequence[str]) -> Spectra:
    row = {planet: index for index, planet in enumerate(spectra.planet_ids)}
    rows = [row[planet] for planet in planets]
    return Spectra(tuple(planets), spectra.mean[rows], spectra.sigma[rows])


def _training_seconds(path: Path) -> float | None:
    """What the training took when it was computed, even if this run found it in the store."""
    events = Journal(path / "events.jsonl").read()
    seconds: float | None = [event["seconds"] for event in events if event["event"] == "trained"][-1]
    return seconds


def _violations(runs: Sequence[PlannedRun], rules: Sequence[str]) -> float | None:
    """Mean penalty of `rules`, before weighting."""
    penalties = [found[rule] for found in map(_penalties, runs) for rule in rules]
    return float(np.mean(penalties)) if penalties else None


def _penalties(run: PlannedRun) -> dict[str, float]:
    """Rule to mean penalty, empty for a model that has no such rules."""
    metrics = json.loads((run.path / "metrics.json").read_text(encoding="utf-8"))
    penalties: dict[str, float] = metrics["out_of_fold"].get("violations", {})
    return penalties


def _require_one_revision(runs: Sequence[PlannedRun]) -> None:
    """The same choice of data must mean the same files: a sweep may have been interrupted for long."""
    known: dict[Any, tuple[str, str]] = {}
    for run in runs:
        revision = json.loads((run.path / "manifest.json").read_text(encoding="utf-8"))["data_rev"]
        name, other = known.setdefault(run.settings.data, (run.name, revision))
        if other != revision:
            raise InputError(
                run.path, f"the data set of run {name}", "another revision of it", "Choose another outputs.dir."
            )


def _axes(arguments: Sequence[str]) -> tuple[Axis, ...]:
    axes = []
    for argument in arguments:
        key, choices = swept(argument)
        if "=" not in argument or not key or not all(choices) or len(set(choices)) < len(choices):
            raise SettingsError(f"ablation.sweep {argument!r}: expected KEY=VALUE,VALUE with distinct values")
        if key in (SEEDS_KEY, "seed"):
            raise SettingsError(f"{argument}: seeds repeat every combination, ablation.seeds=[{','.join(choices)}]")
        axes.append(Axis(key, tuple(choices)))
    keys = [axis.key for axis in axes]
    if len(set(keys)) < len(keys):
        raise SettingsError(f"ablation.sweep: {max(keys, key=keys.count)} occurs twice; give all its values at once")
    return tuple(axes)


def _require_distinct(choices: Sequence[str], settings: Settings) -> None:
    known: dict[str, str] = {}
    for choice in choices:
        twin = known.setdefault(settings_hash(with_overrides(settings, [choice])), choice)
        if twin is not choice:
            raise _same_run(twin, choice)


def _same_run(one: str, other: str) -> SettingsError:
    return SettingsError(f"{one} and {other} are the same run: what differs cannot change a result; sweep other values")
