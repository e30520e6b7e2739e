"""Detectors: drawn to look like the challenge's calibration files, or read from them, and rescaled for thinning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from spectramind.errors import InputError
from spectramind.instruments import AIRS, FGS1, Instrument
from spectramind.types import Adc, CalibrationFrames, Floats

N_COEFFICIENTS = 6
LINEARITY = {
    AIRS.name: (0.14, 0.99989, 0.0, 1.17e-11, -6.0e-17, 1.35e-22),
    FGS1.name: (0.30, 0.99989, 3.0e-9, 8.4e-12, -3.65e-17, 6.8e-23),
}
"""Median coefficients of real `linear_corr` files."""

DARK_MEDIAN, DARK_SCATTER, DARK_MAXIMUM = 0.0067, 0.0014, 12.0
HOT_SHARE, DEAD_SHARE = (0.007, 0.017), (0.001, 0.011)
HOT_STEEPNESS = 4
"""Power of a uniform number that gives the place of a hot pixel between the tail's ends, in ln dark: most are dim."""

FLAT_SCATTER, FLAT_LEVEL_SCATTER = 0.0125, 0.02
READ_MEDIAN, READ_SCATTER, NOISY_SHARE = 13.3, 0.55, 0.008
GAIN_SCATTER, CURVATURE_SCATTER = 0.005, 0.12


@dataclass(frozen=True)
class Detector:
    """Calibration frames as delivered, and what the pixels really do: `response` (R, C) electrons per unit of light,
    equal to the flat but for dead pixels."""

    frames: CalibrationFrames
    response: Floats


def draw_detector(rng: Generator, instrument: Instrument) -> Detector:
    """A detector with the statistics of the real calibration files (see docs/simulator.md)."""
    shape = (instrument.rows, instrument.columns)
    dead = rng.random(shape) < rng.uniform(*DEAD_SHARE)
    flat = (1.0 + rng.normal(0.0, FLAT_LEVEL_SCATTER)) * (1.0 + FLAT_SCATTER * rng.normal(size=shape))
    blind = dead & (rng.random(shape) < 0.5)
    flat[blind] = rng.normal(0.0, 0.01, size=int(blind.sum()))
    frames = CalibrationFrames(
        dark=_draw_dark(rng, shape),
        dead=dead,
        flat=flat,
        linear_corr=_draw_linearity(rng, instrument),
        read=_draw_read_noise(rng, shape),
    )
    return Detector(frames, _response(frames, rng))


def read_detector(rng: Generator, instrument: Instrument, folders: Sequence[str]) -> Detector:
    """One of the calibration sets found under `folders`. InputError where there is none or a file is unusable."""
    found = sorted(path for folder in folders for path in Path(folder).glob(f"{instrument.name}_calibration_*"))
    if not found:
        raise InputError(
            ", ".join(folders),
            f"a folder {instrument.name}_calibration_<k>",
            "none",
            "Point simulation.detector_from at folders of calibration files, or leave it empty.",
        )
    folder = found[int(rng.integers(len(found)))]
    linear = _read_frame(folder / "linear_corr.parquet", N_COEFFICIENTS * instrument.rows, instrument.columns)
    frames = CalibrationFrames(
        dark=_read_frame(folder / "dark.parquet", instrument.rows, instrument.columns),
        dead=_read_frame(folder / "dead.parquet", instrument.rows, instrument.columns) > 0.5,
        flat=_read_frame(folder / "flat.parquet", instrument.rows, instrument.columns),
        linear_corr=linear.reshape(N_COEFFICIENTS, instrument.rows, instrument.columns),
        read=_read_frame(folder / "read.parquet", instrument.rows, instrument.columns),
    )
    return Detector(frames, _response(frames, rng))


def thin_detector(frames: CalibrationFrames, factor: int) -> CalibrationFrames:
    """Constants for frames that each stand for `factor` real ones: charge grows by F, so dark F, read noise sqrt(F) and
    c_k F^(1-k)."""
    powers = float(factor) ** (1.0 - np.arange(N_COEFFICIENTS))
    return CalibrationFrames(
        dark=frames.dark * factor,
        dead=frames.dead,
        flat=frames.flat,
        linear_corr=frames.linear_corr * powers[:, None, None],
        read=frames.read * np.sqrt(factor),
    )


def thin_adc(adc: Adc, factor: int) -> Adc:
    """The converter for `factor` times the charge at the same counts."""
    return Adc(gain=adc.gain / factor, offset=adc.offset * factor)


def _draw_dark(rng: Generator, shape: tuple[int, int]) -> Floats:
    """Normal about 0.007 e-/s with a tail of hot pixels, denser towards its lower end, up to 12 e-/s."""
    dark = rng.normal(DARK_MEDIAN, DARK_SCATTER, size=shape)
    hot = rng.random(shape) < rng.uniform(*HOT_SHARE)
    lowest = 2.5 * DARK_MEDIAN
    dark[hot] = lowest * (DARK_MAXIMUM / lowest) ** (rng.random(int(hot.sum())) ** HOT_STEEPNESS)
    return dark


def _draw_linearity(rng: Generator, instrument: Instrument) -> Floats:
    """Median coefficients with scatter between pixels in gain (c1) and curvature (c2..c5 together)."""
    shape = (instrument.rows, instrument.columns)
    median = np.array(LINEARITY[instrument.name])[:, None, None]
    coefficients = np.broadcast_to(median, (N_COEFFICIENTS, *shape)).copy()
    coefficients[0] *= np.abs(1.0 + 0.4 * rng.normal(size=shape))
    coefficients[1] *= 1.0 + GAIN_SCATTER * rng.normal(size=shape)
    coefficients[2:] *= 1.0 + CURVATURE_SCATTER * np.clip(rng.normal(size=shape), -4.0, 4.0)
    return coefficients


def _draw_read_noise(rng: Generator, shape: tuple[int, int]) -> Floats:
    """Normal about 13.3 electrons with a tail of noisy pixels up to about 200."""
    read = rng.normal(READ_MEDIAN, READ_SCATTER, size=shape)
    noisy = rng.random(shape) < NOISY_SHARE
    read[noisy] *= np.minimum(1.0 + rng.exponential(2.0, size=int(noisy.sum())), 15.0)
    return read


def _response(frames: CalibrationFrames, rng: Generator) -> Floats:
    """The flat; dead pixels with a plausible flat lose most of their light."""
    lost = np.where(frames.dead, rng.uniform(0.0, 0.3, size=frames.dead.shape), 1.0)
    return np.asarray(np.maximum(frames.flat, 0.0) * lost)


def _read_frame(path: Path, rows: int, columns: int) -> NDArray[np.float64]:
    import pyarrow as pa
    from pyarrow import parquet

    cure = "Repair the file or remove its folder from simulation.detector_from."
    try:
        table = parquet.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(path, "a readable parquet file", str(error).splitlines()[0], cure) from error
    if table.shape != (rows, columns):
        raise InputError(path, f"{rows} rows x {columns} columns", f"{table.shape[0]} x {table.shape[1]}", cure)
    frame = np.column_stack([column.to_numpy() for column in table.columns]).astype(np.float64)
    if not np.all(np.isfinite(frame)):
        raise InputError(path, "finite values", "NaN or infinity", cure)
    return frame
