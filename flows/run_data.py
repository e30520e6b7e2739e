"""What a finished, or unfinished, run holds for its report, read from its directory and its store."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from flows.flags import FLAGS
from flows.overlay import OVERLAY
from flows.run_directory import CHECKPOINT, OUT_OF_FOLD
from flows.spectra_files import read_predictions, read_truth
from flows.store_layout import StoreLayout
from flows.units import FIT, joined
from spectramind.data.layout import Dataset, Split, open_dataset, usable_star
from spectramind.errors import InputError, SpectraMindError
from spectramind.instruments import FGS1, INSTRUMENTS, N_WAVELENGTHS
from spectramind.provenance.units import MANIFEST, find_digest, read_manifest, read_unit
from spectramind.transit.fit import PlanetFit, WhiteCurve, white_curves
from spectramind.types import CalibratedVisit, Floats, Spectra, Star

if TYPE_CHECKING:
    import pandas as pd

    from settings.tree import Settings
    from spectramind.models.analytic import AnalyticModel

PREDICTIONS = Path("predictions") / "predictions.parquet"
ATTRIBUTIONS = Path("explain") / "attribution.parquet"
EXPLANATION = Path("explain") / "summary.json"
CURE = "Name the directory of a run that has trained or predicted."
BATCH = 16
"""Planets that the network reads at a time."""


@dataclass(frozen=True)
class RunData:
    """A run as its report shows it. P planets, held-out train planets first, then test planets.

    `mean`, `sigma` (P, 283), `truth` (P, 283) with NaN where it is not known; `train_labels` (N, 283) of all train
    planets and `wavelengths_um` (283,), None if the data set is gone; `flags` words by row, `curves` white light curves
    by row, `latents` (P, n) and what they are; `histories` of the networks, by name; `violations`
    planet_id, rule, penalty, worst_bin; documents that the run has written, empty if it has not; `attributions` (283,)
    by row: how far a bin's light curve moves the bins that were explained, the mean of absolute values; `overlay` of
    attributions and rules and the `explanation` that it belongs to; `dataset` the name of its folder. `missing` says in
    plain words what could not be had.
    """

    path: Path
    planet_ids: tuple[str, ...]
    splits: tuple[str, ...]
    mean: Floats
    sigma: Floats
    truth: Floats
    train_labels: Floats | None = None
    flags: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    curves: Mapping[int, Sequence[WhiteCurve]] = field(default_factory=dict)
    latents: Floats | None = None
    latents_are: str = ""
    wavelengths_um: Floats | None = None
    histories: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    violations: pd.DataFrame | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)
    ledger: Mapping[str, Any] = field(default_factory=dict)
    noise: Mapping[str, Any] = field(default_factory=dict)
    certificate: str = ""
    attributions: Mapping[int, Floats] = field(default_factory=dict)
    overlay: pd.DataFrame | None = None
    explanation: Mapping[str, Any] = field(default_factory=dict)
    summary: Mapping[str, Any] = field(default_factory=dict)
    dataset: str | None = None
    data_digests: Mapping[str, str] = field(default_factory=dict)
    settings_yaml: str = ""
    seed: int = 0
    missing: tuple[str, ...] = ()

    def rows(self, split: str, known: bool = True) -> list[int]:
        """Rows of a split; only those whose truth is known if `known`."""
        there = np.all(np.isfinite(self.truth), axis=1).tolist()
        return [row for row, name in enumerate(self.splits) if name == split and (there[row] or not known)]

    def z(self, rows: Sequence[int]) -> Floats:
        """(truth - mean) / sigma of these rows (n, 283)."""
        chosen = list(rows)
        z: Floats = (self.truth[chosen] - self.mean[chosen]) / self.sigma[chosen]
        return z

    @property
    def axis(self) -> Floats:
        """Wavelengths in micrometres, or the numbers of the bins."""
        return np.arange(1.0, N_WAVELENGTHS + 1) if self.wavelengths_um is None else self.wavelengths_um

    @property
    def axis_label(self) -> str:
        return "bin" if self.wavelengths_um is None else "wavelength (µm)"


def read_run(path: Path) -> RunData:
    """Everything that the report of the run in `path` shows. Raises InputError if there are no spectra in it."""
    if not path.is_dir():
        raise InputError(path, "the directory of a run", "no directory", CURE)
    missing: list[str] = []
    parts: list[tuple[Split, Spectra]] = []
    found = {"train": path / CHECKPOINT / OUT_OF_FOLD, "test": path / PREDICTIONS}
    for split, file in found.items():
        if file.is_file():
            parts.append((cast(Split, split), read_predictions(file)))
        else:
            missing.append(f"spectra of {split} planets: no {file.relative_to(path)}")
    if not parts:
        raise InputError(path, "spectra of a run", f"neither {CHECKPOINT / OUT_OF_FOLD} nor {PREDICTIONS}", CURE)
    if not (path / "manifest.json").is_file():
        missing.append("the end of the run: it has no manifest.json, so that it has failed or is not finished")
    settings = _settings(path, missing)
    dataset = _dataset(settings, missing)
    labels = dict(zip(*dataset.labels(), strict=True)) if dataset is not None and dataset.planets("train") else {}
    ids = tuple(planet for _, spectra in parts for planet in spectra.planet_ids)
    splits = tuple(split for split, spectra in parts for _ in spectra.planet_ids)
    mean = np.concatenate([spectra.mean for _, spectra in parts])
    sigma = np.concatenate([spectra.sigma for _, spectra in parts])
    curves, latents, latents_are = _from_store(path, ids, splits, mean, settings, dataset, missing)
    summary = _json(path / "run_hash_summary_v50.json", missing)
    quality = _json(path / "calibration" / "data_quality.json", missing)
    words = _json(path / "predictions" / FLAGS, [] if len(parts) == 1 else missing)
    certificate = path / "submission" / "coverage_certificate.md"
    if not certificate.is_file():
        missing.append("coverage certificate: the run has made no submission")
    return RunData(
        path=path,
        planet_ids=ids,
        splits=splits,
        mean=mean,
        sigma=sigma,
        truth=_truth(ids, splits, labels, settings, missing),
        train_labels=np.stack(list(labels.values())) if labels else None,
        flags={row: tuple(words[p]) for row, p in enumerate(ids) if splits[row] == "test" and p in words},
        curves=curves,
        latents=latents,
        latents_are=latents_are,
        wavelengths_um=None if dataset is None else dataset.wavelengths_um,
        histories=_histories(path, missing),
        violations=_violations(path, missing),
        metrics=_json(path / "metrics.json", missing),
        ledger=_json(path / "diagnostics" / "score_ledger.json", missing),
        noise=_json(path / "diagnostics" / "noise_ledger.json", missing),
        certificate=certificate.read_text(encoding="utf-8") if certificate.is_file() else "",
        attributions=_attributions(path / ATTRIBUTIONS, ids, splits, missing),
        overlay=_overlay(path / "explain" / OVERLAY, missing),
        explanation=_json(path / EXPLANATION, missing) if (path / EXPLANATION).is_file() else {},
        summary=summary,
        dataset=None if settings is None or settings.data.root is None else settings.data.root.name,
        data_digests=quality.get("lineage", {}),
        settings_yaml=_text(path / "resolved_config.yaml"),
        seed=int(summary.get("seed", 0)),
        missing=tuple(missing),
    )


def _settings(path: Path, missing: list[str]) -> Settings | None:
    from settings.resolve import resolve

    try:
        return resolve((), path / "resolved_config.yaml")
    except SpectraMindError as error:
        missing.append(f"settings of the run, and with them data set, truths and light curves ({error})")
        return None


def _dataset(settings: Settings | None, missing: list[str]) -> Dataset | None:
    if settings is None:
        return None
    if settings.data.root is None:
        missing.append("data set: not named in the run's settings")
        return None
    try:
        return open_dataset(Path(settings.data.root))
    except SpectraMindError as error:
        words = "data set, and with it wavelengths, light curves and train labels"
        missing.append(f"{words}; test planets are scored against their own mean and spread ({error})")
        return None


def _truth(
    ids: Sequence[str],
    splits: Sequence[str],
    labels: dict[str, Floats],
    settings: Settings | None,
    missing: list[str],
) -> Floats:
    """(P, 283), NaN where nothing is known."""
    truth = np.full((len(ids), N_WAVELENGTHS), np.nan)
    known: dict[str, dict[str, Floats]] = {"train": labels, "test": {}}
    table = None if settings is None else settings.data.truth
    if table is not None:
        try:
            known["test"] = dict(zip(*read_truth(Path(table)), strict=True))
        except SpectraMindError as error:
            missing.append(f"truth of test planets ({error})")
    elif settings is not None:
        missing.append("truth of test planets: data.truth was not set")
    for row, (planet, split) in enumerate(zip(ids, splits, strict=True)):
        truth[row] = known[split].get(planet, np.nan)
    return truth


def _from_store(
    path: Path,
    ids: Sequence[str],
    splits: Sequence[str],
    mean: Floats,
    settings: Settings | None,
    dataset: Dataset | None,
    missing: list[str],
) -> tuple[dict[int, list[WhiteCurve]], Floats, str]:
    """White light curves by row, and latents (P, n) with what they are."""
    curves: dict[int, list[WhiteCurve]] = {}
    pooled: dict[int, Floats] = {}
    waiting: list[tuple[int, PlanetFit, Star, list[CalibratedVisit]]] = []
    lost: dict[str, int] = {}
    network = None
    try:
        network = _Latents.load(path / CHECKPOINT)
    except SpectraMindError as error:
        missing.append(f"latents of the network ({error})")
    if settings is not None and dataset is not None:
        layout = StoreLayout.of(settings.outputs)
        digests = {
            "train": _fit_digests(path / CHECKPOINT, missing),
            "test": _fit_digests(path / "predictions", missing),
        }
        for row, (planet, split) in enumerate(zip(ids, splits, strict=True)):
            try:
                star = usable_star(dataset.star(cast(Split, split), planet))
                folder = layout.fit_copy(split, planet)
                unit = _unit(folder, digests[split].get(planet, ""))
                fit = PlanetFit.load(unit / FIT)
                visits = _visits(layout, split, planet, unit)
                curves[row] = white_curves(fit, visits, star, settings.transit)
            except (SpectraMindError, OSError, ValueError, KeyError) as error:
                reason = str(error).removeprefix(f"planet {planet}").strip(": ")
                lost[reason] = lost.get(reason, 0) + 1
                continue
            if network is not None:
                waiting.append((row, fit, star, visits))
                if len(waiting) == BATCH:
                    pooled.update(network.of(waiting))
                    waiting = []
        for reason, count in list(lost.items())[:3]:
            missing.append(f"light curves and fits of {count} of {len(ids)} planets (such as: {reason})")
    if network is not None and waiting:
        pooled.update(network.of(waiting))
    if network is not None and pooled:
        latents = np.full((len(ids), len(next(iter(pooled.values())))), np.nan)
        for row, vector in pooled.items():
            latents[row] = vector
        return curves, latents, f"latents of network {network.name}: means over bins of what its heads read"
    missing.append(
        "latents: no network, or no light curves for it; the predicted spectra's leading directions stand for them"
    )
    return curves, mean, "leading principal components of the posterior spectra, for want of a network"


@dataclass(frozen=True)
class _Latents:
    """The first network of a checkpoint, with the analytic model whose posterior it reads."""

    name: str
    network: Any
    model: AnalyticModel

    @classmethod
    def load(cls, checkpoint: Path) -> _Latents | None:
        from flows.served_model import MODEL, NETWORKS
        from spectramind.models.analytic import AnalyticModel

        folders = sorted((checkpoint / NETWORKS).glob("*/network.json"))
        if not folders:
            return None
        from spectramind.models.v50 import V50

        network = V50.load(folders[0].parent)
        network.eval()
        return cls(folders[0].parent.name, network, AnalyticModel.load(checkpoint / MODEL))

    def of(self, known: Sequence[tuple[int, PlanetFit, Star, list[CalibratedVisit]]]) -> dict[int, Floats]:
        """Latents (n,) by row of planets with their fits and visits."""
        import torch

        from spectramind.models.network_planets import network_planets

        rows, fits, stars, visits = zip(*known, strict=True)
        own = [[visit.curves[FGS1.name] for visit in some if FGS1.name in visit.curves] for some in visits]
        posterior = self.model.predict(fits, stars)
        planets = network_planets(fits, stars, posterior, own, self.network.options.heads.mu.directions)
        with torch.no_grad():
            latents = self.network(planets.batch(range(len(planets)))).node_latents.mean(dim=1)
        return dict(zip(rows, np.asarray(latents.numpy(), dtype=float), strict=True))


def _fit_digests(unit: Path, missing: list[str]) -> dict[str, str]:
    """Digest of every planet's fit that this unit was made from."""
    if not (unit / MANIFEST).is_file():
        return {}
    try:
        inputs = read_manifest(unit)["identity"]["inputs"]
    except SpectraMindError as error:
        missing.append(str(error))
        return {}
    return {name.removeprefix("fit/"): digest for name, digest in inputs.items() if name.startswith("fit/")}


