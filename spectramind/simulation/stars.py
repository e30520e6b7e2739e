"""Host stars: their place in the star table and the light that they send to each detector column."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from spectramind.instruments import Instrument
from spectramind.simulation.axes import column_wavelengths_um
from spectramind.types import Floats

HC_OVER_K_UM_K = 14_387.768775
"""Second radiation constant hc/k in um K (CODATA 2018)."""

REFERENCE_TEMPERATURE_K = 5750.0
FGS1_ELECTRONS_PER_PAIR = 267_000.0
AIRS_COLUMNS = (
    *(0, 6, 12, 18, 24, 30, 36, 39, 68, 70, 96, 120, 124, 152, 170, 180),
    *(208, 220, 236, 264, 270, 292, 320, 321, 326, 331, 336, 341, 346, 351, 355),
)
AIRS_ELECTRONS_PER_PAIR = (
    *(30.0, 50.0, 90.0, 180.0, 500.0, 1300.0, 2750.0, 4100.0, 13_900.0, 14_200.0, 17_900.0, 21_100.0, 21_500.0),
    *(26_600.0, 28_600.0, 29_900.0, 43_400.0, 52_500.0, 58_800.0, 67_000.0, 80_000.0, 111_000.0, 82_000.0, 68_000.0),
    *(36_000.0, 27_000.0, 26_000.0, 28_000.0, 18_400.0, 5_100.0, 1_000.0),
)
"""Electrons per CDS pair summed over rows, as measured for a 5,745 K star: they stand for the product of the star's
spectrum, throughput and dispersion. The columns beyond the 282 labelled ones come from another planet's frames."""

MASS_TEMPERATURE_SLOPE, MASS_AT_REFERENCE, MASS_SCATTER = 1.82, 1.05, 0.11
RADIUS_TEMPERATURE_SLOPE, RADIUS_AT_REFERENCE, RADIUS_SCATTER = 1.9, 1.16, 0.12
RADIUS_MASS_SLOPE = 1.1
"""ln M and ln R against ln T, fitted to the challenge's 1,100 stars; R also follows the scatter of M."""


@dataclass(frozen=True)
class StarProperties:
    """Radius and mass in solar units, effective temperature in kelvin, brightness relative to the reference star."""

    radius: float
    mass: float
    temperature: float
    brightness: float


def draw_star(rng: Generator, brightness_scatter: float) -> StarProperties:
    """A star from the distributions of the challenge's star table (4,236-6,979 K)."""
    temperature = float(np.clip(5950.0 - rng.gamma(2.2, 260.0) + rng.normal(450.0, 300.0), 4236.0, 6979.0))
    log_ratio = np.log(temperature / REFERENCE_TEMPERATURE_K)
    mass_residual = rng.normal(0.0, MASS_SCATTER)
    mass = MASS_AT_REFERENCE * np.exp(MASS_TEMPERATURE_SLOPE * log_ratio + mass_residual)
    radius_residual = RADIUS_MASS_SLOPE * mass_residual + rng.normal(0.0, RADIUS_SCATTER)
    radius = RADIUS_AT_REFERENCE * np.exp(RADIUS_TEMPERATURE_SLOPE * log_ratio + radius_residual)
    brightness = np.exp(rng.normal(0.0, brightness_scatter))
    return StarProperties(float(radius), float(mass), temperature, float(brightness))


def planck_photon_ratio(wavelength_um: Floats, temperature: float) -> Floats:
    """Photon radiance of a black body relative to one of the reference temperature, per wavelength.

    Planck's law; towards long wavelengths it tends to the ratio of temperatures (Rayleigh-Jeans).
    """
    reference = np.expm1(HC_OVER_K_UM_K / (wavelength_um * REFERENCE_TEMPERATURE_K))
    ratio: Floats = reference / np.expm1(HC_OVER_K_UM_K / (wavelength_um * temperature))
    return ratio


def reference_levels(instrument: Instrument, column: Floats) -> Floats:
    """Electrons per CDS pair of the reference star at (fractional) detector columns."""
    from scipy.interpolate import PchipInterpolator

    if not instrument.dispersed:
        return np.full(np.shape(column), FGS1_ELECTRONS_PER_PAIR)
    log_level = PchipInterpolator(AIRS_COLUMNS, np.log(AIRS_ELECTRONS_PER_PAIR))(column)
    levels: Floats = np.exp(log_level)
    return levels


def stellar_levels(star: StarProperties, instrument: Instrument) -> Floats:
    """Out-of-transit electrons per CDS pair: (columns,) for a spectrometer, (1,) for a photometer.

    A star's brightness is fixed at 3 um, so that temperature changes colour alone.
    """
    wavelength = column_wavelengths_um(instrument)
    pivot = planck_photon_ratio(np.array([3.0]), star.temperature)
    column = np.arange(wavelength.size, dtype=np.float64)
    colour = planck_photon_ratio(wavelength, star.temperature) / pivot
    return star.brightness * colour * reference_levels(instrument, column)
