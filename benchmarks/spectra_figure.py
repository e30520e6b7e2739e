"""Draw predicted spectra of a run beside the truth: python benchmarks/spectra_figure.py RUN TRUTH.csv OUT.png

The planets are those whose spectra vary the least, the median and the most in the truth, so that no planet is picked by
how well it came out.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from flows.spectra_files import read_predictions, read_truth
from spectramind.types import Floats

SHARES = (0.1, 0.5, 0.9)
"""Quantiles of the spectra's variation that are shown."""


def main(run: Path, truth_file: Path, out: Path) -> None:
    spectra = read_predictions(run / "predictions" / "predictions.parquet")
    planet_ids, truth = read_truth(truth_file)
    row = {planet: index for index, planet in enumerate(planet_ids)}
    truth = truth[[row[planet] for planet in spectra.planet_ids]]
    wavelengths = _wavelengths(truth_file)
    order = np.argsort(truth[:, 1:].std(axis=1))
    chosen = [int(order[round(share * (len(order) - 1))]) for share in SHARES]
    figure = Figure(figsize=(10.5, 3.2), layout="constrained", dpi=150)
    for axes, index in zip(figure.subplots(1, len(chosen)), chosen, strict=True):
        mean, sigma, true = (1e6 * values[index] for values in (spectra.mean, spectra.sigma, truth))
        axes.fill_between(wavelengths[1:], (mean - sigma)[1:], (mean + sigma)[1:], color="#1c5d99", alpha=0.25, lw=0)
        axes.plot(wavelengths[1:], mean[1:], color="#1c5d99", lw=1.4, label="prediction ± 1 sigma")
        axes.errorbar(wavelengths[:1], mean[:1], sigma[:1], color="#1c5d99", fmt="o", ms=4)
        axes.plot(wavelengths[1:], true[1:], color="#222222", lw=0.9, ls="--", label="truth")
        axes.plot(wavelengths[:1], true[:1], "x", color="#222222", ms=5)
        axes.set(xlabel="wavelength (µm)", title=f"planet {spectra.planet_ids[index]}")
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("transit depth (ppm)")
    figure.axes[0].legend(frameon=False, fontsize=8)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out)


def _wavelengths(truth_file: Path) -> Floats:
    """From the data set that the truth folder `<root>_truth` belongs to."""
    root = truth_file.parent.with_name(truth_file.parent.name.removesuffix("_truth"))
    return np.asarray(pd.read_csv(root / "wavelengths.csv").to_numpy(float)[0])


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*map(Path, sys.argv[1:]))
