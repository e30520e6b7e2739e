"""Spreading independent units of work over Dask workers."""

from __future__ import annotations

import functools
import logging
import os
import platform
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from spectramind.cubes.options import DaskOptions
from spectramind.errors import SettingsError, SpectraMindError
from spectramind.provenance.digests import code_digest
from spectramind.provenance.environment import environment_snapshot

Item = TypeVar("Item")
Value = TypeVar("Value")

CONNECT_TIMEOUT_S = 30.0
NO_PORT = "127.0.0.1:0"
"""For Dask's HTTP servers, which cannot be left out: any free port of this machine alone, serving nothing."""

ONE_THREAD = {
    name: 1
    for name in (
        "MKL_NUM_THREADS",
        "NUMBA_NUM_THREADS",
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "POLARS_MAX_THREADS",
    )
}
"""As many workers as cores leave no core to a library's own threads."""

KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": 256 << 20, "MALLOC_TRIM_THRESHOLD_": 512 << 20}
"""The C library gives freed arrays back to the system at once by default, and Dask asks for more of that: the next
array's pages are then zeroed again, a third of a transit fit's CPU time. The largest arrays still go back."""


NUMERICS = ("numpy", "scipy", "numba", "polars", "pyarrow", "zarr", "numcodecs", "dask", "distributed")
"""Libraries of which a cluster's workers need the same versions as the program that sends them work."""


@dataclass(frozen=True)
class Outcome(Generic[Item, Value]):
    """What became of an item: `value`, or the `error` that its unit raised (`value` is then None)."""

    item: Item
    value: Value | None = None
    error: Exception | None = None


def map_units(
    function: Callable[[Item], Value],
    items: Iterable[Item],
    options: DaskOptions,
    on_result: Callable[[Outcome[Item, Value]], None] | None = None,
    client: Any = None,
) -> list[Outcome[Item, Value]]:
    """`function(item)` for every item, in parallel; the outcomes in the order of `items`.

    `on_result` is called here, in this thread, with each outcome as it arrives. At most one unit per worker is under
    way, so memory depends on the number of workers alone; return small values such as paths and digests. An
    exception becomes its item's outcome. The unit of a worker that died is done again up to `options.redo` times, then
    its outcome is a SpectraMindError that says so. Function and items must be picklable (cloudpickle) unless the
    scheduler is synchronous. `client` from `shared_workers` saves starting workers. Raises SettingsError if no
    scheduler answers at `options.address`, or it has no workers or such as would give other results.
    """
    items = list(items)
    outcomes: dict[int, Outcome[Item, Value]] = {}
    # Closed at once when `on_result` raises, so that no worker outlives the call.
    with closing(_arriving(function, items, options, client)) as arriving:
        for index, outcome in arriving:
            outcomes[index] = outcome
            if on_result is not None:
                on_result(outcome)
    return [outcomes[index] for index in range(len(items))]


def _arriving(
    function: Callable[[Item], Value], items: list[Item], options: DaskOptions, client: Any
) -> Generator[tuple[int, Outcome[Item, Value]]]:
    if not items:
        return
    if options.scheduler == "synchronous" and not options.address:
        for index, item in enumerate(items):
            yield index, _attempt(item, lambda item=item: function(item))  # type: ignore[misc]
        return
    if options.address:  # a worker may join at any time
        function = functools.partial(_checked, function, _expected(_environment()))
    with _client(options, len(items)) if client is None else nullcontext(client) as client:
        try:
            yield from _submit_all(client, function, items)
        except OSError as error:  # those of the units are outcomes
            if not options.address:
                raise
            raise SpectraMindError(
                f"dask.address={options.address}: the scheduler is gone ({error}). Start it and run again: what is "
                "finished is kept."
            ) from error


def _submit_all(
    client: Any, function: Callable[[Item], Value], items: list[Item]
) -> Iterator[tuple[int, Outcome[Item, Value]]]:
    from distributed import KilledWorker, as_completed
    from distributed.scheduler import NoWorkerError

    waiting = iter(range(len(items)))
    under_way: dict[str, int] = {}
    arriving: Any = as_completed()  # type: ignore[no-untyped-call]

    def fill() -> None:
        slots = max(1, sum(client.nthreads().values()))  # a cluster may grow, and has none while a worker restarts
        while len(under_way) < slots and (index := next(waiting, None)) is not None:
            future = client.submit(function, items[index], pure=False)
            under_way[future.key] = index
            arriving.add(future)

    fill()
    for future in arriving:
        index = under_way.pop(future.key)
        outcome = _attempt(items[index], future.result)
        if isinstance(outcome.error, KilledWorker):
            outcome = Outcome(items[index], error=_died(outcome.error))
        elif isinstance(outcome.error, NoWorkerError):
            outcome = Outcome(items[index], error=_deserted(outcome.error))
        del future  # frees the value on the cluster
        fill()
        yield index, outcome


def _checked(function: Callable[[Item], Value], expected: Mapping[str, str], item: Item) -> Value:
    """`function(item)`, on a worker that gives the results that this program would get."""
    from distributed import get_worker

    _require_same(get_worker().address, _environment(), expected)
    return function(item)


