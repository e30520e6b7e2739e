"""The order of the detector effects, from counts to a light curve, and nothing else.

    counts → electrons → linearity → dark → CDS → flat → bad pixels → cosmic rays → extraction → jitter → foreground
    → time bins

Frames go through in blocks that fit the processor's cache; only the CDS pairs are kept, as float32, whose rounding is a
thousandth of the read noise. The foreground is constant in time and the extraction linear, so it is subtracted from the
extracted series; it is told from the star's wings by time, which needs that series.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from spectramind.calibration import cosmic_rays, extraction, foreground, time_binning
from spectramind.calibration.analog_to_digital import to_electrons
from spectramind.calibration.bad_pixels import Repair, fill_in, fold_weights, hot_pixels, plan_repair
from spectramind.calibration.correlated_double_sampling import difference
from spectramind.calibration.dark_current import subtract_dark
from spectramind.calibration.flat_field import divide_flat
from spectramind.calibration.nonlinearity import linearise
from spectramind.calibration.options import CalibrationOptions
from spectramind.calibration.pointing import centroids, position_response
from spectramind.calibration.samples import Samples
from spectramind.calibration.statistics import robust_std, step_statistics
from spectramind.calibration.summary import summarise
from spectramind.errors import QuarantineError
from spectramind.instruments import INSTRUMENTS, Instrument
from spectramind.types import (
    CalibratedVisit,
    CalibrationFrames,
    Floats,
    LightCurve,
    Quality,
    RawExposure,
    StepStatistics,
)

_BLOCK_SAMPLES = 1 << 18
"""Detector samples calibrated at once: 2 MiB of float64."""
_TYPICAL_PAIRS = 128
"""Evenly spaced pairs from which typical images, variances and the steps' statistics are taken."""
_FULL_SCALE = np.iinfo(np.uint16).max
_SATURATED_FRAME = 0.05
"""Share of saturated pixels above which a pair counts for nothing."""
_SATURATED_PIXEL = 0.01
"""Share of saturated samples above which a pixel counts as bad."""
_BORROWED_FLAG = 0.01
"""Share of a bin's light in repaired pixels above which the bin is flagged."""
_BORROWED_MOST = 0.5
"""The same share above which a bin is not a measurement but an interpolation, and its sigma is doubled."""
_REPLACED_VARIANCE = 4.0
_ROUNDING = 1e-6
"""Relative error of a border's mean level where noise does not set it: that of float32."""
_FAINTEST = 10.0
"""Standard deviations by which the image stands out of noise, or there is no star in it."""


class Detector(NamedTuple):
    """One exposure restricted to the columns that carry bins, in ascending wavelength, with its reference frames.

    `bad` (R, C) pixels to repair; `saturated` (pairs, R, C), or None where no sample reached full scale.
    """

    instrument: Instrument
    counts: NDArray[np.uint16]
    frames: CalibrationFrames
    bad: NDArray[np.bool_]
    repair: Repair
    saturated: NDArray[np.bool_] | None


class Series(NamedTuple):
    """Extracted series of CDS pairs, before the foreground is subtracted: `flux`, `edge`, `replaced` (pairs, B),
    `position` (pairs, 2) x and y of an imager's star or (pairs, 1) y of a spectrometer's trace."""

    flux: Floats
    edge: Floats
    position: Floats
    replaced: NDArray[np.bool_]
    replaced_fraction: float


def calibrate_visit(
    read: Callable[[Instrument], RawExposure],
    planet_id: str,
    visit: int,
    options: CalibrationOptions,
    instruments: Sequence[Instrument] = INSTRUMENTS,
) -> CalibratedVisit:
    """Read and calibrate one instrument after the other, holding the frames of one at a time.

    QuarantineError, from `read` or from here, if the frames are unusable.
    """
    curves, steps, summary = {}, {}, {}
    for instrument in instruments:
        name = instrument.name
        curves[name], steps[name], summary[name] = calibrate_exposure(read(instrument), options)
    return CalibratedVisit(planet_id, visit, curves, steps, summary)


