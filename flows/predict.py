"""Flow `predict-v50`: spectra and sigmas of the test split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from prefect import flow

from flows.batches import remembered_unit
from flows.calibrate import Calibration, calibrate
from flows.contracts import judge, planet_flags, publish_data_quality
from flows.covariance_file import COVARIANCE, write_covariance
from flows.fit import Fits, fit_split
from flows.flags import FALLBACK_FLAG, write_flags
from flows.interval_methods import method_identity
from flows.intervals import held_out_planets, interval_log, write_intervals
from flows.network import VIOLATIONS, fgs1_curves, violations_table
from flows.passport import PASSPORT, write_passports
from flows.published import markdown, replace_tree, run_directory
from flows.run_directory import OUT_OF_FOLD, RunDirectory
from flows.served_model import SCALING, Predictor
from flows.spectra_files import read_predictions
from flows.tables import predictions_table, spectra_frame
from flows.train import EVIDENCE, Training, train_v50
from flows.workspace import Workspace, workspace
from settings.tree import Settings
from spectramind.errors import InputError
from spectramind.provenance.digests import code_digest, digest_json
from spectramind.provenance.units import unit_path
from spectramind.types import Spectra
from spectramind.uncertainty.evidence import evidence_of
from spectramind.uncertainty.low_rank import LowRank, low_rank
from spectramind.uncertainty.scaling import SigmaScaling

PREDICTIONS = "predictions.parquet"


@dataclass(frozen=True)
class Prediction:
    """Predicted spectra of all test planets, in the data set's order, and where they are stored."""

    path: Path
    digest: str
    spectra: Spectra
    fallback: tuple[str, ...]


@flow(name="predict-v50")
def predict_v50(settings: Settings, run: RunDirectory | None = None) -> Prediction:
    """Predict every test planet; write `predictions/` of the run."""
    with workspace(settings, run, "predict") as work:
        run_directory(work.run.path)
        if work.prediction is None:
            work.prediction = _predict(work)
        return work.prediction


def _predict(work: Workspace) -> Prediction:
    planets = work.planets["test"]
    if not planets:
        where = work.dataset.root / "test"
        raise InputError(where, "planets to predict", "none", "Set data.root to a complete data set.")
    calibration = work.calibration or calibrate(work.settings, work.run)
    training = work.training or train_v50(work.settings, work.run)
    fits = fit_split(work, "test", calibration)
    doubts = planet_flags(work, "test")
    identity = _identity(work, fits, training, doubts)
    target = unit_path(work.layout.predictions, identity)

    fallback = tuple(planet for planet in planets if planet not in fits.digests)

    def write(folder: Path) -> None:
        _write(work, planets, fits, training, doubts, calibration, folder)
        known, predicted = (read_predictions(p) for p in (training.path / OUT_OF_FOLD, folder / PREDICTIONS))
        evidence, own = (np.load(place / EVIDENCE) for place in (training.path, folder))
        wavelengths, labels = work.dataset.wavelengths_um, work.labels(known.planet_ids)
        held_out = held_out_planets(known, labels, evidence, wavelengths, work.settings)
        write_intervals(folder, work.settings.intervals.method, held_out, predicted, own, fallback)

    digest = remembered_unit(work, "predict", target, identity, write)
    spectra = read_predictions(target / PREDICTIONS)
    judge(work, "predictions", predictions_table(spectra, fallback))
    publish_data_quality(work)
    replace_tree(target, work.run.folder("predictions"))
    intervals, lines = interval_log(target, SigmaScaling.load(training.path / SCALING))
    work.run.add_metrics({"intervals": intervals})
    work.run.journal.event("intervals", method=intervals["method"], steps=intervals["steps"])
    work.console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)
    for planet in fallback:
        stand_in = "predicted by the mean of the training planets with a wide sigma"
        work.warn(f"planet {planet}: {stand_in} ({fits.lost[planet]})")
    told = f"{len(planets)} planets, {len(fallback)} by fallback"
    markdown("predictions", told, f"{told}: `{work.run.path / 'predictions'}`")
    return Prediction(target, digest, spectra, fallback)


