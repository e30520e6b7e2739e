"""Kill -9 a command at random moments, finish it, and compare everything with an undisturbed run.

    python benchmarks/kill_anywhere.py [DATA_ROOT] [--command run] [--kills N] [--seed N] [--warm] [KEY=VALUE ...]

Without DATA_ROOT a tiny data set is simulated. Every other kill hits the whole process group, the others the main
process alone. `--warm` shares one Prefect server and the imports among the runs, which then start within a second, so
that nearly every kill hits work. Ends with 1 if a unit of the store or a result differs or is damaged, if a unit that
was finished is made again, or if a process or a lock stays behind a kill.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import secrets
import signal
import sys
import tempfile
import time
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from filelock import FileLock, Timeout

from spectramind.provenance.digests import file_digest
from spectramind.provenance.units import MANIFEST, read_manifest, verify_unit
from spectramind.simulation.dataset import simulate_dataset
from spectramind.simulation.options import SimulationOptions

if TYPE_CHECKING:
    from collections.abc import Iterator

RESULTS = (
    "submission/submission.csv",
    "submission/submission_long.csv",
    "submission/submission.zip",
    "predictions/predictions.parquet",
    "calibration/data_quality.json",
)
UNITS = ("cubes", "fits", "models", "predictions")
MARK = "SPECTRAMIND_KILL_ANYWHERE"
"""Variable by which the processes that a run has started are recognised, whoever their parent is."""

GRACE_S = 10.0
"""How long processes may take to notice that the main process is gone, and locks to be free."""

WARM_IMPORTS = ["flows.end_to_end", "great_expectations", "zarr", "scipy.optimize", "matplotlib.figure"]
SERVER = multiprocessing.get_context("forkserver")


def execute(arguments: list[str], terminal: Path, mark: str) -> None:
    """`spectramind ARGUMENTS` in this process, as the leader of a process group of its own."""
    os.setsid()
    os.environ[MARK] = mark
    with terminal.open("wb") as stream:
        os.dup2(stream.fileno(), sys.stdout.fileno())
        os.dup2(stream.fileno(), sys.stderr.fileno())
    sys.argv = ["spectramind", *arguments]
    from spectramind.__main__ import main

    main()


@dataclass(frozen=True)
class Pipeline:
    """One command on one data set, run again and again on the store and the output directory below `folder`."""

    command: str
    root: Path
    folder: Path
    overrides: tuple[str, ...]

    @property
    def terminal(self) -> Path:
        return self.folder / "terminal.txt"

    def start(self, mark: str) -> BaseProcess:
        self.folder.mkdir(parents=True, exist_ok=True)
        places = (f"data.root={self.root}", f"outputs.store={self.folder}/store", f"outputs.dir={self.folder}/run")
        process = SERVER.Process(target=execute, args=([self.command, *places, *self.overrides], self.terminal, mark))
        process.start()
        return process

    def finish(self) -> None:
        """Run to the end. RuntimeError with the terminal's text if that fails."""
        process = self.start("calm")
        process.join()
        self.require_success(process)

    def require_success(self, process: BaseProcess) -> None:
        if process.exitcode != 0:
            raise RuntimeError(self.terminal.read_text(encoding="utf-8"))

    def units(self) -> dict[Path, int]:
        """Finished units, and when each was."""
        manifests = (path for kind in UNITS for path in (self.folder / "store" / kind).rglob(MANIFEST))
        visible = sorted(path for path in manifests if path.parent.suffix != ".partial")
        return {path.parent: path.stat().st_mtime_ns for path in visible}

    def begun(self) -> set[Path]:
        """Units that were not finished."""
        return {path for path in (self.folder / "store").rglob("*.partial") if path.is_dir()}  # Zarr's files are theirs

    def digests(self) -> dict[str, str]:
        """Of every unit of the store and every result of the run."""
        store, run = self.folder / "store", self.folder / "run"
        units = {f"store/{unit.relative_to(store)}": str(read_manifest(unit)["digest"]) for unit in self.units()}
        results = (name for name in RESULTS if (run / name).is_file())
        return {**units, **{f"run/{name}": file_digest(run / name) for name in results}}

    def problems(self) -> list[str]:
        """Damaged units, and folders of units that were never finished."""
        damaged = [f"{unit}: {problem}" for unit in self.units() for problem in verify_unit(unit)]
        return damaged + [f"{path}: left behind" for path in self.begun()]

    def locked(self) -> list[str]:
        """Locks that somebody holds on to; a killed process lets go when the disk has answered it."""
        return [path.name for path in self.folder.rglob("*.lock") if _held(path)]


def _held(path: Path) -> bool:
    try:
        with FileLock(path, timeout=GRACE_S):
            return False
    except Timeout:
        return True


def kill_once(pipeline: Pipeline, moment_s: float, whole_group: bool) -> str | None:
    """Kill a run after `moment_s`. What stayed behind, in words; None if the run had ended before."""
    mark = secrets.token_hex(8)
    process = pipeline.start(mark)
    process.join(moment_s)
    if process.exitcode is not None:
        pipeline.require_success(process)
        return None
    assert process.pid is not None
    if whole_group and os.getpgid(process.pid) == process.pid:
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.join()
    _, alive = psutil.wait_procs(marked(mark), timeout=GRACE_S)
    left = [" ".join(orphan.cmdline()[:5]) for orphan in alive] + pipeline.locked()
    for orphan in alive:
        orphan.kill()
    return "; ".join(left) or "nothing"


