"""The pictures of the data-quality report, as data URIs: histograms of the summary numbers with limits and names."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from flows.quality import INDEX_COLUMNS
from spectramind.calibration.summary import QUANTITIES, Quantity
from spectramind.types import Floats

if TYPE_CHECKING:
    import pandas as pd

    from flows.quality import Finding, SuiteResult

INSTRUMENT_COLOURS = {"FGS1": "#b5541c", "AIRS-CH0": "#1c5d99"}
"""By instrument, from top to bottom."""
LIMITS = {"quarantine": "#b3261e", "flag": "#9a6400", "stop": "#b3261e"}
"""By what happens beyond the limit."""
MOST_NAMES = 5
"""Planets named in a histogram; the list below it has more."""
NAME_WIDTH = 0.035
"""Of a name, in widths of the axis."""
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
    """The pictures of a report; `noise` is a data URI, empty if there is no light curve; `alike` are the numbers in
    which all light curves agree."""

    noise: str
    histograms: tuple[Histogram, ...]
    alike: tuple[Quantity, ...]


def figures(light_curves: pd.DataFrame, verdict: SuiteResult | None) -> Figures:
    """The pictures of the `light_curves` table; `verdict` on it gives the limits and the names in the histograms."""
    if light_curves.empty:
        return Figures("", (), ())
    import matplotlib as mpl

    findings = verdict.findings if verdict else ()
    # A fixed salt and no date: the same data give the same bytes.
    style = {"svg.hashsalt": "spectramind", "svg.fonttype": "none", "font.size": 9, "font.family": "sans-serif"}
    with mpl.rc_context(style):  # type: ignore[arg-type]
        varied = light_curves.groupby("instrument")[list(QUANTITIES)].nunique().max() > 1
        histograms = tuple(_histogram(name, light_curves, findings) for name in QUANTITIES if varied[name])
        return Figures(_noise(light_curves), histograms, tuple(q for name, q in QUANTITIES.items() if not varied[name]))


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
    return data_uri(figure)


def _histogram(name: str, light_curves: pd.DataFrame, findings: Sequence[Finding]) -> Histogram:
    """One row per instrument, with the limits, and names where planets miss an expectation."""
    from matplotlib.figure import Figure

    quantity = QUANTITIES[name]
    known = light_curves[light_curves[name].notna()]
    concerned = [finding for finding in findings if finding.column in (name, f"z_{name}")]
    missed = {row for finding in concerned for row in finding.rows}
    rows = known[list(INDEX_COLUMNS)].astype(str).itertuples(index=False, name=None)
    outside = known[[row in missed for row in rows]].sort_values(f"z_{name}", key=abs, ascending=False)
    instruments = [instrument for instrument in INSTRUMENT_COLOURS if (known["instrument"] == instrument).any()]
    height = 0.5 + 1.5 * len(instruments)
    figure = Figure(figsize=(5.2, height))  # fixed margins: a layout engine would draw everything twice
    margins = {"left": 0.14, "right": 0.97, "top": 1 - 0.08 / height, "bottom": 0.48 / height, "hspace": 0.28}
    panels = figure.subplots(len(instruments), 1, squeeze=False, gridspec_kw=margins)[:, 0]
    for axes, instrument in zip(panels, instruments, strict=True):
        values = known.loc[known["instrument"] == instrument, name]
        edges, scale = _bins(values)
        axes.hist(values, bins=edges, histtype="stepfilled", color=INSTRUMENT_COLOURS[instrument], alpha=0.6)
        axes.set(xscale=scale, xlim=(edges[0], edges[-1]), ylabel=instrument)
        axes.spines[["top", "right"]].set_visible(False)
        axes.locator_params(axis="y", nbins=3, integer=True)
        _draw_limits(axes, [f for f in concerned if f.column == name and f.instrument in ("", instrument)])
        here = outside[outside["instrument"] == instrument]
        _name(axes, here[["planet_id", name]].itertuples(index=False, name=None))
    panels[-1].set_xlabel(quantity.title if quantity.unit == "1" else f"{quantity.title} ({quantity.unit})")
    listed = outside[["instrument", "planet_id", "visit", name]].itertuples(index=False, name=None)
    return Histogram(quantity, data_uri(figure), tuple((str(i), str(p), str(v), float(x)) for i, p, v, x in listed))


def _name(axes: Any, planets: Iterable[tuple[Any, float]]) -> None:
    """Mark planets at their values, and name the first that do not lie too close to one that is named."""
    to_axis = axes.transData + axes.transAxes.inverted()
    named: list[float] = []
    for planet, value in planets:
        axes.plot([value], [0], "v", ms=5, color=LIMITS["quarantine"], clip_on=False, zorder=5)
        at = float(to_axis.transform((value, 0))[0])
        if len(named) < MOST_NAMES and all(abs(at - other) > NAME_WIDTH for other in named):
            named.append(at)
            place = {"xytext": (0, 5), "textcoords": "offset points", "ha": "center", "va": "bottom"}
            axes.annotate(str(planet)[:16], (value, 0), rotation=90, fontsize=7.5, parse_math=False, **place)


def _draw_limits(axes: Any, findings: Sequence[Finding]) -> None:
    """Lines where a limit lies on the axis; words where it lies beyond, for the data should not shrink to a line."""
    least, most = axes.get_xlim()
    beyond: dict[str, list[str]] = {"←": [], "→": []}
    for finding in findings:
        for limit in finding.between:
            if limit is None:
                continue
            if least <= limit <= most:
                axes.axvline(limit, ls="--", lw=1.2, color=LIMITS[finding.on_failure])
            else:
                beyond["←" if limit < least else "→"].append(f"{limit:g}")
    for arrow, (side, x) in {"←": ("left", 0.02), "→": ("right", 1.0)}.items():
        if beyond[arrow]:
            text = ", ".join(dict.fromkeys(beyond[arrow]))
            text = f"{arrow} limit {text}" if arrow == "←" else f"limit {text} {arrow}"
            axes.annotate(text, (x, 1.0), xycoords="axes fraction", ha=side, va="top", color="#777777", fontsize=7.5)


def _bins(values: pd.Series) -> tuple[Floats, str]:
    """Edges of the bins, and the scale of the axis."""
    low, high = float(values.min()), float(values.max())
    if low > 0 and high > LOGARITHMIC * low:
        return np.geomspace(low / 1.1, high * 1.1, BINS + 1), "log"
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 0.5
    return np.linspace(low - margin, high + margin, BINS + 1), "linear"


def data_uri(figure: Any) -> str:
    """A Matplotlib figure as an SVG image inside an address."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
