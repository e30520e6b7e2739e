"""Split-conformal intervals of the predicted planets: a table beside the predictions."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from spectramind.metrics.statistics import COVERAGE_LEVELS
from spectramind.types import Floats, Spectra
from spectramind.uncertainty.conformal import fit_conformal

INTERVALS = "intervals.parquet"


def write_intervals(
    path: Path, held_out: Spectra, labels: Floats, predicted: Spectra, fallback: Collection[str]
) -> None:
    """One row per planet, level and bin: `low`, `high` hold the bin, `band_low`, `band_high` all bins of the planet at
    once; infinite where the held-out planets are too few for the level.

    Calibrated on `held_out` predictions of train planets and their `labels` (planets, 283). Planets predicted by the
    `fallback` have no rows: the errors of fits say nothing of them.
    """
    conformal = fit_conformal(held_out.mean, held_out.sigma, labels, COVERAGE_LEVELS)
    kept = np.array([planet not in fallback for planet in predicted.planet_ids])
    planets = [planet for planet, keep in zip(predicted.planet_ids, kept, strict=True) if keep]
    mean, sigma = predicted.mean[kept], predicted.sigma[kept]
    limits = (*conformal.intervals(mean, sigma), *conformal.bands(mean, sigma))
    interval_table(conformal.levels, planets, limits).to_parquet(path, index=False)


def interval_table(levels: Sequence[float], planets: Sequence[str], limits: Sequence[Floats]) -> pd.DataFrame:
    """The rows of `write_intervals` from the four limits, each (levels, planets, bins)."""
    keys = pd.MultiIndex.from_product(
        [levels, planets, range(1, limits[0].shape[2] + 1)], names=["level", "planet_id", "wl"]
    )
    columns = ("low", "high", "band_low", "band_high")
    numbers = {name: values.ravel() for name, values in zip(columns, limits, strict=True)}
    return pd.DataFrame(numbers, index=keys).reset_index()
