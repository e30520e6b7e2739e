"""Summary tables that the data contracts judge: one row per planet, visit or light curve."""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spectramind.calibration.statistics import GAUSSIAN_MEDIAN
from spectramind.calibration.summary import QUANTITIES
from spectramind.data.layout import SPLITS, Dataset, Split
from spectramind.provenance.s3 import S3Path
from spectramind.submission.table import wide_header
from spectramind.types import Spectra

if TYPE_CHECKING:
    from flows.workspace import Visit, VisitKey

FEWEST_TO_COMPARE = 8
"""Light curves of an instrument from which one may stand out."""

LEAST_SPREAD = 0.1
"""Of a number's logarithm: where light curves are more alike than 10 %, that is what differences are measured by."""

STAR = ("Rs", "Ms", "Ts", "Mp", "e", "P", "sma", "i")


@dataclass(frozen=True)
class Statistics:
    """`statistics.json` of a calibrated visit: by instrument, the kill-chain's steps and the summary numbers; with the
    digest of the cube beside it."""

    split: str
    planet_id: str
    visit: int
    steps: Mapping[str, Sequence[Mapping[str, Any]]]
    summary: Mapping[str, Mapping[str, float]]
    cube: str

    @classmethod
    def read(cls, split: str, planet_id: str, visit: int, path: Path | S3Path, cube: str) -> Statistics:
        document = json.loads(path.read_text(encoding="utf-8"))
        return cls(split, planet_id, visit, document["steps"], document["summary"], cube)


def planets_table(dataset: Dataset, planets: Mapping[Split, Sequence[str]], visits: Iterable[Visit]) -> pd.DataFrame:
    """One row per planet: `planet_id`, `split`, number of `visits`, the row of the star table."""
    counts: dict[tuple[str, str], int] = {}
    for visit in visits:
        counts[visit.split, visit.planet_id] = counts.get((visit.split, visit.planet_id), 0) + 1
    rows = [
        {**asdict(dataset.star(split, planet)), "split": split, "visits": counts.get((split, planet), 0)}
        for split in SPLITS
        for planet in planets[split]
    ]
    return pd.DataFrame(rows, columns=["planet_id", "split", "visits", *STAR])


def raw_visits_table(visits: Sequence[Visit], absent: str, refused: Container[VisitKey]) -> pd.DataFrame:
    """One row per visit: how many files are missing, and whether its frames could be calibrated."""
    rows = [
        {
            "planet_id": visit.planet_id,
            "split": visit.split,
            "visit": visit.visit,
            "missing_files": sum(digest == absent for digest in visit.inputs.values()),
            "calibrated": visit.key not in refused,
        }
        for visit in visits
    ]
    return pd.DataFrame(rows, columns=["planet_id", "split", "visit", "missing_files", "calibrated"])


def light_curves_table(statistics: Iterable[Statistics]) -> pd.DataFrame:
    """One row per visit and instrument: the summary numbers of the calibration, and how each stands out."""
    rows = [
        {
            **{"planet_id": s.planet_id, "split": s.split, "visit": s.visit, "instrument": instrument},
            **{"cube": s.cube, **_numbers(numbers)},
        }
        for s in statistics
        for instrument, numbers in s.summary.items()
    ]
    columns = ["planet_id", "split", "visit", "instrument", "cube", *QUANTITIES]
    return with_z_scores(pd.DataFrame(rows, columns=columns))


def with_z_scores(light_curves: pd.DataFrame) -> pd.DataFrame:
    """Add to each number of `QUANTITIES` a column `z_…`: how far it is from the median of its instrument's light
    curves, in robust standard deviations of the logarithm of the number plus its `least`; NaN among fewer than eight.
    """
    columns = {}
    for name, quantity in QUANTITIES.items():
        logarithm = np.log(light_curves[name].clip(lower=0.0).astype(float) + quantity.least)
        grouped = logarithm.groupby(light_curves["instrument"])
        deviation = logarithm - grouped.transform("median")
        spread = GAUSSIAN_MEDIAN * deviation.abs().groupby(light_curves["instrument"]).transform("median")
        z = (deviation / spread.clip(lower=LEAST_SPREAD)).round(2)
        columns[f"z_{name}"] = z.where(grouped.transform("count") >= FEWEST_TO_COMPARE)
    return light_curves.assign(**columns)


