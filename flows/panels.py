"""The panels of the report: each a function of the run's data. Own ones join by `register`, or by an entry point in
the group "spectramind.panels" that names such a function."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import numpy as np

from flows.charts import Chart, Heatmap, Series
from flows.overlay import NUMBERS, TOP_BINS, rules_of
from flows.projection_pages import projection_files
from flows.run_data import RunData
from spectramind.diagnostics.projections import FEWEST, KINDS, project
from spectramind.diagnostics.reliability import (
    LEVELS,
    coverage_by_bin,
    distance_from_normal,
    reliability_curve,
    z_histogram,
)
from spectramind.diagnostics.residuals import autocorrelation, power_spectrum
from spectramind.instruments import AIRS, INSTRUMENTS, N_WAVELENGTHS
from spectramind.metrics.score import ScoreParts, reference_of, score_parts
from spectramind.metrics.statistics import COVERAGE_LEVELS, spectra_statistics
from spectramind.types import Floats

ENTRY_POINTS = "spectramind.panels"
TITLES = {"train": "held-out train planets", "test": "test planets"}
MOST_LAGS = 40
LABELS = {"attribution_ppm": "attributions of light curves", "network_ppm": "Shapley values of the network"}
BINS, BINS_ARE = range(1, N_WAVELENGTHS + 1), "bin (1 is FGS1)"
"""Of a map: over wavelength, the gap between the instruments would take a third of it."""


@dataclass(frozen=True)
class Panel:
    """A part of the report: figures, a table of rows with the same keys, and sentences; `numbers` go to the summary,
    `files` by name beside the report."""

    title: str
    charts: tuple[Chart, ...] = ()
    table: Sequence[Mapping[str, Any]] = ()
    notes: Sequence[str] = ()
    numbers: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)


Build = Callable[[RunData], Panel | None]
"""None where the run has nothing to show."""

_registered: dict[str, Build] = {}


def register(name: str, build: Build) -> None:
    """Add a panel to every report that this process makes from now on; one of the same name is replaced."""
    _registered[name] = build


def all_panels() -> dict[str, Build]:
    """The report's own panels, those of installed packages, and registered ones, by name."""
    installed = {entry.name: partial(_load_and_build, entry) for entry in entry_points(group=ENTRY_POINTS)}
    return {**OWN, **installed, **_registered}


def _load_and_build(entry: EntryPoint, run: RunData) -> Panel | None:
    """A package that cannot be imported fails as its panel does."""
    panel: Panel | None = entry.load()(run)
    return panel


def scores(run: RunData) -> Panel | None:
    """Scores and errors by split and instrument."""
    rows, numbers = [], {}
    for split, chosen, _ in _scored(run):
        statistics = spectra_statistics(run.mean[chosen], run.sigma[chosen], run.truth[chosen])
        parts = _parts(run, split, chosen).summary()
        numbers[split] = {name: {**statistics[name], "score": parts[name]["score"]} for name in parts}
        for name, found in statistics.items():
            row = {"planets": TITLES[split], "bins": name, "score": parts[name]["score"]}
            rows.append({**row, **{key: found[key] for key in ("rmse_ppm", "mae_ppm", "bias_ppm", "nll", "z_std")}})
    return Panel("Score", table=rows, numbers=numbers) if rows else None


def score_heatmap(run: RunData) -> Panel | None:
    """The score of every planet and bin."""
    charts = []
    for split, chosen, title in _scored(run):
        ratio = _parts(run, split, chosen).ratio
        order = np.argsort(ratio.mean(axis=1))
        rows = [chosen[place] for place in order]
        names = [run.planet_ids[row] for row in rows]
        heat = Heatmap(ratio[order], BINS, names, "score of the bin", -1.0, 1.0, True, rows)
        charts.append(Chart(f"gll_heatmap_{split}", f"Gaussian log likelihood, {title}", BINS_ARE, "", (), heat))
    note = "Log likelihood on the scale of the score: 1 is the ideal, 0 the reference prediction; worst planets first."
    return Panel("Score of planets and bins", tuple(charts), notes=[note]) if charts else None


