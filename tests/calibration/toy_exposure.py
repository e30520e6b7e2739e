"""A small forward model of one exposure, independent of the package's own simulator."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np

from spectramind.instruments import AIRS, FGS1, Instrument
from spectramind.types import Adc, CalibrationFrames, Counts, RawExposure, TimeAxis


def reference_frames(instrument: Instrument, rng: np.random.Generator) -> CalibrationFrames:
    """Reference frames like the real ones: hot and dead pixels, flat of 2 %, linearity of 2 % at 50,000 electrons."""
    shape = instrument.rows, instrument.columns
    linear = np.zeros((6, *shape))
    linear[1] = 1.0
    dark = rng.normal(0.006, 0.0015, shape)
    dark[rng.random(shape) < 0.005] += 2.0
    dead = rng.random(shape) < 0.003
    flat = rng.normal(1.0, 0.02, shape)
    linear[0], linear[2] = 0.2, 4e-7 * rng.normal(1.0, 0.1, shape)
    return CalibrationFrames(dark, dead, flat, linear, rng.normal(13.3, 0.3, shape))


def brighter(frames: CalibrationFrames, factor: float) -> CalibrationFrames:
    powers = np.arange(6)[:, None, None]
    linear = frames.linear_corr * factor ** (1.0 - powers)
    return replace(frames, dark=frames.dark * factor, read=frames.read * factor**0.5, linear_corr=linear)


def profile(instrument: Instrument, shift: float = 0.0, wings: float = 0.02) -> np.ndarray:
    """Share of the light in each pixel: a Gaussian core and broad wings, per column for AIRS."""
    rows = np.arange(instrument.rows)[:, None] - 15.4 - shift
    if instrument.dispersed:
        core = np.exp(-0.5 * (rows / 1.3) ** 2) * np.ones((1, instrument.columns))
        broad = 1.0 / (1.0 + (rows / 2.0) ** 2) * np.ones((1, instrument.columns))
        return (1 - wings) * core / core.sum(axis=0) + wings * broad / broad.sum(axis=0)
    columns = np.arange(instrument.columns)[None, :] - 15.7 - shift
    core = np.exp(-0.5 * (rows**2 + columns**2) / 1.8**2)
    broad = 1.0 / (1.0 + (rows**2 + columns**2) / 4.0) ** 1.5
    return (1 - wings) * core / core.sum() + wings * broad / broad.sum()


def star_level(instrument: Instrument) -> np.ndarray:
    """Electrons per pair along the detector columns (descending wavelength for AIRS), or in all."""
    if instrument.dispersed:
        return np.interp(np.arange(instrument.columns), [0, 39, 320, 355], [2e3, 4e3, 90e3, 60e3])
    return np.array([221e3])


def time_axis(instrument: Instrument, pairs: int) -> TimeAxis:
    short, long = (0.1, 4.6) if instrument.dispersed else (0.1, 0.2)
    start = np.arange(pairs) * 7.5 / pairs
    return TimeAxis(np.repeat(start, 2), np.tile([short, long], pairs))


def inverse_linearity(linear: np.ndarray, frames: CalibrationFrames) -> np.ndarray:
    """Measured electrons whose linearised value is `linear`, by fixed-point iteration."""
    c = frames.linear_corr
    measured = linear.copy()
    for _ in range(8):
        measured = (linear - c[0] - measured**2 * (c[2] + measured * c[3])) / c[1]
    return measured


def expose(
    instrument: Instrument,
    pairs: int,
    seed: int,
    *,
    relative: np.ndarray | None = None,
    foreground: float = 0.0,
    noise: bool = True,
    wings: float = 0.02,
    brightness: float = 1.0,
) -> RawExposure:
    """Frames of a star of `relative` flux (pairs,) on `foreground` electrons per pixel and pair.

    `brightness` times the electrons, on a detector that takes them: the photon noise is relatively smaller.
    """
    rng = np.random.default_rng(seed)
    adc = Adc(0.4369 / brightness, -1000.0 * brightness)
    frames = brighter(reference_frames(instrument, np.random.default_rng(1)), brightness)
    axis = time_axis(instrument, pairs)
    relative = np.ones(pairs) if relative is None else relative
    rate = profile(instrument, wings=wings) * star_level(instrument) * brightness
    foreground = foreground * brightness
    counts = np.empty((2 * pairs, instrument.rows, instrument.columns), np.uint16)
    short, long = axis.integration_s[:2]
    draw = rng.poisson if noise else lambda mean: mean
    for pair in range(pairs):
        light = np.maximum(frames.flat, 0.0) * (rate * relative[pair] + foreground)
        early = draw(light * short / (long - short) + np.maximum(frames.dark, 0) * short).astype(float)
        late = early + draw(light + np.maximum(frames.dark, 0) * (long - short))
        for read, charge in enumerate((early, late)):
            electrons = inverse_linearity(charge, frames)
            if noise:
                electrons = electrons + rng.normal(0.0, frames.read)
            electrons[frames.dead] = 0.0
            value = (electrons - adc.offset) * adc.gain
            counts[2 * pair + read] = np.clip(np.rint(value), 0, 65535)
    wavelength = np.linspace(1.952, 3.895, 282) if instrument.dispersed else np.array([0.7])
    columns = instrument.bin_columns
    frames = CalibrationFrames(*(getattr(frames, field.name)[..., columns] for field in fields(frames)))
    return RawExposure(
        "toy", "1", 0, instrument, Counts.from_frames(counts[:, :, columns]), axis, adc, frames, wavelength
    )


def box_transit(pairs: int, depth: float) -> np.ndarray:
    """Relative flux of a trapezoid transit in the middle of the exposure."""
    x = np.abs(np.linspace(-1, 1, pairs))
    return 1.0 - depth * np.clip((0.55 - x) / 0.05, 0.0, 1.0)


def fitted_depth(flux: np.ndarray, shape: np.ndarray) -> np.ndarray:
    """Least-squares depth of each column of flux (T, B) for a transit of unit-depth `shape` (T,), constant baseline."""
    design = np.stack([np.ones_like(shape), -shape], axis=1)
    base, dip = np.linalg.lstsq(design, flux, rcond=None)[0]
    return dip / base


__all__ = ["AIRS", "FGS1", "box_transit", "expose", "fitted_depth", "profile", "reference_frames", "star_level"]
