"""Calibrated light curves of known planets, made from batman and not from the code under test."""

from __future__ import annotations

import batman
import numpy as np

from spectramind.instruments import AIRS, FGS1, N_WAVELENGTHS
from spectramind.types import CalibratedVisit, LightCurve, Star

WAVELENGTHS = np.concatenate([[0.7], np.linspace(1.95, 3.9, N_WAVELENGTHS - 1)])
LEVELS = np.concatenate([[4e7], np.geomspace(1.6e6, 1e5, N_WAVELENGTHS - 1)])


def star(planet_id: str = "1", **changes: float) -> Star:
    values = {"Rs": 1.0, "Ms": 1.0, "Ts": 5772.0, "Mp": 1.0, "e": 0.0, "P": 4.0, "sma": 10.0, "i": 88.5}
    return Star(planet_id=planet_id, **(values | changes))


def limb_darkening(wavelength: float) -> tuple[float, float]:
    return 0.42 - 0.25 * np.log(wavelength / 0.7), 0.22 - 0.03 * np.log(wavelength / 0.7)


def visit(
    host: Star,
    depth: np.ndarray,
    *,
    mid_time_h: float = 3.75,
    window_h: float = 7.5,
    samples: int = 140,
    drift: float = 5e-4,
    clock_h: float = 0.0,
    seed: int | None = 0,
    number: int = 0,
) -> CalibratedVisit:
    """One visit; `depth` (283,). Without a seed there is no noise."""
    time = (np.arange(samples) + 0.5) * window_h / samples
    x = 2 * time / window_h - 1
    flux = np.empty((samples, N_WAVELENGTHS))
    for w in range(N_WAVELENGTHS):
        shift = clock_h if w == 0 else 0.0
        flux[:, w] = _transit(host, time - mid_time_h - shift, np.sqrt(depth[w]), limb_darkening(WAVELENGTHS[w]))
    colour = 1 + 0.5 * (WAVELENGTHS - 2.9)
    flux *= LEVELS * (1 + drift * np.outer(x + 0.4 * x**2, colour))
    variance = flux.copy()
    if seed is not None:
        flux = flux + np.sqrt(variance) * np.random.default_rng([seed, number]).normal(size=flux.shape)
    curves = {}
    for instrument in (FGS1, AIRS):
        part = instrument.spectral_slice
        curves[instrument.name] = LightCurve(
            instrument,
            flux[:, part],
            variance[:, part],
            np.zeros(flux[:, part].shape, np.uint8),
            time,
            WAVELENGTHS[part],
            np.full(samples, 20),
            np.zeros(part.stop - part.start),
        )
    return CalibratedVisit(host.planet_id, number, curves, {}, {})


def _transit(host: Star, hours: np.ndarray, k: float, coefficients: tuple[float, float]) -> np.ndarray:
    parameters = batman.TransitParams()
    parameters.t0, parameters.per, parameters.rp, parameters.a = 0.0, host.P, k, host.sma
    parameters.inc, parameters.ecc, parameters.w = host.i, 0.0, 90.0
    parameters.limb_dark, parameters.u = "quadratic", list(coefficients)
    return batman.TransitModel(parameters, hours / 24.0).light_curve(parameters)
