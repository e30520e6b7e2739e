"""The official score of a submission, taken apart."""

from __future__ import annotations

from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from flows.spectra_files import read_predictions, read_truth
from spectramind.metrics.score import official_score_2024, reference_of, score_parts
from spectramind.metrics.statistics import spectra_statistics
from spectramind.submission.table import in_order


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