def calibration(run: RunData) -> Panel | None:
    """Coverage, reliability and z."""
    charts, rows, numbers, table = [], [], {}, ["predictions,instrument,level,observed,delta"]
    for split, chosen, title in _scored(run):
        z = run.z(chosen)
        instruments = {i.name: z[:, i.spectral_slice] for i in INSTRUMENTS}
        curves = tuple(Series(name, LEVELS, reliability_curve(part)) for name, part in instruments.items())
        honest = Series("honest", [0, 1], [0, 1], colour="#777777", dashed=True)
        charts.append(
            Chart(f"reliability_{split}", f"Reliability, {title}", "nominal level", "observed", (*curves, honest))
        )
        centres, density, normal = z_histogram(z)
        bars = Series("errors / sigma", centres, density, "bars")
        curve = Series("N(0, 1)", centres, normal, colour="#333333")
        charts.append(Chart(f"z_histogram_{split}", f"z, {title}", "(truth - mean) / sigma", "density", (bars, curve)))
        by_bin = coverage_by_bin(z) - np.array(COVERAGE_LEVELS)[:, None]
        levels = [f"{level:.0%}" for level in COVERAGE_LEVELS]
        heat = Heatmap(by_bin, BINS, levels, "observed - nominal", -0.3, 0.3, True)
        charts.append(Chart(f"coverage_by_bin_{split}", f"Coverage of each bin, {title}", BINS_ARE, "level", (), heat))
        numbers[split] = {"distance_from_normal": distance_from_normal(z), "z_std": float(z.std())}
        for name, part in instruments.items():
            for level, observed in zip(COVERAGE_LEVELS, coverage_by_bin(part).mean(axis=1), strict=True):
                delta = observed - level
                rows.append(
                    {"planets": title, "instrument": name, "level": level, "observed": observed, "delta": delta}
                )
                table.append(f"{split},{name},{level},{observed:.6f},{delta:.6f}")
    if not charts:
        return None
    notes = ["Errors of a planet's bins go together: with few planets, a coverage may be off by chance."]
    files = {"delta_coverage.csv": "\n".join(table) + "\n"}
    return Panel("Coverage and calibration", tuple(charts), rows, notes, numbers, files)


def residuals(run: RunData) -> Panel | None:
    """Autocorrelation and power of the residuals of light curves and spectra."""
    charts, numbers = [], {}
    curves = [curve for own in run.curves.values() for curve in own]
    lags, powers = [], []
    for instrument in INSTRUMENTS:
        own = [curve for curve in curves if curve.instrument == instrument.name and len(curve.hours) > 4]
        if not own:
            continue
        length = min(len(curve.hours) for curve in own)
        left = np.stack([(curve.data - curve.model)[:length] for curve in own])
        spacing = float(np.median([np.median(np.diff(curve.hours)) for curve in own]))
        found = autocorrelation(left, MOST_LAGS)
        lags.append(Series(instrument.name, np.arange(1, found.size) * spacing, found[1:]))
        powers.append(Series(instrument.name, *power_spectrum(left, spacing)))
        numbers[f"lag_one_{instrument.name}"] = float(found[1])
    if lags:
        title = "Residuals of white light curves"
        charts.append(Chart("autocorrelation", f"{title}: autocorrelation", "lag (h)", "correlation", tuple(lags)))
        spectrum = ("fft_residuals", f"{title}: power", "frequency (1/h)", "power over white noise")
        charts.append(Chart(*spectrum, tuple(powers), log_x=True, log_y=True))
    over, power = [], []
    for split, chosen, title in _scored(run):
        left = (run.truth[chosen] - run.mean[chosen])[:, AIRS.spectral_slice]
        found = autocorrelation(left, MOST_LAGS)
        over.append(Series(title, np.arange(1, found.size), found[1:]))
        power.append(Series(title, *power_spectrum(left, 1.0)))
        numbers[f"lag_one_spectra_{split}"] = float(found[1])
    if over:
        title = "Errors of AIRS spectra"
        charts.append(Chart("spectra_autocorrelation", f"{title}: autocorrelation", "lag (bins)", "", tuple(over)))
        spectrum = ("fft_spectra", f"{title}: power", "frequency (1/bin)", "power over white noise")
        charts.append(Chart(*spectrum, tuple(power), log_y=True))
    notes = ["Means over visits, or planets. White noise has no autocorrelation and a power of 1 at every frequency."]
    return Panel("What the residuals hide", tuple(charts), notes=notes, numbers=numbers) if charts else None


