"""The V50 network in the flows: trained fold by fold in units of the store, mixed with the analytic posterior.

    analytic posterior   the analytic model, and its posterior of every train planet from a model that has not seen it
    network              one network per fold and member, which has not seen the fold's planets
    V50 predictor        both, the weight that held-out planets give the network, and the scaling of sigma

A training that is killed goes on from its last epoch: its checkpoints are kept beside the units until it ends.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from flows.batches import remembered_unit
from flows.units import light_curves
from spectramind.errors import BudgetReached
from spectramind.instruments import FGS1
from spectramind.metrics.score import reference_of
from spectramind.models.analytic import planet_folds, train_analytic
from spectramind.provenance.digests import code_digest
from spectramind.provenance.units import unit_path
from spectramind.types import Floats, LightCurve, Spectra

if TYPE_CHECKING:
    from flows.calibrate import Calibration
    from flows.fit import Fits
    from flows.workspace import Workspace
    from spectramind.data.layout import Split
    from spectramind.losses.violations import Violations
    from spectramind.models.network_planets import NetworkPlanets
    from spectramind.training.phases import Recipe
    from spectramind.training.train import Trained

ANALYTIC, HELD_OUT, VIOLATIONS = "model", "held_out.npz", "violations.parquet"
HISTORY, LAST = "history.json", "last.ckpt"
"""Of a network: what each epoch and validation measured, and the state of the training after the last epoch."""
NETWORK_SETTINGS = ("train", "optimizer", "loss", "symbolic")
NO_MATTER = ("loader", "members", "mc_dropout_passes")
"""Settings of the training on which the weights of one network do not depend."""
_CODE = (
    "spectramind.models",
    "spectramind.losses",
    "spectramind.training",
    "spectramind.transit",
    "spectramind.metrics",
)


@dataclass(frozen=True)
class FoldNetwork:
    """A trained network in the store that has not seen the planets of `fold`; None if it has seen all."""

    fold: int | None
    member: int
    path: Path
    digest: str

    @property
    def name(self) -> str:
        return f"{self.fold}-{self.member}"

    def history(self) -> list[dict[str, Any]]:
        """One row per epoch, and with `validation_steps` one per validation, which has a `step`: `phase`, `epoch` and
        what was measured."""
        rows: list[dict[str, Any]] = json.loads((self.path / HISTORY).read_text(encoding="utf-8"))
        return rows


@dataclass(frozen=True)
class HeldOut:
    """Of the train planets: the analytic posteriors `spectra` from models that have not seen them, the unit that they
    come from, and the folds."""

    spectra: Spectra
    path: Path
    digest: str
    folds: list[list[int]]


def training_inputs(work: Workspace, fits: Fits, labels: Floats) -> dict[str, str]:
    """What every model of the train planets depends on: digests by name."""
    return {
        **{f"fit/{planet}": digest for planet, digest in fits.digests.items()},
        "labels": _array_digest(labels),
        "wavelengths": _array_digest(work.dataset.wavelengths_um),
    }


def _array_digest(values: Floats) -> str:
    return hashlib.sha256(np.ascontiguousarray(values, "<f8").tobytes()).hexdigest()


def analytic_posterior(work: Workspace, fits: Fits, labels: Floats) -> HeldOut:
    """The analytic model and its out-of-fold posteriors, from the store or trained now."""
    settings = work.settings
    options, seed = settings.model.analytic, settings.runtime.seed
    identity = {
        "kind": "analytic posterior",
        "inputs": training_inputs(work, fits, labels),
        "settings": {"model": asdict(options), "transit": asdict(settings.transit), "seed": seed},
        "code": code_digest("spectramind.models", "spectramind.transit", "spectramind.metrics"),
    }
    target = unit_path(work.layout.models, identity)

    def write(folder: Path) -> None:
        model, found = train_analytic(
            *fits.load(), labels, work.dataset.wavelengths_um, options, settings.transit, seed
        )
        (folder / ANALYTIC).mkdir()
        model.save(folder / ANALYTIC)
        assert found.covariance is not None
        flags = np.frombuffer(json.dumps(found.flags).encode(), np.uint8)
        covariance = found.covariance.astype(np.float32)
        np.savez(folder / HELD_OUT, mean=found.mean, sigma=found.sigma, covariance=covariance, flags=flags)

    digest = remembered_unit(work, "analytic posterior", target, identity, write)
    with np.load(target / HELD_OUT) as arrays:
        flags = tuple(tuple(words) for words in json.loads(arrays["flags"].tobytes()))
        covariance = arrays["covariance"].astype(float)
        spectra = Spectra(fits.planets, arrays["mean"], arrays["sigma"], covariance, flags)
    return HeldOut(spectra, target, digest, planet_folds(len(labels), options.folds, seed))


def fgs1_curves(calibration: Calibration, split: Split, planets: Sequence[str]) -> list[list[LightCurve]]:
    """The FGS1 light curves of each planet's usable visits."""
    return [
        [
            light_curves(job)[FGS1.name]
            for units in calibration.visits[split, planet]
            for job in units.jobs
            if job.instrument == FGS1
        ]
        for planet in planets
    ]


