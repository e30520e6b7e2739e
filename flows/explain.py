"""What the predictions of a finished run were made of, planet by planet.

Fits and light curves are the units of the store that the run used, found by the digests that it left: nothing is
calibrated or fitted again.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from flows.explain_figures import draw_heads, draw_noise, draw_times
from flows.journal import finite_json
from flows.network import VIOLATIONS
from flows.overlay import OVERLAY, TOP_BINS, overlay_table, write_overlays
from flows.passport import PASSPORT, passport_table, planet_passport
from flows.predict import PREDICTIONS
from flows.published import replace_tree
from flows.run_directory import CHECKPOINT, RunDirectory, store_errors
from flows.served_model import MODEL, NETWORKS
from flows.spectra_files import finished_part, read_predictions
from flows.units import FIT, fit_identity
from flows.workspace import Workspace, workspace
from settings.resolve import resolve
from spectramind.data.layout import usable_star
from spectramind.errors import InputError
from spectramind.explain.posterior import PosteriorParts, band_shares, contrast_profile, posterior_parts
from spectramind.instruments import AIRS, FGS1, INSTRUMENTS, N_WAVELENGTHS
from spectramind.models.analytic import AnalyticModel
from spectramind.models.response import correct_response
from spectramind.models.windows import Windows
from spectramind.provenance.units import MANIFEST, AnyPlace, find_digest, read_manifest, read_unit
from spectramind.transit.fit import PlanetFit
from spectramind.types import CalibratedVisit, Floats, LightCurve, Spectra, Star
from spectramind.uncertainty.noise_passport import AIRS_WHITE, DEPTHS, TERMS, NoisePassport, allan_table
from spectramind.uncertainty.visit_agreement import VisitAgreement

SUMMARY = "summary.json"
ALLAN, ATTRIBUTION = "allan.parquet", "attribution.parquet"
HEADS, TIMES, ATTENTION = "heads_shap.parquet", "integrated_gradients.parquet", "attention.parquet"
EDGES, NODES = "edges.parquet", "node_importance.parquet"
WHITE = {FGS1.name: DEPTHS[0], AIRS.name: AIRS_WHITE}
"""The depth in a passport that stands for each instrument."""
NEIGHBOURS = 5
BACKGROUND = 64
"""Planets, beside those explained, whose mean features Shapley values start from."""


@dataclass(frozen=True)
class _Fitted:
    """A test planet as the run had it; `code` that fitted it."""

    fit: PlanetFit
    star: Star
    visits: list[CalibratedVisit]
    code: str

    @property
    def fgs1(self) -> list[LightCurve]:
        return [visit.curves[FGS1.name] for visit in self.visits]


@dataclass(frozen=True)
class _Explained:
    """One planet: its passport, whether its visits agree, tables, attributions (283, 283), the bins that moved most,
    where each molecule's contrast comes from, the number of independent combinations of depths that the light
    curves decide, and the largest errors of the sums."""

    passport: pd.DataFrame
    visits: dict[str, dict[str, float]]
    allan: pd.DataFrame
    attribution: pd.DataFrame
    attributions: Floats
    bins: list[int]
    profiles: dict[str, Floats]
    decided: float
    passport_error: float
    attribution_error: float


def explain_run(finished: Path, planets: Sequence[str], run: RunDirectory, edge_epochs: int = 0) -> None:
    """Write `explain/` of the run `finished` for these test planets, or for all that were fitted; with
    `edge_epochs`, GNNExplainer's steps, also the importance of the graph's edges.

    InputError if `finished` is no finished run, a planet has no fit there, the store has lost what the run used, or
    edges are asked for and there is no network with a graph.
    """
    config = finished_part(finished / "resolved_config.yaml")
    own = resolve([f"outputs.dir={json.dumps(str(run.path))}", "tracking.enable=false"], config)
    predictions = read_predictions(finished_part(finished / "predictions" / PREDICTIONS))
    digests = _fit_digests(finished, predictions.planet_ids)
    chosen = list(dict.fromkeys(planets or digests))
    if unknown := [planet for planet in chosen if planet not in digests] or ([] if digests else ["them"]):
        raise InputError(finished, "test planets with a fit", f"none of {unknown[0]}", "Name one of its planets.")
    model = AnalyticModel.load(finished_part(finished / CHECKPOINT / MODEL))
    if edge_epochs and not (finished / CHECKPOINT / NETWORKS).is_dir():
        raise _no_edges(finished / CHECKPOINT, "no networks")
    others = list(digests)[:BACKGROUND] if (finished / CHECKPOINT / NETWORKS).is_dir() else []
    with workspace(own, run, "explain") as work:
        wanted = [planet for planet in digests if planet in {*chosen, *others}]
        fitted = {planet: _fitted(work, finished, planet, digests[planet]) for planet in wanted}
        _tell_of_other_code(work, fitted)
        posterior = model.predict([f.fit for f in fitted.values()], [f.star for f in fitted.values()])
        flags = dict(zip(posterior.planet_ids, posterior.flags, strict=True))
        for planet in chosen:
            if flags[planet]:
                work.warn(f"planet {planet}: left out, its light curves are not used ({', '.join(flags[planet])})")
        chosen = [planet for planet in chosen if not flags[planet]]
        if not chosen:
            raise InputError(finished, "planets whose light curves are used", "none", "Name another planet.")
        with store_errors(finished), tempfile.TemporaryDirectory(dir=finished, prefix=".explain-") as staging:
            folder = Path(staging) / "explain"
            folder.mkdir()
            document = _write(work, finished, model, predictions, chosen, fitted, posterior, folder, edge_epochs)
            replace_tree(folder, finished / "explain")
        for line in (*_lines(document), f"written: {finished / 'explain'}"):
            work.console.print(line, highlight=False, soft_wrap=True)


def _write(
    work: Workspace,
    finished: Path,
    model: AnalyticModel,
    predictions: Spectra,
    chosen: Sequence[str],
    fitted: Mapping[str, _Fitted],
    posterior: Spectra,
    folder: Path,
    edge_epochs: int,
) -> dict[str, Any]:
    """Fill `folder`; returns the summary."""
    sigma = dict(zip(predictions.planet_ids, predictions.sigma, strict=True))
    rules, networks = finished / "predictions" / VIOLATIONS, finished / CHECKPOINT / NETWORKS
    violations = pd.read_parquet(rules) if rules.exists() else None
    explained = {p: _explain(work, model, fitted[p], sigma[p], violations, folder) for p in chosen}
    tables = {
        PASSPORT: pd.concat([e.passport for e in explained.values()], ignore_index=True),
        ALLAN: pd.concat([e.allan for e in explained.values()], ignore_index=True),
        ATTRIBUTION: pd.concat([e.attribution for e in explained.values()], ignore_index=True),
    }
    document: dict[str, Any] = {
        "planets": list(chosen),
        "checks": {
            "passport_sum_error": max(e.passport_error for e in explained.values()),
            "attribution_sum_error": max(e.attribution_error for e in explained.values()),
        },
        "visits": {planet: e.visits for planet, e in explained.items()},
        "decided_by_light_curves": float(np.mean([e.decided for e in explained.values()])),
        "bands": _bands([e.profiles for e in explained.values()], work.settings.symbolic.windows.by_molecule),
    }
    if networks.is_dir():
        found, document["network"] = _network_tables(work, fitted, posterior, explained, networks, folder, edge_epochs)
        tables |= found
    network = _network_sums(tables[HEADS]) if HEADS in tables else {}
    shown = predictions.of(chosen), posterior.of(chosen)
    attributions, bins = ({p: getattr(e, name) for p, e in explained.items()} for name in ("attributions", "bins"))
    tables[OVERLAY] = overlay_table(work, *shown, attributions, bins, network)
    errors = {p: e.attribution_error for p, e in explained.items()}
    document["rules"] = write_overlays(tables[OVERLAY], errors, folder)
    for name, table in tables.items():
        table.to_parquet(folder / name, index=False)
    _write_json(folder / SUMMARY, document)
    return document


def _fit_digests(finished: Path, planets: Sequence[str]) -> dict[str, str]:
    """Digests of the fits that the run predicted from, by planet."""
    inputs = read_manifest(finished_part(finished / "predictions" / MANIFEST).parent)["identity"]["inputs"]
    return {planet: inputs[f"fit/{planet}"] for planet in planets if f"fit/{planet}" in inputs}


def _fitted(work: Workspace, finished: Path, planet: str, digest: str) -> _Fitted:
    from spectramind.cubes.store import read_cube

    unit, manifest = _unit(work.layout.fit_unit("test", planet), digest, finished)
    identity = manifest["identity"]
    cubes = {name: found for name, found in identity["inputs"].items() if name != "star"}
    star = usable_star(work.dataset.star("test", planet))
    if identity["inputs"] != fit_identity(star, cubes, work.settings.transit)["inputs"]:
        where = work.dataset.root / "test_star_info.csv"
        raise InputError(where, f"the row of planet {planet} that {finished} has used", "another", "Restore the file.")
    visits = []
    for number in sorted({int(name.split("/")[0].removeprefix("visit_")) for name in cubes}):
        curves: dict[str, LightCurve] = {}
        for instrument in INSTRUMENTS:
            parent = work.layout.cube_unit("test", planet, number, instrument.name)
            cube, _ = _unit(parent, cubes[f"visit_{number}/{instrument.name}"], finished)
            curves |= read_unit(cube, read_cube).curves
        visits.append(CalibratedVisit(planet, number, curves, {}, {}))
    return _Fitted(read_unit(unit, lambda folder: PlanetFit.load(folder / FIT)), star, visits, identity["code"])


def _unit(parent: AnyPlace, digest: str, finished: Path) -> tuple[AnyPlace, dict[str, Any]]:
    found = find_digest(parent, digest)
    if found is None:
        cure = f"Run again with --config {finished / 'resolved_config.yaml'}, and explain that run."
        raise InputError(str(parent), f"what {finished} has used (digest {digest[:12]})", "no longer there", cure)
    return found


def _tell_of_other_code(work: Workspace, fitted: Mapping[str, _Fitted]) -> None:
    first = next(iter(fitted.values()))
    today = fit_identity(first.star, {}, work.settings.transit)["code"]
    if any(f.code != today for f in fitted.values()):
        work.warn(
            "the code of the fits has changed since this run: its fits are explained with today's light curve model"
        )


def _explain(
    work: Workspace,
    model: AnalyticModel,
    given: _Fitted,
    stated: Floats,
    violations: pd.DataFrame | None,
    folder: Path,
) -> _Explained:
    """Also writes what is the planet's alone."""
    fit, star = given.fit, given.star
    planet = fit.planet_id
    passport, fitted = planet_passport(work.dataset, model, fit, star, given.visits, work.settings.transit)
    measured = fit.likelihood.integrated(model.nuisance_knowledge([fit], [star])[0])
    parts = posterior_parts(correct_response(measured, model.response), model.any_spectrum)
    _write_json(folder / f"sigma_{planet}.json", _sigmas(passport, parts, stated, planet, violations))
    rows = [
        (planet, visit.visit, curves.given.instrument, *row)
        for visit, instruments in zip(given.visits, fitted, strict=True)
        for curves in instruments
        for row in allan_table(curves)
    ]
    allan = pd.DataFrame(
        rows, columns=["planet_id", "visit", "instrument", "samples", "scatter_ppm", "independent_ppm"]
    )
    draw_noise(passport, work.dataset.wavelengths_um, allan, planet, folder / f"noise_{planet}.png")
    bins = sorted(np.argsort(-np.abs(parts.attribution).sum(axis=1))[:TOP_BINS].tolist())
    explained, sources = np.meshgrid(np.array(bins) + 1, np.arange(1, N_WAVELENGTHS + 1), indexing="ij")
    attribution = {
        "planet_id": planet,
        "wl": explained.ravel(),
        "source_wl": sources.ravel(),
        "attribution_ppm": 1e6 * parts.attribution[bins].ravel(),
    }
    return _Explained(
        passport_table({planet: passport}),
        {name: _visits(passport.agreement, DEPTHS.index(depth)) for name, depth in WHITE.items()},
        allan,
        pd.DataFrame(attribution),
        parts.attribution,
        bins,
        contrast_profile(parts.attribution, work.settings.symbolic.windows.by_molecule),
        float(np.trace(parts.gain)),
        float(np.abs(passport.shares.sum(axis=0) - 1).max()),
        parts.additivity_error,
    )


