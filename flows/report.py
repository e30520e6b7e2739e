"""The data-quality report: one HTML file with all that it shows inside, readable without a network.

Names of planets and files come from outside: the template engine escapes everything.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from spectramind.calibration.summary import QUANTITIES, Quantity
from spectramind.types import Floats

if TYPE_CHECKING:
    import pandas as pd

    from flows.quality import Finding, SuiteResult

TEMPLATES = Path(__file__).parent / "templates"
INSTRUMENT_COLOURS = {"FGS1": "#b5541c", "AIRS-CH0": "#1c5d99"}
LIMIT_COLOURS = {"quarantine": "#b3261e", "flag": "#9a6400"}
MOST_ROWS = 400
"""Light curves listed one by one; the JSON beside the page has them all."""
MOST_NAMES = 5
"""Planets named in a histogram; the list below it has more."""
BINS = 40
LOGARITHMIC = 20.0
"""Ratio of the largest to the least value from which an axis is logarithmic."""


class Histogram(NamedTuple):
    """The histogram of one number as a data URI, and the light curves that miss an expectation of it: instrument,
    planet, visit and value."""

    quantity: Quantity
    image: str
    outside: tuple[tuple[str, str, str, float], ...]


class Figures(NamedTuple):
    """The pictures of a report; `noise` is a data URI, empty if there is no light curve."""

    noise: str
    histograms: tuple[Histogram, ...]


def data_quality_page(
    dataset: str,
    document: Mapping[str, Any],
    verdicts: Mapping[str, SuiteResult],
    steps: pd.DataFrame,
    light_curves: pd.DataFrame,
    pictures: Figures,
) -> str:
    """The page for the verdicts, the kill-chain's `steps`, the `light_curves` table and the `figures` of a run."""
    chains = {name: rows.to_dict("records") for name, rows in steps.groupby("instrument", sort=False)}
    worst = light_curves.sort_values("noise_over_photon", ascending=False) if len(light_curves) else light_curves
    doubts: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for flag in document["flagged"]:
        if "planet_id" in flag:
            doubts.setdefault((flag["planet_id"], flag.get("split", "test")), []).append(flag)
    failures = [finding for verdict in verdicts.values() for finding in verdict.failures]
    return _render(
        "data_quality.html",
        dataset=dataset,
        document=document,
        verdicts=verdicts,
        failures=sorted(failures, key=lambda finding: finding.on_failure == "flag"),
        doubts=sorted(doubts.items(), key=lambda item: -len(item[1])),
        chains=chains,
        pictures=pictures,
        quantities=QUANTITIES,
        curves=worst.head(MOST_ROWS).to_dict("records"),
        n_curves=len(light_curves),
    )


def data_docs_pages(verdicts: Mapping[str, SuiteResult]) -> dict[str, str]:
    """One page per verdict, by name, with the sections that Great Expectations makes of it."""
    return {name: _render("data_docs.html", verdicts=verdicts, page=verdict) for name, verdict in verdicts.items()}


def figures(light_curves: pd.DataFrame, verdict: SuiteResult | None) -> Figures:
    """The pictures of the `light_curves` table; `verdict` on it gives the limits and the names in the histograms."""
    if light_curves.empty:
        return Figures("", ())
    import matplotlib as mpl

    findings = verdict.findings if verdict else ()
    # A fixed salt and no date: the same data give the same bytes. Names are no formulas.
    style = {"svg.hashsalt": "spectramind", "svg.fonttype": "none", "font.size": 9, "font.family": "sans-serif"}
    with mpl.rc_context({**style, "text.parse_math": False}):
        shown = [name for name in QUANTITIES if light_curves[name].notna().any()]
        return Figures(_noise(light_curves), tuple(_histogram(name, light_curves, findings) for name in shown))


