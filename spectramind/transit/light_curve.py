"""Transit light curves of a star with quadratic limb darkening.

The star has radius 1 and surface brightness I(mu) = 1 - u1 (1 - mu) - u2 (1 - mu)^2, mu = sqrt(1 - r^2). A planet of
radius k at sky distance z hides, of the annulus at radius r, the angle 2 kappa(r) with
cos kappa = (r^2 + z^2 - k^2) / (2 z r), so that the hidden moments

    H_n(z, k) = 1/pi  integral of (1 - mu)^n over the hidden part of the disc,     n = 0, 1, 2

give the flux 1 - (H_0 - u1 H_1 - u2 H_2) / (1 - u1/3 - u2/6). Mandel & Agol (2002, ApJ 580, L171) pose the problem; the
one-dimensional integral is that of Kreidberg (2015, PASP 127, 1161), here by Gauss-Legendre quadrature in an angle that
removes the square-root ends of the integrand.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectramind.types import Floats

SOLAR_DAY_H = 24.0
QUADRATURE_NODES = 40
BLOCK = 1 << 20
"""Quadrature points evaluated at once: 8 MB per temporary array."""


def sky_distance(
    time_h: ArrayLike, mid_time_h: float, period_d: float, sma: float, inclination_deg: float
) -> NDArray[np.float64]:
    """Distance of planet and star centres on the sky, in stellar radii, for a circular orbit.

    `time_h` (T,) and `mid_time_h` in hours, `period_d` in days, `sma` in stellar radii. Returns (T,), infinite on the
    far half of the orbit, where the star hides the planet and not the planet the star.
    """
    phase = 2 * np.pi * (np.asarray(time_h, dtype=np.float64) - mid_time_h) / (period_d * SOLAR_DAY_H)
    distance = sma * np.hypot(np.sin(phase), np.cos(np.radians(inclination_deg)) * np.cos(phase))
    return np.where(np.cos(phase) > 0, distance, np.inf)


def transit_light_curve(z: ArrayLike, k: ArrayLike, u1: ArrayLike, u2: ArrayLike) -> NDArray[np.float64]:
    """Relative flux of the star, 1 out of transit.

    `z` (T,) sky distance in stellar radii, `k` = Rp/Rs, `u1`, `u2` limb-darkening coefficients, each a scalar or (W,).
    Returns (T,) where all three are scalars, else (T, W). Agrees with batman to better than 1e-7.
    """
    z = np.atleast_1d(np.asarray(z, dtype=np.float64))
    scalar = all(np.ndim(value) == 0 for value in (k, u1, u2))
    k_w, u1_w, u2_w = np.broadcast_arrays(*(np.atleast_1d(np.asarray(value, np.float64)) for value in (k, u1, u2)))
    radii, position = np.unique(k_w, return_inverse=True)
    moments = hidden_moments(z[:, None], radii[None, :])[..., position]
    flux: NDArray[np.float64] = 1.0 - limb_darkened_loss(moments, u1_w, u2_w)
    return flux[:, 0] if scalar else flux


def limb_darkened_loss(moments: Floats, u1: ArrayLike, u2: ArrayLike) -> NDArray[np.float64]:
    """The share of the star's light that is hidden, from `moments` (3, ...) broadcast against `u1`, `u2`."""
    u1, u2 = np.asarray(u1), np.asarray(u2)
    loss: NDArray[np.float64] = (moments[0] - u1 * moments[1] - u2 * moments[2]) / (1.0 - u1 / 3.0 - u2 / 6.0)
    return loss


def hidden_moments(z: ArrayLike, k: ArrayLike) -> NDArray[np.float64]:
    """H_0, H_1, H_2 for `z` and `k` broadcast against each other: (3, *shape), in units of the star's disc."""
    z_all, k_all = np.broadcast_arrays(np.asarray(z, dtype=np.float64), np.asarray(k, dtype=np.float64))
    result = np.zeros((3, *z_all.shape))
    touching = z_all < 1.0 + k_all
    z_in, k_in = z_all[touching], k_all[touching]
    step = max(1, BLOCK // QUADRATURE_NODES)
    blocks = [_overlap(z_in[i : i + step], k_in[i : i + step]) for i in range(0, z_in.size, step)]
    result[:, touching] = np.concatenate(blocks, axis=1) if blocks else 0.0
    return result


@cache
def _quadrature() -> tuple[Floats, Floats]:
    """cos(phi) and sin(phi) dphi of Gauss-Legendre nodes for phi in [0, pi]."""
    node, weight = np.polynomial.legendre.leggauss(QUADRATURE_NODES)
    phi = np.pi / 2 * (node + 1)
    return np.cos(phi), np.pi / 2 * weight * np.sin(phi)


def _overlap(z: Floats, k: Floats) -> Floats:
    """Hidden moments (3, N) for N overlapping pairs."""
    cos_phi, sin_phi_dphi = _quadrature()
    z = np.maximum(z, 1e-12)
    inner, outer = np.abs(z - k), np.minimum(1.0, z + k)
    middle, half = (inner + outer)[:, None] / 2, (outer - inner)[:, None] / 2
    r = middle - half * cos_phi
    kappa = np.arccos(np.clip((r * r + (z * z - k * k)[:, None]) / (2 * z[:, None] * r), -1.0, 1.0))
    area = 2 / np.pi * r * kappa * half * sin_phi_dphi
    dimming = 1.0 - np.sqrt(np.maximum(1.0 - r * r, 0.0))
    partial = np.stack([area.sum(1), (area * dimming).sum(1), (area * dimming * dimming).sum(1)])
    return partial + _central_disc(np.maximum(k - z, 0.0))


def _central_disc(radius: Floats) -> Floats:
    """Moments (3, N) of a disc about the star's centre, which a planet over the centre hides entirely."""
    mu = np.sqrt(1.0 - radius * radius)
    plain = radius * radius
    limb = 2 / 3 * (1.0 - mu**3)
    return np.stack([plain, plain - limb, plain - 2 * limb + (1.0 - mu**4) / 2])
