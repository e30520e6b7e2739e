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
    from matplotlib.figure import Figure

    from spectramind.explain.network import HeadValues, TimeAttribution


def draw_noise(passport: NoisePassport, wavelengths_um: Floats, planet: str, path: Path) -> None:
    """The terms of each AIRS bin's variance, stacked."""
    shares = passport.terms[:, 1:N_WAVELENGTHS] / passport.variance[1:N_WAVELENGTHS]
    with _figure(path, 9, 3.4) as figure:
        axes = figure.subplots()
        axes.stackplot(wavelengths_um[1:], np.maximum(shares, 0.0), labels=TERMS)
        title = f"Planet {planet}: depths' variance"
        axes.set(xlabel="wavelength (µm)", ylabel="share of variance", ylim=(0, 1), title=title)
        axes.margins(x=0)
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, reverse=True)


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


def draw_times(along: TimeAttribution, planet: str, path: Path) -> None:
    """Integrated gradients along the FGS1 sequence, a panel for each visit."""
    from spectramind.models.network_inputs import FGS1_CHANNELS

    with _figure(path, 9, 2.8 * len(along.values)) as figure:
        for visit, axes in enumerate(figure.subplots(len(along.values), squeeze=False)[:, 0]):
            for channel, name in enumerate(FGS1_CHANNELS):
                axes.plot(along.values[visit, :, channel], lw=1, label=name)
            axes.set(xlabel="step of the sequence", ylabel="analytic sigmas", title=f"Planet {planet}, visit {visit}")
            axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)


@contextmanager
def _figure(path: Path, width: float, height: float) -> Iterator[Figure]:
    """A figure that is written to `path` at the end."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"font.size": 9}):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure
        figure.savefig(path, dpi=120, metadata={"Software": None})