def network_inputs(
    work: Workspace, fits: Fits, held_out: HeldOut, calibration: Calibration
) -> Callable[[], NetworkPlanets]:
    """The train planets as the network reads them, when they are first asked for."""

    @cache
    def planets() -> NetworkPlanets:
        from spectramind.models.network_planets import network_planets

        curves = fgs1_curves(calibration, "train", fits.planets)
        directions = work.settings.model.network.heads.mu.directions
        return network_planets(*fits.load(), held_out.spectra, curves, directions)

    return planets


def fold_networks(
    work: Workspace, fits: Fits, held_out: HeldOut, planets: Callable[[], NetworkPlanets], labels: Floats
) -> list[FoldNetwork]:
    """`train.members` networks for each fold; fewer if the time budget ends before all of them have begun.

    A network that the budget stops counts with its best epoch so far, and goes on in the next run. `planets` are asked
    for only if one is to be trained.
    """
    from flows.pretraining import pretrained

    networks: list[FoldNetwork] = []
    try:
        start = pretrained(work)
        for fold, member in product(range(len(held_out.folds)), range(work.settings.train.members)):
            network = _network(work, fits, held_out, planets, labels, fold, member, start)
            networks.append(network)
    except BudgetReached as stopped:
        work.cut_short = True
        work.warn(str(stopped))
    return networks


def train_on_all(
    work: Workspace, fits: Fits, held_out: HeldOut, planets: Callable[[], NetworkPlanets], labels: Floats
) -> FoldNetwork:
    """A network that is trained on all planets. Raises BudgetReached if the time ends before its first epoch does."""
    return _network(work, fits, held_out, planets, labels, None, 0, None)


class _Stopped(Exception):
    """The time was up, but there is a best epoch."""

    def __init__(self, trained: Trained) -> None:
        self.trained = trained


def _network(
    work: Workspace,
    fits: Fits,
    held_out: HeldOut,
    planets: Callable[[], NetworkPlanets],
    labels: Floats,
    fold: int | None,
    member: int,
    start: FoldNetwork | None,
) -> FoldNetwork:
    settings = work.settings
    chosen = {"fold": fold, "member": member, "folds": settings.model.analytic.folds, "seed": settings.runtime.seed}
    identity: dict[str, Any] = {
        "kind": "network",
        "inputs": {
            "posterior": held_out.digest,
            **training_inputs(work, fits, labels),
            **({} if start is None else {"start": start.digest}),
        },
        "settings": {
            "network": asdict(settings.model.network),
            **{name: asdict(settings.options(name)) for name in NETWORK_SETTINGS},
            **chosen,
        },
        "code": code_digest(*_CODE, "flows.network"),
    }
    for name in NO_MATTER:
        del identity["settings"]["train"][name]
    target = unit_path(work.layout.models, identity)
    progress = work.layout.models / f"{target.name}.training"

    def write(folder: Path) -> None:
        trained = _train(work, held_out, planets(), labels, progress, fold, member, start)
        if not trained.finished:
            raise _Stopped(trained)
        _save(trained, progress, folder)

    name = "network of all planets" if fold is None else f"network {fold + 1}/{len(held_out.folds)}"
    name += f" member {member + 1}" if member else ""
    try:
        digest = remembered_unit(work, name, target, identity, write)
        shutil.rmtree(progress, ignore_errors=True)
    except _Stopped as stopped:
        trained = stopped.trained
        identity["settings"]["stopped_after_epochs"] = trained.epochs
        target = unit_path(work.layout.models, identity)
        digest = remembered_unit(
            work, f"{name} so far", target, identity, lambda folder: _save(trained, progress, folder)
        )
    return FoldNetwork(fold, member, target, digest)


