"""What the loss looks at."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from spectramind.errors import InputError


@dataclass(frozen=True)
class Prediction:
    """A network's spectra of a batch of planets, in transit depth (Rp/Rs)^2.

    `mean`, `sigma` > 0 and `analytic` (planets, bins): the posterior mean of the transit fit, which the network
    corrects; `quantiles` (planets, levels, bins) in ascending order of their levels, if the network predicts any.
    Raises InputError on unequal shapes and on half precision, whose steps at a depth of 0.01 are larger than a
    spectrum's features.
    """

    mean: Tensor
    sigma: Tensor
    analytic: Tensor
    quantiles: Tensor | None = None

    def __post_init__(self) -> None:
        tensors = {"mean": self.mean, "sigma": self.sigma, "analytic": self.analytic}
        if self.quantiles is not None:
            tensors["quantiles"] = self.quantiles
        for name, values in tensors.items():
            shape = values.shape if name != "quantiles" else values.shape[:1] + values.shape[2:]
            if self.mean.ndim != 2 or shape != self.mean.shape:
                raise InputError(
                    f"predicted {name}",
                    f"the planets and bins of the mean, shape {tuple(self.mean.shape)}",
                    f"shape {tuple(values.shape)}",
                    "Predict all for the same planets and bins.",
                )
            if values.dtype not in (torch.float32, torch.float64):
                raise InputError(
                    f"predicted {name}",
                    "float32 or float64",
                    str(values.dtype),
                    "Compute the heads and the loss outside mixed precision.",
                )