def _sigmas(
    passport: NoisePassport, parts: PosteriorParts, stated: Floats, planet: str, violations: pd.DataFrame | None
) -> dict[str, Any]:
    """By bin: the stated sigma, the fit's own, its terms, whether the visits agree, bins that its estimate leans on,
    rules broken worst here."""
    spread = np.sqrt(np.diag(passport.covariance))
    correlation = passport.covariance / (spread[:, None] * spread)
    broken: dict[int, list[str]] = {}
    if violations is not None:
        for row in violations[violations["planet_id"].astype(str) == planet].itertuples():
            if row.penalty > 0 and row.worst_bin >= 0:
                broken.setdefault(int(row.worst_bin), []).append(str(row.rule))
    told = {}
    for number in range(N_WAVELENGTHS):
        gain = parts.gain[number]
        nearest = np.argsort(-np.abs(gain))[:NEIGHBOURS].tolist()
        told[f"wl_{number + 1}"] = {
            "stated_sigma_ppm": 1e6 * float(stated[number]),
            "fit_sigma_ppm": 1e6 * float(spread[number]),
            "terms": dict(zip(TERMS, passport.shares[:, number].tolist(), strict=True)),
            "averages_down": float(passport.averages_down[number]),
            "visits": _visits(passport.agreement, number),
            "neighbours": [
                {"wl": j + 1, "gain": float(gain[j]), "correlation": float(correlation[number, j])} for j in nearest
            ],
            "gain_sum": float(gain.sum()),
            "rules": broken.get(number, []),
        }
    return told


