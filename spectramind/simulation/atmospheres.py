"""Transmission spectra of clear, hazy and cloudy isothermal atmospheres.

The depth of an atmosphere of scale height H rises by 2 Rp H / Rs^2 for every e-fold of opacity (Lecavelier des Etangs
et al. 2008, A&A 481, L83):

    depth(w) = (Rp/Rs)^2 + 2 Rp H / Rs^2 ln(kappa(w) / kappa_0),    kappa = sum_m X_m sigma_m + haze + cloud

with kappa_0 such that the mean over the AIRS-CH0 bins is (Rp/Rs)^2. The cross-sections are smooth templates: sums of
bands in log wavelength with centres, widths and strengths read off the ExoMol and HITEMP line lists near 1000 K
(Tennyson & Yurchenko 2018; Rothman et al. 2010), in cm^2 per molecule.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from spectramind.errors import InputError
from spectramind.instruments import N_WAVELENGTHS
from spectramind.simulation.axes import spectrum_wavelengths_um
from spectramind.types import Floats

BOLTZMANN_J_K, ATOMIC_MASS_KG, GRAVITY_SI = 1.380649e-23, 1.66053907e-27, 6.6743e-11
MEAN_MOLECULAR_WEIGHT = 2.3
SUN_RADIUS_M, JUPITER_MASS_KG = 6.957e8, 1.898e27

Band = tuple[float, float, float, float]
"""Centre in um, widths (sigma of ln wavelength) to the blue and to the red, strength in dex above the continuum."""

CONTINUUM_DEX: Mapping[str, float] = {"H2O": -22.6, "CO2": -23.6, "CH4": -22.6, "CO": -24.2, "NH3": -22.4}
BANDS: Mapping[str, tuple[Band, ...]] = {
    "H2O": ((0.72, 0.03, 0.03, 0.3), (1.88, 0.05, 0.05, 1.5), (2.60, 0.025, 0.12, 1.9), (3.20, 0.08, 0.12, 0.6)),
    "CO2": ((2.01, 0.018, 0.025, 1.7), (2.70, 0.008, 0.02, 2.3), (2.80, 0.015, 0.045, 2.2), (4.26, 0.08, 0.08, 3.5)),
    "CH4": (
        *((0.73, 0.03, 0.03, 0.3), (2.32, 0.045, 0.05, 1.2), (2.72, 0.06, 0.06, 0.3)),
        *((3.16, 0.030, 0.03, 1.3), (3.33, 0.006, 0.007, 0.6), (3.42, 0.060, 0.06, 1.4)),
    ),
    "CO": ((2.345, 0.012, 0.035, 1.5), (4.65, 0.09, 0.09, 3.5)),
    "NH3": ((1.99, 0.03, 0.03, 1.2), (2.25, 0.05, 0.03, 1.0), (2.99, 0.02, 0.02, 1.5), (3.09, 0.03, 0.05, 1.4)),
}
LINE_PERIODS = (0.014, 0.019, 0.027, 0.043)
LINE_STRENGTH_DEX = 0.03
"""Unresolved lines leave a ripple on each band: fixed sines in ln wavelength with these periods."""

MOLECULES = tuple(BANDS)
RAYLEIGH_CM2_AT_0_7_UM = 3.4e-28
"""H2 (Dalgarno & Williams 1962)."""

CONTINUUM_CM2 = 2e-29
"""Grey floor that stands for collision-induced absorption."""

ABUNDANCE_DEX: Mapping[str, tuple[float, float]] = {
    "H2O": (-8.0, -2.5),
    "CO2": (-9.0, -3.5),
    "CH4": (-8.0, -2.5),
    "CO": (-9.0, -4.0),
    "NH3": (-9.0, -3.5),
}
HAZE_DEX = (0.0, 3.5)
CLOUD_DEX = (-29.0, -23.3)
DEPTH_MEDIAN, DEPTH_LOG_SCATTER, DEPTH_RANGE = 0.0117, 0.65, (0.0038, 0.079)
SHAPE_STD_RANGE = (5e-6, 1.7e-4)
"""Standard deviation over the AIRS-CH0 bins that the challenge's planets span."""

FGS1_CONTRAST_LIMIT = 5e-4
"""Largest |FGS1 - AIRS| difference in depth."""


@dataclass(frozen=True)
class Atmosphere:
    """Log10 mixing ratios by molecule, log10 haze enhancement over H2 Rayleigh scattering with its power-law index,
    log10 grey cloud opacity (cm^2 per molecule), and depth per e-fold of opacity, 2 Rp H / Rs^2."""

    abundance_dex: Mapping[str, float]
    haze_dex: float
    haze_index: float
    cloud_dex: float
    depth_per_efold: float


def draw_mean_depth(rng: Generator) -> float:
    """(Rp/Rs)^2: lognormal about 0.012, cut to the range of the challenge's labels."""
    while True:
        depth = float(DEPTH_MEDIAN * np.exp(rng.normal(0.0, DEPTH_LOG_SCATTER)))
        if DEPTH_RANGE[0] <= depth <= DEPTH_RANGE[1]:
            return depth


