"""One instrument's frames of one visit, from the planet's truth to counts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spectramind.instruments import INSTRUMENTS, Instrument
from spectramind.simulation.axes import SAMPLING, column_wavelengths_um, pair_times_h, time_axis
from spectramind.simulation.cosmic_rays import CosmicRays, add_cosmic_rays, draw_cosmic_rays
from spectramind.simulation.detectors import Detector, draw_detector, read_detector, thin_adc, thin_detector
from spectramind.simulation.drift import Drift, draw_drift, drift_factor
from spectramind.simulation.foreground import draw_foreground
from spectramind.simulation.limb_darkening import quadratic_coefficients
from spectramind.simulation.optics import draw_placement, image_series
from spectramind.simulation.options import SimulationOptions
from spectramind.simulation.planets import DETECTOR_STREAM, VISIT_STREAM, SimulatedPlanet, generator
from spectramind.simulation.pointing import draw_jitter
from spectramind.simulation.readout import Scene, expose
from spectramind.simulation.stars import stellar_levels
from spectramind.transit.light_curve import sky_distance, transit_light_curve
from spectramind.types import Adc, Floats


def planet_detector(seed: int, planet: SimulatedPlanet, instrument: Instrument, options: SimulationOptions) -> Detector:
    """The detector that all visits of a planet share, before thinning."""
    rng = generator(seed, planet.split, planet.index, DETECTOR_STREAM, INSTRUMENTS.index(instrument))
    if options.detector_from:
        return read_detector(rng, instrument, options.detector_from)
    return draw_detector(rng, instrument)


def column_depths(planet: SimulatedPlanet, instrument: Instrument) -> Floats:
    """Transit depth of each column; columns without a label take that of the nearest labelled one."""
    bins = planet.depth[instrument.spectral_slice]
    if not instrument.dispersed:
        return bins
    return np.pad(bins[::-1], (instrument.first, instrument.columns - 1 - instrument.last), mode="edge")


def transit_factor(planet: SimulatedPlanet, instrument: Instrument, time_h: Floats, mid_time_h: float) -> Floats:
    """Relative flux (columns, T)."""
    orbit = planet.orbit
    z = sky_distance(time_h, mid_time_h, orbit.period_d, orbit.sma, orbit.inclination_deg)
    u1, u2 = quadratic_coefficients(planet.limb_darkening, column_wavelengths_um(instrument))
    return transit_light_curve(z, np.sqrt(column_depths(planet, instrument)), u1, u2).T


def simulate_exposure(
    seed: int,
    planet: SimulatedPlanet,
    visit: int,
    instrument: Instrument,
    detector: Detector,
    options: SimulationOptions,
) -> tuple[NDArray[np.uint16], Drift]:
    """Counts (R C, frames) of one visit, and the drift in them."""
    rng = generator(seed, planet.split, planet.index, VISIT_STREAM, visit, INSTRUMENTS.index(instrument))
    factor = options.thinning(instrument.name)
    axis = time_axis(instrument, options.pairs(instrument.name), options.window_h)
    time_h = pair_times_h(axis)
    mid_time = planet.mid_time_h[visit] + (0.0 if instrument.dispersed else options.fgs1_clock_offset_h)
    levels = stellar_levels(planet.star, instrument)
    drift = draw_drift(rng, options.drift_min, options.drift_max, instrument.dispersed)
    jitter_px = options.airs_jitter_px if instrument.dispersed else options.fgs1_jitter_px
    transit = transit_factor(planet, instrument, time_h, mid_time)
    scene = Scene(
        signal=factor * levels[:, None] * drift_factor(drift, time_h, options.window_h, levels.size) * transit,
        images=image_series(instrument, draw_placement(rng, instrument), levels),
        displacement=draw_jitter(rng, time_h, jitter_px, instrument.name),
        foreground=factor * draw_foreground(rng, instrument, options.foreground),
    )
    sampling = SAMPLING[instrument.name]
    adc = thin_adc(Adc(options.gain, options.offset), factor)
    rays = draw_cosmic_rays(rng, instrument, time_h.size, sampling, options.cosmic_ray_rate)
    frames = thin_detector(detector.frames, factor)
    counts = expose(rng, scene, detector.response, frames, adc, sampling.first_read_s, sampling.cds_s)
    return add_cosmic_rays(counts, _scaled(rays, factor), adc.gain), drift


def _scaled(rays: CosmicRays, factor: int) -> CosmicRays:
    return CosmicRays(rays.pixel, rays.pair, rays.electrons * factor, rays.before_first_read)
