"""The score ledger of a run: a table of where the score is lost, and its sums for terminal and metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pandas as pd

from flows.run_directory import RunDirectory, store_errors, write_atomically
from spectramind.metrics.ledger import Ledger

if TYPE_CHECKING:
    from rich.table import Table

LEDGER_CSV, LEDGER_JSON = "score_ledger.csv", "score_ledger.json"

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


def ledger_table(ledgers: Mapping[str, Ledger]) -> Table:
    """One row per instrument and kind of prediction, in points of the official score, for the terminal."""
    from rich import box
    from rich.table import Table

    caption = "luck: what bias and sigma show by chance; gain: by perfect sigma scaling"
    shown = Table(
        box=box.SIMPLE,
        show_edge=False,
        title="Where the score is lost (docs/uncertainty.md)",
        title_justify="left",
        caption=caption,
        caption_justify="left",
    )
    shown.add_column("", no_wrap=True)
    for heading in ("lost", "to bias", "to sigma", "luck", "rest", "gain"):
        shown.add_column(heading, justify="right", no_wrap=True, min_width=6)
    for name, ledger in ledgers.items():
        for row in (*ledger.level("instrument"), *ledger.level("all")):
            luck = row.bias_by_chance + row.sigma_by_chance
            numbers = (row.loss, row.bias, row.sigma, luck, row.unavoidable, row.scaling_gain)
            shown.add_row(f"{name.replace('_', ' ')}, {row.name}", *(f"{number:.4f}" for number in numbers))
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