def _unit(parent: Path, digest: str) -> Path:
    """The unit below `parent` that has this digest. Raises InputError."""
    if not digest:
        raise InputError("its spectrum", "one made from a fit", "the fallback", "The data-quality report says why.")
    found = find_digest(parent, digest)
    if found is None:
        raise InputError(
            parent.parents[1], "the units that the run has used", "others or none", "Keep the run's store."
        )
    return Path(found[0])


def _visits(layout: StoreLayout, split: str, planet: str, fit: Path) -> list[CalibratedVisit]:
    """The calibrated visits of a fit, in its order, every byte verified."""
    from spectramind.cubes.store import read_cube

    inputs = read_manifest(fit)["identity"]["inputs"]
    numbers = sorted({int(name.split("/")[0].removeprefix("visit_")) for name in inputs if "/" in name})
    visits = []
    for visit in numbers:
        parts = []
        for instrument in INSTRUMENTS:
            digest = inputs.get(f"visit_{visit}/{instrument.name}")
            if digest is None:
                continue
            folder = layout.cube_unit(split, planet, visit, instrument.name)
            if not isinstance(folder, Path):
                cure = "Make the report where the store is."
                raise InputError("the cubes", "a store on this machine", "one in S3 storage", cure)
            parts.append(read_unit(_unit(folder, digest), read_cube))
        visits.append(joined(parts))
    return visits


