"""Flow `train-v50`: transit fits of planets with known spectra to a predictor, scored on planets held out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from prefect import flow

from flows.batches import remembered_unit
from flows.calibrate import Calibration, calibrate
from flows.contracts import publish_data_quality
from flows.figures import INSTRUMENT_COLOURS
from flows.fit import Fits, fit_split
from flows.journal import finite_json
from flows.network import (
    ANALYTIC,
    LAST,
    VIOLATIONS,
    FoldNetwork,
    HeldOut,
    analytic_posterior,
    fold_networks,
    held_out_predictions,
    mean_penalties,
    network_inputs,
    training_inputs,
    violations_table,
)
from flows.published import image, markdown, replace_tree, run_directory, table
from flows.recording import record_training
from flows.run_directory import CHECKPOINT, OUT_OF_FOLD, RunDirectory
from flows.scaling_log import honesty_lines, scaling_lines, scaling_log
from flows.served_model import FALLBACK, MODEL, NETWORK_USE, NETWORKS, SCALING, NetworkUse
from flows.tables import spectra_frame
from flows.workspace import Workspace, workspace
from settings.tree import Settings
from spectramind.instruments import INSTRUMENTS
from spectramind.metrics.baselines import expected_score, mean_depth_baseline
from spectramind.metrics.score import reference_of, score_parts
from spectramind.metrics.statistics import spectra_statistics
from spectramind.models.analytic import train_analytic
from spectramind.provenance.digests import code_digest
from spectramind.provenance.units import MANIFEST, read_manifest, unit_path
from spectramind.types import Floats, Spectra
from spectramind.uncertainty.evidence import evidence_of
from spectramind.uncertainty.scaling import SigmaScaling, cross_fit_sigma, fit_sigma_scaling

if TYPE_CHECKING:
    from spectramind.models.network_planets import NetworkPlanets

METRICS, FIGURE = "metrics.json", "out_of_fold.svg"
UNSCALED, EVIDENCE = "out_of_fold_unscaled.parquet", "evidence.npy"
"""What a checkpoint tells beside what a prediction needs."""


@dataclass(frozen=True)
class Training:
    """The trained predictor in the store and the metrics of its out-of-fold predictions."""

    path: Path
    digest: str
    metrics: dict[str, Any]
    mlflow_run: str | None = None
    networks: tuple[FoldNetwork, ...] = ()

    @classmethod
    def read(cls, path: Path) -> Training:
        """The predictor in `path`, a unit of the store or a run's copy of it."""
        return cls(path, read_manifest(path)["digest"], json.loads((path / METRICS).read_text(encoding="utf-8")))


@flow(name="train-v50")
def train_v50(settings: Settings, run: RunDirectory | None = None) -> Training:
    """Train, cross-validate by planet, scale sigma, log and register; write `checkpoints/` of the run."""
    with workspace(settings, run, "train") as work:
        run_directory(work.run.path)
        if work.training is None:
            work.training = _train(work)
        return work.training


def _train(work: Workspace) -> Training:
    calibration = work.calibration or calibrate(work.settings, work.run)
    fits = fit_split(work, "train", calibration)
    publish_data_quality(work)
    labels = work.labels(fits.planets)
    if work.settings.model.kind == "v50":
        target, networks = _v50(work, fits, labels, calibration)
    else:
        identity, networks = _identity(work, fits, labels), ()
        target = unit_path(work.layout.models, identity)
        remembered_unit(work, "train", target, identity, lambda folder: _write(work, fits, labels, folder))
    training = replace(Training.read(target), networks=networks)
    replace_tree(target, work.run.folder("checkpoints") / CHECKPOINT.name)
    for network in networks:
        shutil.copy(network.path / LAST, work.run.folder("checkpoints") / f"network_{network.name}_{LAST}")
    scaling = SigmaScaling.load(target / SCALING)
    work.run.add_metrics({"out_of_fold": training.metrics, "sigma_scaling": scaling_log(scaling)})
    honesty = honesty_lines(training.metrics["statistics"])
    told = ["Sigma scaling", *scaling_lines(scaling), "Held-out planets", *honesty]
    work.console.print("\n".join(told), highlight=False, soft_wrap=True)
    parts = list(work.seconds.values())
    work.run.journal.event("trained", seconds=None if None in parts else sum(part or 0.0 for part in parts))
    training = replace(training, mlflow_run=record_training(work, training))
    table("out-of-fold-scores", "Out-of-fold scores", score_rows(training.metrics))
    image("held-out-planets", target / FIGURE, "Errors of held-out train planets")
    markdown(
        "checkpoint",
        "The trained predictor",
        f"Checkpoint: `{work.run.path / 'checkpoints' / 'best.ckpt'}`\n\nStore: `{target}`",
    )
    return training


