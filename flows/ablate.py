"""Flow `ablate`: the runs of a sweep, what they share made once, and the leaderboard.

The sweep's directory holds `sweep.json`, written first, the run directories `runs/<name>/`, the calibrations that runs
share in `shared/`, and the leaderboard. A run is done when its manifest verifies, so the same command with the same
`outputs.dir` goes on where it was interrupted.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace

from prefect import flow

from flows.calibrate import calibrate
from flows.leaderboard_files import headline, print_leaderboard, write_leaderboard
from flows.published import link, markdown, run_directory, table
from flows.recording import register_best
from flows.run_directory import CHECKPOINT, RESOLVED, RunDirectory, verify_run, write_atomically
from flows.sweep import PlannedRun, Sweep, read_results
from flows.temporary_server import stop_with_this_process
from flows.train import Training, train_v50
from flows.workspace import workspace
from settings.resolve import ENVIRONMENT_PREFIX, PLAIN_ENVIRONMENT
from settings.tree import Settings
from spectramind.ablation.archive import pack_runs
from spectramind.ablation.leaderboard import Leaderboard, leaderboard
from spectramind.ablation.points import propose_point
from spectramind.errors import BudgetReached, SettingsError, SpectraMindError, StoreError
from spectramind.provenance.digests import digest_json

POLL_S = 0.2
OUTPUT = "output.log"
"""What a run printed that was a process of its own."""

Failures = dict[str, str]
"""Run to why it failed."""


@flow(name="ablate")
def ablate(settings: Settings, run: RunDirectory | None = None) -> Leaderboard:
    """Run what is not done yet of the sweep in `settings.ablation`; write the leaderboard and the archive of the best.

    A run that fails does not keep the others from running, and stands beside the leaderboard with its reason. Raises
    SpectraMindError at the end if one did.
    """
    with ExitStack() as resources:
        sweep = Sweep.planned(settings)
        run = run or resources.enter_context(RunDirectory.create(settings, "ablate"))
        sweep.write(run)
        run_directory(run.path)
        print(f"sweep     {sweep}", flush=True)
        failures: Failures = {}
        _run_all(sweep, sweep.runs(run.path), run, failures)
        while settings.ablation.strategy == "smart" and _propose(sweep, run):
            _run_all(sweep, sweep.runs(run.path), run, failures)
        return _finish(sweep, run, failures)


def _propose(sweep: Sweep, run: RunDirectory) -> bool:
    """Add the next points to the list, as many as run at a time; whether there were any."""
    known = _ranked(sweep, run)
    metric = sweep.settings.ablation.metric
    losses = (
        {row.name: -row.score if metric == "score" else getattr(row, metric) for row in known.rows} if known else {}
    )
    history = {point: losses.get(f"{number:03d}") for number, point in enumerate(sweep.points)}
    before = len(history)
    while len(history) < min(sweep.most_points, before + sweep.settings.ablation.parallel_runs):
        point = propose_point(sweep.axes, history, sweep.settings.runtime.seed)
        if point is None:
            break
        history[point] = None
    sweep.points = list(history)
    sweep.write(run)
    return len(history) > before


def _run_all(sweep: Sweep, runs: Sequence[PlannedRun], run: RunDirectory, failures: Failures) -> None:
    waiting = [planned for planned in runs if planned.name not in failures and not planned.is_done]
    _make_shared(waiting, run, failures)
    waiting = [planned for planned in waiting if planned.name not in failures]
    if sweep.settings.ablation.parallel_runs > 1:
        failures.update(_run_processes(waiting, sweep.settings.ablation.parallel_runs))
        return
    for number, planned in enumerate(waiting, start=1):
        print(f"run {number} of {len(waiting)}: {planned.name} {' '.join(planned.arguments)}", flush=True)
        with (
            _noted(failures, planned),
            RunDirectory.create(planned.settings, "train", planned.arguments) as opened,
        ):
            train_v50.with_options(flow_run_name=f"train-v50 {planned.name}")(planned.settings, opened)


@contextmanager
def _noted(failures: Failures, planned: PlannedRun) -> Iterator[None]:
    """Note why a run failed, unless the others would fail for the same reason."""
    try:
        yield
    except (SettingsError, StoreError, BudgetReached):
        raise
    except Exception as error:
        failures[planned.name] = f"{type(error).__name__}: {error}"


def _make_shared(runs: Sequence[PlannedRun], run: RunDirectory, failures: Failures) -> None:
    """Cubes and fits that the runs have in common: made once, so that a run's own time is that of its training."""
    for planned in runs:
        settings = planned.settings
        parts = {name: settings.to_dict()[name] for name in ("data", "calibration", "transit", "cubes")}
        path = run.path.absolute() / "shared" / digest_json(parts)[:8]
        if not verify_run(path):
            continue
        calibration = replace(settings.calibration, stage="features")
        outputs = replace(settings.outputs, dir=path)
        shared = settings.model_copy(update={"calibration": calibration, "outputs": outputs})
        with _noted(failures, planned), RunDirectory.create(shared, "calibrate", planned.arguments) as opened:
            calibrate(shared, opened)


