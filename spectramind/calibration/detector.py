"""One exposure as the calibration takes it: the columns that carry bins, the reference frames, the pixels to repair."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from spectramind.calibration.bad_pixels import Repair, hot_pixels, plan_repair
from spectramind.calibration.options import CalibrationOptions
from spectramind.errors import QuarantineError
from spectramind.instruments import Instrument
from spectramind.types import FULL_SCALE, Adc, CalibrationFrames, Counts, Floats, RawExposure

_RUNS, _RUN_LENGTH = 16, 5
"""The sample: runs of consecutive pairs, evenly spaced over the visit."""
_MOST_SATURATED = 0.2
"""Share of saturated samples above which the exposure is refused."""
_SATURATED_FRAME = 0.05
"""Share of saturated pixels above which a pair counts for nothing."""
_SATURATED_PIXEL = 0.05
"""Share of saturated samples above which a pixel counts as bad."""


class Detector(NamedTuple):
    """One exposure in ascending wavelength; a correction that is switched off has neutral reference frames.

    `counts` (reads, R, C); `integration_s` (2,) seconds of the first and second read of a pair; `time_h` (pairs,)
    middle of each pair; `bad` (R, C) pixels to repair; `sample` (n,) ascending indices of pairs that stand for all of
    them, `sampled_counts` (2 n, R, C) their reads.
    """

    instrument: Instrument
    counts: Counts
    adc: Adc
    integration_s: Floats
    time_h: Floats
    frames: CalibrationFrames
    bad: NDArray[np.bool_]
    repair: Repair
    sample: NDArray[np.intp]
    sampled_counts: NDArray[np.uint16]


def prepare(raw: RawExposure, options: CalibrationOptions) -> Detector:
    """The exposure without its first `reset_pairs` pairs. QuarantineError if hardly any pair is left or most of the
    samples are saturated.

    Bad pixels are the dead, the hot and those that are often saturated.
    """
    instrument = raw.instrument
    columns = slice(None, None, -1) if instrument.dispersed else slice(None)
    cut = 2 * options.reset_pairs
    if len(raw.counts) - cut < 2 * _RUN_LENGTH:
        raise QuarantineError(
            raw.source,
            f"at least {_RUN_LENGTH} CDS pairs",
            f"{len(raw.counts) // 2} less the {options.reset_pairs} of calibration.reset_pairs",
            "Lower calibration.reset_pairs.",
        )
    counts = raw.counts.after(cut, mirrored=instrument.dispersed)
    frames = _reference_frames(raw.frames, columns, options)
    bad = frames.dead.copy()
    if options.hot_pixels == "repair":
        bad |= hot_pixels(raw.frames.dark[:, columns], frames.dead, options.hot_sigma)
    sample = _sample(len(counts) // 2)
    sampled_counts = counts.frames((2 * sample[:, None] + np.arange(2)).ravel())
    saturated = saturated_pairs(sampled_counts)
    if saturated.any():
        usable = usable_pairs(saturated.mean(axis=(1, 2)))
        if saturated.mean() > _MOST_SATURATED or not usable.any():
            raise QuarantineError(
                raw.source,
                f"at most {_MOST_SATURATED:.0%} of samples at full scale, and frames with few of them",
                f"{saturated.mean():.0%}",
                "Restore the file from its source.",
            )
        sample, sampled_counts = sample[usable], sampled_counts[np.repeat(usable, 2)]
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
        sample,
        sampled_counts,
    )


def saturated_pairs(counts: NDArray[np.uint16]) -> NDArray[np.bool_]:
    """Samples (n / 2, R, C) of which one of the two reads (n, R, C) is at full scale."""
    full = counts == FULL_SCALE
    return np.asarray(full[0::2] | full[1::2])


def usable_pairs(saturated_share: Floats) -> NDArray[np.bool_]:
    """Pairs (n,) that count, by the share (n,) of their pixels that are saturated."""
    return saturated_share <= _SATURATED_FRAME


def _sample(pairs: int) -> NDArray[np.intp]:
    starts = np.linspace(0, pairs - _RUN_LENGTH, _RUNS).astype(np.intp)
    return np.unique(starts[:, None] + np.arange(_RUN_LENGTH))


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
