"""One network through the curriculum, on some planets, judged by others; resumable after any epoch."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from spectramind.errors import BudgetReached, InputError
from spectramind.models.network_inputs import V50Inputs
from spectramind.models.network_planets import NetworkPlanets
from spectramind.models.spectral_graph import spectral_graph
from spectramind.models.v50 import V50
from spectramind.training.checkpoints import SafetensorsIO, load_state, weights
from spectramind.training.phases import (
    VALIDATED,
    ContrastiveAlignment,
    MaskedAutoencoding,
    Phase,
    Recipe,
    Supervised,
)
from spectramind.types import Floats

LAST = "last.ckpt"
"""State after the latest epoch of a phase, in the phase's folder."""
FEWEST_PLANETS = 4

Event = Callable[[str, Mapping[str, float]], None]
"""Told of every epoch: the phase, and numbers among which is `epoch`."""


@dataclass(frozen=True)
class TrainingSet:
    """Planets with true spectra `truth` (P, N); `train` and `validation` rows among them; the score's `reference`, mean
    and standard deviation of all train labels."""

    planets: NetworkPlanets
    truth: Floats
    train: tuple[int, ...]
    validation: tuple[int, ...]
    wavelengths_um: Floats
    reference: tuple[float, float]


@dataclass(frozen=True)
class Trained:
    """The network of the best epoch, in evaluation mode on the CPU; `finished` unless the time was up before the end;
    `epochs` of the supervised phase; `validated` the loss of the validation planets, 1 minus their unclipped score."""

    network: V50
    finished: bool
    epochs: int
    validated: float