def _v50(work: Workspace, fits: Fits, labels: Floats, calibration: Calibration) -> tuple[Path, tuple[FoldNetwork, ...]]:
    """The predictor with networks in the store, and the networks."""
    inputs = training_inputs(work, fits, labels)
    posterior = analytic_posterior(work, fits, labels)
    planets = network_inputs(work, fits, posterior, calibration)
    networks = tuple(fold_networks(work, fits, posterior, planets, labels))
    identity = {
        "kind": "V50 predictor",
        "inputs": {**inputs, "posterior": posterior.digest, **{f"network/{n.name}": n.digest for n in networks}},
        "settings": {
            "uncertainty": asdict(work.settings.uncertainty),
            "symbolic": asdict(work.settings.symbolic),
            "batch": work.settings.train.batch.eval,
            "passes": work.settings.train.mc_dropout_passes,
            "seed": work.settings.runtime.seed,
        },
        "code": _code("spectramind.losses", "spectramind.training", "flows.network"),
    }
    target = unit_path(work.layout.models, identity)

    def write(folder: Path) -> None:
        evidence = evidence_of([fit.summary for fit in fits.load()[0]])
        _write_v50(work, posterior, networks, planets(), labels, evidence, folder)

    remembered_unit(work, "train", target, identity, write)
    return target, networks


