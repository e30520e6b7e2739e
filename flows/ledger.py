"""The score ledger of a run: a table of where the score is lost, and its sums for terminal and metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pandas as pd

from flows.run_directory import RunDirectory, store_errors, write_atomically
from spectramind.instruments import INSTRUMENTS, N_WAVELENGTHS
from spectramind.metrics.ledger import Ledger, gains_without
from spectramind.types import Spectra
from spectramind.uncertainty.noise_passport import DEPTHS, TERMS

if TYPE_CHECKING:
    from rich.table import Table

LEDGER_CSV, LEDGER_JSON, NOISE_LEDGER = "score_ledger.csv", "score_ledger.json", "noise_ledger.json"

Gains = dict[str, dict[str, float]]
"""Points of the score by term of the variance, then by instrument and for "all"."""
BINS = DEPTHS[:N_WAVELENGTHS]

SUMS = ("loss", "bias", "sigma", "unavoidable", "bias_by_chance", "sigma_by_chance", "scaling_gain", "scaling_factor")


def write_ledgers(run: RunDirectory, ledgers: Mapping[str, Ledger]) -> None:
    """Write `diagnostics/score_ledger.csv` and `.json` of the run, and the sums to its metrics.

    `ledgers` by what was scored: "out_of_fold", "test".
    """
    folder = run.folder("diagnostics")
    rows = [{"predictions": name, **asdict(row)} for name, ledger in ledgers.items() for row in ledger.rows]
    document = {name: _document(ledger) for name, ledger in ledgers.items()}
    with store_errors(folder):
        write_atomically(folder / LEDGER_CSV, pd.DataFrame(rows).to_csv(index=False))
    run.write_json(f"diagnostics/{LEDGER_JSON}", document)
    run.add_metrics({"score_ledger": {name: _sums(ledger) for name, ledger in ledgers.items()}})


def write_noise_ledger(
    run: RunDirectory, passport: pd.DataFrame, spectra: Spectra, reference: tuple[float, float]
) -> Gains:
    """Write what each term of the noise passports costs to `diagnostics/noise_ledger.json` and to the metrics.

    `passport` is the table of `flows.passport`, `spectra` the predictions, `reference` the score's.
    """
    planets = list(passport["planet_id"].unique())
    bins = passport[passport["depth"].isin(BINS)]
    shares = bins[list(TERMS)].to_numpy(float).T.reshape(len(TERMS), len(planets), len(BINS))
    known = spectra.of(planets)
    found = gains_without(shares, known.mean, known.sigma, *reference)
    slices = {instrument.name: instrument.spectral_slice for instrument in INSTRUMENTS} | {"all": slice(None)}
    gains = {
        term: {name: float(of_bins[part].sum()) for name, part in slices.items()}
        for term, of_bins in zip(TERMS, found, strict=True)
    }
    run.write_json(f"diagnostics/{NOISE_LEDGER}", {"planets": len(planets), "gains": gains})
    run.add_metrics({"noise_ledger": gains})
    return gains


def noise_table(gains: Gains) -> Table:
    """One row per term, the most expensive first, in points of the official score, for the terminal."""
    shown = _table("What the noise costs, in points")
    for heading in (first := next(iter(gains.values()))):
        shown.add_column(heading, justify="right", no_wrap=True, min_width=6)
    for term, gain in sorted(gains.items(), key=lambda item: -item[1]["all"]):
        shown.add_row(term, *(f"{gain[heading]:.4f}" for heading in first))
    return shown


def ledger_table(ledgers: Mapping[str, Ledger]) -> Table:
    """One row per instrument and kind of prediction, in points of the official score, for the terminal."""
    shown = _table("Where the score is lost (docs/uncertainty.md)")
    shown.caption = "luck: what bias and sigma show by chance; gain: by perfect sigma scaling"
    for heading in ("lost", "to bias", "to sigma", "luck", "rest", "gain"):
        shown.add_column(heading, justify="right", no_wrap=True, min_width=6)
    for name, ledger in ledgers.items():
        for row in (*ledger.level("instrument"), *ledger.level("all")):
            luck = row.bias_by_chance + row.sigma_by_chance
            numbers = (row.loss, row.bias, row.sigma, luck, row.unavoidable, row.scaling_gain)
            shown.add_row(f"{name.replace('_', ' ')}, {row.name}", *(f"{number:.4f}" for number in numbers))
    return shown


def _table(title: str) -> Table:
    """Empty, but for the column of names."""
    from rich import box
    from rich.table import Table

    shown = Table(box=box.SIMPLE, show_edge=False, title=title, title_justify="left", caption_justify="left")
    shown.add_column("", no_wrap=True)
    return shown


def _sums(ledger: Ledger) -> dict[str, Any]:
    rows = (*ledger.level("all"), *ledger.level("instrument"))
    sums = {row.name: {part: getattr(row, part) for part in SUMS} for row in rows}
    return {"score": ledger.score, "clip": ledger.clip, **sums}


def _document(ledger: Ledger) -> dict[str, Any]:
    return {
        "score": ledger.score,
        "clip": ledger.clip,
        "planets": ledger.planets,
        "to_do": [row.name for row in ledger.to_do()],
        "rows": [asdict(row) for row in ledger.rows],
    }
