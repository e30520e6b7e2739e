"""The leaderboard as Markdown, CSV and one HTML file, all in the same order."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from flows.figures import data_uri
from flows.report import render
from flows.run_directory import RunDirectory, store_errors, write_atomically
from spectramind.ablation.leaderboard import FIRST, PARETO, WEIGHTS, Leaderboard, Row

Choices = Mapping[str, Mapping[str, str]]
"""Configuration to axis to choice."""


class Column(NamedTuple):
    """A column for people: heading, meaning, text of a row, and the number it sorts by (None: by its text)."""

    heading: str
    meaning: str
    text: Callable[[Row], str]
    value: Callable[[Row], Any]


def _number(heading: str, meaning: str, name: str, form: str) -> Column:
    def text(row: Row) -> str:
        value = getattr(row, name)
        return "-" if value is None else format(value, form)

    return Column(heading, meaning, text, lambda row: getattr(row, name))


COLUMNS = (
    _number("Composite", "Weighted badness in [0, 1], 0 is best", "composite", ".4f"),
    _number("Score", "Official score out of fold, 1 is best", "score", ".4f"),
    Column(
        "95 %",
        "Limits of the score over planets and seeds",
        lambda row: f"{row.score_low:.4f} to {row.score_high:.4f}",
        lambda row: row.score_low,
    ),
    Column(
        "Against first",
        "Difference of the score from the first row's, over the same planets, with its limits",
        lambda row: (
            ""
            if row.verdict == FIRST
            else f"{row.difference:+.4f} [{row.difference_low:+.4f}, {row.difference_high:+.4f}]"
        ),
        lambda row: row.difference,
    ),
    Column("Verdict", "Whether that difference is beyond chance", lambda row: row.verdict, lambda row: row.verdict),
    _number("NLL", "Negative log likelihood in nats per bin", "nll", ".4f"),
    _number("RMSE ppm", "Root mean square error of the depth", "rmse_ppm", ".1f"),
    _number("MAE ppm", "Mean absolute error of the depth", "mae_ppm", ".1f"),
    _number("Gap 68 %", "Observed less nominal coverage", "gap_68", "+.3f"),
    _number("Gap 95 %", "Observed less nominal coverage", "gap_95", "+.3f"),
    _number("Gap", "Mean size of the coverage gap over all levels", "calibration_gap", ".4f"),
    _number("z error", "Distance of the distribution of errors / sigma from the normal one", "z_error", ".4f"),
    _number("Violations", "Mean violation of the physical rules", "violations", ".4g"),
    _number("Training s", "Seconds that training took, calibration and fits not counted", "seconds", ".1f"),
    Column(
        "Pareto",
        "On the front of " + ", ".join(PARETO),
        lambda row: "yes" if row.pareto else "",
        lambda row: row.pareto,
    ),
    _number("Seeds", "Runs with different seeds", "seeds", "d"),
)


def headline(board: Leaderboard) -> str:
    """Who wins, or why nobody does."""
    first = board.rows[0].name
    if board.winner is not None:
        return f"{first} wins: its score is better than every other beyond chance."
    if len(board.rows) == 1:
        return f"{first} is alone: nothing to compare it with."
    few, more = board.rivals[:5], len(board.rivals) - 5
    rivals = ", ".join(few) + (f" and {more} more" if more > 0 else "")
    return f"No winner: the score of {first}, first in order, is not better than that of {rivals} beyond chance."


def write_leaderboard(
    run: RunDirectory, board: Leaderboard, choices: Choices, metric: str, failures: Mapping[str, str]
) -> None:
    """Write `leaderboard.csv`, `.md` and `.html`."""
    contents = {
        "leaderboard.csv": as_csv(board, choices),
        "leaderboard.md": as_markdown(board, choices, failures),
        "leaderboard.html": as_html(board, choices, metric, failures),
    }
    for name, text in contents.items():
        with store_errors(run.path / name):
            write_atomically(run.path / name, text)


def as_csv(board: Leaderboard, choices: Choices) -> str:
    """All numbers in full, after the axes' choices."""
    stream = io.StringIO()
    axes = _axes(board, choices)
    fields = Row.__dataclass_fields__
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["name", *axes, *(name for name in fields if name != "name")])
    for row in board.rows:
        values = [getattr(row, name) for name in fields if name != "name"]
        writer.writerow([row.name, *(choices[row.name][axis] for axis in axes), *values])
    return stream.getvalue()


