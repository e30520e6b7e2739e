"""What each step of the calibration did to the scatter, for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from rich.table import Table


def scatter_table(steps: pd.DataFrame) -> Table:
    """One row per instrument and step of `flows.tables.steps_table`: scatter of the white light curve before and after
    it (ppm)."""
    from rich import box
    from rich.table import Table

    title = "Scatter of the white light curve, median visit, ppm"
    shown = Table(box=box.SIMPLE, show_edge=False, title=title, title_justify="left")
    for heading in ("instrument", "step", "before", "after"):
        shown.add_column(heading, justify="right" if heading in ("before", "after") else "left")
    instrument = None
    for row in steps.to_dict("records"):
        numbers = ("-" if pd.isna(row[name]) else f"{row[name]:.1f}" for name in ("scatter_ppm_in", "scatter_ppm_out"))
        name = "" if row["instrument"] == instrument else row["instrument"]
        shown.add_row(name, str(row["step"]).replace("_", " "), *numbers)
        instrument = row["instrument"]
    return shown
