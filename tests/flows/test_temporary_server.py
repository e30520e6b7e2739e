"""The server that a run starts for itself."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from spectramind.simulation.dataset import SimulatedDataset

ASK = """
import os, sys
from pathlib import Path
from flows.orchestration import configure
configure(Path(sys.argv[1]))
from prefect.client.orchestration import get_client
with get_client(sync_client=True) as client:
    print(client.hello().status_code, os.environ["PREFECT_API_URL"], flush=True)
sys.stdin.read()
"""
NAMED = """
import os, sys
from pathlib import Path
from flows.orchestration import configure
configure(Path(sys.argv[1]))
from prefect.settings import PREFECT_API_URL
print(PREFECT_API_URL.value(), "PREFECT_API_URL" in os.environ)
"""
PATIENCE_S = 120


def environment() -> dict[str, str]:
    """Without the server of other tests."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}


@pytest.mark.slow
def test_it_answers_who_asks_at_once_and_ends_with_its_process_even_if_that_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", ASK, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with psutil.Popen(command, env=environment(), text=True, **pipes) as process:
        status, address = process.stdout.readline().split()
        assert status == "200"
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/api", address)
        started = process.children(recursive=True)
        assert any("create_app" in " ".join(child.cmdline()) for child in started)
        process.kill()
    _, alive = psutil.wait_procs(started, timeout=PATIENCE_S)
    assert alive == []


def test_a_server_that_a_profile_names_is_used(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    profile = 'active = "ours"\n[profiles.ours]\nPREFECT_API_URL = "http://prefect.example:4200/api"\n'
    (tmp_path / "home" / "profiles.toml").write_text(profile)
    home = {"PREFECT_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-c", NAMED, str(tmp_path / "store")]
    done = subprocess.run(
        command, env=environment() | home, capture_output=True, text=True, timeout=PATIENCE_S, check=True
    )
    assert done.stdout == "http://prefect.example:4200/api False\n"


@pytest.mark.slow
def test_why_it_cannot_start_is_named(simulated: SimulatedDataset, tmp_path: Path) -> None:
    home = tmp_path / "store" / "prefect"
    home.mkdir(parents=True)
    (home / "prefect.db").write_text("no database at all, but text that is long enough to be read")
    places = (f"data.root={simulated.root}", f"outputs.store={tmp_path / 'store'}", f"outputs.dir={tmp_path / 'run'}")
    command = [sys.executable, "-m", "spectramind", "calibrate", *places, "data.max_planets=1"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 1
    assert re.fullmatch(
        rf"error: {home}: Prefect's server ended \(\S+DatabaseError.*file is not a database\); restore .+\n",
        done.stderr,
    ), done.stderr
