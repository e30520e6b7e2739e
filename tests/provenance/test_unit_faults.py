"""Units under kill -9, full and read-only disks, and several processes at once."""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from build_units import FILES, build, fill, identity

from spectramind.errors import StoreError
from spectramind.provenance.environment import environment_snapshot
from spectramind.provenance.units import build_unit, verify_unit

SCRIPT = Path(__file__).with_name("build_units.py")
NOBODY = 65534


def start(store: Path, n_units: int, *limits: int) -> subprocess.Popen[str]:
    command = [sys.executable, str(SCRIPT), str(store), str(n_units), *map(str, limits)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def finish(child: subprocess.Popen[str]) -> list[list[str]]:
    output, _ = child.communicate(timeout=60)
    assert child.returncode == 0
    return [line.split() for line in output.splitlines() if line != "ready"]


def finished_units(store: Path) -> list[Path]:
    return sorted(store.glob("unit*"))


def test_killed_at_twenty_instants_then_finished_gives_the_digests_of_an_undisturbed_run(tmp_path: Path) -> None:
    n_units = 40
    undisturbed = {line[1]: line[2] for line in finish(start(tmp_path / "calm", n_units))}
    killed_store = tmp_path / "killed"
    random_delay = random.Random(0)
    for _ in range(20):
        child = start(killed_store, n_units)
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(random_delay.uniform(0.0, 0.1))
        done_before = len(finished_units(killed_store))
        child.send_signal(signal.SIGKILL)
        child.communicate()
        units = finished_units(killed_store)
        assert len(units) >= done_before
        assert [verify_unit(unit, full=True) for unit in units] == [[]] * len(units)
    lines = finish(start(killed_store, n_units))
    assert {line[1]: line[2] for line in lines} == undisturbed
    assert not list(killed_store.glob(".*.partial"))
    assert {line[0] for line in finish(start(killed_store, n_units))} == {"found"}


def test_four_processes_compute_each_unit_once(tmp_path: Path) -> None:
    n_units = 15
    lines = [line for child in [start(tmp_path, n_units) for _ in range(4)] for line in finish(child)]
    assert len(lines) == 4 * n_units
    assert sorted(int(line[1]) for line in lines if line[0] == "computed") == list(range(n_units))
    assert len({line[2] for line in lines}) == n_units


@pytest.mark.parametrize("largest", [0, 1, 100, 1000, 5000, 12_500, 15_000, 17_500, 19_000, 19_999])
def test_no_room_for_the_files_leaves_nothing(tmp_path: Path, largest: int) -> None:
    store = tmp_path / "store"
    message = " ".join(finish(start(store, 1, largest))[0])
    room = r"unit0: cannot be written \(File too large, more than (\d+) bytes needed, \d+ bytes free.*\)\. Raise"
    found = re.search(room, message)
    assert message.startswith("StoreError")
    assert "digests.sqlite" in message if found is None else int(found[1]) <= largest
    assert not finished_units(store)
    assert not list(store.glob(".*.partial"))
    assert finish(start(store, 1))[0][0] == "computed"


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)]
    try:
        allowed = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except OSError:
        allowed = False
    if not allowed:
        pytest.skip("mounting needs more rights")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_full_disk_is_named_and_a_retry_after_freeing_space_works(tiny_disk: Path) -> None:
    ballast = tiny_disk / "ballast"
    ballast.write_bytes(bytes(180_000))
    room = r"unit1: cannot be written \(No space left on device, more than \d+ bytes needed, \d+ bytes free.*\). Free"
    with pytest.raises(StoreError, match=room):
        build_unit(tiny_disk / "unit1", identity(1), lambda folder: fill(1, folder))
    assert not finished_units(tiny_disk)
    ballast.unlink()
    assert build(tiny_disk, 1).computed


def test_read_only_folder_is_named() -> None:
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o555)
    environment_snapshot()
    try:
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:  # permissions do not bind root
            with contextlib.suppress(BaseException):
                if os.geteuid() == 0:
                    os.setgid(NOBODY)
                    os.setuid(NOBODY)
                try:
                    build_unit(folder / "unit1", identity(1), lambda partial: fill(1, partial))
                except StoreError as error:
                    os.write(writer, str(error).encode())
            os._exit(0)
        os.close(writer)
        os.waitpid(child, 0)
        with os.fdopen(reader) as pipe:
            message = pipe.read()
        assert "unit1: cannot be written (Permission denied). Make the folder writable" in message
        assert not list(folder.iterdir())
    finally:
        folder.chmod(0o755)
        shutil.rmtree(folder)


def test_a_dead_owners_lock_and_leftovers_do_not_matter(tmp_path: Path) -> None:
    (tmp_path / ".unit1.lock").write_text("process 999999 (start tick 1) on elsewhere (boot 0)")
    leftover = tmp_path / f".unit1.{'0' * 32}.partial"
    leftover.mkdir()
    (leftover / "chunk").write_bytes(b"half")
    of_another_unit = tmp_path / f".unit2.{'0' * 32}.partial"
    of_another_unit.mkdir()
    assert build(tmp_path, 1).computed
    assert not leftover.exists()
    assert of_another_unit.exists()


def test_waiting_for_a_living_builder_has_an_end_and_names_it(tmp_path: Path) -> None:
    def build_the_same_again(folder: Path) -> dict[str, int]:
        with pytest.raises(
            StoreError, match=f"still being built .* process {os.getpid()} .* on {socket.gethostname()}"
        ):
            build_unit(tmp_path / "unit1", identity(1), lambda inner: fill(1, inner), patience_s=0.2)
        return fill(1, folder)

    assert build_unit(tmp_path / "unit1", identity(1), build_the_same_again).details == {"files": FILES}
