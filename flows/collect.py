"""`spectramind gc`: what of a store and of the runs on it may go, by age and total size.

Kept whatever its age: what a model with an alias in the registry was made from, what a run whose directory is still
there stands on, and everything while a run is at work. Things are moved aside in one step and deleted afterwards, so
that a unit or run is there in full or not at all.
"""

from __future__ import annotations

import shutil
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flows.run_directory import RESULT_FILES, RESULT_FOLDERS, RUN_MANIFEST, SUMMARY
from flows.store_layout import StoreLayout
from flows.store_use import Reference, references, sole_use
from flows.tracking import Destination, aliased_models
from settings.tree import Settings
from spectramind.errors import StoreError
from spectramind.provenance.units import MANIFEST, is_being_built, read_manifest, set_aside

DAY_S = 86400.0
GIB = 2**30

UNIT_DEPTHS = {"cubes": 4, "fits": 3, "models": 1, "predictions": 1}
"""How far below its folder of the store a kind of unit lies."""

RUN_ENTRIES = {
    *RESULT_FILES, *RESULT_FOLDERS, RUN_MANIFEST, "events.jsonl", ".lock", "tracking_spool.jsonl", "store", "runs",
    "shared", "output.log",
}  # fmt: skip
"""What a run writes. A directory with anything else is somebody's own, too, and stays."""


@dataclass(frozen=True)
class Limits:
    """Things older than `days` go; then the oldest, until the rest is at most `most_bytes` (None: no limit)."""

    days: float
    most_bytes: int | None = None
    units_only: bool = False


@dataclass(frozen=True)
class Item:
    """A unit or a run's directory: its size, when it was finished (POSIX time), and why it must stay, if it must."""

    kind: str
    path: Path
    bytes: int
    finished: float
    kept: str = ""
    reference: Reference | None = None


def collect(settings: Settings, limits: Limits, act: bool) -> None:
    """Print what may go and what it frees; remove it if `act`. Raises StoreError if a run is at work then."""
    layout = StoreLayout.of(settings.outputs)
    tracking = settings.tracking
    destination = Destination.of(layout.root, tracking.uri or None, tracking.experiment)
    if not act:
        _show(layout, *planned(layout, aliased_models(destination), limits), acted=False)
        return
    with sole_use(layout):
        condemned, kept = planned(layout, aliased_models(destination), limits)
        moved = [(item, aside) for item in condemned if (aside := _moved(layout, item)) is not None]
    for item, aside in moved:
        if aside.exists():  # a sweep has taken its runs along
            shutil.rmtree(aside)
        if item.reference is not None:
            item.reference.file.unlink(missing_ok=True)
    _remove_leftovers(layout)
    _show(layout, [item for item, _ in moved], kept, acted=True)


def planned(
    layout: StoreLayout, aliased: Sequence[Mapping[str, str]], limits: Limits, now: float | None = None
) -> tuple[list[Item], list[Item]]:
    """What may go, oldest first, and what stays. `aliased`: the tags of the models that are in use."""
    cutoff = (time.time() if now is None else now) - limits.days * DAY_S
    runs = sorted(_runs(layout, aliased), key=lambda item: item.finished)
    units = sorted(_units(layout, {tags.get("model_digest") for tags in aliased}), key=lambda item: item.finished)
    going: dict[Path, Item] = {}

    def needed(unit: Item) -> bool:
        return any(run.path not in going and run.reference and unit.path in run.reference.units for run in runs)

    def free(item: Item) -> bool:
        if item.kind == "run":
            inside = any(run.path not in going and item.path in run.path.parents for run in runs)
            return not (item.kept or inside or limits.units_only)
        return not (item.kept or needed(item))

    def condemn(items: Sequence[Item], until: float) -> None:
        for item in items:  # one at a time: what goes sets others free
            if item.finished < until and free(item):
                going[item.path] = item

    def following() -> Iterator[Item]:
        """Units that no run stands on are worth least; then the oldest run goes and sets its units free."""
        yield from (unit for unit in units if unit.path not in going and free(unit))
        while run := next((run for run in runs if run.path not in going and free(run)), None):
            yield run
            yield from (unit for unit in units if unit.path not in going and free(unit))

    # Runs inside a sweep's directory go before it.
    condemn(sorted(runs, key=lambda item: -len(item.path.parts)), cutoff)
    condemn(units, cutoff)
    everything = [*units, *runs]
    if limits.most_bytes is not None:
        left = sum(item.bytes for item in everything if item.path not in going)
        for item in following():
            if left <= limits.most_bytes:
                break
            going[item.path] = item
            left -= item.bytes
    return list(going.values()), [item for item in everything if item.path not in going]


