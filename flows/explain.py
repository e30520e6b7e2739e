"""What the predictions of a finished run were made of, planet by planet; its store gives fits and light curves."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from flows.calibrate import Calibration, calibrate
from flows.fit import fit_split
from flows.journal import finite_json
from flows.network import VIOLATIONS, fgs1_curves
from flows.predict import PREDICTIONS
from flows.published import replace_tree
from flows.run_directory import RunDirectory, store_errors
from flows.scaling import CHECKPOINT, finished_part
from flows.served_model import MODEL, NETWORKS
from flows.spectra_files import read_predictions
from flows.units import light_curves
from flows.workspace import Workspace, workspace
from settings.resolve import resolve
from settings.tree import Settings
from spectramind.data.frames import read_references
from spectramind.errors import InputError
from spectramind.explain.posterior import PosteriorParts, band_shares, posterior_parts
from spectramind.instruments import INSTRUMENTS, N_WAVELENGTHS
from spectramind.models.analytic import AnalyticModel
from spectramind.models.response import correct_response
from spectramind.transit.fit import PlanetFit, fitted_curves
from spectramind.types import CalibratedVisit, Star
from spectramind.uncertainty.noise_passport import (
    DEPTHS,
    TERMS,
    DetectorNoise,
    NoisePassport,
    allan_table,
    noise_passport,
)

SUMMARY, SIGMAS = "summary.json", "sigma.json"
PASSPORT, ALLAN, ATTRIBUTION = "noise_passport.parquet", "allan.parquet", "attribution.parquet"
HEADS, TIMES, ATTENTION = "heads_shap.parquet", "integrated_gradients.parquet", "attention.parquet"
TOP_BINS = 24
NEIGHBOURS = 5
Table = list[dict[str, Any]]


@dataclass(frozen=True)
class _Explained:
    """One planet: its tables and what is said of it."""

    passport: NoisePassport
    parts: PosteriorParts
    allan: Table
    bins: list[int]


def explain_run(finished: Path, planets: tuple[str, ...], settings: Settings, run: RunDirectory) -> None:
    """Write `explain/` of the run `finished` for these test planets, or for all that were fitted."""
    config = finished_part(finished / "resolved_config.yaml")
    own = resolve([f"outputs.dir={json.dumps(str(run.path))}", "tracking.enable=false"], config)
    predictions = read_predictions(finished_part(finished / "predictions" / PREDICTIONS))
    with workspace(own, run, "explain") as work:
        calibration = calibrate(work.settings, work.run)
        fits = fit_split(work, "test", calibration)
        unknown = sorted(set(planets) - set(fits.planets))
        if unknown:
            raise InputError(finished, "test planets with a fit", f"none of {unknown[0]}", "Name one of its planets.")
        chosen = planets or fits.planets
        loaded = dict(zip(fits.planets, zip(*fits.load(), strict=True), strict=True))
        model = AnalyticModel.load(finished_part(finished / CHECKPOINT / MODEL))
        explained = {planet: _explain(work, calibration, model, planet, *loaded[planet]) for planet in chosen}
        sigma = {planet: predictions.sigma[row] for row, planet in enumerate(predictions.planet_ids)}
        tables, checks = _tables(explained)
        rules = finished / "predictions" / VIOLATIONS
        violations = pd.read_parquet(rules) if rules.exists() else None
        windows = work.settings.symbolic.windows.by_molecule
        document = {"planets": list(chosen), "checks": checks, "bands": _bands(explained, windows)}
        networks = finished / CHECKPOINT / NETWORKS
        if networks.is_dir():
            found, told = _network_tables(work, calibration, model, loaded, explained, networks)
            tables |= found
            document["network"] = told
        with store_errors(finished), tempfile.TemporaryDirectory(dir=finished, prefix=".explain-") as staging:
            folder = Path(staging) / "explain"
            folder.mkdir()
            for name, table in tables.items():
                table.to_parquet(folder / name, index=False)
            for name, value in {
                SUMMARY: document,
                SIGMAS: {planet: _sigmas(e, sigma[planet], planet, violations) for planet, e in explained.items()},
            }.items():
                (folder / name).write_text(json.dumps(finite_json(value), indent=1, allow_nan=False), encoding="utf-8")
            for planet, e in explained.items():
                _draw(e, work.dataset.wavelengths_um, planet, folder / f"noise_{planet}.png")
            replace_tree(folder, finished / "explain")
        for line in _lines(document):
            work.console.print(line, highlight=False, soft_wrap=True)
        work.console.print(f"written: {finished / 'explain'}", highlight=False, soft_wrap=True)


def _explain(
    work: Workspace, calibration: Calibration, model: AnalyticModel, planet: str, fit: PlanetFit, star: Star
) -> _Explained:
    units = calibration.visits["test", planet]
    visits = []
    for unit in units:
        curves = {name: curve for job in unit.jobs for name, curve in light_curves(job).items()}
        visits.append(CalibratedVisit(planet, unit.visit.visit, curves, {}, {}))
    fitted = fitted_curves(fit, visits, star, work.settings.transit)
    nuisances = model.nuisance_knowledge(fit, star)
    first = units[0].visit.visit
    detectors = {i.name: _detector(work, planet, first, i) for i in INSTRUMENTS}
    passport = noise_passport(visits, fitted, star, fit.layout, model.any_spectrum, nuisances, detectors)
    measured = correct_response(fit.likelihood.integrated(nuisances), model.response)
    parts = posterior_parts(measured, model.any_spectrum)
    allan = [
        {
            "planet_id": planet,
            "visit": visit.visit,
            "instrument": curves.given.instrument,
            **dict(zip(("samples", "scatter_ppm", "independent_ppm"), row, strict=True)),
        }
        for visit, instruments in zip(visits, fitted, strict=True)
        for curves in instruments
        for row in allan_table(curves)
    ]
    given = np.abs(parts.attribution).sum(axis=1)
    return _Explained(passport, parts, allan, sorted(np.argsort(-given)[:TOP_BINS].tolist()))


def _detector(work: Workspace, planet: str, visit: int, instrument: Any) -> DetectorNoise:
    """Of a typical live pixel: two reads, and the dark current of the longer integration less the shorter."""
    frames = read_references(work.dataset, "test", planet, visit, instrument)
    seconds = float(np.ptp(work.dataset.axes[instrument.name].integration_s[:2]))
    alive = ~frames.dead
    read = 2 * float(np.median(frames.read[alive])) ** 2
    return DetectorNoise(read, abs(float(np.median(frames.dark[alive]))) * seconds)


def _tables(explained: dict[str, _Explained]) -> tuple[dict[str, pd.DataFrame], dict[str, float]]:
    """The tables of the posterior, and the largest errors of the sums."""
    passports, attributions = [], []
    sums, additivity = 0.0, 0.0
    for planet, e in explained.items():
        shares = e.passport.terms / e.passport.variance
        sums = max(sums, float(np.abs(shares.sum(axis=0) - 1).max()))
        additivity = max(additivity, e.parts.additivity_error)
        frame = pd.DataFrame({"planet_id": planet, "depth": DEPTHS, "sigma_ppm": 1e6 * np.sqrt(e.passport.variance)})
        passports.append(frame.assign(**dict(zip(TERMS, shares, strict=True))))
        bins, sources = np.meshgrid(np.array(e.bins) + 1, np.arange(1, N_WAVELENGTHS + 1), indexing="ij")
        given = 1e6 * e.parts.attribution[e.bins]
        attributions.append(
            pd.DataFrame(
                {
                    "planet_id": planet,
                    "wl": bins.ravel(),
                    "source_wl": sources.ravel(),
                    "attribution_ppm": given.ravel(),
                }
            )
        )
    tables = {
        PASSPORT: pd.concat(passports, ignore_index=True),
        ALLAN: pd.DataFrame([row for e in explained.values() for row in e.allan]),
        ATTRIBUTION: pd.concat(attributions, ignore_index=True),
    }
    return tables, {"passport_sum_error": sums, "attribution_sum_error": additivity}


def _sigmas(e: _Explained, stated: np.ndarray, planet: str, violations: pd.DataFrame | None) -> dict[str, Any]:
    """By bin: the stated sigma, the fit's own, its terms, bins that its estimate leans on, rules broken worst here."""
    spread = np.sqrt(np.diag(e.passport.covariance))
    correlation = e.passport.covariance / (spread[:, None] * spread)
    broken: dict[int, list[str]] = {}
    if violations is not None:
        for row in violations[violations["planet_id"].astype(str) == planet].itertuples():
            if row.penalty > 0 and row.worst_bin >= 0:
                broken.setdefault(int(row.worst_bin), []).append(str(row.rule))
    told = {}
    for number in range(N_WAVELENGTHS):
        gain = e.parts.gain[number]
        nearest = np.argsort(-np.abs(gain))[:NEIGHBOURS].tolist()
        shares = e.passport.terms[:, number] / e.passport.variance[number]
        told[f"wl_{number + 1}"] = {
            "stated_sigma_ppm": 1e6 * float(stated[number]),
            "fit_sigma_ppm": 1e6 * float(spread[number]),
            "terms": dict(zip(TERMS, shares.tolist(), strict=True)),
            "neighbours": [
                {"wl": j + 1, "gain": float(gain[j]), "correlation": float(correlation[number, j])} for j in nearest
            ],
            "gain_sum": float(gain.sum()),
            "rules": broken.get(number, []),
        }
    return told


