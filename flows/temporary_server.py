"""Prefect's temporary server, which each run starts for itself, ends with the run even if the run is killed."""

from __future__ import annotations

import atexit
import subprocess
import sys
from functools import cache

_WATCH = """
import os, signal, sys
sys.stdin.read()  # ends when the process that holds the other end does
os.kill(int(sys.argv[1]), signal.SIGTERM)
"""


@cache
def tether() -> None:
    """From now on, a temporary server that Prefect starts is stopped when this process is gone.

    Prefect itself stops it on a regular exit only; after `kill -9` it would keep its memory and its port for good.
    """
    from prefect.server.api.server import SubprocessASGIServer

    start = SubprocessASGIServer._run_uvicorn_command

    def start_watched(self: SubprocessASGIServer) -> subprocess.Popen[bytes]:
        server = start(self)
        stop_with_this_process(server.pid)
        return server

    SubprocessASGIServer._run_uvicorn_command = start_watched  # type: ignore[method-assign]


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
    # On a regular exit Prefect has stopped the server; its process number may then belong to another process.
    atexit.register(_end, watcher)


def _end(watcher: subprocess.Popen[bytes]) -> None:
    watcher.kill()
    watcher.wait()