def _run_processes(runs: Sequence[PlannedRun], at_a_time: int) -> Failures:
    """Each run as a process of the command `train`, which ends when this process does."""
    waiting, running, failures = deque(runs), dict[str, subprocess.Popen[bytes]](), Failures()
    try:
        while waiting or running:
            while waiting and len(running) < at_a_time:
                planned = waiting.popleft()
                print(f"run {planned.name} {' '.join(planned.arguments)}", flush=True)
                running[planned.name] = _start(planned)
            time.sleep(POLL_S)
            for name in [name for name, process in running.items() if process.poll() is not None]:
                code = running.pop(name).returncode
                if code == BudgetReached.exit_code:
                    raise BudgetReached(f"time budget of run {name} reached; the same command goes on from here")
                if code:
                    failures[name] = _last_line(runs, name, code)
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.wait()
    return failures


def _start(planned: PlannedRun) -> subprocess.Popen[bytes]:
    config = planned.path / RESOLVED
    write_atomically(config, planned.settings.to_yaml())
    # The file has every setting, except that addresses in it have lost their passwords.
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.upper().startswith(ENVIRONMENT_PREFIX) and name not in PLAIN_ENVIRONMENT
    }
    uri = planned.settings.tracking.uri
    environment = {**inherited, **({f"{ENVIRONMENT_PREFIX}TRACKING__URI": uri} if uri else {})}
    with (planned.path / OUTPUT).open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "spectramind", "train", "--config", str(config)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
        )
    stop_with_this_process(process.pid)
    return process


def _last_line(runs: Sequence[PlannedRun], name: str, code: int) -> str:
    path = next(planned.path for planned in runs if planned.name == name)
    lines = (path / OUTPUT).read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), f"exit code {code}")


def _ranked(sweep: Sweep, run: RunDirectory) -> Leaderboard | None:
    results = read_results(sweep.runs(run.path))
    if not results.candidates:
        return None
    return leaderboard(results.candidates, results.truth, sweep.settings.ablation.metric)


def _finish(sweep: Sweep, run: RunDirectory, failures: Failures) -> Leaderboard:
    ranked = _ranked(sweep, run)
    runs = sweep.runs(run.path)
    if ranked is None:
        name, reason = next(iter(failures.items()))
        raise SpectraMindError(f"all runs of the sweep failed, {name} for one: {reason}")
    choices = {row.name: sweep.choices(row.name) for row in ranked.rows}
    write_leaderboard(run, ranked, choices, sweep.settings.ablation.metric, failures)
    best = {row.name for row in ranked.rows[: sweep.settings.ablation.top_n]}
    pack_runs(run.path / "top.zip", {planned.name: planned.path for planned in runs if planned.configuration in best})
    rows = [{**choices[row.name], **asdict(row)} for row in ranked.rows]
    run.add_metrics({"winner": ranked.winner, "leaderboard": rows, "failed": failures})
    print_leaderboard(ranked, choices)
    table("leaderboard", headline(ranked), rows)
    markdown("verdict", "Who wins", headline(ranked))
    link("leaderboard-page", run.path / "leaderboard.html", "leaderboard")
    if sweep.settings.ablation.register_best and sweep.settings.tracking.enable:
        _register_first(next(planned for planned in runs if planned.configuration == ranked.rows[0].name), run)
    if failures:
        told = "; ".join(f"{name}: {reason}" for name, reason in failures.items())
        raise SpectraMindError(
            f"{len(failures)} of {len(runs)} runs failed ({told}); the same command tries them again"
        )
    return ranked


def _register_first(planned: PlannedRun, run: RunDirectory) -> None:
    """Register the model of a run of the sweep; `run` gets the decision whether it is the champion."""
    with workspace(planned.settings, run, "ablate") as work:
        register_best(work, Training.read(planned.path / CHECKPOINT))