def _bands(explained: dict[str, _Explained], windows: Any) -> dict[str, dict[str, float]]:
    """Mean over planets of where the shape of each molecule's bins comes from: attributions less the mean of their
    column, which moves all bins alike."""
    found = [band_shares(e.parts.attribution - e.parts.attribution.mean(axis=0), windows) for e in explained.values()]
    return {
        molecule: {name: float(np.mean([shares[molecule][name] for shares in found])) for name in found[0][molecule]}
        for molecule in windows
    }


def _network_tables(
    work: Workspace,
    calibration: Calibration,
    model: AnalyticModel,
    loaded: dict[str, tuple[PlanetFit, Star]],
    explained: dict[str, _Explained],
    folder: Path,
) -> tuple[dict[str, pd.DataFrame], dict[str, Any]]:
    """Of the first network of the checkpoint, whatever its weight in the predictions."""
    from spectramind.explain.network import GROUPS, edge_attention, head_values, time_attribution
    from spectramind.explain.network import HEADS as OUTPUTS
    from spectramind.models.network_inputs import FGS1_CHANNELS
    from spectramind.models.network_planets import network_planets
    from spectramind.models.v50 import V50

    path = sorted(folder.iterdir())[0]
    network = V50.load(path)
    fits, stars = zip(*loaded.values(), strict=True)
    curves = fgs1_curves(calibration, "test", tuple(loaded))
    directions = network.options.heads.mu.directions
    planets = network_planets(fits, stars, model.predict(fits, stars), curves, directions)
    background, rows = planets.batch(range(len(planets))), {planet: row for row, planet in enumerate(loaded)}
    heads: list[pd.DataFrame] = []
    times, attentions = [], []
    additivity, completeness = 0.0, 0.0
    for planet, e in explained.items():
        inputs = planets.batch([rows[planet]])
        shapley = head_values(network, inputs, background, e.bins, work.settings.runtime.seed)
        additivity = max(additivity, shapley.additivity_error)
        for output, values in zip(OUTPUTS, shapley.values, strict=True):
            frame = pd.DataFrame(values.T, columns=list(GROUPS))
            frame.insert(0, "wl", np.array(e.bins) + 1)
            frame.insert(0, "output", output)
            frame.insert(0, "planet_id", planet)
            heads.append(frame)
        along = time_attribution(network, inputs)
        completeness = max(completeness, along.completeness_error)
        for visit, steps in enumerate(along.values):
            frame = pd.DataFrame(steps, columns=list(FGS1_CHANNELS))
            frame.insert(0, "step", range(len(steps)))
            frame.insert(0, "visit", visit)
            frame.insert(0, "planet_id", planet)
            times.append(frame)
        attended = edge_attention(network, inputs)
        if attended is not None:
            (source, target), weights = attended
            frame = pd.DataFrame({"planet_id": planet, "source_wl": source + 1, "target_wl": target + 1})
            attentions.append(frame.assign(**{f"layer_{n}": layer for n, layer in enumerate(weights)}))
    tables = {HEADS: pd.concat(heads, ignore_index=True), TIMES: pd.concat(times, ignore_index=True)}
    if attentions:
        tables[ATTENTION] = pd.concat(attentions, ignore_index=True)
    return tables, {
        "name": path.name,
        "shap_additivity_error": additivity,
        "integrated_gradients_completeness_error": completeness,
    }


