"""UMAP and t-SNE as pages of their own beside the report; they need no network, only `plotly.min.js` beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from markupsafe import Markup

from flows.charts import COLOURS, Chart, Series, rgb
from flows.report import render

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

SCRIPT = "plotly.min.js"
CONFIG = {"responsive": True, "displayModeBar": False}
"""Plotly's bar would offer to send the figure to a server."""
RADII = (8, 4)
"""Of points, in pixels: in two dimensions, in three."""


def projection_files(pages: Mapping[str, Sequence[Chart]], planet_ids: Sequence[str], note: str) -> dict[str, str]:
    """HTML files by name, one for each title of `pages`, and the script that they share. A point names its planet."""
    from plotly.offline import get_plotlyjs

    files = {}
    for title, charts in pages.items():
        figures = [
            Markup(_figure(chart, planet_ids).to_html(full_html=False, include_plotlyjs=False, config=CONFIG))
            for chart in charts
        ]
        page = render("projections.html", title=title, figures=figures, note=note, script=SCRIPT)
        files[f"{charts[0].name}.html"] = page
    return {**files, SCRIPT: get_plotlyjs()} if files else {}


def _figure(chart: Chart, planet_ids: Sequence[str]) -> Figure:
    from plotly.graph_objects import Figure

    figure = Figure()
    for place, series in enumerate(chart.series):
        figure.add_trace(_points(series, COLOURS[place % len(COLOURS)], planet_ids))
    hidden = {"showticklabels": False, "title": ""}
    figure.update_layout(
        title=chart.title,
        template="plotly_white",
        legend={"orientation": "h"},
        scene={"xaxis": hidden, "yaxis": hidden, "zaxis": hidden},
        xaxis=hidden,
        yaxis=hidden,
        margin={"l": 20, "r": 20, "t": 60, "b": 20},
    )
    return figure


def _points(series: Series, colour: str, planet_ids: Sequence[str]) -> dict[str, object]:
    red, green, blue = (round(255 * part) for part in rgb(colour))
    spatial = series.z is not None
    return {
        "type": "scatter3d" if spatial else "scatter",
        "mode": "markers",
        "name": series.name,
        "x": series.x,
        "y": series.y,
        **({"z": series.z} if spatial else {}),
        "text": [f"planet {planet_ids[row]}" for row in series.planets],
        "hoverinfo": "text+name",
        # Three-dimensional markers have one opacity; colours have their own.
        "marker": {
            "size": RADII[spatial],
            "color": [f"rgba({red},{green},{blue},{alpha:.3f})" for alpha in series.opacities()],
        },
    }
