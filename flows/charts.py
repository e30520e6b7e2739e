"""Figures as data: one description, drawn as PNG by Matplotlib here and by the page's script in the browser."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from spectramind.types import Floats

COLOURS = ("#1c5d99", "#b5541c", "#1b7f4d", "#7a4fa3", "#9a6400", "#5d6b7a")
DIGITS = 5
OPACITY = 0.8


@dataclass(frozen=True)
class Series:
    """`x`, `y` and for three dimensions `z` (n,); `opacity` (n,) of points. `planets` (n,) are rows of the report's
    planets: the page then goes to the planet that is clicked."""

    name: str
    x: ArrayLike
    y: ArrayLike
    kind: Literal["line", "points", "bars"] = "line"
    z: ArrayLike | None = None
    opacity: ArrayLike | None = None
    planets: Sequence[int] = ()
    colour: str = ""
    dashed: bool = False

    def opacities(self) -> Floats:
        """(n,): of each point, given or not."""
        given = OPACITY if self.opacity is None else self.opacity
        return np.array(np.broadcast_to(np.asarray(given, float), np.shape(self.x)))


@dataclass(frozen=True)
class Heatmap:
    """`values` (rows, columns) over `x` (columns,) and `y` (rows,), numbers or names, coloured from `low` to `high`,
    which part at the middle if `diverging`. The rows are `planets` of the report, if given."""

    values: Floats
    x: Sequence[Any]
    y: Sequence[Any]
    label: str
    low: float
    high: float
    diverging: bool = False
    planets: Sequence[int] = ()


@dataclass(frozen=True)
class Chart:
    """A figure; `name` is that of its files."""

    name: str
    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...] = ()
    heatmap: Heatmap | None = None
    log_x: bool = False
    log_y: bool = False

    def to_json(self) -> dict[str, Any]:
        """JSON values; what is not finite becomes None."""
        return {
            "name": self.name,
            "title": self.title,
            "x_label": self.x_label,
            "y_label": self.y_label,
            "log_x": self.log_x,
            "log_y": self.log_y,
            "series": [_series_json(series, COLOURS[i % len(COLOURS)]) for i, series in enumerate(self.series)],
            "heatmap": None if self.heatmap is None else _heatmap_json(self.heatmap),
        }

    def to_png(self) -> bytes:
        """The figure as Matplotlib draws it."""
        import matplotlib as mpl
        from matplotlib.figure import Figure

        with mpl.rc_context({"font.size": 9}):
            figure = Figure(figsize=(7.2, 4.0), layout="constrained", dpi=120)
            spatial = any(series.z is not None for series in self.series)
            axes = figure.add_subplot(projection="3d" if spatial else None)
            for place, series in enumerate(self.series):
                _draw(axes, series, series.colour or COLOURS[place % len(COLOURS)])
            axes.set(xlabel=self.x_label, ylabel=self.y_label, title=self.title)
            if not spatial:
                axes.set(xscale="log" if self.log_x else "linear", yscale="log" if self.log_y else "linear")
                axes.spines[["top", "right"]].set_visible(False)
            if self.heatmap is not None:  # after the scales, which forget the names of rows and columns
                _draw_heatmap(figure, axes, self.heatmap)
            if 1 < len(self.series) <= len(COLOURS) * 2:
                axes.legend(frameon=False, fontsize=8)
            buffer = io.BytesIO()
            figure.savefig(buffer, format="png", metadata={"Software": None})
            return buffer.getvalue()


def _draw(axes: Any, series: Series, colour: str) -> None:
    x, y = np.asarray(series.x, float), np.asarray(series.y, float)
    if series.kind == "line":
        axes.plot(x, y, lw=1.2, ls="--" if series.dashed else "-", color=colour, label=series.name)
    elif series.kind == "bars":
        axes.bar(x, y, width=(x[1] - x[0]) if x.size > 1 else 0.8, color=colour, alpha=0.6, label=series.name)
    else:
        points = (x, y) if series.z is None else (x, y, np.asarray(series.z, float))
        shade = [(*rgb(colour), alpha) for alpha in series.opacities()]
        axes.scatter(*points, s=14, c=shade, label=series.name)


def _draw_heatmap(figure: Any, axes: Any, heatmap: Heatmap) -> None:
    colours = "RdBu_r" if heatmap.diverging else "viridis"
    rows, columns = heatmap.values.shape
    numeric = len(heatmap.x) > 1 and not isinstance(heatmap.x[0], str)
    edges = np.asarray(heatmap.x, float) if numeric else np.arange(columns)
    image = axes.pcolormesh(
        edges, np.arange(rows), heatmap.values, cmap=colours, vmin=heatmap.low, vmax=heatmap.high, shading="nearest"
    )
    if not numeric:
        axes.set_xticks(range(columns), [str(name) for name in heatmap.x], rotation=60, ha="right", fontsize=7)
    step = max(1, rows // 12)
    axes.set_yticks(range(0, rows, step), [str(name) for name in heatmap.y[::step]], fontsize=7)
    figure.colorbar(image, ax=axes, label=heatmap.label)


def rgb(colour: str) -> tuple[float, float, float]:
    from matplotlib.colors import to_rgb

    return to_rgb(colour)


def _series_json(series: Series, colour: str) -> dict[str, Any]:
    return {
        "name": series.name,
        "kind": series.kind,
        "colour": series.colour or colour,
        "dashed": series.dashed,
        "x": _numbers(series.x),
        "y": _numbers(series.y),
        "z": None if series.z is None else _numbers(series.z),
        "opacity": None if series.opacity is None else _numbers(series.opacity),
        "planets": [int(row) for row in series.planets],
    }


def _heatmap_json(heatmap: Heatmap) -> dict[str, Any]:
    return {
        "values": [_numbers(row) for row in heatmap.values],
        "x": list(heatmap.x) if isinstance(heatmap.x[0], str) else _numbers(heatmap.x),
        "y": [str(name) for name in heatmap.y],
        "label": heatmap.label,
        "low": heatmap.low,
        "high": heatmap.high,
        "diverging": heatmap.diverging,
        "planets": [int(row) for row in heatmap.planets],
    }


def _numbers(values: ArrayLike) -> list[float | None]:
    """Rounded: a figure needs no more, and a page of many planets must stay small."""
    return [float(f"{value:.{DIGITS}g}") if np.isfinite(value) else None for value in np.asarray(values, float).ravel()]
