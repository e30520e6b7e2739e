"""Prefect's temporary server, which a run without a server of the user's starts for itself.

Prefect would start one too, but when its first flow begins, and would leave it running after `kill -9`. Here it
starts at once, beside the imports of the flows, and ends with the process that started it. It is handed a socket that
listens already: whoever connects before the server is up waits for its answer, and nobody else can take the port.
"""

from __future__ import annotations

import atexit
import os
import re
import socket
import subprocess
import sys
import tempfile
from typing import IO

HOST = "127.0.0.1"

_SERVE = """
import socket, sys, uvicorn
from prefect.server.api.server import create_app
config = uvicorn.Config(create_app(ephemeral=True, final=True), log_level="error", lifespan="on")
uvicorn.Server(config).run(sockets=[socket.socket(fileno=int(sys.argv[1]))])
"""

_WATCH = """
import os, signal, sys
sys.stdin.read()  # ends when the process that holds the other end does
os.kill(int(sys.argv[1]), signal.SIGTERM)
"""

STOP_LIMIT_S = 5.0

_started: list[tuple[subprocess.Popen[bytes], IO[bytes]]] = []
"""Servers of this process, and what they say of errors."""


def start_server() -> str:
    """The address (PREFECT_API_URL) of a server that is about to answer, on the PREFECT_HOME of this environment."""
    told = tempfile.TemporaryFile()  # noqa: SIM115, the server writes to it for as long as this process lives
    with socket.create_server((HOST, 0)) as listening:
        port, descriptor = listening.getsockname()[1], listening.fileno()
        server = subprocess.Popen(
            [sys.executable, "-P", "-c", _SERVE, str(descriptor)],
            pass_fds=[descriptor],
            env={**os.environ, "PREFECT_SERVER_UI_ENABLED": "false"},
            stdin=subprocess.DEVNULL,
            stderr=told,
        )
    _started.append((server, told))
    atexit.register(_stop, server)
    stop_with_this_process(server.pid)
    return f"http://{HOST}:{port}/api"


def failure() -> str | None:
    """Why a server of this process has ended, in its own words; None if none has."""
    for server, told in _started:
        if server.poll() is not None:
            told.seek(0)
            lines = told.read().decode(errors="replace").splitlines()
            errors = [line for line in lines if re.match(r"[\w.]+(Error|Exception)\b", line)]
            return (errors or lines or [f"exit code {server.returncode}"])[-1]
    return None


def stop_with_this_process(pid: int) -> None:
    """Have the process `pid` terminated when this one is gone, even if it is killed.

    The watcher has a session of its own, so that signals to this one's process group do not reach it.
    """
    watcher = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _WATCH, str(pid)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    # On a regular exit `pid` has ended before; its number may then belong to another process.
    atexit.register(_end, watcher)


def _stop(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    try:
        server.wait(STOP_LIMIT_S)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def _end(watcher: subprocess.Popen[bytes]) -> None:
    watcher.kill()
    watcher.wait()
