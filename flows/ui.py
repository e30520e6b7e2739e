"""The user interfaces on this machine: Prefect's for the runs, MLflow's for the experiments; and a worker."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from flows.orchestration import TELEMETRY_OFF, make_home, prefect_environment
from flows.store_layout import StoreLayout
from flows.temporary_server import HOST
from settings.resolve import ENVIRONMENT_PREFIX
from spectramind.errors import SpectraMindError

if TYPE_CHECKING:
    from settings.tree import Settings

PREFECT_PORT, MLFLOW_PORT, WORKER_PORT = 4200, 5000, 8080
POOL = "cpu"
START_LIMIT_S, STOP_LIMIT_S = 120.0, 15.0


@dataclass(frozen=True)
class Server:
    """A process that answers by HTTP: `command`, more `environment`, its address, the address that tells its health."""

    name: str
    command: tuple[str, ...]
    environment: dict[str, str]
    url: str
    health_url: str


def serve(settings: Settings) -> None:
    """Start servers on the store's databases and a worker, print links, wait for Ctrl-C or SIGTERM, stop all."""
    from rich.console import Console

    console = Console()
    store = settings.outputs.local
    make_home(store)
    prefect, mlflow = prefect_server(store, free_port(PREFECT_PORT)), mlflow_server(store, free_port(MLFLOW_PORT))
    worker = pool_worker(store, prefect.url, free_port(WORKER_PORT))
    console.print(f"Starting the user interfaces on the runs in {store} …")
    try:
        with terminated_as_interrupt(), running((prefect, mlflow)), running((worker,)):
            runs = {
                "Prefect": prefect.url,
                "MLflow": experiment_url(mlflow.url, settings.tracking.experiment),
                "Worker": worker.url,
            }
            for name, url in runs.items():
                console.print(f"  {name:<8}[link={url}]{url}[/link]", soft_wrap=True, highlight=False)
            console.print(
                f"Deployments: PREFECT_API_URL={prefect.url}/api make deploy", soft_wrap=True, highlight=False
            )
            console.print("Press Ctrl-C to stop all.")
            signal.pause()
    except KeyboardInterrupt:
        console.print("All are stopped.")


def prefect_server(store: Path, port: int) -> Server:
    """Prefect's server and UI on the store's PREFECT_HOME."""
    url = f"http://{HOST}:{port}"
    command = (sys.executable, "-m", "prefect", "server", "start", "--host", HOST, "--port", str(port))
    environment = {**prefect_environment(store), "PREFECT_UI_API_URL": f"{url}/api", "PREFECT_API_URL": f"{url}/api"}
    return Server("Prefect", command, environment, url, f"{url}/api/health")


def mlflow_server(store: Path, port: int) -> Server:
    """MLflow's server and UI on the store's SQLite database."""
    layout = StoreLayout(store)
    url = f"http://{HOST}:{port}"
    command = (
        *(sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1"),
        *("--backend-store-uri", layout.mlflow_uri, "--artifacts-destination", str(layout.mlflow_artifacts.resolve())),
    )
    environment = {
        **TELEMETRY_OFF,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    }
    return Server("MLflow", command, environment, url, f"{url}/health")


def pool_worker(store: Path, prefect: str, port: int) -> Server:
    """A worker of the pool `cpu`, whose runs use the same store; its address is the pool's page."""
    command = (sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL, "--type", "process")
    environment = {
        **prefect_environment(store),
        "PREFECT_API_URL": f"{prefect}/api",
        "PREFECT_WORKER_WEBSERVER_HOST": HOST,
        "PREFECT_WORKER_WEBSERVER_PORT": str(port),
        f"{ENVIRONMENT_PREFIX}OUTPUTS__STORE": str(store.resolve()),
    }
    url = f"{prefect}/work-pools/work-pool/{POOL}"
    return Server("Worker", (*command, "--with-healthcheck"), environment, url, f"http://{HOST}:{port}/health")


def experiment_url(server: str, experiment: str) -> str:
    """Where MLflow's UI lists the training runs of `experiment`, or all experiments while there is no such one.

    Without `workflowType` MLflow opens its pages for language models.
    """
    query = urllib.parse.urlencode({"experiment_name": experiment})
    try:
        with urllib.request.urlopen(f"{server}/api/2.0/mlflow/experiments/get-by-name?{query}", timeout=20) as answer:
            page = f"experiments/{json.load(answer)['experiment']['experiment_id']}"
    except urllib.error.HTTPError:
        page = "experiments"
    return f"{server}/#/{page}?workflowType=machine_learning"


def free_port(preferred: int) -> int:
    """`preferred` if nothing listens there, else any free port."""
    for port in (preferred, 0):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise SpectraMindError(f"no free port on {HOST}")


@contextmanager
def running(servers: Sequence[Server]) -> Iterator[None]:
    """Start `servers`, each in a process group of its own, wait until all answer; stop the groups on the way out."""
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for server in servers:
            processes.append(_start(server))  # noqa: PERF401, those started before a failure must be stopped
        for server, process in zip(servers, processes, strict=True):
            _wait_until_healthy(server, process)
        yield
    finally:
        _stop(processes)


def _start(server: Server) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        server.command,
        env={**os.environ, **server.environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


@contextmanager
def terminated_as_interrupt() -> Iterator[None]:
    """Let SIGTERM end the block like Ctrl-C, so that clean-up runs; SIGINT too where the shell had it ignored."""

    def interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    previous = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _wait_until_healthy(server: Server, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SpectraMindError(
                f"{server.name} did not start (exit code {process.returncode}); try: {' '.join(server.command)}"
            )
        try:
            with urllib.request.urlopen(server.health_url, timeout=2):
                return
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            time.sleep(0.25)
    raise SpectraMindError(f"{server.name} did not answer at {server.health_url} within {START_LIMIT_S:.0f} s")


def _stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    _signal_groups(processes, signal.SIGTERM)
    deadline = time.monotonic() + STOP_LIMIT_S
    for process in processes:
        try:
            process.wait(timeout=max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            continue
    _signal_groups(processes, signal.SIGKILL)
    for process in processes:
        process.wait()


def _signal_groups(processes: Sequence[subprocess.Popen[bytes]], number: signal.Signals) -> None:
    """Signal each server's whole group, whose leader may be gone while its workers are not."""
    for process in processes:
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            continue
