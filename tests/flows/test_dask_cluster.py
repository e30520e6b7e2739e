"""Calibration on a cluster: scheduler and workers are the command lines of infra/kubernetes/dask.yaml."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from conftest import finished_units
from typer.testing import CliRunner

from flows.cli import app
from spectramind.cubes.options import DaskOptions
from spectramind.cubes.parallel import KEEP_MEMORY, ONE_THREAD, map_units
from spectramind.errors import SettingsError
from spectramind.provenance.digests import file_digest
from spectramind.provenance.units import read_manifest
from spectramind.simulation.dataset import SimulatedDataset

ROOT = Path(__file__).parents[2]
MANIFESTS = ROOT / "infra" / "kubernetes" / "dask.yaml"
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
            env={**environment, **variables(deployment), "PYTHONPATH": str(ROOT)},
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


def calibrate(simulated: SimulatedDataset, folder: Path, where: str) -> str:
    """What a calibration prints."""
    places = (f"data.root={simulated.root}", f"outputs.store={folder}/store", f"outputs.dir={folder}/run")
    done = CliRunner().invoke(app, ["calibrate", *places, "tracking.enable=false", where])
    assert done.exit_code == 0, done.output
    return done.output


def units(folder: Path) -> dict[str, str]:
    """Digest of each cube and fit."""
    found = finished_units(folder / "store")
    return {str(path.relative_to(folder)): read_manifest(path)["digest"] for path in found}


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_a_killed_worker_is_replaced_and_the_results_are_those_of_a_local_run(
    simulated: SimulatedDataset, scheduler: str, tmp_path: Path
) -> None:
    local, cluster = tmp_path / "local", tmp_path / "cluster"

    def kill_in_the_middle(nanny: psutil.Process) -> tuple[int, int]:
        """Process id of the worker, and how many units there were."""
        made = eventually(lambda: len(units(cluster)) if len(units(cluster)) >= 3 else None)
        victim = worker_process(nanny)
        assert victim is not None
        victim.kill()
        return victim.pid, made

    with ExitStack() as pods:
        healths = [free_port(), free_port()]
        workers = [{ADDRESS: scheduler, "8790": health} for health in healths]
        nannies = [
            pods.enter_context(pod("spectramind-worker", worker, tmp_path / f"worker{number}.log"))
            for number, worker in enumerate(workers)
        ]
        for health in healths:
            eventually(lambda health=health: healthy(health))
        with ThreadPoolExecutor(1) as pool:
            killing = pool.submit(kill_in_the_middle, nannies[0])
            output = calibrate(simulated, cluster, f"dask.address={scheduler}")
        killed, made = killing.result()
        assert eventually(lambda: worker_process(nannies[0])).pid != killed
    calibrate(simulated, local, "dask.workers=2")
    expected = units(local)
    assert made < len(expected)
    assert units(cluster) == expected
    quality = "run/calibration/data_quality.json"
    assert file_digest(cluster / quality) == file_digest(local / quality)
    assert output.count("set aside") == 1  # the planet whose frames are damaged, and no other


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
        "NUMBA_NUM_THREADS 3, expected 1": [sys.executable, "-m", "distributed.cli.dask_worker"],
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
