"""A checkpoint at work: fits of planets in, spectra with scaled sigmas out.

MLflow serves it too: `_load_pyfunc` is what it calls, in any process, with the checkpoint and a copy of `spectramind`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spectramind.models.analytic import AnalyticModel
from spectramind.submission.table import wide_header
from spectramind.transit.fit import PlanetFit
from spectramind.types import Floats, Spectra, Star
from spectramind.uncertainty.scaling import SigmaScaling

if TYPE_CHECKING:
    import pandas as pd

MODEL, SCALING, FALLBACK = "model", "sigma_scaling.json", "fallback.json"
"""What a checkpoint holds."""


@dataclass(frozen=True)
class Predictor:
    """The trained model, its sigma scaling, and what stands in for a planet that cannot be fitted: `fallback_mean`,
    `fallback_sigma` (283,), mean and spread of the training spectra."""

    model: AnalyticModel
    scaling: SigmaScaling
    fallback_mean: Floats
    fallback_sigma: Floats

    @classmethod
    def load(cls, folder: Path) -> Predictor:
        """The checkpoint in `folder`."""
        fallback = json.loads((folder / FALLBACK).read_text(encoding="utf-8"))
        return cls(
            AnalyticModel.load(folder / MODEL),
            SigmaScaling.load(folder / SCALING),
            np.array(fallback["mean"]),
            np.array(fallback["sigma"]),
        )

    def spectra(self, fits: Sequence[PlanetFit], stars: Sequence[Star]) -> Spectra:
        """Spectra of fitted planets, in their order."""
        raw = self.model.predict(fits, stars)
        covariance = None if raw.covariance is None else self.scaling.apply_covariance(raw.covariance)
        return Spectra(raw.planet_ids, raw.mean, self.scaling.apply(raw.sigma), covariance, raw.flags)

    def predict(self, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """For MLflow: rows of `fit` (path of a fit) and the star table's columns to rows of a wide submission."""
        import pandas as pd

        names = [field.name for field in fields(Star)]
        stars = [Star(**{name: row[name] for name in names}) for row in model_input.to_dict("records")]
        spectra = self.spectra([PlanetFit.load(Path(path)) for path in model_input["fit"]], stars)
        numbers = np.concatenate([spectra.mean, spectra.sigma], axis=1)
        frame = pd.DataFrame(numbers, columns=list(wide_header()[1:]))
        frame.insert(0, "planet_id", list(spectra.planet_ids))
        return frame


def _load_pyfunc(path: str) -> Predictor:
    return Predictor.load(Path(path))