def calibrate_exposure(
    raw: RawExposure, options: CalibrationOptions
) -> tuple[LightCurve, tuple[StepStatistics, ...], dict[str, float]]:
    """The light curve of one instrument, the statistics of each step, and a row of summary numbers.

    QuarantineError if no star stands out of the noise.
    """
    dispersed = raw.instrument.dispersed
    detector = _prepare(raw, options)
    typical_counts = detector.counts[_evenly_spaced_reads(len(detector.counts))]
    typical, steps = _frame_steps(typical_counts, detector, raw, options)
    image = np.median(typical.signal, axis=0)
    edge_weights = foreground.border(image, detector.bad, options.edge_pixels, dispersed)
    edge_level = extraction.weighted_sum(image[None], edge_weights, dispersed)[0]
    light = image - edge_level
    variance = typical.noise + typical.shot
    if not light.sum() > _FAINTEST * np.sqrt(variance.sum() / len(typical.signal)):
        raise QuarantineError(
            f"{raw.instrument.name} of planet {raw.planet_id}, visit {raw.visit}",
            "a star's light in usable pixels",
            "none",
            "Restore the exposure's files.",
        )
    profile = extraction.spatial_profile(light, dispersed, options.profile_columns)
    weights = _weights(profile, variance, detector, options)
    pairs = _difference_pairs(detector, raw, options)
    series, rejection = _extract(pairs, detector, typical, weights, edge_weights, options)
    del pairs
    return _light_curve(raw, options, detector, weights, profile, typical, series, (*steps, rejection))


def _prepare(raw: RawExposure, options: CalibrationOptions) -> Detector:
    instrument, frames = raw.instrument, raw.frames
    columns = slice(instrument.last, instrument.first - 1 if instrument.first else None, -1)
    if not instrument.dispersed:
        columns = slice(instrument.first, instrument.last + 1)
    counts = raw.counts[:, :, columns]
    frames = CalibrationFrames(
        dark=np.ascontiguousarray(frames.dark[:, columns]),
        dead=np.ascontiguousarray(frames.dead[:, columns]),
        flat=np.ascontiguousarray(frames.flat[:, columns]),
        linear_corr=np.ascontiguousarray(frames.linear_corr[:, :, columns]),
        read=np.ascontiguousarray(frames.read[:, columns]),
    )
    bad = frames.dead | hot_pixels(frames.dark, frames.dead, options.hot_sigma)
    saturated = None
    if raw.counts.max() == _FULL_SCALE:
        saturated = counts == _FULL_SCALE
        saturated = saturated[0::2] | saturated[1::2]
        usable = _usable_pairs(saturated)
        if usable.any():
            bad |= saturated[usable].mean(axis=0) > _SATURATED_PIXEL
    return Detector(instrument, counts, frames, bad, plan_repair(bad, instrument.dispersed), saturated)


