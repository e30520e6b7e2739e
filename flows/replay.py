"""`spectramind replay`: a finished run once more from what it left behind, and whether the same came out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flows.journal import finite_json
from flows.run_directory import DATA_DIGESTS, RESOLVED, RUN_MANIFEST, SUMMARY, RunDirectory, new_directory, verify_run
from flows.tracking import flatten
from flows.workspace import workspace
from settings.resolve import resolve
from settings.tree import Settings, settings_hash
from spectramind.errors import InputError, SpectraMindError
from spectramind.provenance.digests import digest_json, file_digest

REPLAYABLE = ("run", "calibrate", "train", "predict", "submit")
"""Commands that depend on nothing but settings and data set."""

QUALITY = "calibration/data_quality.json"

DECISIVE = (
    *("submission/submission.csv", "submission/submission_long.csv", "submission/submission.zip"),
    *("predictions/predictions.parquet", QUALITY),
)
"""Files that a replay must give again, as far as the run has them; and so must the metrics and model weights."""

MOST_NAMED = 5
"""Differing files or metrics that are named; the rest are counted."""


@dataclass(frozen=True)
class Comparison:
    """One line of the table: `name`, what the run had, what the replay has, as texts. Whether it `decides`."""

    name: str
    run: str
    replay: str
    decides: bool = False

    @property
    def same(self) -> bool:
        return self.run == self.replay


@dataclass(frozen=True)
class Original:
    """A finished run: its directory, and what its files say of how it was made and what came out."""

    path: Path
    summary: Mapping[str, Any]
    data: Mapping[str, str]
    metrics: Mapping[str, Any]
    files: tuple[str, ...]

    @classmethod
    def read(cls, path: Path) -> Original:
        """InputError if the run is not finished, has been changed since, or cannot be repeated from its settings."""
        if problems := verify_run(path):
            raise InputError(path, "a finished and unchanged run", "; ".join(problems[:3]), "Choose another run.")
        summary, manifest = (_json(path / name) for name in (SUMMARY, RUN_MANIFEST))
        if summary["command"] not in REPLAYABLE:
            found = f"one of {summary['command']}"
            cure = "Repeat it by hand: its settings do not hold all that it was told. Runs of a sweep are in its runs/."
            raise InputError(path, f"a run of {', '.join(REPLAYABLE)}", found, cure)
        if not (path / DATA_DIGESTS).is_file():
            raise InputError(path, DATA_DIGESTS, "none", "Choose a run that has read a data set.")
        return cls(path, summary, _json(path / DATA_DIGESTS), manifest["metrics"], tuple(manifest["files"]))

    @property
    def command(self) -> str:
        return str(self.summary["command"])

    def settings(self, fresh: bool, out: Path | None) -> Settings:
        """Those of the run, in the directory `out` or a new one, there with a store of its own if `fresh`.

        Tracking is off: a replay is a check and no experiment.
        """
        made = resolve([], self.path / RESOLVED)
        here = Path(self.summary["working_directory"])
        # A relative path means what it meant where the run was started.
        data = replace(made.data, root=_below(here, made.data.root), truth=_below(here, made.data.truth))
        directory = out.absolute() if out else new_directory(Path("outputs").absolute()) if fresh else None
        outputs = replace(made.outputs, dir=directory, cache=here / made.outputs.cache)
        if fresh and directory:
            outputs = replace(outputs, store=directory / "store")
        elif isinstance(outputs.store, Path):
            outputs = replace(outputs, store=here / outputs.store)
        tracking = replace(made.tracking, enable=False)
        return made.model_copy(update={"data": data, "outputs": outputs, "tracking": tracking})


def replay(
    original: Original,
    settings: Settings,
    run: RunDirectory,
    flow: Callable[[Settings, RunDirectory], Any],
    strict: bool,
) -> None:
    """Repeat `original` in `run` by its command's `flow` and print a table of what is the same.

    What differs beforehand (data, code, lock, libraries) is named in warnings, or as InputError if `strict`. Raises
    SpectraMindError if submission or metrics come out otherwise.
    """
    with workspace(settings, run, original.command) as work:
        conditions = _conditions(original, _json(run.path / SUMMARY), work.file_digests, settings)
        changed = [row for row in conditions if not row.same]
        if changed and strict:
            told = "; ".join(f"{row.name}: {row.run} then, {row.replay} now" for row in changed)
            raise InputError(original.path, "the run's own data, code and libraries", told, "Restore them.")
        for row in changed:
            work.warn(f"not as in {original.path}: {row.name} was {row.run}, is {row.replay}")
        flow(settings, run)
    results = _results(original, run)
    _show([*conditions, *results])
    different = [row.name for row in results if row.decides and not row.same]
    if different:
        raise SpectraMindError(f"{run.path} differs from {original.path} in {', '.join(different)}")


def _conditions(
    original: Original, now: Mapping[str, Any], data: Mapping[str, str], settings: Settings
) -> list[Comparison]:
    then = original.summary
    rows = [Comparison("settings", then["config_hash"][:16], settings_hash(settings)[:16])]
    rows.append(Comparison("data", "as it was", _told(original.data, data) or "as it was"))
    rows += [
        Comparison(f"code of {name}", digest[:16], now["code_digests"].get(name, "-")[:16])
        for name, digest in then["code_digests"].items()
    ]
    rows.append(Comparison("lock", then["poetry_lock_hash"][:16], now["poetry_lock_hash"][:16]))
    rows.append(Comparison("Python", then["python"], now["python"]))
    rows.append(Comparison("libraries", "as they were", _told(then["libraries"], now["libraries"]) or "as they were"))
    return rows


def _results(original: Original, run: RunDirectory) -> list[Comparison]:
    rows = [
        Comparison(name, _digest(original.path, name)[:16], _digest(run.path, name)[:16], decides=True)
        for name in original.files
        if name in DECISIVE or name.endswith(".safetensors")
    ]
    if original.metrics or run.metrics():
        changed = _told(flatten(original.metrics), flatten(run.metrics()), values=True)
        rows.append(Comparison("metrics", "as they were", changed or "as they were", decides=True))
    return rows


def _digest(run: Path, name: str) -> str:
    """Of a result; of data quality without its lineage: data, settings and code have lines of their own."""
    if not (run / name).is_file():
        return "-"
    if name == QUALITY:
        return digest_json(finite_json({**_json(run / name), "lineage": {}}))
    return file_digest(run / name)


def _told(then: Mapping[str, Any], now: Mapping[str, Any], values: bool = False) -> str:
    """The names of `then` and `now` whose values differ; empty if none does."""
    names = [name for name in sorted({*then, *now}) if then.get(name) != now.get(name)]
    shown = [f"{name} {then.get(name)} → {now.get(name)}" if values else name for name in names[:MOST_NAMED]]
    more = [f"{len(names) - MOST_NAMED} more"] if len(names) > MOST_NAMED else []
    return ", ".join([*shown, *more])


def _show(rows: list[Comparison]) -> None:
    table = Table(box=box.SIMPLE, show_edge=False)
    for heading in ("", "what", "run", "replay"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        verdict = "[green]equal[/]" if row.same else "[bold red]different[/]" if row.decides else "[yellow]different[/]"
        table.add_row(verdict, escape(row.name), escape(row.run), escape(row.replay))
    Console().print(table)


def _below(folder: Path, path: Path | None) -> Path | None:
    return None if path is None else folder / path


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(path, "a file that a run has written", str(error), "Choose another run.") from error
