"""Figures of an explanation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from spectramind.instruments import N_WAVELENGTHS
from spectramind.types import Floats
from spectramind.uncertainty.noise_passport import TERMS, NoisePassport

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from spectramind.explain.network import HeadValues, PathAttribution


def draw_noise(passport: NoisePassport, wavelengths_um: Floats, allan: pd.DataFrame, planet: str, path: Path) -> None:
    """The terms of each AIRS bin's variance, stacked; and the `allan` table, dashed where noise is independent."""
    with _figure(path, 12, 3.6) as figure:
        terms, averages = figure.subplots(1, 2, width_ratios=(2, 1))
        shares = np.maximum(passport.shares[:, 1:N_WAVELENGTHS], 0.0)
        terms.stackplot(wavelengths_um[1:], shares, labels=TERMS)
        title = f"Planet {planet}: depths' variance"
        terms.set(xlabel="wavelength (µm)", ylabel="share of variance", ylim=(0, 1), title=title)
        terms.margins(x=0)
        terms.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, reverse=True)
        for (instrument, visit), rows in allan.groupby(["instrument", "visit"]):
            (line,) = averages.loglog(rows["samples"], rows["scatter_ppm"], "o-", ms=3, label=f"{instrument}, {visit}")
            averages.loglog(rows["samples"], rows["independent_ppm"], "--", lw=1, color=line.get_color())
        averages.set(xlabel="samples averaged", ylabel="scatter (ppm)", title="White residuals, by visit")
        averages.legend(frameon=False)


def draw_heads(shapley: HeadValues, bins: list[int], planet: str, path: Path) -> None:
    """Shapley values of both heads: inputs against bins."""
    from spectramind.explain.network import GROUPS, HEADS

    with _figure(path, 11, 4.6) as figure:
        parts = figure.subplots(1, len(HEADS), sharey=True)
        for axes, name, values in zip(parts, HEADS, shapley.values, strict=True):
            limit = max(float(np.abs(values).max()), 1e-12)
            image = axes.imshow(values, aspect="auto", cmap="RdBu", vmin=-limit, vmax=limit, interpolation="nearest")
            axes.set_xticks(range(len(bins)), [str(number + 1) for number in bins], rotation=90, fontsize=7)
            axes.set_yticks(range(len(GROUPS)), GROUPS)
            axes.set(xlabel="wl", title=f"Planet {planet}: {name}")
            figure.colorbar(image, ax=axes)


def draw_times(along: PathAttribution, planet: str, path: Path) -> None:
    """Integrated gradients along the FGS1 sequence, a panel for each visit."""
    from spectramind.models.network_inputs import FGS1_CHANNELS

    with _figure(path, 9, 2.8 * len(along.values)) as figure:
        for visit, axes in enumerate(figure.subplots(len(along.values), squeeze=False)[:, 0]):
            for channel, name in enumerate(FGS1_CHANNELS):
                axes.plot(along.values[visit, :, channel], lw=1, label=name)
            axes.set(xlabel="step of the sequence", ylabel="analytic sigmas", title=f"Planet {planet}, visit {visit}")
            axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)


def draw_overlay(top: pd.DataFrame, rules: list[str], planet: str, path: Path) -> None:
    """The explained bins: their attributions above, what they cost by each rule below."""
    places, names = range(len(top)), [str(number) for number in top["wl"]]
    with _figure(path, 10, 5.4) as figure:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(1, 1.4))
        upper.bar(places, top["attribution_ppm"], color="#1c5d99", label="light curves")
        if top["network_ppm"].notna().any():
            upper.plot(places, top["network_ppm"], "o", color="#b5541c", label="network's mean correction")
        title = f"Planet {planet}: bins that moved most, and the rules that they break"
        upper.set(ylabel="sum of |attributions| (ppm)", title=title)
        upper.legend(frameon=False)
        cost = 1e3 * top[rules].to_numpy(float).T
        image = lower.imshow(np.sqrt(cost), aspect="auto", cmap="Reds", vmin=0, interpolation="nearest")
        lower.set_xticks(places, names, rotation=90, fontsize=7)
        lower.set_yticks(range(len(rules)), [rule.replace("_", " ") for rule in rules], fontsize=7)
        lower.set(xlabel="wl")
        figure.colorbar(image, ax=lower, label="√(points of score / 1000)")


@contextmanager
def _figure(path: Path, width: float, height: float) -> Iterator[Figure]:
    """A figure that is written to `path` at the end."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"font.size": 9}):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure
        figure.savefig(path, dpi=120, metadata={"Software": None})