def latents(run: RunData) -> Panel | None:
    """UMAP and t-SNE of the planets in two and three dimensions."""
    if run.latents is None:
        return None
    known = np.flatnonzero(np.isfinite(run.latents).all(axis=1))
    if known.size < FEWEST:
        return Panel("Latent space", notes=[f"Of {known.size} planets only: nothing to project."])
    confidence = _confidence(run.sigma[known].mean(axis=1))
    pages: dict[str, list[Chart]] = {kind: [] for kind in KINDS}
    for kind, charts in pages.items():
        for dimensions in (2, 3):
            points = project(run.latents[known], kind, dimensions, run.seed)
            series = []
            for split, title in TITLES.items():
                mine = np.array([run.splits[row] == split for row in known])
                if mine.any():
                    at = points[mine].T
                    third = at[2] if dimensions == 3 else None
                    series.append(Series(title, at[0], at[1], "points", third, confidence[mine], known[mine].tolist()))
            name = f"{kind.replace('-', '').lower()}{'_3d' if dimensions == 3 else ''}"
            title = f"{kind}{' in three dimensions' if dimensions == 3 else ''}"
            charts.append(Chart(name, title, "", "", tuple(series)))
    shown, faint = f"Shown: {run.latents_are}.", "Faint points have large sigmas."
    named = {f"{kind} of the planets": charts for kind, charts in pages.items()}
    files = projection_files(named, run.planet_ids, f"{shown} {faint} Point at one to see its planet.")
    all_charts = tuple(chart for charts in pages.values() for chart in charts)
    return Panel("Latent space", all_charts, notes=[shown, f"{faint} Click a point to see its planet."], files=files)


def losses(run: RunData) -> Panel | None:
    """Loss curves of the networks."""
    if not run.histories:
        return None
    charts = []
    measures = {"train/loss": "training loss", "val/gll": "1 - score of validation planets", "lr": "learning rate"}
    for key, label in measures.items():
        series, axis = [], "epoch, all phases"
        for name, history in run.histories.items():
            epochs = [row for row in history if "step" not in row]
            rows = [(place, row[key]) for place, row in enumerate(epochs, start=1) if row.get(key) is not None]
            if not rows:  # of validations that do not come once an epoch
                rows = [(row["step"], row[key]) for row in history if row.get(key) is not None]
                axis = "step of the optimiser"
            if rows:
                series.append(Series(f"network {name}", *np.array(rows, float).T))
        if series:
            file = f"loss_{key.replace('/', '_')}"
            charts.append(Chart(file, label.capitalize(), axis, label, tuple(series), log_y=key == "lr"))
    return Panel("Training of the networks", tuple(charts)) if charts else None


def symbolic(run: RunData) -> Panel | None:
    """Which physical rules the spectra break, where."""
    if run.violations is None or run.violations.empty:
        return None
    row_of = {planet: row for row, planet in enumerate(run.planet_ids)}
    table = run.violations[run.violations["planet_id"].astype(str).isin(row_of)]
    grid = table.pivot_table(index="planet_id", columns="rule", values="penalty", sort=False)
    values = grid.to_numpy(float)
    scale = np.maximum(np.nanmax(values, axis=0), np.finfo(float).tiny)
    names = [str(planet) for planet in grid.index]
    rows = [row_of[name] for name in names]
    heat = Heatmap(values / scale, list(grid.columns), names, "of the worst", 0.0, 1.0, planets=rows)
    chart = Chart("symbolic_violations", "Violation of each rule, relative to the worst planet", "", "", (), heat)
    listed = []
    for rule, mine in table.groupby("rule", sort=False):
        worst = mine.loc[mine["penalty"].idxmax()]
        bins = mine.loc[mine["worst_bin"] >= 0, "worst_bin"]
        listed.append(
            {
                "rule": rule,
                "mean penalty": float(mine["penalty"].mean()),
                "largest": float(worst["penalty"]),
                "worst planet": str(worst["planet_id"]) if worst["penalty"] > 0 else "-",
                "its bin": "-" if worst["worst_bin"] < 0 else int(worst["worst_bin"]) + 1,
                "planets": int((mine["penalty"] > 0).sum()),
                "most frequent bin": int(bins.mode().iloc[0]) + 1 if len(bins) else "-",
            }
        )
    files = {"symbolic_violations.csv": table.to_csv(index=False)}
    return Panel("Physical rules", (chart,), listed, ["Bins are numbered from 1 (FGS1)."], files=files)


