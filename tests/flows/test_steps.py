"""What the terminal shows of the calibration's steps."""

from __future__ import annotations

from rich.console import Console

from flows.steps import scatter_table
from flows.tables import Statistics, steps_table


def visit(number: int, scatter: float) -> Statistics:
    steps = [
        {"step": "dark_current", "scatter_ppm_in": scatter, "scatter_ppm_out": scatter / 2},
        {"step": "time_binning", "scatter_ppm_in": scatter / 2, "scatter_ppm_out": "nan"},
    ]
    return Statistics("train", "1", number, {"FGS1": steps, "AIRS-CH0": steps[:1]}, {}, "digest")


def test_the_scatter_of_each_step_is_the_median_over_visits() -> None:
    statistics = [visit(number, scatter) for number, scatter in enumerate((100.0, 300.0, 5000.0))]
    console = Console(width=100)
    with console.capture() as shown:
        console.print(scatter_table(steps_table(statistics)))
    assert [line.split() for line in shown.get().splitlines()[-3:]] == [
        ["FGS1", "dark", "current", "300.0", "150.0"],
        ["time", "binning", "150.0", "-"],
        ["AIRS-CH0", "dark", "current", "300.0", "150.0"],
    ]
    assert "ppm" in shown.get()