def _noise(light_curves: pd.DataFrame) -> str:
    """Measured noise of every light curve against its photon noise and its propagated variance."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 3.4), layout="constrained", dpi=150)
    noise, ratio = figure.subplots(1, 2)
    photon_ppm = light_curves["scatter_ppm"] / light_curves["noise_over_photon"]
    for instrument, rows in light_curves.groupby("instrument", sort=True):
        colour = INSTRUMENT_COLOURS.get(str(instrument), "#555555")
        photon = photon_ppm[rows.index]
        # Thousands of points as one picture inside the drawing.
        noise.loglog(
            photon, rows["scatter_ppm"], "o", ms=3.5, alpha=0.7, color=colour, label=instrument, rasterized=True
        )
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


def _histogram(name: str, light_curves: pd.DataFrame, findings: Sequence[Finding]) -> Histogram:
    """One row per instrument, on a common axis; the limits that lie on it, and beside it where the others are."""
    from matplotlib.figure import Figure

    quantity = QUANTITIES[name]
    known = light_curves[light_curves[name].notna()]
    concerned = [finding for finding in findings if finding.column in (name, f"z_{name}")]
    missed = {row for finding in concerned for row in finding.rows}
    names = known[["planet_id", "split", "visit", "instrument"]].astype(str).itertuples(index=False, name=None)
    outside = known[[row in missed for row in names]]
    instruments = [i for i in INSTRUMENT_COLOURS if (known["instrument"] == i).any()]
    figure = Figure(figsize=(5.2, 0.7 + 1.15 * len(instruments)), layout="constrained")
    edges, scale = _bins(known[name])
    for axes, instrument in zip(
        np.atleast_1d(figure.subplots(len(instruments), 1, sharex=True)), instruments, strict=True
    ):
        rows = known[known["instrument"] == instrument]
        axes.hist(
            rows[name].clip(lower=edges[0]),
            bins=edges,
            histtype="stepfilled",
            color=INSTRUMENT_COLOURS[instrument],
            alpha=0.6,
        )
        axes.set(xscale=scale, xlim=(edges[0], edges[-1]), ylabel=instrument)
        axes.spines[["top", "right"]].set_visible(False)
        axes.locator_params(axis="y", nbins=3, integer=True)
        beyond = []
        for finding in concerned:
            if finding.column != name or finding.instrument not in ("", instrument):
                continue
            for limit in finding.between:
                if limit is not None and edges[0] < limit < edges[-1]:
                    axes.axvline(limit, ls="--", lw=1.2, color=LIMIT_COLOURS.get(finding.on_failure, "#555555"))
                elif limit is not None and limit >= edges[-1]:
                    beyond.append(f"{limit:g}")
        if beyond:
            axes.annotate(
                f"limit {', '.join(beyond)} →",
                (1, 0.98),
                xycoords="axes fraction",
                ha="right",
                va="top",
                color="#777777",
                fontsize=7.5,
            )
        extreme = outside[outside["instrument"] == instrument].sort_values(f"z_{name}", key=abs, ascending=False)
        for planet, value in extreme.head(MOST_NAMES)[["planet_id", name]].itertuples(index=False):
            at = min(max(value, edges[0]), edges[-1])
            axes.plot([at], [0], "v", ms=5, color=LIMIT_COLOURS["quarantine"], clip_on=False)
            axes.annotate(
                str(planet)[:16],
                (at, 0),
                (0, 5),
                textcoords="offset points",
                rotation=90,
                ha="center",
                va="bottom",
                fontsize=7.5,
            )
    axes.set_xlabel(quantity.title if quantity.unit == "1" else f"{quantity.title} ({quantity.unit})")
    listed = outside[["instrument", "planet_id", "visit", name]].itertuples(index=False, name=None)
    return Histogram(quantity, _data_uri(figure), tuple((str(i), str(p), str(v), float(x)) for i, p, v, x in listed))


def _bins(values: pd.Series) -> tuple[Floats, str]:
    """Edges of the bins, and the scale of the axis."""
    low, high = float(values.min()), float(values.max())
    if low > 0 and high > LOGARITHMIC * low:
        return np.geomspace(low / 1.1, high * 1.1, BINS + 1), "log"
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 0.5
    return np.linspace(low - margin, high + margin, BINS + 1), "linear"


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
