"""All that is drawn for one planet before any frame is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.random import Generator, SeedSequence

from spectramind.simulation.atmospheres import (
    Atmosphere,
    depth_per_efold,
    draw_atmosphere,
    draw_mean_depth,
    plausible,
    rescaled_shape,
    spectral_shape,
)
from spectramind.simulation.limb_darkening import LimbDarkening, draw_limb_darkening
from spectramind.simulation.options import SimulationOptions
from spectramind.simulation.orbits import Orbit, draw_mid_transit_h, draw_orbit, transit_duration_h, true_orbit
from spectramind.simulation.stars import StarProperties, draw_star
from spectramind.types import Floats, Star

Split = Literal["train", "test"]
SPLITS: tuple[Split, ...] = ("train", "test")
PLANET_STREAM, DETECTOR_STREAM, VISIT_STREAM = 0, 1, 2
MAXIMUM_TRIES = 10_000
PLANET_MASS_LOG = (-0.3, 0.97)
PLANET_MASS_RANGE = (0.049, 24.7)
"""Mean and standard deviation of ln(Mp / Jupiter), and its range. Light planets are drawn again more often, for their
spectra are too strong; the mean is lower than the star table's -0.05 by as much as that raises it."""


@dataclass(frozen=True)
class SimulatedPlanet:
    """The truth about one planet: `table` and `orbit` are what the star table says and what the light curve follows;
    `depth` (283,) the label; `mid_time_h` one entry per visit."""

    split: Split
    index: int
    planet_id: str
    star: StarProperties
    planet_mass: float
    table: Orbit
    orbit: Orbit
    depth: Floats
    atmosphere: Atmosphere | None
    limb_darkening: LimbDarkening
    duration_h: float
    mid_time_h: tuple[float, ...]

    def star_row(self) -> Star:
        """The planet's row of the star table."""
        return Star(
            planet_id=self.planet_id,
            Rs=self.star.radius,
            Ms=self.star.mass,
            Ts=self.star.temperature,
            Mp=self.planet_mass,
            e=0.0,
            P=self.table.period_d,
            sma=self.table.sma,
            i=self.table.inclination_deg,
        )


def generator(seed: int, split: Split, index: int, *stream: int) -> Generator:
    """Random numbers that depend on the planet's place alone, never on who makes it or when."""
    return np.random.default_rng(SeedSequence((seed, SPLITS.index(split), index, *stream)))


def draw_planet(
    seed: int, split: Split, index: int, planet_id: str, options: SimulationOptions, spectra: Floats | None
) -> SimulatedPlanet:
    """Star, orbit, spectrum and visits of planet `index`; `spectra` (n, 283) replace the built-in atmospheres."""
    rng = generator(seed, split, index, PLANET_STREAM)
    star = draw_star(rng, options.brightness_scatter)
    mean_depth = draw_mean_depth(rng)
    radius_ratio = float(np.sqrt(mean_depth))
    table = draw_orbit(rng, star, radius_ratio)
    orbit = true_orbit(rng, table, options.geometry_scatter)
    if spectra is None:
        planet_mass, atmosphere, shape = _draw_atmosphere(rng, star, radius_ratio, table.sma)
    else:
        planet_mass, atmosphere = _draw_mass(rng), None
        shape = rescaled_shape(spectra[int(rng.integers(len(spectra)))], mean_depth)
    duration = transit_duration_h(orbit, radius_ratio)
    n_visits = 2 if rng.random() < options.two_visit_fraction else 1
    return SimulatedPlanet(
        split=split,
        index=index,
        planet_id=planet_id,
        star=star,
        planet_mass=planet_mass,
        table=table,
        orbit=orbit,
        depth=mean_depth + shape,
        atmosphere=atmosphere,
        limb_darkening=draw_limb_darkening(rng, star.temperature),
        duration_h=duration,
        mid_time_h=tuple(draw_mid_transit_h(rng, duration, options) for _ in range(n_visits)),
    )


def _draw_mass(rng: Generator) -> float:
    return float(np.clip(np.exp(rng.normal(*PLANET_MASS_LOG)), *PLANET_MASS_RANGE))


def _draw_atmosphere(
    rng: Generator, star: StarProperties, radius_ratio: float, sma: float
) -> tuple[float, Atmosphere, Floats]:
    """Planet mass, atmosphere and spectral shape, drawn again until the shape is like the challenge's."""
    for _ in range(MAXIMUM_TRIES):
        mass = _draw_mass(rng)
        efold = depth_per_efold(radius_ratio, star.radius, star.temperature, sma, mass)
        atmosphere = draw_atmosphere(rng, efold)
        shape = spectral_shape(atmosphere)
        if plausible(shape):
            return mass, atmosphere, shape
    raise RuntimeError(f"no atmosphere of {star} has a spectrum of the challenge's amplitude")
