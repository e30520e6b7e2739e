"""Calibration on a cluster: scheduler and workers are the command lines of infra/kubernetes/dask.yaml."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from spectramind.cubes.options import DaskOptions
from spectramind.cubes.parallel import KEEP_MEMORY, ONE_THREAD, map_units
from spectramind.errors import SettingsError
from spectramind.provenance.digests import file_digest
from spectramind.provenance.units import MANIFEST, read_manifest
from spectramind.simulation.dataset import SimulatedDataset

MANIFESTS = Path(__file__).parents[2] / "infra" / "kubernetes" / "dask.yaml"
ADDRESS = "tcp://spectramind-scheduler:8786"
PATIENCE_S = 240.0


def container(deployment: str) -> dict[str, Any]:
    """The only container of a deployment."""
    documents = yaml.safe_load_all(MANIFESTS.read_text(encoding="utf-8"))
    found = next(d for d in documents if (d["kind"], d["metadata"]["name"]) == ("Deployment", deployment))
    (only,) = found["spec"]["template"]["spec"]["containers"]
    return dict(only)


def variables(deployment: str) -> dict[str, str]:
    return {item["name"]: item["value"] for item in container(deployment)["env"]}


@contextmanager
def pod(deployment: str, here: dict[str, str], log: Path) -> Iterator[psutil.Process]:
    """The container's command as a process of this machine, `here` in place of the names and ports of the cluster."""
    described = container(deployment)
    line = [*described["command"], *described["args"]]
    for name, value in here.items():
        line = [word.replace(name, value) for word in line]
    program = str(Path(sys.executable).with_name(line[0]))
    environment = {name: value for name, value in os.environ.items() if name not in ONE_THREAD}
    with log.open("wb") as output:
        process = psutil.Popen(
            [program, *line[1:], "--host=127.0.0.1"],
            env={**environment, **variables(deployment)},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process
    finally:
        for one in [*process.children(recursive=True), process]:
            one.kill()
        process.wait()


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def eventually(what: Callable[[], Any]) -> Any:
    """The first true value of `what()`."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if found := what():
            return found
        time.sleep(0.1)
    raise TimeoutError


def healthy(port: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@pytest.fixture
def scheduler(tmp_path: Path) -> Iterator[str]:
    """Address of a running scheduler without workers."""
    port, health = free_port(), free_port()
    with pod("spectramind-scheduler", {"8786": port, "8787": health}, tmp_path / "scheduler.log"):
        eventually(lambda: healthy(health))
        yield f"tcp://127.0.0.1:{port}"


def worker_process(nanny: psutil.Process) -> psutil.Process | None:
    """The process that does the work, a child of the one that watches it."""
    return next((child for child in nanny.children() if "spawn_main" in " ".join(child.cmdline())), None)


def calibration(simulated: SimulatedDataset, folder: Path, *arguments: str) -> subprocess.Popen[str]:
    places = (f"data.root={simulated.root}", f"outputs.store={folder}/store", f"outputs.dir={folder}/run")
    command = [sys.executable, "-m", "spectramind", "calibrate", *places, "tracking.enable=false", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finished(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, output
    return output


def units(folder: Path) -> dict[str, str]:
    """Digest of each cube and fit."""
    found = [path for kind in ("cubes", "fits") for path in (folder / "store" / kind).rglob(MANIFEST)]
    return {str(path.relative_to(folder)): read_manifest(path.parent)["digest"] for path in found}


@pytest.mark.slow
def test_a_killed_worker_is_replaced_and_the_results_are_those_of_a_local_run(
    simulated: SimulatedDataset, scheduler: str, tmp_path: Path
) -> None:
    local = calibration(simulated, tmp_path / "local", "dask.scheduler=synchronous")
    with ExitStack() as pods:
        healths = [free_port(), free_port()]
        nannies = [
            pods.enter_context(
                pod("spectramind-worker", {ADDRESS: scheduler, "8790": health}, tmp_path / f"worker{health}.log")
            )
            for health in healths
        ]
        for health in healths:
            eventually(lambda health=health: healthy(health))
        cluster = calibration(simulated, tmp_path / "cluster", f"dask.address={scheduler}")
        eventually(lambda: len(units(tmp_path / "cluster")) >= 3)
        victim = worker_process(nannies[0])
        assert victim is not None
        victim.send_signal(signal.SIGKILL)
        at_the_kill = len(units(tmp_path / "cluster"))
        output = finished(cluster)
        successor = eventually(lambda: worker_process(nannies[0]))
        assert successor.pid != victim.pid
    finished(local)
    expected = units(tmp_path / "local")
    assert at_the_kill < len(expected)
    assert units(tmp_path / "cluster") == expected
    quality = "run/calibration/data_quality.json"
    assert file_digest(tmp_path / "cluster" / quality) == file_digest(tmp_path / "local" / quality)
    assert "set aside" in output  # the planet whose frames are damaged, and no other
    assert output.count("set aside") == 1


def test_the_recipe_gives_workers_the_environment_of_local_ones() -> None:
    given = variables("spectramind-worker")
    assert {name: str(value) for name, value in {**ONE_THREAD, **KEEP_MEMORY}.items()}.items() <= given.items()
    assert variables("spectramind-scheduler")["DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES"] == str(
        DaskOptions().redo
    )


def test_a_scheduler_without_workers_is_named(scheduler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spectramind.cubes.parallel.CONNECT_TIMEOUT_S", 1.0)
    with pytest.raises(SettingsError, match=r"dask\.address=tcp://\S+: the scheduler has no workers\. Start some"):
        map_units(abs, [1], DaskOptions(address=scheduler))


WITHOUT_SPECTRAMIND = """
import sys
sys.modules["spectramind"] = None
from distributed.cli.dask_worker import main
main()
"""


def test_workers_that_would_give_other_results_are_refused(scheduler: str) -> None:
    programs = {
        r"(MKL|NUMBA)_NUM_THREADS (not set|3), expected 1; ": [sys.executable, "-m", "distributed.cli.dask_worker"],
        r"spectramind cannot be imported \(": [sys.executable, "-c", WITHOUT_SPECTRAMIND],
    }
    for message, program in programs.items():
        options = ("--no-nanny", "--nthreads=1", "--no-dashboard", "--dashboard-address=127.0.0.1:0")
        environment = {**os.environ, "NUMBA_NUM_THREADS": "3"}
        with subprocess.Popen([*program, scheduler, *options], env=environment, stderr=subprocess.DEVNULL) as worker:
            try:
                with pytest.raises(SettingsError, match=rf"^dask\.address: tcp://\S+: .*{message}"):
                    map_units(abs, [1], DaskOptions(address=scheduler))
            finally:
                worker.kill()
