"""The conformal graph network by itself, of a finished run: trained, checked, and applied to the run's predictions."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from rich.console import Console

from flows.flags import by_fallback, read_flags
from flows.interval_methods import fit_network, network_lines
from flows.intervals import INTERVALS, held_out_planets, interval_table
from flows.journal import finite_json
from flows.predict import PREDICTIONS
from flows.published import replace_tree
from flows.run_directory import CHECKPOINT, OUT_OF_FOLD, RunDirectory, store_errors
from flows.scaling import read_evidence, true_depths
from flows.spectra_files import finished_part, read_predictions
from flows.tables import spectra_frame
from settings.tree import Settings
from spectramind.data.layout import open_dataset
from spectramind.instruments import FGS1, INSTRUMENTS, N_WAVELENGTHS
from spectramind.metrics.score import reference_of, score_parts
from spectramind.types import Floats, Spectra

if TYPE_CHECKING:
    from spectramind.corel.intervals import Corel, CorelReport

REPORT, CURVES, HEATMAP, DELTA = "report.json", "coverage_curves.csv", "coverage_by_bin.parquet", "delta_coverage.csv"
PROMISE = (
    "For exchangeable planets each bin's interval, and by the band all bins of a planet at once, hold the truth with "
    "the level's probability, on average over planets. This is what the conformal step guarantees, and nothing else "
    "is guaranteed."
)
FIGURE, NETWORK = "coverage.png", "network.safetensors"


def train_corel(finished: Path, truth: Path, settings: Settings, run: RunDirectory) -> None:
    """Train on the out-of-fold predictions of the run `finished`, whose sigmas are scaled already; write `corel/`.

    `truth` is the train.csv of its data set, beside whose wavelengths.csv it lies. Test predictions with the network's
    sigma are written only if it scores higher than the scaled one on planets that only check.
    """
    checkpoint = finished / CHECKPOINT
    known = read_predictions(finished_part(checkpoint / OUT_OF_FOLD))
    depths, evidence = true_depths(truth, known.planet_ids), read_evidence(checkpoint)
    wavelengths = open_dataset(truth.parent).wavelengths_um
    corel, report, split = fit_network(held_out_planets(known, depths, evidence, wavelengths, settings))
    scores = _scores(corel, known, depths, evidence, split.check)
    better = (corel.weight > 0 or corel.response is not None) and scores["corel"] > scores["stated"]
    document = {
        "promise": PROMISE,
        **report.to_json(),
        "target": settings.corel.target,
        "network": corel.network is not None,
        "score": scores,
        "sigma_used": better,
        "check_planets": [known.planet_ids[row] for row in split.check],
    }
    folder = run.folder("corel")
    with store_errors(folder), tempfile.TemporaryDirectory(dir=run.path, prefix=".corel-") as staging:
        made = Path(staging) / folder.name
        made.mkdir()
        _write_report(made, document, report, settings.corel.target)
        _write_network(made / NETWORK, corel)
        _write_predictions(made, finished / "predictions", corel, better)
        replace_tree(made, folder)
    run.add_metrics({"corel": {k: v for k, v in document.items() if k not in ("check_planets", "promise")}})
    verdict = "its sigma is used" if better else "the stated sigma stays"
    told = f"score of the checking planets: {scores['stated']:.4f} -> {scores['corel']:.4f}; {verdict}"
    for line in (*network_lines(report, corel, settings.corel.target), told):
        Console().print(line, soft_wrap=True, highlight=False)
    Console().print(f"written: {folder}", soft_wrap=True)


def _scores(corel: Corel, known: Spectra, depths: Floats, evidence: Floats, rows: np.ndarray) -> dict[str, float]:
    """Of the checking planets: with the stated sigma and with the network's."""
    mean, sigma, truth = known.mean[rows], known.sigma[rows], depths[rows]
    network = corel.sigma(mean, sigma, evidence[:, rows])
    reference = reference_of(depths)
    return {
        name: score_parts(mean, values, truth, *reference).score
        for name, values in (("stated", sigma), ("corel", network))
    }


