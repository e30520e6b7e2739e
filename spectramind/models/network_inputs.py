"""What the V50 network reads of a batch of planets. All numbers but depths are of order one.

Axis letters: P planets, V visits (one or two of each planet), T steps, N = 283 bins, R principal directions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spectramind.errors import InputError
from spectramind.instruments import N_WAVELENGTHS
from spectramind.types import Floats, LightCurve, Quality, Star

FGS1_CHANNELS = ("flux", "time", "centroid_x", "centroid_y", "jitter_x", "jitter_y")
FLUX_UNIT = 0.01
"""Flux enters as its relative deviation from the median, in percent: a transit is of order one."""
PIXEL_UNIT = 0.1
"""Pointing enters in tenths of a pixel."""
STAR_FEATURES = ("Rs", "Ms", "Ts", "Mp", "e", "P", "sma", "i")


class V50Inputs(NamedTuple):
    """A batch of planets.

    `fgs1` (V, T, 6) the channels of `FGS1_CHANNELS`, of order one; a visit's first `n_steps` (V,) steps count, the rest
    is padding; `planet_of_visit` (V,) the place of the visit's planet in the batch; `nodes` (P, N, F) features of the
    bins, the analytic estimates among them, of order one; `star` (P, 8) the parameters of `STAR_FEATURES`, of order
    one; `mean`, `sigma` (P, N) the analytic posterior in transit depth, float32 or float64; `directions` (P, N, R) its
    covariance, as `principal_directions` gives it.
    """

    fgs1: Tensor
    n_steps: Tensor
    planet_of_visit: Tensor
    nodes: Tensor
    star: Tensor
    mean: Tensor
    sigma: Tensor
    directions: Tensor

    def to(self, device: torch.device | str) -> V50Inputs:
        return V50Inputs(*(tensor.to(device, non_blocking=True) for tensor in self))

    def check(self, node_features: int) -> None:
        """Raises InputError where shapes disagree or a visit has no steps or more than there are."""
        planets, visits, longest = self.mean.shape[0], self.fgs1.shape[0], self.fgs1.shape[1]
        expected = {
            "fgs1": (visits, longest, len(FGS1_CHANNELS)),
            "n_steps": (visits,),
            "planet_of_visit": (visits,),
            "nodes": (planets, N_WAVELENGTHS, node_features),
            "star": (planets, len(STAR_FEATURES)),
            "mean": (planets, N_WAVELENGTHS),
            "sigma": (planets, N_WAVELENGTHS),
            "directions": (planets, N_WAVELENGTHS, self.directions.shape[-1]),
        }
        for name, shape in expected.items():
            found = tuple(getattr(self, name).shape)
            if found != shape:
                raise InputError(f"network input {name}", f"shape {shape}", f"{found}", "Build it as V50Inputs tells.")
        if visits and not 1 <= int(self.n_steps.min()) <= int(self.n_steps.max()) <= longest:
            raise InputError(
                "network input n_steps", f"1 to {longest}", str(self.n_steps.tolist()), "Leave visits out."
            )


def fgs1_sequence(curve: LightCurve) -> NDArray[np.float32]:
    """The usable time bins of an FGS1 light curve as (T, 6), channels in the order of `FGS1_CHANNELS`.

    Time runs from -1 to 1 over the window, centroids count from their median. Raises InputError without a usable bin.
    """
    flux = curve.flux[:, 0]
    usable = np.isfinite(flux) & (curve.quality[:, 0] & Quality.UNUSABLE == 0)
    for name in FGS1_CHANNELS[2:]:
        usable &= np.isfinite(curve.channels[name])
    if not usable.any():
        raise InputError("FGS1 light curve", "a usable time bin", "none", "Leave the visit out.")
    middle, half = np.mean(curve.time_h[[0, -1]]), max(np.ptp(curve.time_h) / 2, 1e-6)
    level = np.median(flux[usable])
    channels = [(flux / level - 1) / FLUX_UNIT, (curve.time_h - middle) / half]
    for name in FGS1_CHANNELS[2:]:
        series = curve.channels[name]
        origin = np.median(series[usable]) if name.startswith("centroid") else 0.0
        channels.append((series - origin) / PIXEL_UNIT)
    return np.stack(channels, axis=1)[usable].astype(np.float32)


def star_features(star: Star) -> NDArray[np.float32]:
    """(8,) in the order of `STAR_FEATURES`: logarithms relative to the Sun and a typical hot Jupiter, the eccentricity,
    and for the inclination the impact parameter in stellar radii."""
    mass = np.log(max(star.Mp, 1e-3))
    impact = star.sma * np.cos(np.radians(star.i))
    logs = np.log([star.Rs, star.Ms, (star.Ts / 5772.0) ** 4])
    return np.array([*logs, mass, star.e, np.log(star.P / 4), np.log(star.sma / 10), impact], dtype=np.float32)


def join_visits(planets: Sequence[Sequence[NDArray[np.float32]]]) -> tuple[Tensor, Tensor, Tensor]:
    """`fgs1`, `n_steps` and `planet_of_visit` of `V50Inputs` from the sequences (T, 6) of each planet's visits."""
    visits = [torch.from_numpy(visit) for planet in planets for visit in planet]
    owner = [place for place, planet in enumerate(planets) for _ in planet]
    return (
        torch.nn.utils.rnn.pad_sequence(visits, batch_first=True),
        torch.tensor([len(visit) for visit in visits]),
        torch.tensor(owner),
    )


def principal_directions(covariance: Floats, count: int) -> Tensor:
    """Covariances (P, N, N) to (P, N, count), float32: eigenvectors times the fourth root of their eigenvalues, for the
    largest ones, so that the matrix times its transpose is the symmetric square root in these directions."""
    values, vectors = np.linalg.eigh(covariance)
    scale = np.maximum(values[:, -count:], 0.0) ** 0.25
    return torch.from_numpy((vectors[:, :, -count:] * scale[:, None]).astype(np.float32))
