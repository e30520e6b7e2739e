"""Circular orbits and transit times like those of the challenge's star table."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from spectramind.simulation.options import SimulationOptions
from spectramind.simulation.stars import StarProperties

SMA_AT_ONE_DAY = 4.208
"""Kepler's third law: a / Rs = 4.208 (Ms P^2)^(1/3) / Rs, with Ms, Rs in solar units and P in days."""

PERIOD_RANGE_D = (2.78, 7.62)
SMA_SCATTER = 0.055
"""Standard deviation of ln(sma / Kepler) in the star table, whose columns do not agree exactly."""

TILT_MEAN_DEG, TILT_SCATTER_DEG = 1.45, 1.1
"""90 degrees minus inclination, cut at 0, whatever the distance: as in the star table."""

DURATION_RANGE_H = (1.8, 6.8)
MINIMUM_BASELINE_H = 0.3
HOURS_PER_DAY = 24.0
MAXIMUM_TRIES = 1000


@dataclass(frozen=True)
class Orbit:
    """Period in days, semi-major axis in stellar radii, inclination in degrees."""

    period_d: float
    sma: float
    inclination_deg: float

    @property
    def impact_parameter(self) -> float:
        return float(self.sma * np.cos(np.radians(self.inclination_deg)))


def transit_duration_h(orbit: Orbit, radius_ratio: float) -> float:
    """First to fourth contact (Winn 2010, eq. 14); 0 where the planet misses the star."""
    chord = (1.0 + radius_ratio) ** 2 - orbit.impact_parameter**2
    if chord <= 0:
        return 0.0
    sine = np.sqrt(chord) / (orbit.sma * np.sin(np.radians(orbit.inclination_deg)))
    return float(orbit.period_d * HOURS_PER_DAY / np.pi * np.arcsin(min(sine, 1.0)))


def _inclination_deg(impact_parameter: float, sma: float) -> float:
    return float(np.degrees(np.arccos(impact_parameter / sma)))


def draw_orbit(rng: Generator, star: StarProperties, radius_ratio: float) -> Orbit:
    """An orbit whose transit lasts between 1.8 and 6.8 hours."""
    for _ in range(MAXIMUM_TRIES):
        period = rng.uniform(*PERIOD_RANGE_D)
        kepler = SMA_AT_ONE_DAY * np.cbrt(star.mass * period**2) / star.radius
        sma = float(kepler * np.exp(rng.normal(0.0, SMA_SCATTER)))
        tilt = max(rng.normal(TILT_MEAN_DEG, TILT_SCATTER_DEG), 0.0)
        orbit = Orbit(float(period), sma, float(90.0 - tilt))
        if DURATION_RANGE_H[0] <= transit_duration_h(orbit, radius_ratio) <= DURATION_RANGE_H[1]:
            return orbit
    raise RuntimeError(f"no orbit transits {star} for {DURATION_RANGE_H} hours")


def true_orbit(rng: Generator, table: Orbit, scatter: float) -> Orbit:
    """The orbit that makes the light curve: `table` with relative scatter in sma and absolute scatter in b."""
    sma = table.sma * (1.0 + rng.normal(0.0, scatter))
    impact = abs(table.impact_parameter + rng.normal(0.0, scatter))
    return Orbit(table.period_d, float(sma), _inclination_deg(impact, sma))


def draw_mid_transit_h(rng: Generator, duration_h: float, options: SimulationOptions) -> float:
    """Mid-transit in hours from the window's start: off centre, and for a few visits cut by one end of the window."""
    cut = rng.random() < options.cut_fraction
    displaced = rng.normal(0.0, options.mid_transit_scatter_h)
    hidden = duration_h * rng.uniform(0.1, 0.6)
    first_half = rng.random() < 0.5
    if cut:
        return float(duration_h / 2 - hidden if first_half else options.window_h - duration_h / 2 + hidden)
    room = max((options.window_h - duration_h) / 2 - MINIMUM_BASELINE_H, 0.0)
    return float(options.window_h / 2 + np.clip(displaced, -room, room))