def marked(mark: str) -> list[psutil.Process]:
    """Processes whose environment carries the mark."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark:
                found.append(process)
        except psutil.Error:  # ended meanwhile, or of another user
            continue
    return found


def differences(expected: dict[str, str], found: dict[str, str]) -> list[str]:
    """Names whose digests differ or that only one side has."""
    return sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))


@dataclass
class Tally:
    """What the kills cost so far."""

    kills: int = 0
    most_redone: int = 0
    sound: bool = True


def kill_anywhere(calm: Pipeline, folder: Path, kills: int, seed: int) -> bool:
    """Whether all outputs equal those of the undisturbed run `calm` after `kills` kills, nothing that was finished was
    made again, and no process or lock stayed behind."""
    started = time.monotonic()
    calm.finish()
    duration = time.monotonic() - started
    expected = calm.digests()
    print(f"undisturbed {calm.command}: {duration:.1f} s, {len(calm.units())} units")
    print(f"{'kill':>4}  {'after':>7}  {'of':<12}  {'units then':>10}  {'under way':>9}  left behind")
    moment, tally, attempt = random.Random(seed), Tally(), 0
    while tally.kills < kills:  # what is stored lets a run end early: compare, and begin with an empty store
        attempt += 1
        pipeline = Pipeline(calm.command, calm.root, folder / f"killed{attempt}", calm.overrides)
        kill_until_finished(pipeline, moment, duration, kills, tally)
        tally.sound &= compared(expected, pipeline)
    print(f"{tally.kills} kills, {attempt} stores; redone after a kill: at most {tally.most_redone} units", flush=True)
    return tally.sound


def kill_until_finished(pipeline: Pipeline, moment: random.Random, duration: float, kills: int, tally: Tally) -> None:
    """Kill runs on one store until one ends before its moment, or there were enough."""
    finished: dict[Path, int] = {}
    begun: set[Path] = set()
    while tally.kills < kills:
        after_s, whole_group = moment.uniform(0.0, duration), tally.kills % 2 == 0
        left = kill_once(pipeline, after_s, whole_group)
        if left is None:
            break
        now, under_way = pipeline.units(), pipeline.begun() - begun
        tally.kills += 1
        tally.most_redone = max(tally.most_redone, len(under_way))
        tally.sound &= left == "nothing" and kept(finished, now)
        target = "group" if whole_group else "main process"
        row = f"{tally.kills:>4}  {after_s:>5.1f} s  {target:<12}  {len(now):>10}  {len(under_way):>9}  {left}"
        print(row, flush=True)
        finished, begun = now, pipeline.begun()
    else:
        pipeline.finish()
    tally.sound &= kept(finished, pipeline.units())


def kept(before: dict[Path, int], now: dict[Path, int]) -> bool:
    """Whether no finished unit was lost or made again; says so if not."""
    redone = [str(unit) for unit, finished in before.items() if now.get(unit) != finished]
    if redone:
        print(f"finished units made again: {', '.join(redone[:5])}", flush=True)
    return not redone


def compared(expected: dict[str, str], pipeline: Pipeline) -> bool:
    """Print how a finished run compares with the undisturbed one."""
    found = pipeline.digests()
    wrong = [*differences(expected, found), *pipeline.problems()]
    verdict = "all equal" if not wrong else f"{len(wrong)} wrong: {', '.join(wrong[:5])}"
    print(f"finished after the kills: {len(found)} digests, {verdict}", flush=True)
    return not wrong


@contextmanager
def warm(folder: Path) -> Iterator[None]:
    """Runs that begin inside use one Prefect server, and are forked from a process that has imported everything."""
    from flows.environment import prepare
    from flows.ui import free_port, prefect_server, running

    server = prefect_server(folder / "prefect", free_port(0))
    Path(server.environment["PREFECT_HOME"]).mkdir(parents=True)
    with running([server]):
        prepare()
        os.environ.update(server.environment)
        SERVER.set_forkserver_preload(WARM_IMPORTS)
        first = SERVER.Process(target=int)
        first.start()
        first.join()
        yield


def simulated(folder: Path) -> Path:
    """A tiny data set."""
    options = SimulationOptions(train_planets=10, test_planets=4, airs_frames=120, fgs1_frames=240)
    return simulate_dataset(folder / "data", options, seed=0, workers=2).root


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("root", nargs="?", type=Path, metavar="DATA_ROOT")
    parser.add_argument("--command", default="run", metavar="NAME")
    parser.add_argument("--kills", type=int, default=3, metavar="N")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--warm", action="store_true")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    arguments = parser.parse_intermixed_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        root = arguments.root or simulated(folder)
        with warm(folder) if arguments.warm else nullcontext():
            calm = Pipeline(arguments.command, root, folder / "calm", tuple(arguments.overrides))
            same = kill_anywhere(calm, folder, arguments.kills, arguments.seed)
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
