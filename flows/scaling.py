"""The sigma scaling by itself, without training: of a finished run, or of a file of out-of-fold predictions."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console

from flows.covariance_file import COVARIANCE, read_covariance, write_covariance
from flows.flags import by_fallback, read_flags, write_flags
from flows.predict import PREDICTIONS
from flows.published import replace_tree
from flows.run_directory import CHECKPOINT, RunDirectory, store_errors, write_atomically
from flows.scaling_log import scaling_lines, scaling_log
from flows.served_model import SCALING
from flows.spectra_files import finished_part, read_predictions, read_truth
from flows.tables import spectra_frame
from flows.train import EVIDENCE, UNSCALED
from settings.tree import Settings
from spectramind.errors import InputError
from spectramind.metrics.score import reference_of, score_parts
from spectramind.metrics.statistics import bin_statistics
from spectramind.types import Floats, Spectra
from spectramind.uncertainty.scaling import SigmaScaling, cross_fit_sigma, fit_sigma_scaling


def calibrate_temperature(predictions: Path, truth: Path, settings: Settings, run: RunDirectory) -> None:
    """Fit the sigma scaling on out-of-fold predictions; write `sigma_scaling.json` and metrics to the run.

    `predictions` is a table, or the directory of a finished run: then its test predictions, scaled anew, are written
    to `predictions/`, too. A table comes without evidence, so that this stage is not tried. `truth` has the true
    spectra of the train planets.
    """
    finished = predictions if predictions.is_dir() else None
    spectra = read_predictions(predictions if finished is None else finished_part(finished / CHECKPOINT / UNSCALED))
    depths = true_depths(truth, spectra.planet_ids)
    evidence = None if finished is None else read_evidence(finished / CHECKPOINT)
    unscaled = spectra.mean, spectra.sigma, depths, settings.uncertainty, settings.runtime.seed, evidence
    scaling = fit_sigma_scaling(*unscaled)
    honest = replace(spectra, sigma=cross_fit_sigma(*unscaled))
    path = run.folder("checkpoints") / SCALING
    write_atomically(path, scaling.to_json())
    before, after = _numbers(spectra, depths), _numbers(honest, depths)
    run.add_metrics({"sigma_scaling": scaling_log(scaling), "before": before, "after": after})
    console = Console()
    for line in scaling_lines(scaling):
        console.print(line, soft_wrap=True, highlight=False)
    console.print(f"held-out planets ({len(depths)}), each scaled by what the others taught:")
    for name in before:
        console.print(f"  {name:<8}{before[name]:.4f} -> [bold]{after[name]:.4f}[/]", highlight=False)
    console.print(f"written: {path}", soft_wrap=True)
    if finished is not None:
        console.print(f"written: {_rescale(finished, scaling, run)}", soft_wrap=True)


def _rescale(finished: Path, scaling: SigmaScaling, run: RunDirectory) -> Path:
    """Write the test predictions of a finished run, its own scaling undone and `scaling` applied. Planets that were
    predicted by the fallback keep their sigma."""
    source, target = finished / "predictions", run.folder("predictions")
    spectra = read_predictions(finished_part(source / PREDICTIONS))
    flags = read_flags(source)
    fallback = by_fallback(spectra.planet_ids, flags)[:, None]
    old = SigmaScaling.load(finished_part(finished / CHECKPOINT / SCALING))
    evidence = read_evidence(source)
    sigma = np.where(fallback, spectra.sigma, scaling.apply(old.undo(spectra.sigma, evidence), evidence))
    predictions = replace(spectra, sigma=sigma)
    with store_errors(target), tempfile.TemporaryDirectory(dir=run.path, prefix=".rescaled-") as staging:
        folder = Path(staging) / target.name
        folder.mkdir()
        spectra_frame(predictions).to_parquet(folder / PREDICTIONS, index=False)
        write_flags(folder, flags)
        np.save(folder / EVIDENCE, evidence)
        if (source / COVARIANCE).is_dir():
            covariance = read_covariance(source / COVARIANCE, spectra.planet_ids).rescaled(sigma / spectra.sigma)
            write_covariance(folder / COVARIANCE, spectra.planet_ids, covariance)
        replace_tree(folder, target)
    return target / PREDICTIONS


def read_evidence(folder: Path) -> Floats:
    """The evidence (instruments, planets, numbers) that a run left in `folder`."""
    evidence: Floats = np.load(finished_part(folder / EVIDENCE), allow_pickle=False)
    return evidence


def _numbers(spectra: Spectra, depths: Floats) -> dict[str, float]:
    found = bin_statistics(spectra.mean, spectra.sigma, depths)
    score = score_parts(spectra.mean, spectra.sigma, depths, *reference_of(depths)).score
    return {"score": score, "nll": found["nll"], "z std": found["z_std"]}


def true_depths(truth: Path, planet_ids: tuple[str, ...]) -> Floats:
    """True depths (planets, 283) of these planets. InputError if `truth` lacks one."""
    listed, depths = read_truth(truth)
    unknown = sorted(set(planet_ids) - set(listed))
    if unknown:
        raise InputError(truth, "the true spectra of all predicted planets", f"none of {unknown[0]}", "Name train.csv.")
    row = {planet_id: index for index, planet_id in enumerate(listed)}
    return depths[[row[planet_id] for planet_id in planet_ids]]
