"""The user interfaces, as real processes."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import psutil
import pytest

from flows.ui import HOST, free_port


def test_a_busy_port_is_left_alone() -> None:
    with socket.socket() as busy:
        busy.bind((HOST, 0))
        busy.listen()
        taken = busy.getsockname()[1]
        assert free_port(taken) != taken


@pytest.mark.slow
def test_all_start_answer_and_stop_without_orphans(tmp_path: Path) -> None:
    program = """
import sys
from settings.resolve import resolve
from flows.ui import serve
serve(resolve([f"outputs.store={sys.argv[1]}/new"], None, {}))
"""
    serving = subprocess.Popen(
        [sys.executable, "-u", "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert serving.stdout is not None
    lines = []
    try:
        for line in serving.stdout:
            lines.append(line)
            if "Ctrl-C" in line:
                break
        links = re.findall(r"^  \w+ +(http://127\.0\.0\.1:\d+\S*)", "".join(lines), re.MULTILINE)
        assert len(links) == 3, lines
        for link in links:
            asked = urllib.request.Request(link, headers={"Accept": "text/html"})  # as a browser does
            with urllib.request.urlopen(asked, timeout=20) as answer:
                assert answer.status == 200
        children = psutil.Process(serving.pid).children(recursive=True)
        assert len(children) >= 3
    finally:
        serving.send_signal(signal.SIGINT)
        assert serving.wait(timeout=60) == 0
    _gone, alive = psutil.wait_procs(children, timeout=10)
    assert alive == []
