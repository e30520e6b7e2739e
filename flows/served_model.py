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

from spectramind.instruments import FGS1
from spectramind.models.analytic import AnalyticModel
from spectramind.submission.table import wide_header
from spectramind.transit.fit import PlanetFit
from spectramind.types import Floats, LightCurve, Spectra, Star
from spectramind.uncertainty.evidence import evidence_of
from spectramind.uncertainty.scaling import SigmaScaling, rescaled

if TYPE_CHECKING:
    import pandas as pd

    from spectramind.models.v50 import V50

MODEL, SCALING, FALLBACK = "model", "sigma_scaling.json", "fallback.json"
NETWORKS, NETWORK_USE = "networks", "network_use.json"
"""What a checkpoint holds; the latter two if networks were trained."""


@dataclass(frozen=True)
class NetworkUse:
    """`weight` of the networks beside the analytic posterior; planets in a `batch`; `passes` with dropout, whose random
    numbers start from `seed`."""

    weight: float
    batch: int
    passes: int
    seed: int


@dataclass(frozen=True)
class Predictor:
    """The trained model, its sigma scaling, and what stands in for a planet that cannot be fitted: `fallback_mean`,
    `fallback_sigma` (283,), mean and spread of the training spectra. `networks` are loaded if `use` weighs them."""

    model: AnalyticModel
    scaling: SigmaScaling
    fallback_mean: Floats
    fallback_sigma: Floats
    use: NetworkUse
    networks: tuple[V50, ...] = ()

    @classmethod
    def load(cls, folder: Path) -> Predictor:
        """The checkpoint in `folder`."""
        fallback = json.loads((folder / FALLBACK).read_text(encoding="utf-8"))
        use = NetworkUse(0.0, 1, 1, 0)
        networks: tuple[V50, ...] = ()
        if (folder / NETWORK_USE).exists():
            use = NetworkUse(**json.loads((folder / NETWORK_USE).read_text(encoding="utf-8")))
        if use.weight > 0:
            from spectramind.models.v50 import V50

            networks = tuple(V50.load(path) for path in sorted((folder / NETWORKS).iterdir()))
        return cls(
            AnalyticModel.load(folder / MODEL),
            SigmaScaling.load(folder / SCALING),
            np.array(fallback["mean"]),
            np.array(fallback["sigma"]),
            use,
            networks,
        )

    def spectra(
        self, fits: Sequence[PlanetFit], stars: Sequence[Star], curves: Sequence[Sequence[LightCurve]] = ()
    ) -> Spectra:
        """Spectra of fitted planets, in their order; the networks read each planet's FGS1 light `curves`."""
        return self.complete(self.model.predict(fits, stars), fits, stars, curves)

    def complete(
        self,
        posterior: Spectra,
        fits: Sequence[PlanetFit],
        stars: Sequence[Star],
        curves: Sequence[Sequence[LightCurve]] = (),
    ) -> Spectra:
        """The analytic `posterior` of these planets with the networks' part in it, and scaled sigmas."""
        mean, sigma, covariance = posterior.mean, posterior.sigma, posterior.covariance
        if self.networks:
            from spectramind.models.network_planets import network_planets, network_spectra
            from spectramind.training.mixture import mix

            directions = self.networks[0].options.heads.mu.directions
            planets = network_planets(fits, stars, posterior, curves, directions)
            predicted = network_spectra(self.networks, planets, self.use.batch, self.use.passes, self.use.seed)
            mean, sigma = mix((mean, sigma), predicted, self.use.weight)
            if covariance is not None:
                covariance = rescaled(covariance, sigma / posterior.sigma)
        evidence = evidence_of([fit.summary for fit in fits])
        if covariance is not None:
            covariance = self.scaling.apply_covariance(covariance, evidence)
        return Spectra(posterior.planet_ids, mean, self.scaling.apply(sigma, evidence), covariance, posterior.flags)

    @property
    def inputs(self) -> dict[str, str]:
        """Columns that `predict` reads, with their MLflow types."""
        star = {field.name: "string" if field.name == "planet_id" else "double" for field in fields(Star)}
        return {**star, "fit": "string", **({"fgs1": "string"} if self.networks else {})}

    @property
    def outputs(self) -> dict[str, str]:
        """Columns that `predict` returns."""
        return {name: "string" if name == "planet_id" else "double" for name in wide_header()}

    def predict(self, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """For MLflow: rows of `fit` (path of a fit), the star table's columns and, for networks, `fgs1` (a JSON list of
        the folders of the FGS1 cubes) to rows of a wide submission."""
        import pandas as pd

        names = [field.name for field in fields(Star)]
        stars = [Star(**{name: row[name] for name in names}) for row in model_input.to_dict("records")]
        curves: list[list[LightCurve]] = []
        if self.networks:
            from spectramind.cubes.store import read_cube

            folders = [[Path(folder) for folder in json.loads(row)] for row in model_input["fgs1"]]
            curves = [[read_cube(folder).curves[FGS1.name] for folder in own] for own in folders]
        spectra = self.spectra([PlanetFit.load(Path(path)) for path in model_input["fit"]], stars, curves)
        numbers = np.concatenate([spectra.mean, spectra.sigma], axis=1)
        frame = pd.DataFrame(numbers, columns=list(wide_header()[1:]))
        frame.insert(0, "planet_id", list(spectra.planet_ids))
        return frame


def _load_pyfunc(path: str) -> Predictor:
    return Predictor.load(Path(path))
