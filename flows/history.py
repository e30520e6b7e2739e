"""`spectramind analyze-log`: the runs below a folder as a table, whatever state they are in."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flows.run_directory import METRICS, RESOLVED, RUN_MANIFEST, SUMMARY, write_atomically
from spectramind.errors import InputError

EVENTS = "events.jsonl"

MARKS = {SUMMARY, EVENTS, RESOLVED}
"""A folder with one of these is, or was meant to be, a run's."""

FROZEN = "run_manifest.json"
"""Marks what `flows.freeze` has copied of a run."""

SCORES = (("test", "official"), ("out_of_fold", "score"), ("after", "score"))
"""Where `metrics.json` has the score that counts most, the best first."""


@dataclass(frozen=True)
class RunRow:
    """One run. Empty or None where it does not say; `status` is `unfinished` for a run that was killed or is at work,
    `problems` tells which of its files are damaged."""

    run: str
    started: str = ""
    command: str = ""
    status: str = ""
    settings_hash: str = ""
    git: str = ""
    score: float | None = None
    score_of: str = ""
    seconds: float | None = None
    warnings: int = 0
    problems: str = ""


COLUMNS = tuple(field.name for field in fields(RunRow))


def analyze_log(folder: Path, markdown: Path | None, table: Path | None) -> list[RunRow]:
    """Print the runs below `folder`, oldest first; also write them as Markdown and CSV. InputError if there is none."""
    rows = read_runs(folder)
    if not rows:
        raise InputError(folder, "directories of runs", "none", "Name the folder that holds them.")
    if table is not None:
        write_atomically(table, as_csv(rows))
    if markdown is not None:
        write_atomically(markdown, as_markdown(rows))
    shown = Table(box=box.SIMPLE, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in ("started", "command", "status", "settings", "git", "score", "s", "warn", "run"):
        numeric, long = heading in ("score", "s", "warn"), heading in ("status", "run")
        width = 10 if long else None
        justify: Literal["left", "right"] = "right" if numeric else "left"
        shown.add_column(heading, overflow="fold", no_wrap=not long, justify=justify, min_width=width)
    for row in rows:
        status = row.status if not row.problems else f"{row.status}; {row.problems}"
        cells = (
            row.started[5:16].replace("T", " "),
            row.command,
            status,
            row.settings_hash[:8],
            _commit(row.git),
            _score(row.score),
        )
        shown.add_row(*map(escape, (*cells, _seconds(row.seconds), str(row.warnings), row.run)))
    Console().print(shown)
    return rows


def read_runs(folder: Path) -> list[RunRow]:
    """The runs below `folder`, links not followed, oldest first."""
    found = [read_run(path, folder) for path in _run_folders(folder)]
    return sorted(found, key=lambda row: (row.started, row.run))


def read_run(path: Path, below: Path) -> RunRow:
    """What the run in `path` says of itself; its name is relative to `below`."""
    problems: list[str] = []
    summary = _mapping(path / SUMMARY, problems)
    metrics = _mapping(path / METRICS, problems, optional=True)
    manifest = _mapping(path / RUN_MANIFEST, problems, optional=True)
    events = _last_invocation(_events(path / EVENTS, problems))
    starts, ends = (next((e for e in events if e.get("event") == name), {}) for name in ("start", "end"))
    status = _text(ends.get("status")) or "unfinished"
    if status == "completed" and not manifest:
        problems.append(f"{RUN_MANIFEST} is missing")
    score_of, score = _best(metrics)
    seconds = ends.get("seconds")
    return RunRow(
        run=path.relative_to(below).as_posix(),
        started=_text(starts.get("time")) or _text(summary.get("created_utc")),
        command=_text(starts.get("command")) or _text(summary.get("command")),
        status=status,
        settings_hash=_text(summary.get("config_hash")) or _text(starts.get("config_hash")),
        git=_text(summary.get("git_commit")),
        score=score,
        score_of=score_of,
        seconds=float(seconds) if isinstance(seconds, int | float) else None,
        warnings=sum(event.get("event") == "warning" for event in events),
        problems="; ".join(dict.fromkeys(problems)),
    )


def as_csv(rows: Sequence[RunRow]) -> str:
    """All columns of all runs."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    return text.getvalue()


def as_markdown(rows: Sequence[RunRow]) -> str:
    """The runs, and what became of each group of equal settings."""
    lines = ["# Runs", "", *_markdown(COLUMNS, (asdict(row).values() for row in rows)), "", "# By settings", ""]
    groups: dict[str, list[RunRow]] = {}
    for row in rows:
        groups.setdefault(row.settings_hash or "unknown", []).append(row)
    summary = [
        (
            key,
            len(group),
            sum(row.status == "completed" for row in group),
            max((row.score for row in group if row.score is not None), default=None),
            max((row.seconds for row in group if row.seconds is not None), default=None),
        )
        for key, group in groups.items()
    ]
    headings = ("settings_hash", "runs", "completed", "best score", "longest, s")
    return "\n".join([*lines, *_markdown(headings, summary)]) + "\n"


def _markdown(headings: Sequence[str], rows: Iterable[Iterable[Any]]) -> Iterator[str]:
    yield f"| {' | '.join(headings)} |"
    yield f"|{'---|' * len(headings)}"
    for row in rows:
        cells = ["" if cell is None else " ".join(str(cell).split()).replace("|", "\\|") for cell in row]
        yield f"| {' | '.join(cells)} |"


def _run_folders(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and not _is_store(Path(parent, name)))
        if MARKS & set(names) and FROZEN not in names:
            yield Path(parent)


def _is_store(folder: Path) -> bool:
    """A store has many files and no runs."""
    return (folder / "digests.sqlite").is_file()


def _mapping(path: Path, problems: list[str], optional: bool = False) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        problems += [] if optional else [f"{path.name} is missing"]
        return {}
    except (OSError, ValueError):
        problems.append(f"{path.name} is damaged")
        return {}
    if not isinstance(value, dict):
        problems.append(f"{path.name} is damaged")
        return {}
    return value


def _events(path: Path, problems: list[str]) -> list[dict[str, Any]]:
    """The events that can be read; a last line without its end is that of a killed run."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError:
        problems.append(f"{path.name} is missing")
        return []
    events = []
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:
            event = None
        if isinstance(event, dict):
            events.append(event)
        else:
            problems.append(f"{path.name} has damaged lines")
    return events


def _last_invocation(events: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
    """A directory can be used again; its events then follow those of before."""
    starts = [number for number, event in enumerate(events) if event.get("event") == "start"]
    return events[starts[-1] :] if starts else events


def _best(metrics: dict[str, Any]) -> tuple[str, float | None]:
    for group, name in SCORES:
        values = metrics.get(group)
        score = values.get(name) if isinstance(values, dict) else None
        if isinstance(score, int | float) and not isinstance(score, bool):
            return f"{group}.{name}", float(score)
    return "", None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _commit(git: str) -> str:
    """Short; a star says that files differed from it."""
    return git[:8] + "*" * git.endswith("-dirty")


def _score(score: float | None) -> str:
    return "-" if score is None else f"{score:.4f}"


def _seconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.0f}"