def _histories(path: Path, missing: list[str]) -> dict[str, list[dict[str, Any]]]:
    from flows.network import HISTORY
    from flows.served_model import NETWORKS

    files = sorted((path / CHECKPOINT / NETWORKS).glob(f"*/{HISTORY}"))
    if not files:
        missing.append("loss curves: no network was trained")
    return {file.parent.name: json.loads(file.read_text(encoding="utf-8")) for file in files}


def _violations(path: Path, missing: list[str]) -> pd.DataFrame | None:
    import pandas as pd

    from flows.network import VIOLATIONS

    files = [path / CHECKPOINT / VIOLATIONS, path / "predictions" / VIOLATIONS]
    tables = [pd.read_parquet(file) for file in files if file.is_file()]
    if not tables:
        missing.append("violations of physical rules: written with model.kind=v50 only")
        return None
    return pd.concat(tables, ignore_index=True)


def _attributions(file: Path, ids: Sequence[str], splits: Sequence[str], missing: list[str]) -> dict[int, Floats]:
    """Relative depths (283,) by row of the test planets in the table planet_id, wl, source_wl, attribution_ppm."""
    import pandas as pd

    if not file.is_file():
        return {}
    try:
        table = pd.read_parquet(file, columns=["planet_id", "source_wl", "attribution_ppm"])
        table["planet_id"], table["attribution_ppm"] = table["planet_id"].astype(str), table["attribution_ppm"].abs()
        means = table.groupby(["planet_id", "source_wl"])["attribution_ppm"].mean().unstack()
        means = 1e-6 * means.reindex(columns=range(1, N_WAVELENGTHS + 1))
    except (OSError, ValueError, KeyError) as error:
        missing.append(f"attributions: {file.name} cannot be read ({error})")
        return {}
    return {
        row: means.loc[planet].to_numpy(float)
        for row, (planet, split) in enumerate(zip(ids, splits, strict=True))
        if split == "test" and planet in means.index
    }


def _overlay(file: Path, missing: list[str]) -> pd.DataFrame | None:
    import pandas as pd

    if not file.is_file():
        missing.append("attributions beside physical rules: made by spectramind explain")
        return None
    try:
        return pd.read_parquet(file)
    except (OSError, ValueError) as error:
        missing.append(f"attributions beside physical rules: {file.name} cannot be read ({error})")
        return None


def _json(file: Path, missing: list[str]) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return found
    except FileNotFoundError:
        missing.append(f"{file.name}: not written")
    except ValueError as error:
        missing.append(f"{file.name}: damaged ({error})")
    return {}


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8") if file.is_file() else ""