def as_markdown(board: Leaderboard, choices: Choices, failures: Mapping[str, str]) -> str:
    """A table, and who wins."""
    axes, columns = _axes(board, choices), _shown(board)
    lines = ["# Leaderboard", "", headline(board), ""]
    lines += [_line(["#", "Name", *axes, *(column.heading for column in columns)])]
    lines += [_line(["---"] * (2 + len(axes) + len(columns)))]
    for place, row in enumerate(board.rows, start=1):
        chosen = [choices[row.name][axis] for axis in axes]
        lines.append(_line([str(place), row.name, *chosen, *(column.text(row) for column in columns)]))
    if failures:
        lines += ["", "Failed:", "", *(f"- {name}: {' '.join(reason.split())}" for name, reason in failures.items())]
    return "\n".join(lines) + "\n"


def as_html(board: Leaderboard, choices: Choices, metric: str, failures: Mapping[str, str]) -> str:
    """One self-contained page with a table that sorts."""
    return render(
        "leaderboard.html",
        board=board,
        headline=headline(board),
        axes=_axes(board, choices),
        choices=choices,
        columns=_shown(board),
        metric=metric,
        weights=_weights(board),
        failures=failures,
        plots=_plots(board),
    )


def print_leaderboard(board: Leaderboard, choices: Choices) -> None:
    """The columns that fit a terminal."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    axes = _axes(board, choices)
    columns = [column for column in COLUMNS if column.heading in ("Composite", "Score", "Verdict")]
    shown = Table(box=box.SIMPLE, show_edge=False, title="Leaderboard", title_justify="left")
    for heading in ("name", *axes):
        shown.add_column(heading, overflow="fold")
    for column in columns:
        shown.add_column(column.heading, no_wrap=True)
    for row in board.rows:
        cells = [row.name, *(choices[row.name][axis] for axis in axes), *(column.text(row) for column in columns)]
        shown.add_row(*cells)
    console = Console(markup=False)
    console.print(shown)
    console.print(headline(board), soft_wrap=True)


def _axes(board: Leaderboard, choices: Choices) -> list[str]:
    return list(choices[board.rows[0].name])


def _shown(board: Leaderboard) -> list[Column]:
    """The columns of which something is known."""
    return [column for column in COLUMNS if any(column.value(row) is not None for row in board.rows)]


def _weights(board: Leaderboard) -> dict[str, float]:
    """Weights of the composite score by heading, as far as it could use them."""
    headings = {
        "score": "Score",
        "nll": "NLL",
        "calibration_gap": "Gap",
        "seconds": "Training s",
        "violations": "Violations",
    }
    known = [name for name in WEIGHTS if all(getattr(row, name) is not None for row in board.rows)]
    return {headings[name]: WEIGHTS[name] for name in known}


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _plots(board: Leaderboard) -> dict[str, str]:
    """Scores with their limits, and score against calibration with the Pareto front."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    blue, grey, red = "#1c5d99", "#8a97a5", "#b5541c"
    with mpl.rc_context({"svg.hashsalt": "spectramind", "font.size": 9}):
        scores = Figure(figsize=(5.2, 1.0 + 0.22 * len(board.rows)), layout="constrained")
        axes = scores.subplots()
        for place, row in enumerate(board.rows):
            colour = grey if row.verdict == "worse" else blue
            middle = float(np.clip(row.score, row.score_low, row.score_high))
            axes.plot([row.score_low, row.score_high], [place, place], color=colour, lw=2, solid_capstyle="round")
            axes.plot([middle], [place], "o", ms=5, color=colour)
        axes.set_yticks(range(len(board.rows)), [row.name for row in board.rows])
        axes.set(xlabel="score, with 95 % limits over planets and seeds", ylim=(len(board.rows) - 0.5, -0.5))

        front = Figure(figsize=(5.2, 3.4), layout="constrained")
        plane = front.subplots()
        for row in sorted(board.rows, key=lambda row: row.pareto):
            at = (row.calibration_gap, row.score)
            plane.plot(*at, "o", ms=6, color=red if row.pareto else grey)
            if row.pareto:
                plane.annotate(row.name, at, xytext=(5, 3), textcoords="offset points", fontsize=7.5)
        plane.set(xlabel="mean coverage gap", ylabel="score", title="Red: on the Pareto front")
        for panel in (axes, plane):
            panel.spines[["top", "right"]].set_visible(False)
        return {"scores": data_uri(scores), "front": data_uri(front)}
