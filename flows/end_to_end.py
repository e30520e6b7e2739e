"""Flow `spectramind-v50`: raw frames in, scored submission out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from prefect import flow

from flows.calibrate import calibrate
from flows.intervals import INTERVALS, coverage_line, interval_coverage
from flows.ledger import LEDGER_CSV, Gains, ledger_table, noise_table, write_ledgers, write_noise_ledger
from flows.passport import PASSPORT
from flows.predict import Prediction, predict_v50
from flows.published import markdown, run_directory, table
from flows.recording import record_score
from flows.run_directory import OUT_OF_FOLD, RunDirectory
from flows.spectra_files import read_predictions, read_truth
from flows.submit import SUBMISSION, TABLE, submit
from flows.train import Training, train_v50
from flows.workspace import Workspace, workspace
from settings.tree import Settings
from spectramind.errors import InputError
from spectramind.metrics.baselines import expected_score, mean_depth_baseline, train_mean_baseline
from spectramind.metrics.ledger import Ledger, score_ledger
from spectramind.metrics.score import reference_of, score_parts
from spectramind.metrics.statistics import spectra_statistics
from spectramind.types import Floats

Truth = tuple[tuple[str, ...], Floats]
"""Planets, and their true depths (planets, 283)."""


@dataclass(frozen=True)
class Result:
    """The submission, and its scores by name."""

    submission: Path
    scores: dict[str, float]


@flow(name="spectramind-v50")
def spectramind_v50(settings: Settings, run: RunDirectory | None = None) -> Result:
    """Calibrate, train, predict, submit; with `data.truth` also score; print what came out and where it is."""
    with workspace(settings, run, "run") as work:
        run_directory(work.run.path)
        work.run.discard(SUBMISSION)
        calibrate(work.settings, work.run)
        training = train_v50(work.settings, work.run)
        prediction = predict_v50(work.settings, work.run)
        submission = submit(work.settings, work.run)
        truth = _truth(work, prediction)
        scores = _scores(work, training, prediction, truth)
        work.run.add_metrics({"test": scores})
        covered = _coverage(work, prediction, truth)
        ledgers = _ledgers(work, training, prediction, truth)
        write_ledgers(work.run, ledgers)
        gains = _noise_ledger(work, prediction)
        if "official" in scores:
            record_score(work, training.mlflow_run, scores)
        _show(work, training, scores, covered, ledgers, gains)
        return Result(submission.path / TABLE, scores)


def _truth(work: Workspace, prediction: Prediction) -> Truth | None:
    """The predicted planets that `data.truth` lists, and their true depths (planets, 283); None without a truth."""
    if work.settings.data.truth is None:
        return None
    path = Path(work.settings.data.truth)
    planet_ids, depths = read_truth(path)
    row = {planet: index for index, planet in enumerate(planet_ids)}
    predicted = prediction.spectra.planet_ids
    known = tuple(planet for planet in predicted if planet in row)
    if not known:
        found = f"{len(planet_ids)} others, such as {planet_ids[0]}"
        raise InputError(path, "true spectra of planets of the test split", found, "Name its truth, or leave it out.")
    if len(known) < len(predicted):
        work.warn(f"{path} knows {len(known)} of {len(predicted)} test planets")
    return known, depths[[row[planet] for planet in known]]


def _scores(work: Workspace, training: Training, prediction: Prediction, truth: Truth | None) -> dict[str, float]:
    """Of the test split: what the sigmas expect; with its truth the official score, the z statistics and what naive
    predictions score."""
    labels = work.dataset.labels()[1]
    reference = reference_of(labels)
    spectra = prediction.spectra
    scores = {"expected": expected_score(spectra.sigma, spectra.mean, *reference)}
    if truth is None:
        return scores
    spectra, depths = spectra.of(truth[0]), truth[1]
    flat = mean_depth_baseline(*_held_out(work, training), spectra.mean[:, 1:].mean(axis=1))
    statistics = spectra_statistics(spectra.mean, spectra.sigma, depths)
    return {
        **scores,
        "official": score_parts(spectra.mean, spectra.sigma, depths, *reference).score,
        "mean_depth": score_parts(*flat, depths, *reference).score,
        "train_mean": score_parts(*train_mean_baseline(labels, len(depths)), depths, *reference).score,
        "z_std": float(statistics["all"]["z_std"]),
        "rmse_ppm": float(statistics["all"]["rmse_ppm"]),
    }


def _coverage(work: Workspace, prediction: Prediction, truth: Truth | None) -> dict[str, dict[str, float]]:
    """Of the test intervals, added to their metrics; nothing without the truth."""
    if truth is None:
        return {}
    covered = interval_coverage(prediction.path / INTERVALS, *truth)
    work.run.add_metrics({"intervals": {**work.run.metrics()["intervals"], "test_coverage": covered}})
    return covered


def _ledgers(work: Workspace, training: Training, prediction: Prediction, truth: Truth | None) -> dict[str, Ledger]:
    """Of held-out train planets, and of the test split where its truth is known."""
    held_out = read_predictions(training.path / OUT_OF_FOLD)
    labels = work.labels(held_out.planet_ids)
    scored = {"out_of_fold": (held_out, labels, reference_of(labels))}
    if truth is not None:
        scored["test"] = (prediction.spectra.of(truth[0]), truth[1], reference_of(work.dataset.labels()[1]))
    return {
        name: score_ledger(spectra.planet_ids, spectra.mean, spectra.sigma, depths, *reference)
        for name, (spectra, depths, reference) in scored.items()
    }


def _noise_ledger(work: Workspace, prediction: Prediction) -> Gains:
    """What each term of the noise passports costs; nothing where no planet has one."""
    import pandas as pd

    path = prediction.path / PASSPORT
    passport = pd.read_parquet(path) if path.exists() else pd.DataFrame()
    if passport.empty:
        return {}
    return write_noise_ledger(work.run, passport, prediction.spectra, reference_of(work.dataset.labels()[1]))


def _held_out(work: Workspace, training: Training) -> tuple[Floats, Floats]:
    """Mean depths (planets,) of train planets from held-out predictions, and their labels (planets, 283)."""
    import pandas as pd

    frame = pd.read_parquet(training.path / OUT_OF_FOLD)
    mean = frame[[f"wl_{number}" for number in range(2, 284)]].to_numpy(float)
    return np.asarray(mean.mean(axis=1)), work.labels(tuple(frame["planet_id"].astype(str)))


def _show(
    work: Workspace,
    training: Training,
    scores: dict[str, float],
    covered: dict[str, dict[str, float]],
    ledgers: dict[str, Ledger],
    gains: Gains,
) -> None:
    """Scores and places, on the terminal and in Prefect's UI."""
    from rich import box
    from rich.table import Table

    rows = [
        {
            "prediction": name,
            "test": _number(scores.get(test)),
            "held-out train planets": _number(training.metrics.get(oof)),
        }
        for name, test, oof in (
            ("official score of this run", "official", "score"),
            ("expected from its own sigmas", "expected", "expected_score"),
            ("mean depth, one constant sigma", "mean_depth", "mean_depth_score"),
            ("mean and spread of the train labels", "train_mean", "train_mean_score"),
        )
    ]
    shown = Table(box=box.SIMPLE, show_edge=False, title="Score (0 to 1, higher is better)", title_justify="left")
    for heading in rows[0]:
        shown.add_column(heading, justify="left" if heading == "prediction" else "right")
    for row in rows:
        shown.add_row(*row.values())
    places = _places(work)
    work.console.print(shown)
    if "z_std" in scores:
        honest = "(1 is honest; the errors of a planet go together, so few planets say little)"
        work.console.print(f"errors / sigma: standard deviation {scores['z_std']:.3f} {honest}", soft_wrap=True)
    if covered:
        work.console.print(coverage_line(covered), soft_wrap=True, highlight=False)
    work.console.print(ledger_table(ledgers))
    if gains:
        work.console.print(noise_table(gains))
    for name, place in places.items():
        work.console.print(f"[bold]{name:<14}[/]{place}", soft_wrap=True, highlight=False)
    table("scores", "Score (0 to 1, higher is better)", rows)
    listed = ["| what | where |", "|---|---|", *(f"| {n} | `{p}` |" for n, p in places.items())]
    markdown("results", "Where the results are", "\n".join(listed))


def _places(work: Workspace) -> dict[str, Any]:
    path = work.run.path
    return {
        "submission": path / "submission" / TABLE,
        "data quality": path / "calibration" / "data_quality.html",
        "score ledger": path / "diagnostics" / LEDGER_CSV,
        "predictions": path / "predictions",
        "checkpoint": path / "checkpoints" / "best.ckpt",
        "cubes": work.layout.cubes,
        "runs": f"spectramind ui outputs.store={work.layout.root}  (or: make ui)",
    }


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
