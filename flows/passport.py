"""Noise passports of fitted planets as a table, in a run's predictions and in its explanation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from flows.units import light_curves
from spectramind.data.frames import read_references
from spectramind.data.layout import Dataset
from spectramind.instruments import INSTRUMENTS, Instrument
from spectramind.models.analytic import AnalyticModel
from spectramind.transit.fit import FittedCurves, PlanetFit, fitted_curves
from spectramind.transit.options import TransitOptions
from spectramind.types import CalibratedVisit, Floats, Spectra, Star
from spectramind.uncertainty.noise_passport import DEPTHS, TERMS, DetectorNoise, NoisePassport, noise_passport

if TYPE_CHECKING:
    from flows.calibrate import Calibration
    from flows.workspace import Workspace

PASSPORT = "noise_passport.parquet"
COLUMNS = ("sigma_ppm", *TERMS, "averages_down", "visits", "visits_chi2", "visits_change_ppm")


def write_passports(
    path: Path,
    work: Workspace,
    calibration: Calibration,
    fits: Sequence[PlanetFit],
    stars: Sequence[Star],
    model: AnalyticModel,
    posterior: Spectra,
) -> None:
    """Write the passports of these fitted test planets to `path`. A planet whose light curves the `posterior` does not
    use, as its flags say, has none."""
    passports = {}
    for fit, star, flags in zip(fits, stars, posterior.flags, strict=True):
        if flags:
            continue
        visits = [
            CalibratedVisit(
                fit.planet_id,
                units.visit.visit,
                {name: curve for job in units.jobs for name, curve in light_curves(job).items()},
                {},
                {},
            )
            for units in calibration.visits["test", fit.planet_id]
        ]
        passports[fit.planet_id] = planet_passport(work.dataset, model, fit, star, visits, work.settings.transit)[0]
    passport_table(passports).to_parquet(path, index=False)


def planet_passport(
    dataset: Dataset,
    model: AnalyticModel,
    fit: PlanetFit,
    star: Star,
    visits: Sequence[CalibratedVisit],
    options: TransitOptions,
) -> tuple[NoisePassport, list[list[FittedCurves]]]:
    """The passport of a test planet, with one broad spectral prior, and its light curves at the fit's best point."""
    curves = fitted_curves(fit, visits, star, options)
    detectors = {i.name: _detector(dataset, fit.planet_id, visits[0].visit, i) for i in INSTRUMENTS}
    known = model.any_spectrum, model.nuisance_knowledge([fit], [star])[0]
    return noise_passport(visits, curves, star, fit.layout, *known, detectors), curves


def passport_table(passports: Mapping[str, NoisePassport]) -> pd.DataFrame:
    """A row for each planet and depth: `planet_id`, `depth`, `sigma_ppm`, each term's share of the variance, the share
    that averages down with more visits, and how far the visits agree (NaN for one)."""
    values = [np.empty((len(COLUMNS), 0)), *(_columns(passport) for passport in passports.values())]
    frame = pd.DataFrame(
        {
            "planet_id": np.repeat(np.array(list(passports), dtype=object), len(DEPTHS)),
            "depth": np.tile(np.array(DEPTHS, dtype=object), len(passports)),
        }
    )
    return frame.assign(**dict(zip(COLUMNS, np.concatenate(values, axis=1), strict=True))).astype({"visits": int})


def _columns(passport: NoisePassport) -> Floats:
    """(columns, depths), in the order of `COLUMNS`."""
    agreement = passport.agreement
    visits = [np.full(len(DEPTHS), agreement.visits), agreement.chi2, 1e6 * agreement.change]
    return np.stack([1e6 * np.sqrt(passport.variance), *passport.shares, passport.averages_down, *visits])


def _detector(dataset: Dataset, planet: str, visit: int, instrument: Instrument) -> DetectorNoise:
    """Of a typical live pixel: two reads, and the dark current of the longer integration less the shorter."""
    frames = read_references(dataset, "test", planet, visit, instrument)
    seconds = float(np.ptp(dataset.axes[instrument.name].integration_s[:2]))
    alive = ~frames.dead
    read = 2 * float(np.median(frames.read[alive])) ** 2
    return DetectorNoise(read, abs(float(np.median(frames.dark[alive]))) * seconds)