def _runs(layout: StoreLayout, aliased: Sequence[Mapping[str, str]]) -> Iterator[Item]:
    champions = {Path(tags["run_directory"]) for tags in aliased if "run_directory" in tags}
    for reference in references(layout):
        run = reference.run
        if not (run / SUMMARY).is_file():
            continue
        kept = ""
        others = sorted({path.name for path in run.iterdir()} - RUN_ENTRIES)
        if run in champions:
            kept = "its model has an alias in the registry"
        elif _at_work(run):
            kept = "at work"
        elif others:
            kept = f"holds other files ({', '.join(others[:3])})"
        newest = max(path.stat().st_mtime for path in (run / SUMMARY, run / "events.jsonl") if path.is_file())
        own = _size(run) - _size(run / "runs")  # the runs of a sweep are items of their own
        yield Item("run", run, own, newest, kept, reference)


def _units(layout: StoreLayout, in_use: set[str | None]) -> Iterator[Item]:
    for kind, depth in UNIT_DEPTHS.items():
        for path in (layout.root.resolve() / kind).glob("/".join("*" * depth)):
            if not path.is_dir() or (path.name.startswith(".") and not path.name.endswith(".partial")):
                continue
            try:
                manifest = read_manifest(path)
                size = sum(int(output["size"]) for output in manifest["outputs"].values())
                kept = "a model in use was made from it" if manifest["digest"] in in_use else ""
                finished = (path / MANIFEST).stat().st_mtime
            except (StoreError, KeyError):
                size, kept, finished = _size(path), "", path.stat().st_mtime
            yield Item(kind, path, size, finished, "being built" if is_being_built(path) else kept)


def _moved(layout: StoreLayout, item: Item) -> Path | None:
    """Where the item is now, out of everybody's sight; None if a process has it."""
    name = uuid.uuid4().hex
    if item.kind != "run":
        layout.trash.mkdir(exist_ok=True)
        aside = layout.trash / name
        return aside if set_aside(item.path, aside) else None
    lock = FileLock(item.path / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return None
    try:
        return item.path.rename(item.path.with_name(f".{item.path.name}.{name}.removed"))
    finally:
        lock.release()


def _remove_leftovers(layout: StoreLayout) -> None:
    """What an earlier call that was killed had moved aside, and the lists of runs that are gone."""
    shutil.rmtree(layout.trash, ignore_errors=True)
    for reference in references(layout):
        if not reference.run.exists():
            for leftover in reference.run.parent.glob(f".{reference.run.name}.{'[0-9a-f]' * 32}.removed"):
                shutil.rmtree(leftover, ignore_errors=True)
            reference.file.unlink(missing_ok=True)


def _at_work(run: Path) -> bool:
    lock = FileLock(run / ".lock")
    try:
        with lock.acquire(timeout=0):
            return False
    except Timeout:
        return True


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


def _show(layout: StoreLayout, gone: Sequence[Item], kept: Sequence[Item], *, acted: bool) -> None:
    table = Table(box=box.SIMPLE, show_edge=False)
    for heading in ("kind", "removed" if acted else "would go", "GiB", "stay", "GiB"):
        table.add_column(heading, justify="left" if heading == "kind" else "right")
    for kind in [*UNIT_DEPTHS, "run"]:
        row = [kind]
        for items in (gone, kept):
            chosen = [item for item in items if item.kind == kind]
            row += [str(len(chosen)), f"{sum(item.bytes for item in chosen) / GIB:.3f}"]
        table.add_row(*row)
    console = Console()
    console.print(f"store {escape(str(layout.root))}", soft_wrap=True, highlight=False)
    console.print(table)
    for item in (item for item in gone if item.kind == "run"):
        console.print(f"run {escape(str(item.path))}", soft_wrap=True, highlight=False)
    for item in (item for item in kept if item.kind == "run" and item.kept):
        console.print(f"stays: {escape(str(item.path))}, {escape(item.kept)}", soft_wrap=True, highlight=False)
    freed = sum(item.bytes for item in gone) / GIB
    console.print(f"{'freed' if acted else 'would free'} {freed:.3f} GiB{'' if acted else '; --yes does it'}")
