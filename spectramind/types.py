"""The values that stages hand to each other. Arrays are never modified in place.

Axes: T time bins (or frames), R detector rows, C detector columns, B spectral bins of one instrument.
Units: time in hours, integration in seconds, wavelength in micrometres, signal in electrons per CDS pair.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntFlag

import numpy as np
from numpy.typing import NDArray

from spectramind.instruments import Instrument

Floats = NDArray[np.float64]


class Quality(IntFlag):
    """Bits of the quality array of a light curve."""

    GOOD = 0
    REPAIRED_PIXEL = 1
    """a dead or hot pixel under the extraction aperture was filled in from its neighbours"""
    OUTLIER_REMOVED = 2
    """a cosmic ray or another outlier in time was replaced inside this bin"""
    SATURATED = 4
    """a sample reached the upper end of the analog-to-digital converter"""
    FEW_SAMPLES = 8
    """fewer CDS pairs than a full time bin"""
    UNUSABLE = 128
    """no valid sample: flux is NaN and variance infinite"""


@dataclass(frozen=True)
class Star:
    """One row of the star table: radius and mass in solar units, temperature in kelvin, planet mass in Jupiter masses
    as delivered, period in days, semi-major axis in stellar radii, inclination in degrees."""

    planet_id: str
    Rs: float
    Ms: float
    Ts: float
    Mp: float
    e: float
    P: float
    sma: float
    i: float


@dataclass(frozen=True)
class Adc:
    """electrons = counts / gain + offset."""

    gain: float
    offset: float


@dataclass(frozen=True)
class TimeAxis:
    """`time_h` (frames,) start of each read in hours; `integration_s` (frames,) its integration time in seconds."""

    time_h: Floats
    integration_s: Floats


@dataclass(frozen=True)
class CalibrationFrames:
    """Reference frames of one detector: `dark` (R, C) electrons per second, `dead` (R, C) bool, `flat` (R, C),
    `linear_corr` (6, R, C) ascending powers, `read` (R, C) electrons per read."""

    dark: Floats
    dead: NDArray[np.bool_]
    flat: Floats
    linear_corr: Floats
    read: Floats


FULL_SCALE = int(np.iinfo(np.uint16).max)
"""Count at which the analog-to-digital converter is saturated."""


class Counts:
    """Counts (frames, R, C) of an exposure, kept as the files hold them: one series per pixel, none of them copied.

    `pixels` are the series (frames,) row by row, of `columns` pixels each.
    """

    def __init__(self, pixels: Sequence[NDArray[np.uint16]], columns: int) -> None:
        self._pixels = pixels
        self.shape = len(pixels[0]), len(pixels) // columns, columns

    @classmethod
    def from_frames(cls, frames: NDArray[np.uint16]) -> Counts:
        """Of an array (frames, R, C)."""
        series = np.ascontiguousarray(frames.reshape(len(frames), -1).T)
        series.flags.writeable = False
        return cls(list(series), frames.shape[2])

    def __len__(self) -> int:
        return self.shape[0]

    def frames(self, chosen: NDArray[np.intp] | None = None) -> NDArray[np.uint16]:
        """The array (n, R, C) of the frames with these indices, or of all."""
        chosen = np.arange(len(self)) if chosen is None else chosen
        series = np.empty((len(self._pixels), len(chosen)), np.uint16)
        for row, pixel in zip(series, self._pixels, strict=True):
            pixel.take(chosen, out=row, mode="clip")  # the other modes go through a buffer
        return np.ascontiguousarray(series.T).reshape(-1, *self.shape[1:])

    def column(self, column: int) -> tuple[NDArray[np.uint16], ...]:
        """The series (frames,) of each row of a column."""
        return tuple(self._pixels[column :: self.shape[2]])

    def after(self, frames: int, *, mirrored: bool) -> Counts:
        """Without the first `frames`, and with the columns in reverse order if `mirrored`."""
        _, rows, columns = self.shape
        places = np.arange(rows * columns).reshape(rows, columns)[:, :: -1 if mirrored else 1].ravel()
        return Counts([self._pixels[place][frames:] for place in places.tolist()], columns)


@dataclass(frozen=True)
class RawExposure:
    """One instrument's frames of one visit, of the columns that carry bins, with all that is needed to calibrate.

    `source` names the file for messages; `counts` (frames, R, C) as read; `wavelength_um` (B,) is ascending, while the
    columns of a spectrometer descend.
    """

    source: str
    planet_id: str
    visit: int
    instrument: Instrument
    counts: Counts
    axis: TimeAxis
    adc: Adc
    frames: CalibrationFrames
    wavelength_um: Floats


@dataclass(frozen=True)
class LightCurve:
    """One instrument of one visit after calibration.

    `flux`, `variance` (T, B) mean electrons per CDS pair in each time bin and the variance of that mean, `quality` (T,
    B) bits of `Quality`, `time_h` (T,) mid-bin, `wavelength_um` (B,) ascending, `n_pairs` (T,) CDS pairs averaged,
    `foreground` (B,) electrons per pair that were subtracted, `channels` named (T,) series: `centroid_y` and `jitter_y`
    in pixels, of an imager `centroid_x` and `jitter_x`, too.
    """

    instrument: Instrument
    flux: Floats
    variance: Floats
    quality: NDArray[np.uint8]
    time_h: Floats
    wavelength_um: Floats
    n_pairs: NDArray[np.int64]
    foreground: Floats
    channels: Mapping[str, Floats] = field(default_factory=dict)


@dataclass(frozen=True)
class StepStatistics:
    """What one step of the kill-chain did: statistics of the samples that went in and came out (electrons), the share
    of them that it changed, and the scatter of the white light curve before and after it (ppm)."""

    step: str
    mean_in: float
    mean_out: float
    std_in: float
    std_out: float
    changed_fraction: float
    scatter_ppm_in: float
    scatter_ppm_out: float


@dataclass(frozen=True)
class CalibratedVisit:
    """Both instruments of one visit, with the steps' statistics and one row of summary numbers per instrument."""

    planet_id: str
    visit: int
    curves: Mapping[str, LightCurve]
    steps: Mapping[str, tuple[StepStatistics, ...]]
    summary: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Spectra:
    """Predicted transit depths (Rp/Rs)^2: `mean`, `sigma` (planets, 283), `covariance` (planets, 283, 283) or None,
    `flags` one tuple of words per planet, empty where nothing is unusual."""

    planet_ids: tuple[str, ...]
    mean: Floats
    sigma: Floats
    covariance: Floats | None = None
    flags: tuple[tuple[str, ...], ...] = ()

    def of(self, planet_ids: Sequence[str]) -> Spectra:
        """Those of these planets, in this order. Raises KeyError for one that is not here."""
        place = {planet_id: number for number, planet_id in enumerate(self.planet_ids)}
        rows = [place[planet_id] for planet_id in planet_ids]
        return Spectra(
            tuple(planet_ids),
            self.mean[rows],
            self.sigma[rows],
            None if self.covariance is None else self.covariance[rows],
            tuple(self.flags[row] for row in rows) if self.flags else (),
        )
