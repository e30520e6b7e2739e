"""Kill -9 `spectramind run` at random moments, finish it, and compare everything with an undisturbed run.

    python benchmarks/kill_anywhere.py [DATA_ROOT] [--kills N] [--seed N] [KEY=VALUE ...]

Without arguments a tiny data set is simulated. Every other kill hits the whole process group, the others the main
process alone. Ends with 1 if a unit of the store or a result differs, is damaged, or a process stays behind.
"""

from __future__ import annotations

import argparse
import os
import random
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from spectramind.provenance.digests import file_digest
from spectramind.provenance.units import MANIFEST, read_manifest, verify_unit
from spectramind.simulation.dataset import simulate_dataset
from spectramind.simulation.options import SimulationOptions

RESULTS = (
    "submission/submission.csv",
    "submission/submission_long.csv",
    "submission/submission.zip",
    "predictions/predictions.parquet",
    "calibration/data_quality.json",
)
UNITS = ("cubes", "fits", "models", "predictions")
MARK = "SPECTRAMIND_KILL_ANYWHERE"
"""Variable by which the processes of a run are recognised, whoever their parent is."""

GRACE_S = 20.0
"""How long processes may take to notice that the main process is gone."""


@dataclass(frozen=True)
class Pipeline:
    """One data set and settings, run again and again on the store and the output directory below `folder`."""

    root: Path
    folder: Path
    overrides: tuple[str, ...]

    def start(self, mark: str) -> subprocess.Popen[bytes]:
        self.folder.mkdir(parents=True, exist_ok=True)
        places = (f"data.root={self.root}", f"outputs.store={self.folder}/store", f"outputs.dir={self.folder}/run")
        with (self.folder / "terminal.txt").open("wb") as terminal:
            return subprocess.Popen(
                [sys.executable, "-m", "spectramind", "run", *places, *self.overrides],
                stdout=terminal,
                stderr=terminal,
                env={**os.environ, MARK: mark},
                start_new_session=True,
            )

    def finish(self) -> None:
        """Run to the end. RuntimeError with the terminal's text if that fails."""
        if self.start("calm").wait() != 0:
            raise RuntimeError((self.folder / "terminal.txt").read_text(encoding="utf-8"))

    def units(self) -> list[Path]:
        return sorted(path.parent for kind in UNITS for path in (self.folder / "store" / kind).rglob(MANIFEST))

    def digests(self) -> dict[str, str]:
        """Of every unit of the store and every result of the run."""
        store, run = self.folder / "store", self.folder / "run"
        units = {f"store/{unit.relative_to(store)}": str(read_manifest(unit)["digest"]) for unit in self.units()}
        return {**units, **{f"run/{name}": file_digest(run / name) for name in RESULTS}}

    def problems(self) -> list[str]:
        """Damaged units, and folders of units that were never finished."""
        damaged = [f"{unit}: {problem}" for unit in self.units() for problem in verify_unit(unit)]
        return damaged + [f"{path}: left behind" for path in (self.folder / "store").rglob("*.partial")]


def kill_once(pipeline: Pipeline, moment_s: float, whole_group: bool) -> str | None:
    """Kill a run after `moment_s`. What stayed behind, in words; None if the run had ended before."""
    mark = secrets.token_hex(8)
    process = pipeline.start(mark)
    try:
        process.wait(moment_s)
    except subprocess.TimeoutExpired:
        if whole_group:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        process.wait()
    else:
        if process.returncode != 0:
            raise RuntimeError((pipeline.folder / "terminal.txt").read_text(encoding="utf-8"))
        return None
    _, alive = psutil.wait_procs(marked(mark), timeout=GRACE_S)
    orphans = [" ".join(orphan.cmdline()[:5]) for orphan in alive]
    for orphan in alive:
        orphan.kill()
    return "; ".join(orphans) or "nothing"


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


def kill_anywhere(root: Path, folder: Path, kills: int, seed: int, overrides: tuple[str, ...]) -> bool:
    """Whether all outputs equal those of an undisturbed run after `kills` kills, and no process stayed behind."""
    calm = Pipeline(root, folder / "calm", overrides)
    started = time.monotonic()
    calm.finish()
    duration = time.monotonic() - started
    expected = calm.digests()
    print(f"undisturbed run: {duration:.0f} s, {len(calm.units())} units")
    print(f"{'kill':>4}  {'after':>7}  {'of':<12}  {'units then':>10}  left alive")
    moment, sound, number, attempt = random.Random(seed), True, 0, 0
    pipeline = Pipeline(root, folder / f"killed{attempt}", overrides)
    while number < kills:
        after_s, whole_group = moment.uniform(0.0, duration), number % 2 == 0
        left = kill_once(pipeline, after_s, whole_group)
        if left is None:  # what was cached let it end early: compare, and begin with an empty store
            sound &= compared(expected, pipeline)
            attempt += 1
            pipeline = Pipeline(root, folder / f"killed{attempt}", overrides)
            continue
        number += 1
        sound &= left == "nothing"
        target = "group" if whole_group else "main process"
        print(f"{number:>4}  {after_s:>5.1f} s  {target:<12}  {len(pipeline.units()):>10}  {left}", flush=True)
    pipeline.finish()
    return compared(expected, pipeline) and sound


def compared(expected: dict[str, str], pipeline: Pipeline) -> bool:
    """Print how a finished run compares with the undisturbed one."""
    found = pipeline.digests()
    wrong = [*differences(expected, found), *pipeline.problems()]
    verdict = "all equal" if not wrong else f"{len(wrong)} wrong: {', '.join(wrong[:5])}"
    print(f"finished after the kills: {len(found)} digests, {verdict}", flush=True)
    return not wrong


def simulated(folder: Path) -> Path:
    """A tiny data set."""
    options = SimulationOptions(train_planets=10, test_planets=4, airs_frames=120, fgs1_frames=240)
    return simulate_dataset(folder / "data", options, seed=0, workers=2).root


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("root", nargs="?", type=Path, metavar="DATA_ROOT")
    parser.add_argument("--kills", type=int, default=3, metavar="N")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    arguments = parser.parse_intermixed_args()
    with tempfile.TemporaryDirectory() as folder:
        root = arguments.root or simulated(Path(folder))
        same = kill_anywhere(root, Path(folder), arguments.kills, arguments.seed, tuple(arguments.overrides))
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
