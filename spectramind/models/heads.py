"""Heads of the V50 network: a correction of the analytic mean and a factor on the analytic sigma.

Both are relative to the analytic posterior N(m, C) of a planet. Its whitened error C^(-1/2) (truth - m) would be
standard normal if the posterior were exact, so that is the natural unit of a correction. The network gives one number
per bin, a, and the mean moves by C^(1/2) a, with C^(1/2) the symmetric square root in the leading principal directions:
only along shapes that the light curves leave open, by amounts that they leave open, smoothly where the posterior is
smooth. The symmetric root, unlike principal components, has no signs or order that could differ from planet to planet.

The last layers start at zero, which gives the analytic posterior exactly.

Axis letters: P planets, N = 283 bins, D width of a node, R principal directions, Q quantile levels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spectramind.instruments import FGS1, N_WAVELENGTHS
from spectramind.models.options import MuHeadOptions, SigmaHeadOptions

COARSE_DEGREE = 3
"""Degree of the polynomials in log wavelength that the coarse scale adds up."""
MID_BINS = 8.0
"""Width, in bins, of the Gaussian kernel that smooths the middle scale."""
SOFTPLUS_OF_ONE = math.log(math.e - 1)


class MuHead(nn.Module):
    """Nodes (P, N, D) to one field a (P, N) per scale: what each scale adds to the correction."""

    basis: Tensor
    smoothing: Tensor

    def __init__(self, options: MuHeadOptions, width: int, position_N: Tensor) -> None:
        super().__init__()
        self.scales: tuple[str, ...] = options.scales if options.type == "multiscale" else ("fine",)
        basis = _coarse_basis(position_N)
        self.register_buffer("basis", basis, persistent=False)
        self.register_buffer("smoothing", _smoothing(), persistent=False)
        outputs = {"coarse": basis.shape[1], "mid": 1, "fine": 1}
        self.networks = nn.ModuleDict(
            {scale: _perceptron(width, options.hidden, outputs[scale], options.dropout) for scale in self.scales}
        )

    def forward(self, nodes_PND: Tensor) -> list[Tensor]:
        fields = []
        for scale, network in self.networks.items():
            if scale == "coarse":
                fields.append(network(nodes_PND.mean(dim=1)) @ self.basis.T)
            elif scale == "mid":
                fields.append(network(nodes_PND).squeeze(-1) @ self.smoothing.T)
            else:
                fields.append(network(nodes_PND).squeeze(-1))
        return fields


def correction(field_PN: Tensor, directions_PNR: Tensor, sigma_PN: Tensor, reach: float) -> Tensor:
    """What to add to the analytic mean (P, N): the symmetric root of the covariance, `directions` times their
    transpose, applied to the field; bent so that no depth moves by more than `reach` analytic sigmas."""
    moved = (directions_PNR @ (directions_PNR.transpose(1, 2) @ field_PN[..., None])).squeeze(-1)
    return sigma_PN * reach * torch.tanh(moved / (reach * sigma_PN))


class SigmaHead(nn.Module):
    """Nodes (P, N, D) to the factor on the analytic sigma (P, N) and, for type quantile, the quantiles (P, Q, N) of the
    error in analytic sigmas.

    `flow`: error = planet's scale * bin's scale * standard normal, an affine flow whose standard deviation is the
    product of the scales. `mlp`: the bin's scale alone. `quantile`: the distances between neighbouring quantiles are
    those of a standard normal times a factor each, so that quantiles never cross; the median is the mean, and sigma is
    that of a normal distribution with the outer quantiles' distance.
    """

    distances: Tensor

    def __init__(self, options: SigmaHeadOptions, width: int) -> None:
        super().__init__()
        self.options = options
        z = torch.tensor([NormalDist().inv_cdf(level) for level in options.q_list])
        self.register_buffer("distances", z.diff(), persistent=False)
        outputs = len(options.q_list) - 1 if options.type == "quantile" else 1
        self.bin = _perceptron(width, options.hidden, outputs, options.dropout)
        self.planet = _perceptron(width, options.hidden, 1, options.dropout) if options.type == "flow" else None

    def forward(self, nodes_PND: Tensor) -> tuple[Tensor, Tensor | None]:
        factors, quantiles = self._positive(self.bin(nodes_PND)), None
        if self.options.type == "quantile":
            steps = factors * self.distances
            quantiles = F.pad(steps.cumsum(-1), (1, 0))
            median = self.options.q_list.index(0.5)
            quantiles = (quantiles - quantiles[..., median : median + 1]).transpose(1, 2)
            # One plus the weighted excess, not the weighted mean: exactly one if all factors are.
            factor = 1 + ((factors - 1) * self.distances).sum(-1) / self.distances.sum()
        else:
            factor = factors.squeeze(-1)
            if self.planet is not None:
                factor = factor * self._positive(self.planet(nodes_PND.mean(dim=1)))
        return factor.clamp(min=self.options.sigma_min), quantiles

    def _positive(self, x: Tensor) -> Tensor:
        """A positive number for each x, 1 for 0."""
        if self.options.activation == "exp":
            return x.float().exp()
        zero = torch.full_like(x, SOFTPLUS_OF_ONE, dtype=torch.float32)
        return F.softplus(x + zero) / F.softplus(zero)


def sigma_floors(options: SigmaHeadOptions) -> Tensor:
    """Smallest sigma of each bin (N,), in transit depth."""
    floors = torch.full((N_WAVELENGTHS,), options.floor_airs, dtype=torch.float64)
    floors[FGS1.spectral_slice] = options.floor_fgs1
    return floors


def _perceptron(width: int, hidden: Sequence[int], outputs: int, dropout: float) -> nn.Sequential:
    """Layers of the widths `hidden`, then one that starts at zero."""
    layers: list[nn.Module] = []
    for inner in hidden:
        layers += [nn.Linear(width, inner), nn.GELU(), nn.Dropout(dropout)]
        width = inner
    last = nn.Linear(width, outputs)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(*layers, last)


def _coarse_basis(position_N: Tensor) -> Tensor:
    """(N, 2 + degree): FGS1 alone, and Legendre polynomials in log wavelength across AIRS."""
    airs = position_N[1:].double().numpy()
    x = 2 * (airs - airs[0]) / (airs[-1] - airs[0]) - 1
    basis = np.zeros((N_WAVELENGTHS, COARSE_DEGREE + 2))
    basis[0, 0] = 1.0
    basis[1:, 1:] = np.polynomial.legendre.legvander(x, COARSE_DEGREE)
    return torch.from_numpy(basis).float()


def _smoothing() -> Tensor:
    """(N, N): weighted means of neighbouring AIRS bins; FGS1 has no neighbours."""
    bins = torch.arange(N_WAVELENGTHS, dtype=torch.float32)
    kernel = torch.exp(-0.5 * ((bins[:, None] - bins) / MID_BINS) ** 2)
    kernel[0, 1:], kernel[1:, 0] = 0.0, 0.0
    return kernel / kernel.sum(dim=1, keepdim=True)