def _visits(agreement: VisitAgreement, number: int) -> dict[str, float]:
    """How far the visits agree about the depth of this number in `DEPTHS`."""
    return {
        "number": agreement.visits,
        "chi2": float(agreement.chi2[number]),
        "change_ppm": 1e6 * float(agreement.change[number]),
    }


def _bands(found: Sequence[dict[str, Floats]], windows: Windows) -> dict[str, dict[str, float]]:
    """Where each molecule's contrast comes from, mean over planets."""
    means = {molecule: np.mean([profiles[molecule] for profiles in found], axis=0) for molecule in windows}
    return band_shares(means, windows)


def _network_sums(heads: pd.DataFrame) -> dict[str, Floats]:
    """By planet, the sum of the absolute Shapley values of the mean correction of each explained bin."""
    from spectramind.explain.network import GROUPS
    from spectramind.explain.network import HEADS as OUTPUTS

    own = heads[heads["output"] == OUTPUTS[0]]
    return {str(planet): rows[list(GROUPS)].abs().sum(axis=1).to_numpy() for planet, rows in own.groupby("planet_id")}


def _network_tables(
    work: Workspace,
    fitted: Mapping[str, _Fitted],
    posterior: Spectra,
    explained: Mapping[str, _Explained],
    folder: Path,
    pictures: Path,
    edge_epochs: int,
) -> tuple[dict[str, pd.DataFrame], dict[str, Any]]:
    """Of the first network in `folder`, whatever its weight in the predictions; figures go to `pictures`."""
    from spectramind.explain.network import (
        GROUPS,
        edge_attention,
        edge_importance,
        head_values,
        node_attribution,
        step_latents,
        time_attribution,
    )
    from spectramind.explain.network import HEADS as OUTPUTS
    from spectramind.models.network_inputs import FGS1_CHANNELS
    from spectramind.models.network_planets import NODE_FEATURES, network_planets
    from spectramind.models.spectral_graph import EDGE_TYPES
    from spectramind.models.v50 import V50

    path = sorted(folder.iterdir())[0]
    network = V50.load(path)
    if edge_epochs and not network.airs.layers:
        raise _no_edges(path, "a network without graph layers")
    fits, stars, curves = zip(*((f.fit, f.star, f.fgs1) for f in fitted.values()), strict=True)
    planets = network_planets(fits, stars, posterior, curves, network.options.heads.mu.directions)
    background, rows = planets.batch(range(len(planets))), {planet: row for row, planet in enumerate(fitted)}
    heads: list[pd.DataFrame] = []
    times, nodes, attentions, edges = [], [], [], []
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
        draw_heads(shapley, e.bins, planet, pictures / f"heads_shap_{planet}.png")
        along = time_attribution(network, inputs)
        by_node = node_attribution(network, inputs, background)
        completeness = max(completeness, along.completeness_error, by_node.completeness_error)
        frame = pd.DataFrame(by_node.values[0], columns=list(NODE_FEATURES))
        frame.insert(0, "wl", np.arange(1, N_WAVELENGTHS + 1))
        frame.insert(0, "planet_id", planet)
        nodes.append(frame)
        for visit, steps in enumerate(along.values):
            frame = pd.DataFrame(steps, columns=list(FGS1_CHANNELS))
            frame.insert(0, "step", range(len(steps)))
            frame.insert(0, "visit", visit)
            frame.insert(0, "planet_id", planet)
            times.append(frame)
        draw_times(along, planet, pictures / f"integrated_gradients_{planet}.png")
        latents = step_latents(network, inputs)
        if latents is not None:
            np.savez(pictures / f"step_latents_{planet}.npz", *latents)
        attended = edge_attention(network, inputs)
        if attended is not None:
            (source, target), weights = attended
            frame = pd.DataFrame({"planet_id": planet, "source_wl": source + 1, "target_wl": target + 1})
            attentions.append(frame.assign(**{f"layer_{n}": layer for n, layer in enumerate(weights)}))
        if edge_epochs:
            source, target = network.airs.edge_index.numpy()
            frame = pd.DataFrame({"planet_id": planet, "source_wl": source + 1, "target_wl": target + 1})
            frame["edge_type"] = np.array(EDGE_TYPES)[network.airs.edge_type.numpy()]
            frame["importance"] = edge_importance(network, inputs, edge_epochs, work.settings.runtime.seed)
            edges.append(frame)
    made = {HEADS: heads, TIMES: times, NODES: nodes}
    tables = {name: pd.concat(frames, ignore_index=True) for name, frames in made.items()}
    if attentions:
        tables[ATTENTION] = pd.concat(attentions, ignore_index=True)
    if edges:
        tables[EDGES] = pd.concat(edges, ignore_index=True)
    return tables, {
        "name": path.name,
        "shap_additivity_error": additivity,
        "integrated_gradients_completeness_error": completeness,
    }