def _lines(document: dict[str, Any]) -> list[str]:
    checks = document["checks"]
    lines = [
        f"{len(document['planets'])} planets: terms sum to the variance within {checks['passport_sum_error']:.1e}, "
        f"attributions to the change of depth within {checks['attribution_sum_error']:.1e}"
    ]
    for molecule, share in document["bands"].items():
        lines.append(
            f"  {molecule}: {share['own']:.0%} of the shape in its windows comes from its windows, "
            f"{share['confounders']:.0%} from other bins (its share of all bins: {share['by_chance']:.0%})"
        )
    if told := document.get("network"):
        lines.append(
            f"  network {told['name']}: Shapley values add up within {told['shap_additivity_error']:.1e}, integrated "
            f"gradients within {told['integrated_gradients_completeness_error']:.2%}"
        )
    return lines


def _draw(e: _Explained, wavelengths_um: np.ndarray, planet: str, path: Path) -> None:
    """The terms of each AIRS bin's variance, stacked."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    shares = e.passport.terms[:, 1:N_WAVELENGTHS] / e.passport.variance[1:N_WAVELENGTHS]
    with mpl.rc_context({"font.size": 9}):
        figure = Figure(figsize=(9, 3.4), layout="constrained")
        axes = figure.subplots()
        axes.stackplot(wavelengths_um[1:], np.maximum(shares, 0.0), labels=TERMS)
        axes.set(
            xlabel="wavelength (µm)",
            ylabel="share of variance",
            ylim=(0, 1),
            title=f"Planet {planet}: depths' variance",
        )
        axes.margins(x=0)
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, reverse=True)
        figure.savefig(path, dpi=120, metadata={"Software": None})