def _write_report(folder: Path, document: dict[str, object], report: CorelReport, target: float) -> None:
    (folder / REPORT).write_text(json.dumps(finite_json(document), indent=1, allow_nan=False), encoding="utf-8")
    levels = np.repeat(report.levels, N_WAVELENGTHS)
    bins = np.tile(np.arange(1, N_WAVELENGTHS + 1), len(report.levels))
    table = pd.DataFrame({"level": levels, "wl": bins, "coverage": report.coverage.ravel()})
    table["low"], table["high"] = np.repeat(report.beta_low, N_WAVELENGTHS), np.repeat(report.beta_high, N_WAVELENGTHS)
    table.to_parquet(folder / HEATMAP, index=False)
    delta = table.assign(delta_coverage=table["coverage"] - table["level"])[["level", "wl", "delta_coverage"]]
    delta.to_csv(folder / DELTA, index=False)
    curves = pd.DataFrame(
        {
            "level": report.levels,
            **{i.name: report.coverage[:, i.spectral_slice].mean(axis=1) for i in INSTRUMENTS},
            "all_bins_at_once": report.band_coverage,
            "width_ppm": report.width_ppm,
            "plain_width_ppm": report.plain_width_ppm,
        }
    )
    curves.to_csv(folder / CURVES, index=False)
    _draw(curves, report, target, folder / FIGURE)


def _draw(curves: pd.DataFrame, report: CorelReport, target: float, path: Path) -> None:
    """Coverage against level, and its difference from the level by bin."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"font.size": 9}):
        figure = Figure(figsize=(10, 3.4), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(1, 2))
        left.plot([0.6, 1], [0.6, 1], lw=1, color="#777777")
        for name in (*(i.name for i in INSTRUMENTS), "all_bins_at_once"):
            left.plot(curves["level"], curves[name], "o-", ms=4, lw=1, label=name.replace("_", " "))
        left.axvline(target, lw=0.8, ls=":", color="#777777")
        left.set(xlabel="level", ylabel="coverage", title=f"{report.n_check} planets that only check")
        left.legend(frameon=False)
        shown = report.coverage - np.array(report.levels)[:, None]
        image = right.imshow(100 * shown, aspect="auto", cmap="RdBu", vmin=-30, vmax=30, interpolation="nearest")
        right.set_yticks(range(len(report.levels)), [f"{level:.0%}" for level in report.levels])
        right.set(xlabel=f"bin (0 is {FGS1.name})", ylabel="level", title="coverage minus level")
        figure.colorbar(image, label="percent")
        figure.savefig(path, dpi=120, metadata={"Software": None})


def _write_network(path: Path, corel: Corel) -> None:
    from safetensors.numpy import save_file

    arrays = {
        **{name: getattr(corel, name) for name in ("centre", "scale", "typical_log_sigma", "temperature")},
        **{name: getattr(corel, name) for name in ("factor", "band")},
        "levels": np.array(corel.levels),
        "weight": np.array([corel.weight]),
    }
    if corel.response is not None:
        arrays["response"] = corel.response
    if corel.network is not None:
        arrays |= {f"network.{name}": tensor.numpy() for name, tensor in corel.network.state_dict().items()}
    save_file({name: np.ascontiguousarray(values) for name, values in arrays.items()}, path)


def _write_predictions(folder: Path, predictions: Path, corel: Corel, better: bool) -> None:
    """Intervals of the run's test predictions, if it has any; its predictions with the network's sigma if `better`.
    Planets that the fallback predicted have no rows among the intervals and keep their sigma."""
    if not (predictions / PREDICTIONS).exists():
        return
    spectra = read_predictions(predictions / PREDICTIONS)
    kept = ~by_fallback(spectra.planet_ids, read_flags(predictions))
    evidence = read_evidence(predictions)[:, kept]
    mean, sigma = spectra.mean[kept], spectra.sigma[kept]
    planets = [planet for planet, keep in zip(spectra.planet_ids, kept, strict=True) if keep]
    limits = (*corel.limits(mean, sigma, evidence), *corel.limits(mean, sigma, evidence, band=True))
    interval_table(corel.levels, planets, limits).to_parquet(folder / INTERVALS, index=False)
    if better:
        changed = spectra.sigma.copy()
        changed[kept] = corel.sigma(mean, sigma, evidence)
        table = spectra_frame(Spectra(spectra.planet_ids, spectra.mean, changed))
        table.to_parquet(folder / PREDICTIONS, index=False)
