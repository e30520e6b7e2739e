"""The data-quality report: one HTML file with all that it shows inside, readable without a network.

Names of planets and files come from outside: the template engine escapes everything.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from flows.quality import SuiteResult

TEMPLATES = Path(__file__).parent / "templates"
INSTRUMENT_COLOURS = {"FGS1": "#b5541c", "AIRS-CH0": "#1c5d99"}
MOST_ROWS = 400
"""Light curves listed one by one; the JSON beside the page has them all."""


def data_quality_page(
    dataset: str,
    document: Mapping[str, Any],
    verdicts: Mapping[str, SuiteResult],
    steps: pd.DataFrame,
    light_curves: pd.DataFrame,
    figure: str,
) -> str:
    """The page for the verdicts, the kill-chain's `steps`, the `light_curves` tables and `noise_figure` of a run."""
    chains = {name: rows.to_dict("records") for name, rows in steps.groupby("instrument", sort=False)}
    worst = light_curves.sort_values("noise_over_photon", ascending=False) if len(light_curves) else light_curves
    return _render(
        "data_quality.html",
        dataset=dataset,
        document=document,
        verdicts=verdicts,
        failures=[finding for verdict in verdicts.values() for finding in verdict.failures],
        chains=chains,
        figure=figure,
        curves=worst.head(MOST_ROWS).to_dict("records"),
        n_curves=len(light_curves),
    )


def data_docs_pages(verdicts: Mapping[str, SuiteResult]) -> dict[str, str]:
    """One page per verdict, by name, with the sections that Great Expectations makes of it."""
    return {name: _render("data_docs.html", verdicts=verdicts, page=verdict) for name, verdict in verdicts.items()}


def noise_figure(light_curves: pd.DataFrame) -> str:
    """Measured noise of every light curve against its photon noise and its propagated variance, as a data URI.

    Empty text if there is no light curve.
    """
    if light_curves.empty:
        return ""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    # A fixed salt and no date: the same data give the same bytes.
    with mpl.rc_context({"svg.hashsalt": "spectramind", "font.size": 9, "font.family": "sans-serif"}):
        figure = Figure(figsize=(9.6, 3.4), layout="constrained")
        noise, ratio = figure.subplots(1, 2)
        photon_ppm = light_curves["scatter_ppm"] / light_curves["noise_over_photon"]
        for instrument, rows in light_curves.groupby("instrument", sort=True):
            colour = INSTRUMENT_COLOURS.get(str(instrument), "#555555")
            photon = photon_ppm[rows.index]
            noise.loglog(photon, rows["scatter_ppm"], "o", ms=3.5, alpha=0.7, color=colour, label=instrument)
            ratio.hist(rows["noise_over_propagated"].dropna(), bins=20, histtype="stepfilled", alpha=0.55, color=colour)
        limits = [photon_ppm.min() * 0.9, photon_ppm.max() * 1.1]
        noise.plot(limits, limits, "-", lw=1, color="#777777", label="photon noise")
        noise.set(xlabel="photon noise of a time bin (ppm)", ylabel="measured scatter (ppm)")
        noise.set_title("White light curves")
        noise.legend(frameon=False)
        ratio.axvline(1, lw=1, color="#777777")
        ratio.set(xlabel="measured / propagated noise", ylabel="light curves", title="Is the variance honest?")
        for axes in (noise, ratio):
            axes.spines[["top", "right"]].set_visible(False)
        return _data_uri(figure)


def _render(template: str, **values: Any) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["significant"] = _significant
    return environment.get_template(template).render(values)


def _data_uri(figure: Any) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _significant(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4g}"
