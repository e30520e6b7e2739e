"""The phases of the curriculum as Lightning modules. Each holds the network and what only its phase needs.

Axis letters: P planets, V visits, T steps, N = 283 bins, D width of a node's encoding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import lightning.pytorch as pl
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spectramind.losses.gaussian import gaussian_loss
from spectramind.losses.options import LossOptions, Stage, SymbolicOptions
from spectramind.losses.prediction import Prediction
from spectramind.losses.spectral_axis import SpectralAxis, spectral_axis
from spectramind.losses.total import Target, total_loss
from spectramind.models.network_inputs import PIXEL_UNIT, V50Inputs
from spectramind.models.options import NetworkOptions
from spectramind.models.v50 import V50
from spectramind.training.masks import hidden_bins
from spectramind.training.optimizers import build_optimizer, warmup_cosine
from spectramind.training.options import AugmentationOptions, OptimizerOptions, TrainOptions
from spectramind.types import Floats


@dataclass(frozen=True)
class Recipe:
    """Everything that decides how a network is trained, but the planets and the seed."""

    network: NetworkOptions
    train: TrainOptions
    optimizer: OptimizerOptions
    loss: LossOptions
    symbolic: SymbolicOptions


Batch = tuple[V50Inputs, Tensor, Tensor]
"""Planets, their true spectra (P, N) and their weights in the supervised loss (P,)."""

VALIDATED = "val/gll"
"""What decides which epoch is kept: 1 minus the unclipped score of the validation planets."""


class Phase(pl.LightningModule):
    """What the phases share. Every batch draws its random numbers from a seed of its own, so that a training that goes
    on after an epoch draws the same ones as one that was never stopped."""

    def __init__(self, stage: Stage, network: V50, recipe: Recipe, seed: int) -> None:
        super().__init__()
        self.stage, self.network, self.recipe, self.seed = stage, network, recipe, seed

    def configure_optimizers(self) -> Any:
        trainable = [parameter for parameter in self.parameters() if parameter.requires_grad]
        optimizer = build_optimizer(trainable, self.recipe.optimizer)
        steps = int(self.trainer.estimated_stepping_batches)
        scheduler = warmup_cosine(optimizer, self.recipe.optimizer, steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        inputs, truth, weight = batch
        return inputs.to(device), truth.to(device), weight.to(device)

    def training_step(self, batch: Batch, number: int) -> Tensor:
        place = np.random.SeedSequence([self.seed, self.current_epoch, number, self.global_rank])
        torch.manual_seed(int(place.generate_state(1)[0]))
        inputs, truth, weight = batch
        loss = self.loss(augmented(inputs, self.recipe.train.augmentation), truth, weight)
        self.log("train/loss", loss, on_step=False, on_epoch=True, batch_size=len(truth), sync_dist=True)
        return loss

    def loss(self, inputs: V50Inputs, truth: Tensor, weight: Tensor) -> Tensor:
        raise NotImplementedError


class Supervised(Phase):
    """Mean and sigma against the true spectra: the training loss with the symbolic rules of this phase."""

    def __init__(
        self, network: V50, recipe: Recipe, seed: int, wavelengths_um: Floats, reference: tuple[float, float]
    ) -> None:
        super().__init__("supervised", network, recipe, seed)
        self.wavelengths_um, self.reference = wavelengths_um, reference
        self.axis: SpectralAxis | None = None

    def on_fit_start(self) -> None:
        windows = self.recipe.symbolic.windows
        self.axis = spectral_axis(self.wavelengths_um, windows, dtype=torch.float64, device=self.device)

    def loss(self, inputs: V50Inputs, truth: Tensor, weight: Tensor) -> Tensor:
        output, target = self.network(inputs), Target(truth, *self.reference, weight)
        prediction = Prediction(output.mean, output.sigma, inputs.mean, output.quantiles)
        assert self.axis is not None
        found = total_loss(prediction, target, self.axis, self.recipe.loss, self.recipe.symbolic, self.stage)
        for name, part in found.parts.items():
            self.log(f"train/{name}", part, on_step=False, on_epoch=True, batch_size=len(truth), sync_dist=True)
        total = found.total
        if output.scales and self.recipe.train.aux_weight > 0:
            clip = self.recipe.loss.clip_above
            coarse = [gaussian_loss(m, output.sigma, truth, *self.reference, clip) for m in output.scales]
            by_planet = torch.stack(coarse).sum(dim=2).mean(dim=0)
            total = total + self.recipe.train.aux_weight * (weight * by_planet).mean()
        return total

    def validation_step(self, batch: Batch, _number: int) -> None:
        inputs, truth, _ = batch
        output = self.network(inputs)
        error = output.mean - truth
        values = {
            VALIDATED: gaussian_loss(output.mean, output.sigma, truth, *self.reference).sum(dim=1).mean(),
            "val/rmse_ppm": 1e6 * error.square().mean().sqrt(),
            "val/mae_ppm": 1e6 * error.abs().mean(),
            "val/coverage_90": (error.abs() < 1.6448536 * output.sigma).double().mean(),
        }
        self.log_dict(values, batch_size=len(truth), sync_dist=True)


class MaskedAutoencoding(Phase):
    """Some bins' features are hidden and told from the others and from FGS1 (He et al. 2022, CVPR)."""

    def __init__(self, network: V50, recipe: Recipe, seed: int) -> None:
        super().__init__("mae", network, recipe, seed)
        features = recipe.network.gnn.node_features
        self.token = nn.Parameter(torch.zeros(features))
        self.decoder = nn.Linear(recipe.network.fusion.dim, features)

    def loss(self, inputs: V50Inputs, truth: Tensor, weight: Tensor) -> Tensor:
        snr_db = 20 * torch.log10(inputs.mean.clamp(min=1e-12) / inputs.sigma)
        molecules = cast(Tensor, self.network.airs.molecules)
        hidden = hidden_bins(self.recipe.train.mask, snr_db.float(), molecules)
        nodes = torch.where(hidden[..., None], self.token.to(inputs.nodes), inputs.nodes)
        latents = self.network(inputs._replace(nodes=nodes)).node_latents
        error = self.decoder(latents.float()) - inputs.nodes
        return error.square().mean(dim=-1)[hidden].mean()


