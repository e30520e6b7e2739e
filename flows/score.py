"""The official score of a submission, taken apart, and the sigma scaling of a file of predictions."""

from __future__ import annotations

from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from flows.run_directory import RunDirectory, write_atomically
from flows.spectra_files import read_predictions, read_truth
from settings.tree import Settings
from spectramind.errors import InputError
from spectramind.metrics.score import official_score_2024, reference_of, score_parts
from spectramind.metrics.statistics import bin_statistics, spectra_statistics
from spectramind.submission.table import in_order
from spectramind.uncertainty.scaling import fit_sigma_scaling


def score(submission: Path, truth: Path, train: Path) -> float:
    """Print the 2025 score of `submission` with its parts, and the 2024 score; return the former.

    `truth` and `train` are tables of true spectra in train.csv's format; `train` gives the reference of the score.
    """
    planet_ids, depths = read_truth(truth)
    spectra = in_order(read_predictions(submission), planet_ids)
    reference = reference_of(read_truth(train)[1])
    parts = score_parts(spectra.mean, spectra.sigma, depths, *reference)
    statistics = spectra_statistics(spectra.mean, spectra.sigma, depths)
    caption = "what the stated sigmas cost, what the errors cost, and what a better common scale of sigma would win"
    table = Table(box=box.SIMPLE, show_edge=False, caption=caption, caption_justify="left")
    for heading in (
        "",
        "score",
        "- width",
        "- error",
        "- scale",
        "RMSE ppm",
        "z std",
        "nll",
    ):
        table.add_column(heading, justify="left" if not heading else "right")
    for name, part in parts.summary().items():
        losses = (part["score"], part["width_loss"], part["error_loss"], part["sigma_loss"])
        numbers = statistics[name]
        table.add_row(
            name,
            *(f"{value:.4f}" for value in losses),
            f"{numbers['rmse_ppm']:.1f}",
            f"{numbers['z_std']:.3f}",
            f"{numbers['nll']:.4f}",
        )
    console = Console()
    console.print(
        f"official score 2025: [bold]{parts.score:.4f}[/]   (0 to 1, higher is better; {len(planet_ids)} planets)"
    )
    console.print(f"official score 2024: {official_score_2024(spectra.mean, spectra.sigma, depths, *reference):.4f}")
    console.print(table)
    return parts.score


def calibrate_temperature(predictions: Path, truth: Path, settings: Settings, run: RunDirectory) -> None:
    """Fit the sigma scaling on out-of-fold `predictions`; write `sigma_scaling.json` and metrics to the run."""
    planet_ids, depths = read_truth(truth)
    spectra = read_predictions(predictions)
    unknown = sorted(set(spectra.planet_ids) - set(planet_ids))
    if unknown:
        raise InputError(truth, "the true spectra of all predicted planets", f"none of {unknown[0]}", "Name train.csv.")
    row = {planet_id: index for index, planet_id in enumerate(planet_ids)}
    depths = depths[[row[planet_id] for planet_id in spectra.planet_ids]]
    scaling = fit_sigma_scaling(spectra.mean, spectra.sigma, depths, settings.uncertainty, settings.runtime.seed)
    path = run.folder("checkpoints") / "sigma_scaling.json"
    write_atomically(path, scaling.to_json())
    before = bin_statistics(spectra.mean, spectra.sigma, depths)
    after = bin_statistics(spectra.mean, scaling.apply(spectra.sigma), depths)
    groups = {name: {"temperature": group.temperature, "kept": group.kept} for name, group in scaling.groups.items()}
    run.add_metrics({"sigma_scaling": groups, "nll_before": before["nll"], "nll_after": after["nll"]})
    console = Console()
    for name, group in scaling.groups.items():
        kept = ", ".join(group.kept) or "nothing, held-out planets are best left as they are"
        console.print(
            f"{name}: temperature [bold]{group.temperature:.3f}[/], exponent {group.exponent:.3f} ({kept})",
            soft_wrap=True,
        )
    console.print(f"nll {before['nll']:.4f} -> {after['nll']:.4f}, z std {before['z_std']:.3f} -> {after['z_std']:.3f}")
    console.print(f"written: {path}", soft_wrap=True)
