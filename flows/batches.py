"""Units of one stage in batches: one remembered Prefect task per batch, its units spread over the workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from flows.tasks import Json, remembered
from flows.units import Done
from flows.workspace import OUT_OF_TIME
from spectramind.cubes.parallel import Outcome
from spectramind.errors import QuarantineError, StoreError
from spectramind.provenance.digests import digest_json
from spectramind.provenance.units import Place, build_unit, read_manifest, verify_unit

if TYPE_CHECKING:
    from flows.progress import Progress
    from flows.workspace import Workspace


class Job(Protocol):
    """A unit to make: where, and what it depends on."""

    @property
    def target(self) -> Place: ...

    @property
    def identity(self) -> Mapping[str, Any]: ...


AnyJob = TypeVar("AnyJob", bound=Job)

BATCHES = 8
"""Prefect tasks per split and stage: enough to follow in its UI, few enough to cost nothing."""

SMALLEST_BATCH = 16
"""Units in a batch, so that the workers have something to share: the last of a batch are waited for."""


def make_units(
    work: Workspace, name: str, function: Callable[[AnyJob], Done], jobs: Sequence[AnyJob], progress: Progress
) -> list[Json]:
    """One row per job: the `digest` of its unit, or the `reason` why there is none.

    An error other than QuarantineError ends the run; the units finished until then are kept. No batch is begun after
    the time budget.
    """
    rows: list[Json] = []
    for number, batch in _batches(jobs):
        if work.out_of_time():
            rows += [{"digest": None, "reason": OUT_OF_TIME}] * len(batch)
            continue
        rows += remembered(
            f"{name} {number}",
            digest_json([job.identity for job in batch]),
            lambda batch=batch: _run(work, function, batch, progress),  # type: ignore[misc]
            work.layout.task_results,
            lambda found, batch=batch: _sound(work, batch, found),  # type: ignore[misc]
        )
        work.run.needs(job.target for job in batch)
        progress.reach(len(batch))
    return rows


def remembered_unit(
    work: Workspace,
    name: str,
    target: Path,
    identity: Mapping[str, Any],
    write: Callable[[Path], None],
) -> str:
    """The digest of one unit, made here by `write` as the task `name` unless it is done.

    What it took when it was made is kept in its manifest and noted in `work.seconds`.
    """

    def timed(folder: Path) -> dict[str, float]:
        started = monotonic()
        write(folder)
        return {"seconds": round(monotonic() - started, 3)}

    def compute() -> Json:
        with work.progress(name.capitalize(), 1, planets=0) as progress:
            result = build_unit(target, identity, timed, digests=work.digests)
            progress.advance()
        return {"digest": result.digest}

    def is_sound(_row: Json) -> bool:
        return not verify_unit(target, work.digests)

    digest: str = remembered(name, digest_json(identity), compute, work.layout.task_results, is_sound)["digest"]
    work.run.needs([target])
    work.seconds[target] = read_manifest(target)["details"].get("seconds")
    return digest


def _batches(items: Sequence[AnyJob]) -> Iterator[tuple[str, Sequence[AnyJob]]]:
    """`items` in at most `BATCHES` runs, with a name for each."""
    size = max(SMALLEST_BATCH, -(-len(items) // BATCHES))
    starts = range(0, len(items), size)
    for number, start in enumerate(starts, start=1):
        yield f"{number}/{len(starts)}", items[start : start + size]


def _run(
    work: Workspace, function: Callable[[AnyJob], Done], jobs: Sequence[AnyJob], progress: Progress
) -> list[dict[str, str | None]]:
    rows: list[dict[str, str | None]] = []

    def arrived(outcome: Outcome[AnyJob, Done]) -> None:
        progress.advance(made=outcome.value is None or outcome.value.computed)

    for job, outcome in zip(jobs, work.spread(function, list(jobs), arrived), strict=True):
        if outcome.value is not None:
            _require_visible(work, job)
            rows.append({"digest": outcome.value.digest, "reason": None})
        elif isinstance(outcome.error, QuarantineError):
            rows.append({"digest": None, "reason": str(outcome.error)})
        elif outcome.error is not None:
            raise outcome.error
    return rows


def _require_visible(work: Workspace, job: Job) -> None:
    if isinstance(job.target, Path) and not job.target.is_dir():
        raise StoreError(
            f"{job.target}: made by a worker of dask.address={work.settings.dask.address}, but not visible here. Point "
            "outputs.store to a folder that all workers see at the same path, or to s3://BUCKET/PREFIX."
        )


def _sound(work: Workspace, jobs: Sequence[AnyJob], rows: Json) -> bool:
    """Are the units that a stored result speaks of still there and whole?"""

    def sound(job: Job, row: Json) -> bool:
        return row["digest"] is None or not verify_unit(job.target, work.digests)

    if work.layout.bucket is None:
        return all(map(sound, jobs, rows))
    with ThreadPoolExecutor() as pool:  # waiting for answers
        return all(pool.map(sound, jobs, rows))