def _no_edges(where: Path, found: str) -> InputError:
    return InputError(where, "a network with a graph for --edges", found, "Leave --edges out, or train with one.")


def _lines(document: dict[str, Any]) -> list[str]:
    checks = document["checks"]
    lines = [
        f"{len(document['planets'])} planets: terms sum to the variance within {checks['passport_sum_error']:.1e}, "
        f"attributions to the change of depth within {checks['attribution_sum_error']:.1e}",
        f"  light curves decide {document['decided_by_light_curves']:.1f} independent combinations of the "
        f"{N_WAVELENGTHS} depths (mean trace of the gain), the prior the rest",
    ]
    for planet, visits in document["visits"].items():
        depths = [
            f"{instrument} chi2 {found['chi2']:.1f}, change {found['change_ppm']:.0f} ppm"
            for instrument, found in visits.items()
            if found["number"] > 1
        ]
        if depths:
            lines.append(f"  planet {planet}, depths of its visits: {'; '.join(depths)}")
    for molecule, share in document["bands"].items():
        lines.append(
            f"  {molecule}: of its windows' contrast with the continuum {share['own']:.0%} comes from its windows "
            f"(elsewhere they would hold {share['by_chance']:.0%}, at most {share['chance_limit']:.0%} at 95 % of the "
            f"places), {share['continuum']:.0%} from the continuum, {share['confounders']:.0%} from all else"
        )
    rules = document["rules"]
    lines.append(
        f"  physical rules: {rules['penalty_in_top_bins']:.0%} of what they cost lies in the {TOP_BINS} bins of each "
        f"planet that moved most ({rules['by_chance']:.0%} of all bins)"
    )
    if told := document.get("network"):
        lines.append(
            f"  network {told['name']}: Shapley values add up within {told['shap_additivity_error']:.1e}, integrated "
            f"gradients within {told['integrated_gradients_completeness_error']:.2%}"
        )
    return lines


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(finite_json(value), indent=1, allow_nan=False), encoding="utf-8")
