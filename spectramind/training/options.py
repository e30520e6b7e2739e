"""Knobs of the network's training."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from spectramind.options import option


@dataclass(frozen=True)
class OptimizerOptions:
    """Steps of the optimiser. Their length rises linearly and then falls as a half cosine."""

    name: Literal["adamw", "sgd"] = option("adamw", "AdamW, or stochastic gradient descent with Nesterov momentum.")
    lr: float = option(2e-4, "Largest step size.", gt=0, le=10)
    min_lr: float = option(1e-6, "Step size at the end.", ge=0, le=10)
    betas: tuple[float, float] = option((0.9, 0.95), "Decay of the running moments (AdamW).", ge=0, lt=1)
    eps: float = option(1e-8, "Added to the root of the second moment (AdamW).", gt=0, le=1)
    momentum: float = option(0.9, "Momentum (SGD).", ge=0, lt=1)
    weight_decay: float = option(1e-2, "Decay of the weights.", ge=0, le=10)
    lookahead_steps: int = option(
        0, "Steps after which the slow weights of Lookahead follow the fast ones; 0 switches it off.", ge=0, le=1000
    )
    lookahead_alpha: float = option(0.5, "How far the slow weights of Lookahead follow.", gt=0, le=1)
    warmup_steps: int = option(2000, "Steps over which the step size rises.", ge=0, le=10_000_000)
    warmup_share: float = option(0.1, "Largest share of all steps that the rise may take.", ge=0, le=1)
    clip_norm: float = option(1.0, "Largest norm of a gradient; 0 means any.", ge=0, le=1e6)

    def __post_init__(self) -> None:
        if self.min_lr > self.lr:
            raise ValueError(f"optimizer: min_lr {self.min_lr} is larger than lr {self.lr}")


@dataclass(frozen=True)
class EpochOptions:
    """Passes over the training planets in each phase of the curriculum; 0 leaves a phase out."""

    mae: int = option(20, "Epochs of masked auto-encoding.", ge=0, le=100_000)
    contrastive: int = option(10, "Epochs of contrastive alignment.", ge=0, le=100_000)
    supervised: int = option(40, "Epochs of the supervised fit of mean and sigma.", ge=1, le=100_000)


@dataclass(frozen=True)
class MaskOptions:
    """What masked auto-encoding hides of a spectrum."""

    kind: Literal["random", "block", "fixed", "snr_aware", "molecule_masked"] = option(
        "snr_aware",
        "Bins at random, in one run, the same ones always, only those measured well, or those of one molecule first.",
    )
    ratio: float = option(0.35, "Share of the bins that is hidden.", gt=0, lt=1)
    snr_floor_db: float = option(
        10.0, "Ratio of depth to sigma, in decibels (20 log10), below which snr_aware hides a bin only last.", ge=-100
    )


@dataclass(frozen=True)
class ContrastiveOptions:
    """Alignment of views of one planet, apart from those of other planets."""

    temperature: float = option(0.07, "Temperature of the similarities.", gt=0, le=100)
    projector_dim: int = option(128, "Width of the projected encoding.", ge=2, le=4096)
    views: int = option(2, "Augmented views of each planet.", ge=2, le=8)


@dataclass(frozen=True)
class EarlyStoppingOptions:
    """When the supervised phase ends before its time."""

    enable: bool = option(True, "End once planets kept for validation gain no more.")
    patience: int = option(8, "Validations without gain that are waited for.", ge=1, le=100_000)


@dataclass(frozen=True)
class BatchOptions:
    """Planets in a batch."""

    train: int = option(32, "Planets in a training batch.", ge=1, le=65_536)
    eval: int = option(64, "Planets in a batch of validation or prediction.", ge=1, le=65_536)
    drop_last: bool = option(
        False, "Leave out the last batch of a training epoch if it has fewer planets than the others."
    )


@dataclass(frozen=True)
class LoaderOptions:
    """How batches are made while the network trains. No result depends on it."""

    workers: int = option(
        0, "Processes that make batches ahead, at most one per core; 0 makes each when it is needed.", ge=0, le=256
    )
    prefetch_factor: int = option(2, "Batches that each worker keeps ready.", ge=1, le=1000)
    persistent_workers: bool = option(True, "Keep the workers from epoch to epoch instead of starting them anew.")
    pin_memory: bool = option(True, "Make batches in page-locked memory, from which they reach a GPU faster.")


@dataclass(frozen=True)
class AugmentationOptions:
    """Changes of the FGS1 sequence that leave the spectrum as it is."""

    jitter_std: float = option(0.02, "Noise added to the pointing channels, in pixels.", ge=0, le=10)
    time_shift: float = option(0.02, "Largest shift of the time channel, in half windows.", ge=0, le=1)
    time_dropout_prob: float = option(0.0, "Share of the steps that are left out.", ge=0, lt=1)


@dataclass(frozen=True)
class TrainOptions:
    """How the V50 network is trained."""

    epochs: EpochOptions = field(default=EpochOptions())
    mask: MaskOptions = field(default=MaskOptions())
    contrastive: ContrastiveOptions = field(default=ContrastiveOptions())
    early_stopping: EarlyStoppingOptions = field(default=EarlyStoppingOptions())
    batch: BatchOptions = field(default=BatchOptions())
    loader: LoaderOptions = field(default=LoaderOptions())
    augmentation: AugmentationOptions = field(default=AugmentationOptions())
    pretrain: Literal["none", "simulated"] = option(
        "none", "What the networks start from: chance, or a network trained on planets that are simulated for it."
    )
    validation_fraction: float = option(
        0.15, "Share of a fold's training planets that decides which state is kept.", gt=0, lt=1
    )
    validation_steps: int | None = option(
        None,
        "Steps of the optimiser between validations, across epochs; null validates at the end of each epoch.",
        ge=1,
        le=10_000_000,
    )
    accumulate_steps: int = option(2, "Batches whose gradients make one step.", ge=1, le=10_000)
    ema: float = option(
        0.0,
        "Decay per step of the running average of the weights that is validated and kept in the supervised phase; 0 "
        "keeps the weights themselves.",
        ge=0,
        lt=1,
    )
    precision: Literal["auto", "32", "bf16", "fp16"] = option(
        "auto",
        "Arithmetic of the layers: bf16 and fp16 halve memory and time; auto takes bf16 where a GPU has it. On a "
        "processor fp16 means bf16.",
    )
    deterministic: bool = option(
        False, "Refuse operations whose result differs from call to call on a GPU; on a processor there are none."
    )
    cudnn_benchmark: bool = option(False, "Let cuDNN choose its algorithms by trial.")
    device: Literal["auto", "cpu", "gpu"] = option("auto", "Where to train; auto takes a GPU if there is one.")
    aux_weight: float = option(0.1, "Weight of the likelihood of each coarser scale of the mean.", ge=0, le=100)
    members: int = option(1, "Networks per fold, which differ by their seed.", ge=1, le=100)
    mc_dropout_passes: int = option(
        1, "Predictions with dropout whose spread adds to sigma; 1 means one without dropout.", ge=1, le=1000
    )
    keep: int = option(3, "Best validated states of a fold whose checkpoints are kept until it ends.", ge=1, le=1000)