def _train(
    work: Workspace,
    held_out: HeldOut,
    planets: NetworkPlanets,
    labels: Floats,
    progress: Path,
    fold: int | None,
    member: int,
    start: FoldNetwork | None,
) -> Trained:
    from spectramind.models.v50 import V50
    from spectramind.training.train import TrainingSet, split_validation, train_network

    stream = [work.settings.runtime.seed, member, *(() if fold is None else (fold,))]
    seed = int(np.random.SeedSequence(stream).generate_state(1)[0])
    unseen = set() if fold is None else set(held_out.folds[fold])
    seen = [row for row in range(len(planets)) if row not in unseen and planets.usable[row]]
    train, validation = split_validation(seen, work.settings.train.validation_fraction, seed)
    reference = reference_of(work.dataset.labels()[1])
    data = TrainingSet(planets, labels, train, validation, work.dataset.wavelengths_um, reference)
    progress.mkdir(parents=True, exist_ok=True)

    def note(phase: str, numbers: Mapping[str, float]) -> None:
        row = {"phase": phase, **numbers}
        work.run.journal.event("validation" if "step" in row else "epoch", fold=fold, member=member, **row)
        with (progress / HISTORY).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")

    weights = None if start is None else V50.load(start.path).state_dict()
    return train_network(data, recipe(work), progress, seed, start=weights, on_epoch=note, out_of_time=work.out_of_time)


def recipe(work: Workspace) -> Recipe:
    """How the settings of the run train a network."""
    from spectramind.training.phases import Recipe

    s = work.settings
    return Recipe(s.model.network, s.train, s.optimizer, s.loss, s.symbolic)


def _save(trained: Trained, progress: Path, folder: Path) -> None:
    """The network and its history; an epoch that was begun twice counts once."""
    trained.network.save(folder)
    shutil.copy(progress / "supervised" / LAST, folder / LAST)
    rows = [json.loads(line) for line in (progress / HISTORY).read_text(encoding="utf-8").splitlines()]
    latest = {(row["phase"], row["epoch"], row.get("step")): row for row in rows}
    (folder / HISTORY).write_text(json.dumps(list(latest.values()), indent=1), encoding="utf-8")


def held_out_predictions(
    work: Workspace, networks: Sequence[FoldNetwork], planets: NetworkPlanets, folds: list[list[int]]
) -> tuple[Floats, Floats] | None:
    """Mean and sigma (planets, 283) of each train planet by the networks that have not seen it; None if some planets
    have no such network."""
    from spectramind.models.network_planets import network_spectra
    from spectramind.models.v50 import V50

    if len({network.fold for network in networks}) < len(folds):
        return None
    options, seed = work.settings.train, work.settings.runtime.seed
    mean, sigma = planets.mean.numpy().copy(), planets.sigma.numpy().copy()
    for number, fold in enumerate(folds):
        mine = [V50.load(network.path) for network in networks if network.fold == number]
        mean[fold], sigma[fold] = network_spectra(
            mine, planets.part(fold), options.batch.eval, options.mc_dropout_passes, seed
        )
    return mean, sigma


def found_violations(work: Workspace, spectra: Spectra, analytic: Floats) -> Violations:
    """What the symbolic rules in force find in these spectra; `analytic` (planets, 283) is their analytic mean."""
    import torch

    from spectramind.losses.prediction import Prediction
    from spectramind.losses.spectral_axis import spectral_axis
    from spectramind.losses.violations import violations

    symbolic = work.settings.symbolic
    axis = spectral_axis(work.dataset.wavelengths_um, symbolic.windows, dtype=torch.float64)
    prediction = Prediction(*(torch.from_numpy(values) for values in (spectra.mean, spectra.sigma, analytic)))
    return violations(prediction, axis, symbolic)


def violations_table(work: Workspace, spectra: Spectra, analytic: Floats) -> pd.DataFrame:
    """One row per planet and symbolic rule in force: `penalty` before weighting, and the `worst_bin` (-1: none)."""
    found = found_violations(work, spectra, analytic)
    return pd.DataFrame(
        [
            {"planet_id": planet, "rule": rule, "penalty": found.penalty[row, place], "worst_bin": worst}
            for row, planet in enumerate(spectra.planet_ids)
            for place, (rule, worst) in enumerate(zip(found.rules, found.worst_bin[row].tolist(), strict=True))
        ],
        columns=["planet_id", "rule", "penalty", "worst_bin"],
    )


def mean_penalties(table: pd.DataFrame) -> dict[str, float]:
    """Mean penalty of each rule over planets."""
    return {str(rule): float(value) for rule, value in table.groupby("rule", sort=False)["penalty"].mean().items()}
