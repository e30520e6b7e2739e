"""All planets of a split as the network reads them, and what trained networks make of them.

Axis letters: P planets, N = 283 bins, F node features, R principal directions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from spectramind.errors import InputError
from spectramind.instruments import AIRS, N_WAVELENGTHS
from spectramind.models.network_inputs import (
    V50Inputs,
    fgs1_sequence,
    join_visits,
    principal_directions,
    star_features,
)
from spectramind.models.v50 import V50
from spectramind.transit.fit import PlanetFit
from spectramind.types import Floats, LightCurve, Spectra, Star

Visits = tuple[NDArray[np.float32], ...]

NODE_FEATURES = (
    "sigma",
    "shape",
    "level",
    "pull of the prior",
    "bend",
    "correlation with FGS1",
    "correlation with the level",
    "misfit",
)
"""What a bin tells: see `_node_features`."""
NOTHING: Visits = (np.zeros((1, 6), np.float32),)
"""Stands for the visits of a planet that the network leaves alone."""


@dataclass(frozen=True)
class NetworkPlanets:
    """`visits` the FGS1 sequences of each planet; `nodes` (P, N, F), `star` (P, 8), `mean`, `sigma` (P, N),
    `directions` (P, N, R) as in `V50Inputs`; `usable` (P,): False where the analytic posterior must stand, because its
    fit is flagged or no FGS1 sequence exists."""

    visits: tuple[Visits, ...]
    nodes: Tensor
    star: Tensor
    mean: Tensor
    sigma: Tensor
    directions: Tensor
    usable: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.visits)

    def part(self, rows: Sequence[int]) -> NetworkPlanets:
        """These planets, in this order."""
        chosen = torch.as_tensor(list(rows))
        return NetworkPlanets(
            tuple(self.visits[row] for row in rows),
            self.nodes[chosen],
            self.star[chosen],
            self.mean[chosen],
            self.sigma[chosen],
            self.directions[chosen],
            self.usable[list(rows)],
        )

    def batch(self, rows: Sequence[int]) -> V50Inputs:
        """These planets, in this order, as the network reads them."""
        chosen = torch.as_tensor(list(rows))
        fgs1, n_steps, owner = join_visits([self.visits[row] for row in rows])
        parts = (self.nodes, self.star, self.mean, self.sigma, self.directions)
        return V50Inputs(fgs1, n_steps, owner, *(part[chosen] for part in parts))


def network_planets(
    fits: Sequence[PlanetFit],
    stars: Sequence[Star],
    posterior: Spectra,
    curves: Sequence[Sequence[LightCurve]],
    directions: int,
) -> NetworkPlanets:
    """The planets of `fits` from their analytic `posterior` with covariance, and their visits' FGS1 light curves.

    Raises InputError if the posterior has no covariance.
    """
    if posterior.covariance is None:
        raise InputError("analytic posterior", "a covariance", "none", "Predict with the analytic model.")
    visits = tuple(_sequences(own) for own in curves)
    flags = posterior.flags or ((),) * len(fits)
    usable = np.array([bool(own) and not words for own, words in zip(visits, flags, strict=True)], dtype=bool)
    return NetworkPlanets(
        visits=tuple(own or NOTHING for own in visits),
        nodes=torch.from_numpy(_node_features(fits, posterior.mean, posterior.sigma, posterior.covariance)),
        star=torch.from_numpy(np.stack([star_features(star) for star in stars])),
        mean=torch.from_numpy(posterior.mean),
        sigma=torch.from_numpy(posterior.sigma),
        directions=principal_directions(posterior.covariance, directions),
        usable=usable,
    )


def network_spectra(
    networks: Sequence[V50], planets: NetworkPlanets, batch: int, passes: int = 1, seed: int = 0
) -> tuple[Floats, Floats]:
    """Mean and sigma (P, N) of the mixture of all networks' predictions, and of `passes` predictions with dropout each
    if more than one (Gal & Ghahramani 2016, ICML): the predictions' spread adds to their variance.

    A planet that is not usable keeps the analytic posterior.
    """
    mean, second = np.zeros((len(planets), N_WAVELENGTHS)), np.zeros((len(planets), N_WAVELENGTHS))
    count = len(networks) * passes
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(seed)
        analytic = planets.mean.numpy()
        for network in networks:
            network.eval()
            for module in network.modules():
                if isinstance(module, nn.Dropout) and passes > 1:
                    module.train()
            for _ in range(passes):
                for start in range(0, len(planets), batch):
                    rows = range(start, min(start + batch, len(planets)))
                    output = network(planets.batch(rows))
                    change = output.mean.numpy() - analytic[rows]
                    mean[rows] += change / count
                    second[rows] += (change**2 + output.sigma.numpy() ** 2) / count
            network.eval()
    sigma = np.sqrt(second - mean**2)
    changed = planets.usable[:, None]
    moved = np.maximum(analytic + mean, 0.0)
    return np.where(changed, moved, analytic), np.where(changed, sigma, planets.sigma.numpy())


def _sequences(curves: Sequence[LightCurve]) -> Visits:
    found = []
    for curve in curves:
        try:
            found.append(fgs1_sequence(curve))
        except InputError:  # no usable time bin: the other visit must do
            continue
    return tuple(found)


def _node_features(fits: Sequence[PlanetFit], mean: Floats, sigma: Floats, covariance: Floats) -> NDArray[np.float32]:
    """(P, N, 8) in the order of `NODE_FEATURES`, all of order one.

    Logarithm of sigma; depth above the planet's level; logarithm of the level; what the fit alone says minus the
    posterior, in sigmas; second difference along wavelength; correlations with the FGS1 depth and with the level;
    logarithm of the fit's largest chi2 per sample.
    """
    level = mean[:, AIRS.spectral_slice].mean(axis=1, keepdims=True)
    measured = np.stack([fit.best[:N_WAVELENGTHS] for fit in fits])
    bend = np.zeros_like(mean)
    bend[:, 2:-1] = mean[:, 1:-2] - 2 * mean[:, 2:-1] + mean[:, 3:]
    with_level = covariance[:, :, AIRS.spectral_slice].mean(axis=2)
    level_sigma = np.sqrt(np.maximum(with_level[:, AIRS.spectral_slice].mean(axis=1, keepdims=True), 1e-20))
    chi2 = [max([v for k, v in fit.summary.items() if k.startswith("chi2_")], default=1.0) for fit in fits]
    columns = [
        np.log(sigma / 1e-4),
        np.arcsinh((mean - level) / 5e-5),
        np.log(level / 0.01) + np.zeros_like(mean),
        np.arcsinh((measured - mean) / sigma),
        np.arcsinh(bend / 2e-5),
        covariance[:, :, 0] / (sigma * sigma[:, :1]),
        with_level / (sigma * level_sigma),
        np.log(np.clip(chi2, 0.1, 10.0))[:, None] + np.zeros_like(mean),
    ]
    return np.stack(columns, axis=2).astype(np.float32)