def _environment() -> Mapping[str, str]:
    """What a result depends on beside its unit's input."""
    libraries = environment_snapshot()["libraries"]
    return {
        "Python": ".".join(platform.python_version_tuple()[:2]),
        **{name: libraries.get(name, "absent") for name in NUMERICS},
        "source code": _source_code(),
        **{name: os.environ.get(name, "not set") for name in ONE_THREAD},
    }


@functools.cache
def _source_code() -> str:
    return code_digest("spectramind")[:12]


def _expected(here: Mapping[str, str]) -> dict[str, str]:
    """The environment that workers need if this program's is `here`."""
    return {**here, **{name: str(value) for name, value in ONE_THREAD.items()}}


def _require_same(where: str, found: Mapping[str, str] | Exception, expected: Mapping[str, str]) -> None:
    if isinstance(found, Exception):
        differing = f"spectramind cannot be imported ({found})"
    else:
        differing = "; ".join(f"{k} {found.get(k)}, expected {v}" for k, v in expected.items() if found.get(k) != v)
    if differing:
        raise SettingsError(
            f"dask.address: {where}: {differing}. Start scheduler and workers as infra/kubernetes/dask.yaml does, from "
            "the installation that runs this command."
        )


def _attempt(item: Item, call: Callable[[], Value]) -> Outcome[Item, Value]:
    try:
        return Outcome(item, value=call())
    except Exception as error:
        return Outcome(item, error=error)


def _died(error: Any) -> SpectraMindError:
    times = error.allowed_failures + 1
    return SpectraMindError(
        f"its worker process died {times} times. If memory ran out, use fewer workers (dask.workers)."
    )


def _deserted(error: Any) -> SpectraMindError:
    return SpectraMindError(
        f"dask.address: there has been no worker for {error.timeout:.0f} s. Start some and run again: what is finished "
        "is kept."
    )


@contextmanager
def _client(options: DaskOptions, n_items: int) -> Iterator[Any]:
    """A client of the cluster at `options.address`, or of a local one that ends with this context.

    Local worker processes also end by themselves when this process is gone.
    """
    import dask
    from dask.system import CPU_COUNT
    from distributed import Client, LocalCluster

    if options.address:
        logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # what it says is told as an error
        try:
            client = Client(options.address, timeout=CONNECT_TIMEOUT_S)  # type: ignore[no-untyped-call]
        except (OSError, ValueError) as error:
            raise SettingsError(
                f"dask.address={options.address}: no Dask scheduler answers ({error}). "
                "Start one with `dask scheduler` or leave the address empty."
            ) from error
        with client:
            _require_fit_workers(client, options.address)
            yield client
        return

    workers = min(options.workers or CPU_COUNT, n_items)
    processes = options.scheduler == "processes"
    settings = {
        "distributed.scheduler.allowed-failures": options.redo,
        "logging.distributed": "critical",
        "distributed.scheduler.http.routes": [],
        "distributed.worker.http.routes": [],
        "distributed.nanny.pre-spawn-environ": {
            **dask.config.get("distributed.nanny.pre-spawn-environ"),
            **ONE_THREAD,
            **KEEP_MEMORY,
        },
    }
    with (
        dask.config.set(settings),
        LocalCluster(  # type: ignore[no-untyped-call]
            n_workers=workers if processes else 1,
            threads_per_worker=1 if processes else workers,
            processes=processes,
            host="127.0.0.1" if processes else None,
            security=processes or None,  # a fresh certificate: other users of this machine cannot send work
            dashboard_address=NO_PORT,
            worker_dashboard_address=NO_PORT,
            scheduler_kwargs={"dashboard": False},
            memory_limit=0,  # Dask's own limit kills workers for memory that is only cached
            silence_logs=logging.CRITICAL,
        ) as cluster,
        Client(cluster) as client,  # type: ignore[no-untyped-call]
    ):
        yield client
        with suppress(TimeoutError):  # a worker that must end while it restarts complains loudly
            client.wait_for_workers(workers if processes else 1, timeout=10)


def _require_fit_workers(client: Any, address: str) -> None:
    try:
        client.wait_for_workers(1, timeout=CONNECT_TIMEOUT_S)
    except TimeoutError as error:
        raise SettingsError(
            f"dask.address={address}: the scheduler has no workers. Start some with `dask worker {address}`."
        ) from error
    expected = _expected(_environment())
    for worker, found in client.run(_environment, on_error="return").items():
        _require_same(worker, found, expected)
    try:
        on_scheduler = client.run_on_scheduler(_environment)
    except ImportError as error:
        on_scheduler = error
    # It unpacks the units that it hands on, but computes nothing.
    _require_same("the scheduler", on_scheduler, {name: expected[name] for name in ("Python", "dask", "distributed")})


@contextmanager
def shared_workers(options: DaskOptions) -> Iterator[Any]:
    """A `client` for several calls of `map_units` on the same workers, which end with this context; starting them takes
    seconds. None where the work is done here."""
    from dask.system import CPU_COUNT

    if options.scheduler == "synchronous" and not options.address:
        yield None
        return
    with _client(options, options.workers or CPU_COUNT) as client:
        yield client