def _usable_pairs(saturated: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return np.asarray(saturated.mean(axis=(1, 2)) <= _SATURATED_FRAME)


def _evenly_spaced_reads(reads: int) -> NDArray[np.intp]:
    """Indices of both reads of up to `_TYPICAL_PAIRS` pairs."""
    pairs = np.unique(np.linspace(0, reads // 2 - 1, _TYPICAL_PAIRS).astype(np.intp))
    return (2 * pairs[:, None] + np.arange(2)).ravel()


def _steps(
    detector: Detector, raw: RawExposure, options: CalibrationOptions
) -> list[tuple[str, Callable[[Samples], Samples]]]:
    """The frame steps in order."""
    frames = detector.frames
    integration = raw.axis.integration_s[:2]

    def dark(samples: Samples) -> Samples:
        return subtract_dark(samples, frames.dark, np.resize(integration, len(samples.signal)))

    linearity_and_dark = [
        ("nonlinearity", lambda samples: linearise(samples, frames.linear_corr)),
        ("dark_current", dark),
    ]
    if options.order == "dark_linearity":
        linearity_and_dark.reverse()
    long_first = bool(integration[0] > integration[1])
    return [
        *linearity_and_dark,
        ("correlated_double_sampling", lambda samples: difference(samples, long_first)),
        ("flat_field", lambda samples: divide_flat(samples, frames.flat)),
        ("bad_pixels", lambda samples: fill_in(samples, detector.repair)),
    ]


def _frame_steps(
    counts: NDArray[np.uint16], detector: Detector, raw: RawExposure, options: CalibrationOptions
) -> tuple[Samples, tuple[StepStatistics, ...]]:
    """Every frame step on a few reads, with statistics."""
    samples = to_electrons(counts, raw.adc, detector.frames.read, detector.bad)
    statistics = [step_statistics("analog_to_digital", counts, samples.signal)]
    for name, step in _steps(detector, raw, options):
        before = samples.signal
        samples = step(samples)
        statistics.append(step_statistics(name, before, samples.signal))
    return samples, tuple(statistics)


def _difference_pairs(detector: Detector, raw: RawExposure, options: CalibrationOptions) -> NDArray[np.float32]:
    """Every frame step on all reads, block by block: CDS pairs (pairs, R, C)."""
    reads, rows, columns = detector.counts.shape
    steps = _steps(detector, raw, options)
    pairs = np.empty((reads // 2, rows, columns), np.float32)
    block = max(2, _BLOCK_SAMPLES // (rows * columns) // 2 * 2)
    for start in range(0, reads, block):
        counts = detector.counts[start : start + block]
        samples = to_electrons(counts, raw.adc, detector.frames.read, detector.bad)
        for _, step in steps:
            samples = step(samples)
        pairs[start // 2 : (start + len(counts)) // 2] = samples.signal
    return pairs


def _weights(profile: Floats, variance: Floats, detector: Detector, options: CalibrationOptions) -> Floats:
    if options.weighting == "sum":
        return extraction.plain_weights(profile)
    doubted = np.where(detector.bad, _REPLACED_VARIANCE * variance, variance)
    hopeless = detector.repair.bad[detector.repair.weights.sum(axis=1) == 0]
    doubted.ravel()[hopeless] = np.inf
    return extraction.optimal_weights(profile, doubted, detector.instrument.dispersed)


def _extract(
    pairs: NDArray[np.float32],
    detector: Detector,
    typical: Samples,
    weights: Floats,
    edge_weights: Floats,
    options: CalibrationOptions,
) -> tuple[Series, StepStatistics]:
    """Cosmic-ray rejection and extraction, block by block."""
    dispersed = detector.instrument.dispersed
    sampled = np.unique(np.linspace(0, len(pairs) - 2, 2 * _TYPICAL_PAIRS).astype(np.intp))
    measured = robust_std(pairs[sampled + 1] - pairs[sampled], axis=0) / np.sqrt(2.0)
    threshold = options.cosmic_ray_sigma * np.maximum(measured, np.sqrt(typical.noise + typical.shot))
    threshold = threshold.astype(np.float32)
    flux, edge, replaced, positions = [], [], [], []
    changed = 0
    aperture = weights > 0.5 * weights.max()
    block = max(8, _BLOCK_SAMPLES // pairs[0].size)
    touched = (weights > 0) & ~detector.bad
    for start in range(0, len(pairs), block):
        stop = min(start + block, len(pairs))
        first, last = max(start - cosmic_rays.HALF_WINDOW, 0), min(stop + cosmic_rays.HALF_WINDOW, len(pairs))
        invalid = None if detector.saturated is None else detector.saturated[first:last]
        clean, outlier = cosmic_rays.reject(pairs[first:last], threshold, invalid)
        clean, outlier = clean[start - first : stop - first], outlier[start - first : stop - first]
        changed += int(np.count_nonzero(outlier))
        if start == 0:
            before, after = pairs[start:stop], clean
        flux.append(extraction.weighted_sum(clean, weights, dispersed))
        edge.append(extraction.weighted_sum(clean, edge_weights, dispersed))
        seen = np.any(outlier & touched, axis=1) if dispersed else np.any(outlier & touched, axis=(1, 2))[:, None]
        replaced.append(np.asarray(seen))
        positions.append(np.stack(centroids(clean, aperture), axis=1)[:, 1 if dispersed else 0 :])
    fraction = changed / pairs.size
    series = Series(
        np.concatenate(flux), np.concatenate(edge), np.concatenate(positions), np.concatenate(replaced), fraction
    )
    return series, step_statistics("cosmic_rays", before, after, changed_fraction=fraction)


def _light_curve(
    raw: RawExposure,
    options: CalibrationOptions,
    detector: Detector,
    weights: Floats,
    profile: Floats,
    typical: Samples,
    series: Series,
    steps: tuple[StepStatistics, ...],
) -> tuple[LightCurve, tuple[StepStatistics, ...], dict[str, float]]:
    """Outliers of the series, time bins, foreground, variance and flags."""
    dispersed = raw.instrument.dispersed
    time_h = (raw.axis.time_h + raw.axis.integration_s / 7200.0).reshape(-1, 2).mean(axis=1)
    target = options.airs_bin_seconds if dispersed else options.fgs1_bin_seconds
    bins = time_binning.plan_bins(time_h, target)
    usable = np.ones(len(time_h), bool) if detector.saturated is None else _usable_pairs(detector.saturated)
    flux, outlier = cosmic_rays.reject(series.flux, options.series_sigma * cosmic_rays.scatter(series.flux))
    edge, _ = cosmic_rays.reject(series.edge, options.series_sigma * cosmic_rays.scatter(series.edge))
    if options.correct_jitter:
        steady = flux / (1.0 + position_response(flux, series.position))
        steps = (*steps, step_statistics("jitter", flux, steady))
        flux = steady
    binned, n_pairs = time_binning.bin_mean(flux, usable, bins)
    edge, _ = time_binning.bin_mean(edge, usable, bins)
    replaced = time_binning.bin_sum((outlier & usable[:, None]).astype(float), bins)

    filled = n_pairs > 0
    area = extraction.weighted_sum(weights[None], np.ones_like(weights), dispersed)[0]
    per_pixel = _foreground_per_pixel(binned[filled], edge[filled], raw.wavelength_um, options)
    subtracted = per_pixel * area
    before, binned = binned, binned - subtracted
    steps = (*steps, step_statistics("foreground", before[filled], binned[filled]))

    brightness = binned / np.nanmedian(binned, axis=0)
    pair_variance, borrowed = _pair_variance(brightness, weights, profile, typical, detector)
    count = np.maximum(n_pairs, 1)[:, None]
    variance = pair_variance / count * (1.0 + (_REPLACED_VARIANCE - 1.0) * replaced / count)
    touched = time_binning.bin_sum((series.replaced | outlier).astype(np.int64), bins) > 0
    saturated = time_binning.bin_sum((~usable).astype(np.int64), bins) > 0
    lost = ~filled[:, None] | ~(area > 0)
    quality = (
        Quality.REPAIRED_PIXEL * (borrowed > _BORROWED_FLAG)
        | Quality.OUTLIER_REMOVED * touched
        | Quality.SATURATED * saturated[:, None]
        | Quality.FEW_SAMPLES * (n_pairs < bins.full)[:, None]
        | Quality.UNUSABLE * lost
    ).astype(np.uint8)
    binned[lost], variance[lost] = np.nan, np.inf
    mid_time = time_binning.bin_sum(time_h, bins) / bins.size
    curve = LightCurve(
        raw.instrument,
        binned,
        variance,
        quality,
        mid_time,
        raw.wavelength_um,
        n_pairs,
        subtracted,
        {} if dispersed else _pointing_channels(series, usable, bins),
    )
    steps = (*steps, step_statistics("time_binning", flux[usable] - subtracted, binned[filled]))
    saturated_share = 0.0 if detector.saturated is None else float(detector.saturated.mean())
    shares = (float(detector.bad.mean()), saturated_share, float(1.0 - usable.mean()), series.replaced_fraction)
    return curve, steps, summarise(curve, *shares)


def _foreground_per_pixel(flux: Floats, edge: Floats, wavelength_um: Floats, options: CalibrationOptions) -> Floats:
    middle = 0.5 * (wavelength_um[0] + wavelength_um[-1])
    x = (wavelength_um - middle) / max(float(np.ptp(wavelength_um)) / 2.0, np.finfo(float).tiny)
    edge_variance = cosmic_rays.scatter(edge) ** 2 + (_ROUNDING * (1.0 + np.abs(edge).max())) ** 2
    wings = foreground.starlight_share(edge, flux, x, edge_variance, options.wing_share, options.wing_share_sigma)
    return np.asarray(np.maximum(edge.mean(axis=0), 0.0) - wings)


def _pair_variance(
    brightness: Floats, weights: Floats, profile: Floats, typical: Samples, detector: Detector
) -> tuple[Floats, Floats]:
    """Variance (T, B) of one pair's flux, and the share (B,) of the light that repaired pixels stand for."""
    dispersed = detector.instrument.dispersed
    squares = fold_weights(weights, detector.repair) ** 2
    shot = extraction.weighted_sum(typical.shot[None], squares, dispersed)[0]
    noise = extraction.weighted_sum(typical.noise[None], squares, dispersed)[0]
    borrowed = extraction.weighted_sum((profile * detector.bad)[None], weights, dispersed)[0]
    variance = shot * np.maximum(brightness, 0.0) + noise
    interpolated = borrowed > _BORROWED_MOST
    if interpolated.any() and not interpolated.all():
        places, good = np.arange(interpolated.size), ~interpolated
        for row in variance:
            row[interpolated] = 4.0 * np.interp(places[interpolated], places[good], row[good])
    return variance, borrowed


def _pointing_channels(series: Series, usable: NDArray[np.bool_], bins: time_binning.Bins) -> dict[str, Floats]:
    channels = {}
    for axis, position in zip("xy", series.position.T, strict=True):
        centre, _ = time_binning.bin_mean(position, usable, bins)
        square, _ = time_binning.bin_mean((position - np.median(position)) ** 2, usable, bins)
        channels[f"centroid_{axis}"] = centre
        channels[f"jitter_{axis}"] = np.sqrt(np.maximum(square - (centre - np.median(position)) ** 2, 0.0))
    return channels
