"""One exposure as the calibration takes it: the columns that carry bins, the reference frames, the pixels to repair."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from spectramind.calibration.bad_pixels import Repair, hot_pixels, plan_repair
from spectramind.calibration.options import CalibrationOptions
from spectramind.errors import QuarantineError
from spectramind.instruments import Instrument
from spectramind.types import Adc, CalibrationFrames, Counts, Floats, RawExposure

FULL_SCALE = np.iinfo(np.uint16).max
_SATURATED_FRAME = 0.05
"""Share of saturated pixels above which a pair counts for nothing."""
_SATURATED_PIXEL = 0.01
"""Share of saturated samples above which a pixel counts as bad."""
_FEWEST_PAIRS = 5
"""The running median needs as many."""


class Detector(NamedTuple):
    """One exposure in ascending wavelength; a correction that is switched off has neutral reference frames.

    `counts` (reads, R, C); `integration_s` (2,) seconds of the first and second read of a pair; `time_h` (pairs,)
    middle of each pair; `bad` (R, C) pixels to repair; `saturated` (pairs, R, C) whether a read reached full scale, or
    None where none did; `usable` (pairs,) pairs that count.
    """

    instrument: Instrument
    counts: Counts
    adc: Adc
    integration_s: Floats
    time_h: Floats
    frames: CalibrationFrames
    bad: NDArray[np.bool_]
    repair: Repair
    saturated: NDArray[np.bool_] | None
    usable: NDArray[np.bool_]

    @property
    def saturated_share(self) -> float:
        """Share of the samples in which a read reached full scale."""
        return 0.0 if self.saturated is None else float(self.saturated.mean())


def prepare(raw: RawExposure, options: CalibrationOptions) -> Detector:
    """The exposure without its first `reset_pairs` pairs. QuarantineError if hardly any pair is left."""
    instrument = raw.instrument
    columns = slice(None, None, -1) if instrument.dispersed else slice(None)
    cut = 2 * options.reset_pairs
    if len(raw.counts) - cut < 2 * _FEWEST_PAIRS:
        raise QuarantineError(
            f"{instrument.name} of planet {raw.planet_id}, visit {raw.visit}",
            f"at least {_FEWEST_PAIRS} CDS pairs",
            f"{len(raw.counts) // 2} less the {options.reset_pairs} of calibration.reset_pairs",
            "Lower calibration.reset_pairs.",
        )
    counts = raw.counts.after(cut, mirrored=instrument.dispersed)
    frames = _reference_frames(raw.frames, columns, options)
    bad = frames.dead.copy()
    if options.hot_pixels == "repair":
        bad |= hot_pixels(raw.frames.dark[:, columns], frames.dead, options.hot_sigma)
    saturated, usable = _saturation(counts, bool(raw.counts.highest.max() == FULL_SCALE))
    if saturated is not None and usable.any():
        bad |= saturated[usable].mean(axis=0) > _SATURATED_PIXEL
    time_h = (raw.axis.time_h + raw.axis.integration_s / 7200.0)[cut:].reshape(-1, 2).mean(axis=1)
    return Detector(
        instrument,
        counts,
        raw.adc,
        raw.axis.integration_s[:2],
        time_h,
        frames,
        bad,
        plan_repair(bad, instrument.dispersed),
        saturated,
        usable,
    )


def _reference_frames(frames: CalibrationFrames, columns: slice, options: CalibrationOptions) -> CalibrationFrames:
    linear = np.ascontiguousarray(frames.linear_corr[:, :, columns])
    if not options.correct_linearity:
        linear = np.zeros_like(linear)
        linear[1] = 1.0
    dark, flat = np.ascontiguousarray(frames.dark[:, columns]), np.ascontiguousarray(frames.flat[:, columns])
    return CalibrationFrames(
        dark=dark if options.subtract_dark else np.zeros_like(dark),
        dead=np.ascontiguousarray(frames.dead[:, columns]),
        flat=flat if options.divide_flat else np.ones_like(flat),
        linear_corr=linear,
        read=np.ascontiguousarray(frames.read[:, columns]),
    )


def _saturation(counts: Counts, any_saturated: bool) -> tuple[NDArray[np.bool_] | None, NDArray[np.bool_]]:
    """Which samples of each pair (pairs, R, C) are saturated, if any, and which pairs (pairs,) can be used."""
    if not any_saturated:
        return None, np.ones(len(counts) // 2, bool)
    first, second = (counts.frames(slice(read, None, 2)) == FULL_SCALE for read in (0, 1))
    saturated = first | second
    return saturated, np.asarray(saturated.mean(axis=(1, 2)) <= _SATURATED_FRAME)