def split_validation(rows: Sequence[int], fraction: float, seed: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """`rows` to train on and `rows` to validate with, at least two of each. InputError for fewer than four rows."""
    if len(rows) < FEWEST_PLANETS:
        raise InputError(
            "planets to train a network on",
            f"at least {FEWEST_PLANETS} with a usable transit",
            f"{len(rows)}",
            "Add planets, or set model=analytic.",
        )
    order = np.random.default_rng(seed).permutation(list(rows))
    count = min(max(round(fraction * len(rows)), 2), len(rows) - 2)
    return tuple(sorted(order[count:].tolist())), tuple(sorted(order[:count].tolist()))


def train_network(
    data: TrainingSet,
    recipe: Recipe,
    folder: Path,
    seed: int,
    *,
    start: Mapping[str, Tensor] | None = None,
    on_epoch: Event = lambda _phase, _numbers: None,
    out_of_time: Callable[[], bool] = lambda: False,
) -> Trained:
    """Train through the curriculum, with checkpoints in `folder`.

    Under torchrun, its processes train one network together, each on its share of every epoch, and all return it.
    What a former call left in `folder` is gone on from, and ends as if it had never been stopped: on one CPU and one
    number of threads, bit for bit. `start` are parameters to begin with, if any. When `out_of_time` says so, the best
    epoch so far is returned; BudgetReached is raised if there is none yet.
    """
    torch.manual_seed(seed)
    graph_options = recipe.network.gnn.graph
    seam = recipe.symbolic.seam_continuity.seam_index
    graph = spectral_graph(data.wavelengths_um, recipe.symbolic.windows.by_molecule, seam, graph_options)
    network = V50(recipe.network, graph)
    if start is not None:
        with torch.no_grad():  # parameters alone: the graph is that of the data set's own wavelengths
            for name, parameter in network.named_parameters():
                parameter.copy_(start[name])
    epochs = recipe.train.epochs
    phases: list[tuple[Phase, int]] = [
        (MaskedAutoencoding(network, recipe, seed + 1), epochs.mae),
        (ContrastiveAlignment(network, recipe, seed + 2), epochs.contrastive),
        (Supervised(network, recipe, seed + 3, data.wavelengths_um, data.reference), epochs.supervised),
    ]
    finished = True
    for phase, count in phases:
        if count == 0:
            continue
        try:
            _fit(phase, count, data, recipe, folder / phase.stage, seed, on_epoch, out_of_time)
        except BudgetReached:
            if phase.stage != "supervised" or not (folder / phase.stage / LAST).exists():
                raise
            finished = False
    return _best(network, folder / "supervised", finished)


def _fit(
    phase: Phase,
    epochs: int,
    data: TrainingSet,
    recipe: Recipe,
    folder: Path,
    seed: int,
    on_epoch: Event,
    out_of_time: Callable[[], bool],
) -> None:
    options, supervised = recipe.train, phase.stage == "supervised"
    best = ModelCheckpoint(
        folder,
        filename="best-{epoch}",
        monitor=VALIDATED,
        save_top_k=options.keep,
        enable_version_counter=False,
        save_on_train_epoch_end=False,
    )
    last = ModelCheckpoint(
        folder, filename=LAST.removesuffix(".ckpt"), enable_version_counter=False, save_on_train_epoch_end=True
    )
    callbacks: list[Callback] = [_Clock(out_of_time), _Reporter(phase.stage, on_epoch)]
    if supervised and options.early_stopping.enable:
        callbacks.append(
            EarlyStopping(VALIDATED, patience=options.early_stopping.patience, check_on_train_epoch_end=True)
        )
    callbacks += [best, last] if supervised else [last]
    with _quiet():
        trainer = pl.Trainer(
            max_epochs=epochs,
            accelerator=options.device,
            **_processes(),
            precision=_precision(options.precision, options.device),
            gradient_clip_val=recipe.optimizer.clip_norm or None,
            accumulate_grad_batches=options.accumulate_steps,
            callbacks=callbacks,
            plugins=[SafetensorsIO()],
            use_distributed_sampler=False,
            num_sanity_val_steps=0,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
        )
        batch = options.batch
        training = _loader(data, data.train, batch.train, trainer, seed, shuffle=True)
        validation = _loader(data, data.validation, batch.eval, trainer, seed, shuffle=False) if supervised else None
        resume = folder / LAST
        trainer.fit(phase, training, validation, ckpt_path=resume if resume.exists() else None)
    phase.cpu()


def _best(network: V50, folder: Path, finished: bool) -> Trained:
    state = load_state(folder / LAST)
    (checkpoint,) = (
        found
        for name, found in state["callbacks"].items()
        if name.startswith("ModelCheckpoint") and found["best_model_path"] and found["monitor"] == VALIDATED
    )
    chosen = weights(folder / Path(checkpoint["best_model_path"]).name)
    prefix = "network."
    network.load_state_dict({name.removeprefix(prefix): w for name, w in chosen.items() if name.startswith(prefix)})
    return Trained(network.eval(), finished, int(state["epoch"]) + 1, float(checkpoint["best_model_score"]))


def _loader(
    data: TrainingSet, rows: Sequence[int], batch: int, trainer: pl.Trainer, seed: int, *, shuffle: bool
) -> DataLoader[Any]:
    """Batches of `rows`; each process takes its share. The order of an epoch depends on seed and epoch alone."""

    def collate(chosen: list[int]) -> tuple[V50Inputs, Tensor]:
        return data.planets.batch(chosen), torch.from_numpy(data.truth[chosen])

    sampler: DistributedSampler[int] = DistributedSampler(
        _Rows(rows), trainer.world_size, trainer.global_rank, shuffle=shuffle, seed=seed
    )
    return DataLoader(_Rows(rows), batch_size=batch, sampler=sampler, collate_fn=collate)


class _Rows(Dataset[int]):
    """Numbers of planets."""

    def __init__(self, rows: Sequence[int]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> int:
        return self.rows[place]


class _Clock(Callback):
    """Ends a training when the time is up, before the next batch."""

    def __init__(self, out_of_time: Callable[[], bool]) -> None:
        self.out_of_time = out_of_time

    def on_train_batch_start(self, *_: Any) -> None:
        if self.out_of_time():
            raise BudgetReached("time budget reached while training the network; the same command later goes on")


class _Reporter(Callback):
    """Passes on the numbers of every epoch."""

    def __init__(self, stage: str, on_epoch: Event) -> None:
        self.stage, self.on_epoch = stage, on_epoch

    def on_train_epoch_end(self, trainer: pl.Trainer, phase: pl.LightningModule) -> None:
        if trainer.is_global_zero:
            numbers = {name: float(value) for name, value in trainer.callback_metrics.items()}
            rate = trainer.optimizers[0].param_groups[0]["lr"]
            self.on_epoch(self.stage, {"epoch": trainer.current_epoch, "lr": rate, **numbers})


def _processes() -> dict[str, Any]:
    """One device; under torchrun, the processes that it has started, which train together."""
    world, here = (int(os.environ.get(name, "1")) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    if world == 1:
        return {"devices": 1}
    # Each phase leaves some of the network's parts without gradients.
    return {"devices": here, "num_nodes": world // here, "strategy": "ddp_find_unused_parameters_true"}


def _precision(precision: str, device: str) -> Any:
    if precision == "auto":
        on_gpu = device != "cpu" and torch.cuda.is_available() and torch.cuda.is_bf16_supported()
        precision = "bf16" if on_gpu else "32"
    return {"32": "32-true", "bf16": "bf16-mixed"}[precision]


@contextmanager
def _quiet() -> Iterator[None]:
    """Lightning tells about hardware and loaders what is chosen here on purpose."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