def depth_per_efold(
    radius_ratio: float, star_radius: float, star_temperature: float, sma: float, planet_mass: float
) -> float:
    """2 Rp H / Rs^2 with H = k T / (mu g) at the zero-albedo equilibrium temperature; radii and masses in solar radii
    and Jupiter masses."""
    temperature = star_temperature * np.sqrt(0.5 / sma)
    planet_radius_m = radius_ratio * star_radius * SUN_RADIUS_M
    gravity = GRAVITY_SI * planet_mass * JUPITER_MASS_KG / planet_radius_m**2
    height_m = BOLTZMANN_J_K * temperature / (MEAN_MOLECULAR_WEIGHT * ATOMIC_MASS_KG * gravity)
    return float(2.0 * radius_ratio * height_m / (star_radius * SUN_RADIUS_M))


def draw_atmosphere(rng: Generator, efold: float) -> Atmosphere:
    """Abundances, haze and cloud, each uniform in its logarithm."""
    abundance = {molecule: float(rng.uniform(*ABUNDANCE_DEX[molecule])) for molecule in MOLECULES}
    haze, cloud = rng.uniform(*HAZE_DEX), rng.uniform(*CLOUD_DEX)
    return Atmosphere(abundance, float(haze), float(rng.uniform(3.0, 5.0)), float(cloud), efold)


def cross_section_cm2(molecule: str, wavelength_um: Floats) -> Floats:
    """Smooth template of one molecule."""
    log_wavelength = np.log(wavelength_um)
    dex = np.full(wavelength_um.shape, CONTINUUM_DEX[molecule])
    for centre, blue, red, strength in BANDS[molecule]:
        distance = log_wavelength - np.log(centre)
        dex += strength * np.exp(-0.5 * (distance / np.where(distance < 0, blue, red)) ** 2)
    for k, period in enumerate(LINE_PERIODS):
        phase = 1.0 + 2.4 * (k + len(LINE_PERIODS) * MOLECULES.index(molecule))
        dex += LINE_STRENGTH_DEX * np.sin(2 * np.pi * log_wavelength / period + phase)
    return np.asarray(10.0**dex)


def opacity_cm2(atmosphere: Atmosphere, wavelength_um: Floats) -> Floats:
    """kappa(w): molecules, haze, cloud and continuum."""
    haze = RAYLEIGH_CM2_AT_0_7_UM * 10.0**atmosphere.haze_dex * (0.7 / wavelength_um) ** atmosphere.haze_index
    kappa = CONTINUUM_CM2 + 10.0**atmosphere.cloud_dex + haze
    for molecule, dex in atmosphere.abundance_dex.items():
        kappa = kappa + 10.0**dex * cross_section_cm2(molecule, wavelength_um)
    return np.asarray(kappa)


def spectral_shape(atmosphere: Atmosphere) -> Floats:
    """Depth minus its AIRS-CH0 mean (283,), for an atmosphere as drawn."""
    shape = atmosphere.depth_per_efold * np.log(opacity_cm2(atmosphere, spectrum_wavelengths_um()))
    return np.asarray(shape - shape[1:].mean())


def plausible(shape: Floats) -> bool:
    """Whether amplitude and FGS1 contrast lie in the range of the challenge's planets."""
    std = float(shape[1:].std())
    return SHAPE_STD_RANGE[0] <= std <= SHAPE_STD_RANGE[1] and abs(float(shape[0])) <= FGS1_CONTRAST_LIMIT


def read_spectra(path: str) -> Floats:
    """True spectra (n, 283) from a CSV with columns wl_1..wl_283; others are ignored. InputError where unusable."""
    import pyarrow as pa
    from pyarrow import csv

    cure = "Point simulation.spectra_file at a CSV of transit depths."
    names = [f"wl_{i + 1}" for i in range(N_WAVELENGTHS)]
    try:
        table = csv.read_csv(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(path, "a CSV of spectra", str(error).splitlines()[0], cure) from error
    missing = [name for name in names if name not in table.column_names]
    if missing:
        raise InputError(path, "columns wl_1..wl_283", f"no column {missing[0]}", cure)
    spectra = np.column_stack([table[name].to_numpy() for name in names]).astype(np.float64)
    if spectra.shape[0] == 0 or not np.all(np.isfinite(spectra)) or not np.all(spectra > 0):
        raise InputError(path, "at least one row of finite, positive depths", "something else", cure)
    return spectra


def rescaled_shape(spectrum: Floats, mean_depth: float) -> Floats:
    """Shape of a given spectrum at another mean depth, within the range of amplitudes.

    At equal H and Rs the amplitude 2 Rp H / Rs^2 goes with Rp.
    """
    own_depth = spectrum[1:].mean()
    shape = (spectrum - own_depth) * np.sqrt(mean_depth / own_depth)
    std, contrast = max(shape[1:].std(), 1e-12), max(abs(shape[0]), 1e-12)
    return np.asarray(shape * min(1.0, SHAPE_STD_RANGE[1] / std, FGS1_CONTRAST_LIMIT / contrast))