def steps_table(statistics: Iterable[Statistics]) -> pd.DataFrame:
    """One row per instrument and step of the kill-chain, in its order: medians over all visits."""
    rows = [
        {"instrument": instrument, **step, **_numbers({k: v for k, v in step.items() if k != "step"})}
        for s in statistics
        for instrument, steps in s.steps.items()
        for step in steps
    ]
    if not rows:
        return pd.DataFrame(columns=["instrument", "step"])
    return pd.DataFrame(rows).groupby(["instrument", "step"], sort=False).median().reset_index()


def fits_table(summaries: Mapping[tuple[Split, str], Mapping[str, float | None]]) -> pd.DataFrame:
    """One row per fitted planet, from the summaries of the fits by (split, planet)."""
    rows = [
        {"planet_id": planet, "split": split, **_fit_row(summary)} for (split, planet), summary in summaries.items()
    ]
    columns = ["depth_fgs1", "depth_airs", "chi2_max", "rejected_max", "mid_time_min_h", "mid_time_max_h"]
    return pd.DataFrame(rows, columns=["planet_id", "split", *columns])


def predictions_table(spectra: Spectra, fallback: Iterable[str]) -> pd.DataFrame:
    """One row per predicted planet: extremes of its spectrum and sigmas."""
    substituted = set(fallback)
    return pd.DataFrame(
        {
            "planet_id": list(spectra.planet_ids),
            "missing_values": _missing(spectra.mean) + _missing(spectra.sigma),
            "smallest_depth": spectra.mean.min(axis=1),
            "largest_depth": spectra.mean.max(axis=1),
            "spectrum_range": np.ptp(spectra.mean, axis=1),
            "smallest_sigma": spectra.sigma.min(axis=1),
            "largest_sigma": spectra.sigma.max(axis=1),
            "fallback": [planet in substituted for planet in spectra.planet_ids],
        }
    )


def submission_table(table: pd.DataFrame, expected: Iterable[str]) -> pd.DataFrame:
    """One row per row of a wide submission: what could void it."""
    listed = set(expected)
    numbers = table.drop(columns="planet_id").to_numpy(float)
    sigma = table[[column for column in table.columns if column.startswith("sigma_")]].to_numpy(float)
    ids = table["planet_id"].astype(str)
    return pd.DataFrame(
        {
            "planet_id": ids,
            "expected": ids.isin(listed).astype(int),
            "numbers": numbers.shape[1],
            "missing_values": _missing(numbers),
            "smallest_number": numbers.min(axis=1),
            "smallest_sigma": sigma.min(axis=1),
        }
    )


def spectra_frame(spectra: Spectra) -> pd.DataFrame:
    """planet_id, wl_1..wl_283, sigma_1..sigma_283."""
    numbers = np.concatenate([spectra.mean, spectra.sigma], axis=1)
    frame = pd.DataFrame(numbers, columns=list(wide_header()[1:]))
    frame.insert(0, "planet_id", list(spectra.planet_ids))
    return frame


def _missing(values: Any) -> Any:
    return (~np.isfinite(values)).sum(axis=1)


def _fit_row(summary: Mapping[str, float | None]) -> dict[str, float]:
    numbers = {name: float("nan") if value is None else value for name, value in summary.items()}

    def having(prefix: str) -> list[float]:
        return [value for name, value in numbers.items() if name.startswith(prefix)] or [float("nan")]

    mid_times = having("mid_time_h")
    return {
        "depth_fgs1": numbers["depth_fgs1"],
        "depth_airs": numbers["depth_airs"],
        "chi2_max": max(having("chi2")),
        "rejected_max": max(having("rejected")),
        "mid_time_min_h": min(mid_times),
        "mid_time_max_h": max(mid_times),
    }


def _numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """The store writes NaN and infinities as words, which `float` understands."""
    return {name: float(value) for name, value in row.items()}
