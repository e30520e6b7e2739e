"""Reading one instrument's frames of one visit, with the checks that decide whether they can be calibrated at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.polynomial.polynomial import polyval
from numpy.typing import NDArray

from spectramind.data.layout import Dataset, Split
from spectramind.data.parquet import read_array, read_series
from spectramind.errors import QuarantineError
from spectramind.instruments import Instrument
from spectramind.types import FULL_SCALE, CalibrationFrames, Counts, Floats, RawExposure

LINEARITY_TERMS = 6
MOST_INVALID = 1e-3
"""Share of pixels or samples that may be not finite; more, and the file is refused."""
MOST_DEAD = 0.5
"""Share of pixels marked dead; more, and the exposure is refused."""
PLAUSIBLE = {"dark": (-1e6, 1e6), "flat": (0.0, 10.0), "read": (0.0, 1e6), "linear_corr": (0.1, 10.0)}
"""Between which values a pixel's dark current (electrons per second), response, read noise (electrons) and factor
of the linearity correction lie; real detectors keep far from all of them."""
_WELL_EXPOSED = 5e4
"""Electrons at which the linearity correction is looked at."""
_CURE = "Restore the file from its source."


def read_exposure(dataset: Dataset, split: Split, planet_id: str, visit: int, instrument: Instrument) -> RawExposure:
    """The frames (frames, R, C) and reference frames of one visit. QuarantineError names the file that is unusable.

    A sample that is not a number, or belongs to a frame without any structure, is returned at full scale, which
    calibration takes for no measurement.
    """
    files = dataset.visit_files(split, planet_id, visit)
    axis = dataset.axes[instrument.name]
    wavelengths = dataset.wavelengths_um[instrument.spectral_slice]
    references = read_references(dataset, split, planet_id, visit, instrument)
    path = files[f"{instrument.name}_signal"]
    series = read_series(path, axis.time_h.size, instrument.n_pixels, instrument.bin_pixels)
    counts = _checked_counts(path, series, instrument)
    adc = dataset.adc(split, planet_id, instrument)
    return RawExposure(str(path), planet_id, visit, instrument, counts, axis, adc, references, wavelengths)


def read_references(
    dataset: Dataset, split: Split, planet_id: str, visit: int, instrument: Instrument
) -> CalibrationFrames:
    """The reference frames of one visit, of the columns that carry bins. QuarantineError names an unusable file."""
    return _within_bins(_references(dataset.visit_files(split, planet_id, visit), instrument), instrument)


def _references(files: dict[str, Path], instrument: Instrument) -> CalibrationFrames:
    rows, columns = instrument.rows, instrument.columns

    def frame(kind: str, height: int = rows) -> tuple[Path, NDArray[Any]]:
        path = files[f"{instrument.name}_{kind}"]
        return path, read_array(path, height, columns)

    path, values = frame("dead")
    dead = _as_flags(path, values)
    checked: dict[str, Floats] = {}
    for kind in ("dark", "flat", "read", "linear_corr"):
        path, values = frame(kind, rows * LINEARITY_TERMS if kind == "linear_corr" else rows)
        planes = values.astype(np.float64).reshape(-1, rows, columns)
        invalid = _invalid(kind, planes)
        usable = ~dead
        share = float((invalid & usable).sum() / max(int(usable.sum()), 1))
        if share > MOST_INVALID:
            raise QuarantineError(path, f"usable values in all but {MOST_INVALID:.1%} of pixels", f"{share:.2%}", _CURE)
        dead |= invalid
        checked[kind] = planes
    if (share := dead.mean()) > MOST_DEAD:
        path = files[f"{instrument.name}_dead"]
        raise QuarantineError(path, f"at most {MOST_DEAD:.0%} dead pixels", f"{share:.0%}", _CURE)
    neutral = {"dark": 0.0, "flat": 1.0, "read": float(np.median(checked["read"][0][~dead])), "linear_corr": 0.0}
    for kind, planes in checked.items():
        planes[:, dead] = np.where(np.isfinite(planes[:, dead]), planes[:, dead], neutral[kind])
    return CalibrationFrames(checked["dark"][0], dead, checked["flat"][0], checked["linear_corr"], checked["read"][0])


def _within_bins(frames: CalibrationFrames, instrument: Instrument) -> CalibrationFrames:
    columns = instrument.bin_columns
    return CalibrationFrames(
        frames.dark[:, columns],
        frames.dead[:, columns],
        frames.flat[:, columns],
        frames.linear_corr[:, :, columns],
        frames.read[:, columns],
    )


def _as_flags(path: Path, values: NDArray[Any]) -> NDArray[np.bool_]:
    if values.dtype != np.bool_ and not np.isin(values, (0, 1)).all():
        raise QuarantineError(path, "true or false for each pixel", f"other values of type {values.dtype}", _CURE)
    return values.astype(np.bool_)


def _invalid(kind: str, planes: Floats) -> NDArray[np.bool_]:
    """Pixels whose reference values no detector can have: not finite, no response, no noise, no linear term."""
    lowest, highest = PLAUSIBLE[kind]
    values = planes
    if kind == "linear_corr":
        with np.errstate(over="ignore", invalid="ignore"):
            values = np.stack([planes[1], polyval(_WELL_EXPOSED, planes) / _WELL_EXPOSED])
    return np.asarray(~((values > lowest) & (values < highest)).all(axis=0))


def _checked_counts(path: Path, series: list[NDArray[Any]], instrument: Instrument) -> Counts:
    if any(pixel.dtype != np.uint16 for pixel in series):
        series = list(_as_counts(path, np.stack(series)))
    counts = Counts(series, len(series) // instrument.rows)
    constant = _constant_frames(series)
    lowest = series[0][constant]
    if constant.size / len(counts) > MOST_INVALID and not (lowest == FULL_SCALE).all():
        raise QuarantineError(
            path, "frames that hold an image", f"{constant.size / len(counts):.1%} of them constant", _CURE
        )
    if (lowest < FULL_SCALE).any():
        frames = counts.frames()
        frames[constant] = FULL_SCALE
        counts = Counts.from_frames(frames)
    return counts


def _constant_frames(series: list[NDArray[np.uint16]]) -> NDArray[np.intp]:
    """Indices of the frames without any structure. A few pixels tell all others apart from those."""
    suspects = np.arange(len(series[0]))
    for pixel in (*series[:: max(1, len(series) // 16)], *series):
        suspects = suspects[pixel[suspects] == series[0][suspects]]
        if not suspects.size:
            break
    return suspects


def _as_counts(path: Path, samples: NDArray[Any]) -> NDArray[np.uint16]:
    """Counts from a wider type: whole numbers within the converter's range, else QuarantineError."""
    measured = np.isfinite(samples)
    share = 1.0 - float(measured.mean())
    if share > MOST_INVALID:
        raise QuarantineError(
            path, f"numbers in all but {MOST_INVALID:.1%} of samples", f"{share:.2%} not finite", _CURE
        )
    numbers = np.where(measured, samples, np.uint16(FULL_SCALE))
    inside = (numbers >= 0) & (numbers <= FULL_SCALE)
    if not (inside.all() and (numbers == np.floor(numbers)).all()):
        raise QuarantineError(path, f"whole counts from 0 to {FULL_SCALE}", f"other {samples.dtype} values", _CURE)
    return numbers.astype(np.uint16)