class ContrastiveAlignment(Phase):
    """Two augmented views of a planet are to be told from all other planets' (Chen et al. 2020, ICML)."""

    def __init__(self, network: V50, recipe: Recipe, seed: int) -> None:
        super().__init__("contrastive", network, recipe, seed)
        width, projected = recipe.network.fusion.dim, recipe.train.contrastive.projector_dim
        self.projector = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, projected))

    def loss(self, inputs: V50Inputs, truth: Tensor, weight: Tensor) -> Tensor:
        options = self.recipe.train.contrastive
        views = [inputs]
        views += [augmented(inputs, self.recipe.train.augmentation) for _ in range(options.views - 1)]
        latents = [self.network(view).node_latents.float().mean(dim=1) for view in views]
        return contrastive_loss([self.projector(latent) for latent in latents], options.temperature)


def contrastive_loss(views: list[Tensor], temperature: float) -> Tensor:
    """Normalised temperature-scaled cross entropy of two or more views (P, D) of the same planets, a mean over all
    pairs of views; 0 for one planet."""
    codes = [F.normalize(view, dim=1) for view in views]
    own = torch.arange(len(codes[0]), device=codes[0].device)
    terms = [
        F.cross_entropy(one @ other.T / temperature, own)
        for place, one in enumerate(codes)
        for other in codes[:place] + codes[place + 1 :]
    ]
    return torch.stack(terms).mean()


def augmented(inputs: V50Inputs, options: AugmentationOptions) -> V50Inputs:
    """The same planets with noise on the pointing channels, a shifted time channel and steps left out."""
    fgs1, n_steps = inputs.fgs1.clone(), inputs.n_steps
    if options.jitter_std > 0:
        noise = torch.randn(*fgs1.shape[:2], fgs1.shape[2] - 2, device=fgs1.device, dtype=fgs1.dtype)
        fgs1[..., 2:] += options.jitter_std / PIXEL_UNIT * noise
    if options.time_shift > 0:
        shift = 2 * torch.rand(len(fgs1), 1, device=fgs1.device, dtype=fgs1.dtype) - 1
        fgs1[..., 1] += options.time_shift * shift
    if options.time_dropout_prob > 0:
        inside = torch.arange(fgs1.shape[1], device=fgs1.device) < n_steps[:, None]
        kept = inside & (torch.rand(fgs1.shape[:2], device=fgs1.device) >= options.time_dropout_prob)
        kept[:, 0] |= ~kept.any(dim=1)  # at least one
        # Stable: what is kept moves to the front in its order.
        order = (~kept).to(torch.uint8).argsort(dim=1, stable=True)
        fgs1, n_steps = fgs1.gather(1, order[..., None].expand_as(fgs1)), kept.sum(dim=1)
    return inputs._replace(fgs1=fgs1, n_steps=n_steps)
