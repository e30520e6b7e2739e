"""One network through the curriculum, on some planets, judged by others; resumable after any epoch."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from spectramind.errors import BudgetReached, InputError
from spectramind.losses.options import SymbolicOptions
from spectramind.losses.prediction import Prediction
from spectramind.losses.spectral_axis import spectral_axis
from spectramind.losses.violations import sample_weights, violations
from spectramind.models.network_planets import NetworkPlanets
from spectramind.models.spectral_graph import spectral_graph
from spectramind.models.v50 import V50
from spectramind.training.checkpoints import SafetensorsIO, load_state, weights
from spectramind.training.options import LoaderOptions, TrainOptions
from spectramind.training.phases import (
    VALIDATED,
    Batch,
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
"""Told of every epoch: the phase, and numbers among which is `epoch`. With `validation_steps` each validation is told
for itself, with the `step` after which it came."""


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
    """The network of the best validation, in evaluation mode on the CPU; `finished` unless the time was up before the
    end; `epochs` of the supervised phase; `validated` the loss of the validation planets, 1 minus their unclipped
    score."""

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
    validated network so far is returned; BudgetReached is raised if there is none yet.
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
            if phase.stage != "supervised" or _best(folder / phase.stage) is None:
                raise
            finished = False
    best = _best(folder / "supervised")
    assert best is not None  # a phase that ends has been validated
    prefix = "network."
    chosen = {name: tensor for name, tensor in weights(best.path).items() if name.startswith(prefix)}
    network.load_state_dict({name.removeprefix(prefix): tensor for name, tensor in chosen.items()})
    return Trained(network.eval(), finished, best.epochs, best.validated)


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
    between = options.validation_steps if supervised else None
    by_planet = planet_weights(data, recipe.symbolic) if supervised else np.ones(len(data.truth))
    training = _loader(data, data.train, by_planet, options, seed, train=True)
    validation = _loader(data, data.validation, by_planet, options, seed, train=False) if supervised else None
    best = ModelCheckpoint(
        folder,
        filename="best-{epoch}-{step}",
        monitor=VALIDATED,
        save_top_k=options.keep,
        enable_version_counter=False,
        save_on_train_epoch_end=False,
    )
    last = ModelCheckpoint(
        folder, filename=LAST.removesuffix(".ckpt"), enable_version_counter=False, save_on_train_epoch_end=True
    )
    callbacks: list[Callback] = [_Clock(out_of_time), _Reporter(phase.stage, on_epoch, apart=between is not None)]
    if supervised and options.ema > 0:
        # Parameters alone: the buffers hold the graph, whose whole numbers have no average.
        callbacks.append(EMAWeightAveraging(decay=options.ema, use_buffers=False))
    if supervised and options.early_stopping.enable:
        patience = options.early_stopping.patience
        callbacks.append(_Patience(VALIDATED, patience=patience, check_on_train_epoch_end=between is None))
    callbacks += [best, last] if supervised else [last]
    with _quiet():
        trainer = pl.Trainer(
            max_epochs=epochs,
            accelerator=options.device,
            **_processes(),
            **({} if between is None else _validation_every(between, epochs, len(training), options)),
            precision=_precision(options),
            deterministic=options.deterministic,
            benchmark=options.cudnn_benchmark,
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
        resume = folder / LAST
        trainer.fit(phase, training, validation, ckpt_path=resume if resume.exists() else None)
    phase.cpu()


def _validation_every(steps: int, epochs: int, batches: int, options: TrainOptions) -> dict[str, Any]:
    """Validation after so many steps, at the latest after the last one; `batches` is the length of an epoch."""
    every = min(steps * options.accumulate_steps, epochs * batches)
    return {"val_check_interval": every, "check_val_every_n_epoch": None}


@dataclass(frozen=True)
class _Best:
    """The checkpoint at `path` of the best validation, what it gave, and the epochs trained since the start."""

    path: Path
    validated: float
    epochs: int


def _best(folder: Path) -> _Best | None:
    """None before the first validation, and if a kill came when that of a later epoch had taken the checkpoint's place:
    who goes on makes it again."""
    if not (folder / LAST).exists():
        return None
    state = load_state(folder / LAST)
    (found,) = (
        found
        for name, found in state["callbacks"].items()
        if name.startswith(ModelCheckpoint.__name__) and found["monitor"] == VALIDATED
    )
    path = folder / Path(found["best_model_path"]).name
    return _Best(path, float(found["best_model_score"]), int(state["epoch"]) + 1) if path.is_file() else None


def planet_weights(data: TrainingSet, symbolic: SymbolicOptions) -> Floats:
    """Weights of all planets (P,) in the supervised loss: of those that are trained on by how their analytic spectra
    break the rules, as `retraining_strength` says, with mean 1."""
    weights = np.ones(len(data.truth))
    if symbolic.retraining_strength > 0:
        rows = list(data.train)
        planets = data.planets.part(rows)
        axis = spectral_axis(data.wavelengths_um, symbolic.windows, dtype=torch.float64)
        found = violations(Prediction(planets.mean, planets.sigma, planets.mean), axis, symbolic)
        weights[rows] = sample_weights(found, symbolic)
    return weights


def _loader(
    data: TrainingSet, rows: Sequence[int], weights: Floats, options: TrainOptions, seed: int, *, train: bool
) -> DataLoader[Any]:
    """Batches of `rows`; each process takes its share. The order of an epoch depends on seed and epoch alone."""

    def collate(chosen: list[int]) -> Batch:
        return data.planets.batch(chosen), torch.from_numpy(data.truth[chosen]), torch.from_numpy(weights[chosen])

    world, rank = (int(os.environ.get(name, default)) for name, default in (("WORLD_SIZE", "1"), ("RANK", "0")))
    sampler: DistributedSampler[int] = DistributedSampler(_Rows(rows), world, rank, shuffle=train, seed=seed)
    size = options.batch.train if train else options.batch.eval
    return DataLoader(
        _Rows(rows),
        batch_size=size,
        sampler=sampler,
        collate_fn=collate,
        drop_last=train and options.batch.drop_last and len(sampler) >= size,
        pin_memory=options.loader.pin_memory and _on_gpu(options),
        **_workers(options.loader),
    )


def _workers(options: LoaderOptions) -> dict[str, Any]:
    """Worker processes share the planets with this one, which only a fork does without a copy for each."""
    if options.workers == 0:
        return {}
    return {
        "num_workers": min(options.workers, os.cpu_count() or 1),
        "prefetch_factor": options.prefetch_factor,
        "persistent_workers": options.persistent_workers,
        "multiprocessing_context": "fork",
        "worker_init_fn": _end_quietly,
    }


def _end_quietly(_worker: int) -> None:
    """Once this worker has done its work it ends at once: what its parent's threads want done at the end of a program,
    as those of Prefect do, is not for a fork to do."""
    Finalize(None, os._exit, args=(0,), exitpriority=-100)


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


class _Patience(EarlyStopping):
    """Early stopping that has not forgotten, when a training is gone on from, that it has ended it."""

    def on_train_start(self, trainer: pl.Trainer, phase: pl.LightningModule) -> None:
        trainer.should_stop |= self.stopping_reason is not EarlyStoppingReason.NOT_STOPPED


class _Reporter(Callback):
    """Passes on the numbers of every epoch; those of validations `apart` if they do not come once an epoch."""

    def __init__(self, stage: str, on_epoch: Event, *, apart: bool) -> None:
        self.stage, self.on_epoch, self.apart = stage, on_epoch, apart

    def on_validation_end(self, trainer: pl.Trainer, phase: pl.LightningModule) -> None:
        if self.apart:
            self._tell(trainer, {"step": trainer.global_step, **_measured(trainer, validation=True)})

    def on_train_epoch_end(self, trainer: pl.Trainer, phase: pl.LightningModule) -> None:
        numbers = {"lr": trainer.optimizers[0].param_groups[0]["lr"], **_measured(trainer, validation=False)}
        self._tell(trainer, numbers if self.apart else {**numbers, **_measured(trainer, validation=True)})

    def _tell(self, trainer: pl.Trainer, numbers: Mapping[str, float]) -> None:
        if trainer.is_global_zero:
            self.on_epoch(self.stage, {"epoch": trainer.current_epoch, **numbers})


def _measured(trainer: pl.Trainer, *, validation: bool) -> dict[str, float]:
    """The latest numbers of the validation planets, or those of the training."""
    found = trainer.callback_metrics.items()
    return {name: float(value) for name, value in found if name.startswith("val/") == validation}


def _processes() -> dict[str, Any]:
    """One device; under torchrun, the processes that it has started, which train together."""
    world, here = (int(os.environ.get(name, "1")) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    if world == 1:
        return {"devices": 1}
    # Each phase leaves some of the network's parts without gradients.
    return {"devices": here, "num_nodes": world // here, "strategy": "ddp_find_unused_parameters_true"}


def _precision(options: TrainOptions) -> Any:
    precision = options.precision
    if precision == "auto":
        precision = "bf16" if _on_gpu(options) and torch.cuda.is_bf16_supported() else "32"
    if precision == "fp16" and not _on_gpu(options):
        precision = "bf16"
    return {"32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}[precision]


def _on_gpu(options: TrainOptions) -> bool:
    return options.device != "cpu" and torch.cuda.is_available()


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