def _identity(work: Workspace, fits: Fits, training: Training, doubts: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    return {
        "kind": "predicted spectra",
        "inputs": {
            **{f"fit/{planet}": digest for planet, digest in fits.digests.items()},
            "checkpoint": training.digest,
            "doubts": digest_json({planet: list(words) for planet, words in doubts.items()}),
        },
        "settings": {
            "planets": list(work.planets["test"]),
            "noise_passport": _cubes_are_near(work),
            "intervals": method_identity(work.settings),
        },
        "code": code_digest(
            *("spectramind.models", "spectramind.transit", "spectramind.uncertainty", "spectramind.losses"),
            *("flows.predict", "flows.served_model", "flows.network", "flows.intervals", "flows.passport"),
            *("flows.interval_methods", "flows.covariance_file", "flows.flags"),
        ),
    }


def _cubes_are_near(work: Workspace) -> bool:
    """Noise passports need the cubes once more, which is cheap on this machine alone."""
    return work.layout.bucket is None


def _write(
    work: Workspace,
    planets: Sequence[str],
    fits: Fits,
    training: Training,
    doubts: Mapping[str, Sequence[str]],
    calibration: Calibration,
    folder: Path,
) -> None:
    predictor = Predictor.load(training.path)
    loaded = fits.load()
    posterior = predictor.model.predict(*loaded) if fits.planets else None
    predicted = None
    if posterior is not None:
        curves = fgs1_curves(calibration, "test", fits.planets) if predictor.networks else ()
        predicted = predictor.complete(posterior, *loaded, curves)
        if work.settings.model.kind == "v50":
            violations_table(work, predicted, posterior.mean).to_parquet(folder / VIOLATIONS, index=False)
        if _cubes_are_near(work):
            write_passports(folder / PASSPORT, work, calibration, *loaded, predictor.model, posterior)
    spectra = with_fallback(planets, predictor, predicted)
    spectra_frame(spectra).to_parquet(folder / PREDICTIONS, index=False)
    summaries = fits.summaries()
    np.save(folder / EVIDENCE, evidence_of([summaries.get(planet, {}) for planet in planets]))
    flags = {planet: [*words, *doubts.get(planet, ())] for planet, words in zip(planets, spectra.flags, strict=True)}
    flags = {planet: words for planet, words in flags.items() if words}
    write_flags(folder, flags)
    if predicted is not None and predicted.covariance is not None:
        write_covariance(folder / COVARIANCE, planets, covariance_of(spectra, predicted))


def with_fallback(planets: Sequence[str], predictor: Predictor, predicted: Spectra | None) -> Spectra:
    """`predicted` spectra in the order of `planets`; the fallback, flagged, for those that are not among them."""
    mean = np.tile(predictor.fallback_mean, (len(planets), 1))
    sigma = np.tile(predictor.fallback_sigma, (len(planets), 1))
    flags: list[tuple[str, ...]] = [(FALLBACK_FLAG,)] * len(planets)
    if predicted is None:
        return Spectra(tuple(planets), mean, sigma, flags=tuple(flags))
    row = {planet: index for index, planet in enumerate(planets)}
    for index, planet in enumerate(predicted.planet_ids):
        mean[row[planet]], sigma[row[planet]] = predicted.mean[index], predicted.sigma[index]
        flags[row[planet]] = predicted.flags[index] if predicted.flags else ()
    return Spectra(tuple(planets), mean, sigma, flags=tuple(flags))


def covariance_of(spectra: Spectra, predicted: Spectra) -> LowRank:
    """Covariances of all `spectra`: of those that are `predicted`, theirs; of the others, the squares of sigma."""
    assert predicted.covariance is not None
    found = low_rank(predicted.covariance)
    factors = np.zeros((*spectra.sigma.shape, found.factors.shape[2]))
    diagonal = spectra.sigma**2
    rows = [spectra.planet_ids.index(planet) for planet in predicted.planet_ids]
    factors[rows], diagonal[rows] = found.factors, found.diagonal
    return LowRank(factors, diagonal)
