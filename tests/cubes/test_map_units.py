from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from distributed import LocalCluster, get_worker

from spectramind.cubes.options import DaskOptions
from spectramind.cubes.parallel import ONE_THREAD, Outcome, map_units, shared_workers
from spectramind.errors import InputError, SettingsError

PROCESSES = DaskOptions(scheduler="processes", workers=2)


def invert(number: int) -> float:
    if number == 0:
        raise InputError("the number", "not zero", "zero", "Take another.")
    return 1 / number


@pytest.mark.parametrize("options", [PROCESSES, DaskOptions("threads", 3), DaskOptions("synchronous")])
def test_every_scheduler_gives_values_and_errors_in_order(options: DaskOptions) -> None:
    arrived: list[Outcome[int, float]] = []
    outcomes = map_units(invert, iter([4, 0, 2, 1, 5]), options, arrived.append)
    assert [outcome.item for outcome in outcomes] == [4, 0, 2, 1, 5]
    assert [outcome.value for outcome in outcomes] == [0.25, None, 0.5, 1.0, 0.2]
    assert [type(outcome.error) for outcome in outcomes] == [type(None), InputError, *[type(None)] * 3]
    assert str(outcomes[1].error) == "the number: expected not zero, found zero. Take another."
    assert sorted(outcome.item for outcome in arrived) == [0, 1, 2, 4, 5]


def test_nothing_to_do_starts_nothing() -> None:
    assert map_units(invert, [], PROCESSES) == []


class Gauge:
    """Counts how many units are under way."""

    lock = threading.Lock()
    now = most = 0


def gauged_unit(number: int) -> int:
    with Gauge.lock:
        Gauge.now += 1
        Gauge.most = max(Gauge.most, Gauge.now)
    time.sleep(0.01)
    with Gauge.lock:
        Gauge.now -= 1
    return number


def test_no_more_units_than_workers_are_under_way() -> None:
    assert len(map_units(gauged_unit, range(20), DaskOptions("threads", 3))) == 20
    assert 1 < Gauge.most <= 3


def die_once_or_always(task: tuple[int, str]) -> Any:
    number, folder = task
    mark = Path(folder) / f"died{number}"
    if number == 5 or (number == 2 and not mark.exists()):
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    encrypted = get_worker().address.startswith("tls://127.0.0.1")
    return number, os.environ["POLARS_MAX_THREADS"], os.environ["OMP_NUM_THREADS"], encrypted


def test_a_killed_workers_unit_is_done_again_or_reported(tmp_path: Path) -> None:
    outcomes = map_units(
        die_once_or_always,
        [(number, str(tmp_path)) for number in range(8)],
        DaskOptions(scheduler="processes", workers=2, redo=1),
    )
    assert [outcome.value for outcome in outcomes] == [(n, "1", "1", True) if n != 5 else None for n in range(8)]
    assert "worker process died 2 times" in str(outcomes[5].error)
    assert (tmp_path / "died2").exists()


def own_pid(number: int) -> int:
    return os.getpid()


@pytest.mark.parametrize("options", [PROCESSES, DaskOptions("synchronous")])
def test_calls_share_workers_and_a_failed_call_leaves_them_usable(options: DaskOptions) -> None:
    def stop(outcome: Outcome[int, int]) -> None:
        raise KeyboardInterrupt

    with shared_workers(options) as client:
        first = {outcome.value for outcome in map_units(own_pid, range(8), options, client=client)}
        with pytest.raises(KeyboardInterrupt):
            map_units(own_pid, range(8), options, stop, client=client)
        second = {outcome.value for outcome in map_units(own_pid, range(8), options, client=client)}
        pids = client.run(os.getpid).values() if client else [os.getpid()]
    assert first | second <= set(pids)


def test_workers_end_when_the_listener_raises() -> None:
    workers: list[int] = []

    def stop(outcome: Outcome[int, int]) -> None:
        assert outcome.value is not None
        workers.append(outcome.value)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        map_units(own_pid, range(4), PROCESSES, stop)
    assert workers
    assert not any(psutil.pid_exists(worker) for worker in workers)


PROGRAM = """
import os, time
from spectramind.cubes.options import DaskOptions
from spectramind.cubes.parallel import map_units

def unit(number):
    os.write(1, f"{os.getpid()}\\n".encode())  # at once, so that two workers' lines stay apart
    time.sleep(60)

if __name__ == "__main__":
    map_units(unit, [1, 2], DaskOptions(workers=2))
"""


def test_no_worker_outlives_a_killed_program(tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    command = [sys.executable, str(script)]
    signals = (signal.SIGTERM, signal.SIGKILL)
    programs = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) for _ in signals
    ]
    workers = []
    for program, sign in zip(programs, signals, strict=True):
        with program:
            assert program.stdout is not None
            workers += [psutil.Process(int(program.stdout.readline())) for _ in range(2)]
            program.send_signal(sign)
            assert program.wait(timeout=30) == -sign
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]


def test_a_running_cluster_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ONE_THREAD.items():
        monkeypatch.setenv(name, str(value))
    with LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, protocol="tcp", dashboard_address=None
    ) as cluster:
        options = DaskOptions(address=cluster.scheduler_address)
        assert [outcome.value for outcome in map_units(invert, [1, 2, 4], options)] == [1.0, 0.5, 0.25]


def test_an_address_without_scheduler_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spectramind.cubes.parallel.CONNECT_TIMEOUT_S", 1.0)
    with pytest.raises(SettingsError, match=r"dask.address=tcp://127.0.0.1:9: no Dask scheduler answers"):
        map_units(invert, [1], DaskOptions(address="tcp://127.0.0.1:9"))


def test_a_malformed_address_is_named() -> None:
    with pytest.raises(SettingsError, match=r"dask.address=nonsense://x"):
        map_units(invert, [1], DaskOptions(address="nonsense://x"))
