"""The light curves of one instrument and visit, linearised about a point: a quadratic log-likelihood for each
wavelength bin.

For bin w the logarithm of the flux is  ln S(w) + sum_k d_k(w) T_k(t) + ln(1 - loss(t; depth, geometry, u1, u2,
mid-time)). The star's level ln S is removed by weighted centring, which is exact for a free level; the rest is
expanded to first order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from spectramind.transit.bases import time_basis
from spectramind.transit.light_curve import SOLAR_DAY_H, hidden_moments
from spectramind.transit.nuisances import LOCAL, impact_parameter, impact_unit
from spectramind.types import Floats, LightCurve, Quality, Star

N_LOCAL = len(LOCAL)
RADIUS_RATIO_RANGE = (0.005, 0.6)


@dataclass(frozen=True)
class LogCurves:
    """Light curves ready to fit: `log_flux`, `weight` (T, B), weight zero where a sample is unusable; `hours` (T,) from
    the centre of the window; `drift` (T, K) basis in time; `wavelength_um` (B,); `dispersed` for AIRS.

    Besides its own noise of unit variance, a whitened sample may share noise with the other bins of the same time:
    `patterns` (r, B), orthonormal across wavelength, along which the shares `excess` (r,) of the variance are common.
    """

    instrument: str
    dispersed: bool
    hours: Floats
    wavelength_um: Floats
    log_flux: Floats
    weight: Floats
    drift: Floats
    patterns: Floats
    excess: Floats

    def with_noise(self, weight: Floats, patterns: Floats, excess: Floats) -> LogCurves:
        return replace(self, weight=weight, patterns=patterns, excess=excess)

    def misfit(self, residual: Floats) -> float:
        """Chi squared of residuals (T, B)."""
        z = residual * np.sqrt(self.weight)
        return float((z * z).sum() - (self.excess * ((z @ self.patterns.T) ** 2).sum(axis=0)).sum())


@dataclass(frozen=True)
class LocalLikelihood:
    """log L(x) = -x' `precision` x / 2 + x' `score` + constant for each bin; `precision` (B, q, q), `score` (B, q).

    x is [*LOCAL, drift coefficients], absolute values, not steps from the linearisation point. Noise that bins share
    takes back (`shared_slopes` x - `shared_data`)^2 / 2, summed over its (N,) patterns and times; `shared_slopes`
    (N, B, q).
    """

    dispersed: bool
    wavelength_um: Floats
    precision: Floats
    score: Floats
    shared_slopes: Floats
    shared_data: Floats


def log_curves(curve: LightCurve, centre_h: float, drift_degree: int) -> LogCurves:
    """Logarithm and inverse variance of a calibrated light curve; unusable samples get no weight."""
    usable = np.isfinite(curve.flux) & np.isfinite(curve.variance) & (curve.flux > 0) & (curve.variance > 0)
    usable &= (curve.quality & Quality.UNUSABLE) == 0
    flux = np.where(usable, curve.flux, 1.0)
    weight = np.where(usable, flux**2 / np.where(usable, curve.variance, 1.0), 0.0)
    return LogCurves(
        curve.instrument.name,
        curve.instrument.dispersed,
        curve.time_h - centre_h,
        curve.wavelength_um,
        np.log(flux),
        weight,
        time_basis(curve.time_h, drift_degree),
        np.zeros((0, curve.wavelength_um.size)),
        np.zeros(0),
    )


def model_and_slopes(curves: LogCurves, star: Star, local: Floats) -> tuple[Floats, Floats]:
    """Log flux relative to the star's level (T, B), and its derivatives by the local parameters (q, T, B).

    `local` (B, q); geometry and mid-time are read from the first bin, since all bins share them.
    """
    axis, impact, mid_time = local[0, 1], local[0, 2], local[0, 5]
    k = np.clip(np.sqrt(np.maximum(local[:, 0], 0.0)), *RADIUS_RATIO_RANGE)
    u1, u2 = local[:, 3], local[:, 4]
    z, dz_daxis, dz_dimpact, dz_dmid = _distance_and_slopes(curves.hours, star, axis, impact, mid_time)
    moments, by_k, by_z = _moments_and_slopes(z, k)
    scale = 1.0 / (1.0 - u1 / 3.0 - u2 / 6.0)

    def combine(m: Floats) -> Floats:
        hidden: Floats = (m[0] - u1 * m[1] - u2 * m[2]) * scale
        return hidden

    loss = combine(moments)
    minus = -1.0 / (1.0 - loss)
    loss_by_z = combine(by_z) * minus
    slopes = np.empty((N_LOCAL + curves.drift.shape[1], *loss.shape))
    slopes[0] = combine(by_k) / (2 * k) * minus
    slopes[1], slopes[2], slopes[5] = (loss_by_z * d[:, None] for d in (dz_daxis, dz_dimpact, dz_dmid))
    slopes[3] = (loss / 3.0 - moments[1]) * scale * minus
    slopes[4] = (loss / 6.0 - moments[2]) * scale * minus
    slopes[N_LOCAL:] = curves.drift.T[:, :, None]
    return np.log1p(-loss) + curves.drift @ local[:, N_LOCAL:].T, slopes


def covered(curves: LogCurves, star: Star, local: Floats) -> NDArray[np.bool_]:
    """Which times (T,) have the planet's disc touch the star's, at local parameters (B, q)."""
    z = _distance_and_slopes(curves.hours, star, local[0, 1], local[0, 2], local[0, 5])[0]
    touching: NDArray[np.bool_] = z < 1.0 + math.sqrt(max(float(np.median(local[:, 0])), 0.0))
    return touching


def linearise(curves: LogCurves, star: Star, local: Floats) -> tuple[LocalLikelihood, Floats]:
    """The quadratic likelihood about `local` (B, q), and the residuals (T, B) there, level removed."""
    model, slopes = model_and_slopes(curves, star, local)
    weight = curves.weight / np.maximum(curves.weight.sum(axis=0), 1e-300)
    residual = curves.log_flux - model
    residual = residual - (weight * residual).sum(axis=0)
    slopes = slopes - (weight * slopes).sum(axis=1)[:, None]
    root = np.sqrt(curves.weight)
    whitened = np.ascontiguousarray(np.moveaxis(slopes * root, 2, 0))
    data = (residual * root).T + (local[:, None, :] @ whitened)[:, 0]
    precision = whitened @ np.swapaxes(whitened, 1, 2)
    score = (whitened @ data[:, :, None])[..., 0]
    strength = np.sqrt(curves.excess)[:, None] * curves.patterns
    shared_slopes = (strength[:, None, :, None] * np.moveaxis(whitened, 2, 0)).reshape(-1, *precision.shape[:2])
    shared_data = (strength @ data).ravel()
    likelihood = LocalLikelihood(curves.dispersed, curves.wavelength_um, precision, score, shared_slopes, shared_data)
    return likelihood, residual


def _distance_and_slopes(
    hours: Floats, star: Star, axis: float, impact: float, mid_time: float
) -> tuple[Floats, Floats, Floats, Floats]:
    """Sky distance (T,) and its derivatives by ln(axis), impact and mid-time."""
    rate = 2 * np.pi / (star.P * SOLAR_DAY_H)
    phase = rate * (hours - mid_time)
    sine, cosine = np.sin(phase), np.cos(phase)
    a2 = (star.sma * np.exp(axis)) ** 2
    b2 = max(impact_parameter(star) ** 2 + impact_unit(star) * impact, 0.0)
    z = np.sqrt(a2 * sine**2 + b2 * cosine**2)
    near = np.maximum(z, 1e-3)
    z = np.where(cosine > 0, z, np.inf)
    by_axis = a2 * sine**2 / near
    by_impact = impact_unit(star) * cosine**2 / (2 * near)
    by_mid = -rate * (a2 - b2) * sine * cosine / near
    return z, by_axis, by_impact, by_mid


def _moments_and_slopes(z: Floats, k: Floats, step: float = 1e-4) -> tuple[Floats, Floats, Floats]:
    """Hidden moments (3, T, B) with derivatives by k and by z.

    All bins of a planet have nearly the same k, so three radii and a parabola through them replace one quadrature a
    bin.
    """
    middle, half = (k.max() + k.min()) / 2, max((k.max() - k.min()) / 2, 1e-4)
    nodes = middle + half * np.array([-1.0, 0.0, 1.0])
    x = (k - middle) / half
    lagrange = np.stack([x * (x - 1) / 2, 1 - x * x, x * (x + 1) / 2])
    lagrange_slope = np.stack([x - 0.5, -2 * x, x + 0.5]) / half
    shifted = np.stack([z - step, z, z + step])
    table = hidden_moments(np.abs(shifted)[:, :, None], nodes)
    by_z = (table[:, 2] - table[:, 0]) / (2 * step)
    return table[:, 1] @ lagrange, table[:, 1] @ lagrange_slope, by_z @ lagrange
