"""Knobs of the sigma scaling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from spectramind.options import option

Stage = Literal["none", "global", "instrument", "bins", "power", "evidence"]
Objective = Literal["score", "nll"]


@dataclass(frozen=True)
class UncertaintyOptions:
    """How predicted sigmas are scaled on out-of-fold predictions."""

    stage: Stage = option(
        "power",
        "Furthest correction of sigma to try: none, one global temperature, one temperature per instrument, then a "
        "factor per bin, then a power law in sigma, then a factor per planet by the scatter of its light curves and "
        "the difference of its half transits and visits. A stage is kept only if held-out planets lose less by it.",
    )
    objective: Objective = option(
        "score", "What the fit optimises: the official score, or the plain negative log likelihood of each bin."
    )
    folds: int = option(5, "Folds of the cross-validation over planets.", ge=2, le=100)
    min_planets: int = option(16, "With fewer held-out planets than this, sigma is left as it is.", ge=2, le=100_000)
    prior_scatter: float = option(
        0.05,
        "How far, in ln(sigma), a predictor's sigmas may be expected to be wrong: what few planets show is shrunk "
        "towards them as they are. Effects far larger than this and than chance are believed.",
        gt=0.0,
        le=100.0,
    )
    min_gain: float = option(
        0.25, "Least gain on held-out planets, in its standard errors, for which a stage is kept.", ge=0.0, le=10.0
    )
    tail_limit: float = option(
        10.0,
        "Errors beyond this many robust standard deviations count as if they lay at the limit, so that a failed fit of "
        "one planet does not set the sigma of all others.",
        ge=2.0,
        le=1000.0,
    )
    smoothing_bins: float = option(
        15.0,
        "Width, in bins, of the Gaussian kernel that smooths the per-bin factors along wavelength.",
        gt=0.0,
        le=283.0,
    )
    max_factor: float = option(20.0, "Largest factor, up or down, of any one stage.", gt=1.0, le=1000.0)
    max_exponent_change: float = option(0.5, "Largest change of the exponent of sigma from 1.", ge=0.0, lt=1.0)
    evidence_scatter: float = option(
        0.3,
        "Expected size, in ln(sigma), of what a unit of a planet's evidence changes: smaller believes it less.",
        gt=0.0,
        le=10.0,
    )
    floor_fgs1: float = option(1e-6, "Smallest sigma of the FGS1 depth after scaling.", ge=0.0, le=1e-6)
    floor_airs: float = option(1e-5, "Smallest sigma of an AIRS depth after scaling.", ge=0.0, le=1e-5)


@dataclass(frozen=True)
class IntervalOptions:
    """How the intervals beside the predictions are made."""

    method: str = option(
        "split",
        "split: a conformal quantile for each bin; region: one for all bins of a molecule's windows; corel: quantiles "
        "of the graph network made conformal; or the name of a method that was registered.",
    )