def score_rows(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Scores of held-out train planets for a table."""
    parts = [
        {"prediction": label, "score": round(metrics[name], 4)}
        for name, label in (("score_analytic", "analytic posterior"), ("score_network", "network on top of it"))
        if name in metrics
    ]
    return [
        {"prediction": "this predictor, out of fold", "score": round(metrics["score"], 4)},
        *parts,
        {"prediction": "what its sigmas expect", "score": round(metrics["expected_score"], 4)},
        {"prediction": "mean depth, one constant sigma", "score": round(metrics["mean_depth_score"], 4)},
        {"prediction": "mean and spread of the train labels", "score": 0.0},
    ]


def _identity(work: Workspace, fits: Fits, labels: Floats) -> dict[str, Any]:
    return {
        "kind": "analytic predictor",
        "inputs": training_inputs(work, fits, labels),
        "settings": {
            "model": asdict(work.settings.model.analytic),
            "transit": asdict(work.settings.transit),
            "uncertainty": asdict(work.settings.uncertainty),
            "seed": work.settings.runtime.seed,
        },
        "code": _code(),
    }


def _code(*more: str) -> str:
    return code_digest(
        *("spectramind.models", "spectramind.transit", "spectramind.uncertainty", "spectramind.metrics"),
        *("flows.train", "flows.served_model", *more),
    )


def _write(work: Workspace, fits: Fits, labels: Floats, folder: Path) -> None:
    """Everything that a prediction needs, and how well held-out planets are predicted."""
    settings, options, seed = work.settings, work.settings.uncertainty, work.settings.runtime.seed
    loaded, stars = fits.load()
    evidence = evidence_of([fit.summary for fit in loaded])
    model, held_out = train_analytic(
        loaded, stars, labels, work.dataset.wavelengths_um, settings.model.analytic, settings.transit, seed
    )
    (folder / MODEL).mkdir()
    model.save(folder / MODEL)
    unscaled = held_out.mean, held_out.sigma, labels, options, seed, evidence
    scaled = Spectra(fits.planets, held_out.mean, cross_fit_sigma(*unscaled))
    fit_sigma_scaling(*unscaled).save(folder / SCALING)
    _write_results(scaled, held_out.sigma, evidence, _metrics(scaled, held_out.sigma, labels), labels, folder)


def _write_v50(
    work: Workspace,
    posterior: HeldOut,
    networks: Sequence[FoldNetwork],
    planets: NetworkPlanets,
    labels: Floats,
    evidence: Floats,
    folder: Path,
) -> None:
    """The same with the networks, and the weight that held-out planets give them."""
    from spectramind.training.mixture import choose_mixture

    options, seed, analytic = work.settings.uncertainty, work.settings.runtime.seed, posterior.spectra
    mean, sigma, weight, report = analytic.mean, analytic.sigma, 0.0, {"network_weight": 0.0}
    predicted = held_out_predictions(work, networks, planets, posterior.folds)
    if predicted is not None:
        mixture = choose_mixture((mean, sigma), predicted, labels, posterior.folds, options, seed)
        mean, sigma, weight, report = mixture.mean, mixture.sigma, mixture.weight, dict(mixture.report)
    shutil.copytree(posterior.path / ANALYTIC, folder / MODEL)
    for network in networks:
        unneeded = shutil.ignore_patterns(MANIFEST, LAST)
        shutil.copytree(network.path, folder / NETWORKS / network.name, ignore=unneeded)
    use = NetworkUse(weight, work.settings.train.batch.eval, work.settings.train.mc_dropout_passes, seed)
    _write_json(folder / NETWORK_USE, asdict(use))
    unscaled = mean, sigma, labels, options, seed, evidence
    scaled = Spectra(analytic.planet_ids, mean, cross_fit_sigma(*unscaled))
    fit_sigma_scaling(*unscaled).save(folder / SCALING)
    table = violations_table(work, scaled, analytic.mean)
    table.to_parquet(folder / VIOLATIONS, index=False)
    metrics = {**_metrics(scaled, sigma, labels), **report, "violations": mean_penalties(table)}
    _write_results(scaled, sigma, evidence, metrics, labels, folder)


def _write_results(
    scaled: Spectra,
    unscaled_sigma: Floats,
    evidence: Floats,
    metrics: dict[str, Any],
    labels: Floats,
    folder: Path,
) -> None:
    spectra_frame(scaled).to_parquet(folder / OUT_OF_FOLD, index=False)
    unscaled = Spectra(scaled.planet_ids, scaled.mean, unscaled_sigma)
    spectra_frame(unscaled).to_parquet(folder / UNSCALED, index=False)
    np.save(folder / EVIDENCE, evidence)
    _write_json(folder / FALLBACK, {"mean": labels.mean(axis=0).tolist(), "sigma": labels.std(axis=0).tolist()})
    _write_json(folder / METRICS, finite_json(metrics))
    _draw(scaled, labels, folder / FIGURE)


def _metrics(scaled: Spectra, unscaled_sigma: Floats, labels: Floats) -> dict[str, Any]:
    reference = reference_of(labels)
    depth = scaled.mean[:, 1:].mean(axis=1)
    return {
        "planets": len(labels),
        "score": score_parts(scaled.mean, scaled.sigma, labels, *reference).score,
        "score_before_scaling": score_parts(scaled.mean, unscaled_sigma, labels, *reference).score,
        "expected_score": expected_score(scaled.sigma, labels, *reference),
        "mean_depth_score": score_parts(*mean_depth_baseline(depth, labels, depth), labels, *reference).score,
        "train_mean_score": 0.0,
        "reference": {"mean": reference[0], "std": reference[1]},
        "statistics": spectra_statistics(scaled.mean, scaled.sigma, labels),
    }


def _draw(scaled: Spectra, labels: Floats, path: Path) -> None:
    """Errors of held-out planets against depth, and the distribution of z."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    error = scaled.mean - labels
    with mpl.rc_context({"svg.hashsalt": "spectramind", "font.size": 9}):
        figure = Figure(figsize=(9.6, 3.4), layout="constrained")
        left, right = figure.subplots(1, 2)
        for instrument in reversed(INSTRUMENTS):
            depth, miss = (values[:, instrument.spectral_slice].mean(axis=1) for values in (labels, error))
            colour = INSTRUMENT_COLOURS[instrument.name]
            left.semilogx(depth, 1e6 * miss, "o", ms=3.5, alpha=0.7, color=colour, label=instrument.name)
        left.tick_params(axis="x", which="minor", labelsize=6.5)
        left.axhline(0, lw=1, color="#777777")
        left.set(xlabel="true depth", ylabel="error of the mean depth (ppm)", title="Held-out planets")
        left.legend(frameon=False)
        z = np.clip(error / scaled.sigma, -5, 5)
        grid = np.linspace(-5, 5, 201)
        right.hist(z.ravel(), bins=50, density=True, color="#1c5d99", alpha=0.5)
        right.plot(grid, np.exp(-(grid**2) / 2) / np.sqrt(2 * np.pi), lw=1, color="#333333")
        right.set(xlabel="error / sigma", title=f"z: standard deviation {z.std():.2f}")
        for axes in (left, right):
            axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(path, format="svg", metadata={"Date": None})


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, sort_keys=True, allow_nan=False), encoding="utf-8")