def overlay(run: RunData) -> Panel | None:
    """The bins that light curves move most, beside the rules that they break."""
    if run.overlay is None or run.overlay.empty:
        return None
    planets = run.overlay["planet_id"].nunique()
    means = run.overlay.drop(columns=["planet_id", "top"]).groupby("wl").mean()
    rules = rules_of(run.overlay)
    top = means.nlargest(min(TOP_BINS, len(means)), "attribution_ppm").sort_index()
    shown = [name for name in (*NUMBERS, *rules) if top[name].gt(0).any()]
    largest = means[shown].max()
    names = [LABELS.get(name, name.replace("_", " ")) for name in shown]
    heat = Heatmap(
        (top[shown] / largest).to_numpy(float).T,
        [f"wl_{bin_}" for bin_ in top.index],
        names,
        "of the largest",
        0.0,
        1.0,
    )
    chart = Chart("shap_symbolic", f"Bins that moved most and rules, mean of {planets} planets", "", "", (), heat)
    every = Heatmap((means[shown] / largest).to_numpy(float).T, BINS, names, "of the largest", 0.0, 1.0)
    charts = (chart, Chart("symbolic_bins", "The same in all bins", BINS_ARE, "", (), every))
    listed = []
    for bin_, row in top.iterrows():
        worst = row[rules].idxmax() if rules else ""
        cost = float(row[worst]) if rules else 0.0
        told = {"bin": f"wl_{bin_}", "attributions (ppm)": float(row["attribution_ppm"])}
        listed.append(told | {"costliest rule": worst if cost > 0 else "-", "its cost (points)": cost})
    notes = ["Each row in units of its largest bin of all 283: a row that stays below 1 is largest elsewhere."]
    if checks := run.explanation.get("checks"):
        error = checks["attribution_sum_error"]
        notes.append(
            f"Additivity: a bin's attributions sum to the change of its depth within {error:.1e} of the largest."
        )
    if found := run.explanation.get("rules"):
        share, chance = found["penalty_in_top_bins"], found["by_chance"]
        notes.append(f"{share:.0%} of what the rules cost lies in each planet's bins moved most, {chance:.0%} of all.")
    numbers = {**run.explanation.get("checks", {}), **run.explanation.get("rules", {})}
    return Panel("Attributions and physical rules", charts, listed, notes, numbers)


def ledger(run: RunData) -> Panel | None:
    """Where the score is lost."""
    if not run.ledger:
        return None
    rows, series = [], []
    columns = ("loss", "bias", "sigma", "unavoidable", "bias_by_chance", "sigma_by_chance", "scaling_gain", "bias_ppm")
    for name, document in run.ledger.items():
        for row in document["rows"]:
            if row["level"] in ("all", "instrument"):
                shown = {key: row[key] for key in columns}
                rows.append({"predictions": name.replace("_", " "), "bins": row["name"], **shown})
        bins = [row for row in document["rows"] if row["level"] == "bin"][AIRS.spectral_slice]
        label = name.replace("_", " ")
        axis = run.axis[AIRS.spectral_slice]
        series += [Series(f"{label}: {part}", axis, [row[part] for row in bins]) for part in ("loss", "bias", "sigma")]
    chart = Chart("score_ledger_bins", "Points of the score lost by AIRS bin", run.axis_label, "points", tuple(series))
    return Panel("Where the score is lost", (chart,), rows, ["In points of the official score."])


def noise(run: RunData) -> Panel | None:
    """What each term of the test planets' noise costs."""
    if not run.noise:
        return None
    gains = sorted(run.noise["gains"].items(), key=lambda item: -item[1]["all"])
    rows = [{"without": term, **{bins: round(points, 5) for bins, points in gain.items()}} for term, gain in gains]
    notes = [f"Points of the score that {run.noise['planets']} test planets would win; terms do not add up."]
    return Panel("What the noise costs", (), rows, notes, run.noise["gains"])


def certificate(run: RunData) -> Panel | None:
    """The coverage certificate, as written with the submission."""
    return Panel("Coverage certificate", notes=[run.certificate]) if run.certificate else None


OWN: dict[str, Build] = {
    "scores": scores,
    "calibration": calibration,
    "ledger": ledger,
    "noise": noise,
    "score_heatmap": score_heatmap,
    "residuals": residuals,
    "latents": latents,
    "symbolic": symbolic,
    "overlay": overlay,
    "losses": losses,
    "certificate": certificate,
}


def _scored(run: RunData) -> list[tuple[str, list[int], str]]:
    """Split, rows with known truth, and words, of splits that have any."""
    return [(split, rows, title) for split, title in TITLES.items() if (rows := run.rows(split))]


def _parts(run: RunData, split: str, chosen: list[int]) -> ScoreParts:
    """Scored as the run itself is: test planets against all train labels, held-out ones against their own."""
    labels = run.truth[chosen] if split == "train" or run.train_labels is None else run.train_labels
    return score_parts(run.mean[chosen], run.sigma[chosen], run.truth[chosen], *reference_of(labels))


def _confidence(sigma: Floats) -> Floats:
    """From 0.25 for the largest to 1 for the smallest of `sigma`, by rank."""
    ranks = np.argsort(np.argsort(-sigma))
    shown: Floats = 0.25 + 0.75 * ranks / max(len(sigma) - 1, 1)
    return shown
