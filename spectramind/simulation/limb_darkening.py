"""Quadratic limb darkening, smooth in wavelength and temperature.

I(mu) / I(1) = 1 - u1 (1 - mu) - u2 (1 - mu)^2. The anchors approximate the least-squares coefficients that Claret
(2000, A&A 363, 1081) and Claret & Bloemen (2011, A&A 529, A75) tabulate for solar-metallicity dwarfs (log g = 4.5) in
the R, H, K and Spitzer 3.6 um bands: darkening falls with wavelength and with temperature.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from spectramind.types import Floats

ANCHOR_UM = (0.55, 0.7, 1.2, 1.65, 2.15, 3.0, 3.6, 4.5)
U1_SUN = (0.46, 0.345, 0.190, 0.115, 0.090, 0.070, 0.058, 0.050)
U2_SUN = (0.26, 0.275, 0.265, 0.255, 0.215, 0.170, 0.145, 0.120)
U1_PER_1000_K = (-0.165, -0.130, -0.085, -0.050, -0.038, -0.028, -0.022, -0.018)
U2_PER_1000_K = (0.090, 0.065, 0.030, -0.005, -0.012, -0.014, -0.014, -0.012)
SUN_K = 5777.0


@dataclass(frozen=True)
class LimbDarkening:
    """Departure of one star (metallicity, gravity, model) from the mean law, in units of the coefficients at 0.7 um."""

    temperature: float
    u1_shift: float = 0.0
    u2_shift: float = 0.0


def draw_limb_darkening(rng: Generator, temperature: float, scatter: float = 0.02) -> LimbDarkening:
    """The law of one star, with `scatter` in each coefficient at 0.7 um that shrinks towards the infrared."""
    u1_shift, u2_shift = rng.normal(0.0, scatter, size=2)
    return LimbDarkening(temperature, float(u1_shift), float(u2_shift))


def quadratic_coefficients(law: LimbDarkening, wavelength_um: Floats) -> tuple[Floats, Floats]:
    """u1 and u2, each of `wavelength_um`'s shape."""
    from scipy.interpolate import PchipInterpolator

    log_wavelength, log_anchor = np.log(wavelength_um), np.log(ANCHOR_UM)
    kilokelvin = (law.temperature - SUN_K) / 1000.0
    infrared = 0.7 / wavelength_um
    u1 = PchipInterpolator(log_anchor, np.add(U1_SUN, np.multiply(kilokelvin, U1_PER_1000_K)))(log_wavelength)
    u2 = PchipInterpolator(log_anchor, np.add(U2_SUN, np.multiply(kilokelvin, U2_PER_1000_K)))(log_wavelength)
    return np.maximum(u1 + law.u1_shift * infrared, 0.0), np.maximum(u2 + law.u2_shift * infrared, 0.0)
