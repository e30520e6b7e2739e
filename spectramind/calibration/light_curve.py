"""From extracted series of CDS pairs to the light curve: outliers, jitter, foreground, time bins, variance, flags."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from spectramind.calibration import cosmic_rays, extraction, foreground, time_binning
from spectramind.calibration.aperture import Aperture
from spectramind.calibration.bad_pixels import fold_weights
from spectramind.calibration.detector import Detector, usable_pairs
from spectramind.calibration.options import CalibrationOptions
from spectramind.calibration.pointing import position_response
from spectramind.calibration.samples import Series
from spectramind.calibration.statistics import scatter_ppm, step_statistics
from spectramind.types import Floats, LightCurve, Quality, StepStatistics

_BORROWED_FLAG = 0.01
"""Share of a bin's light in repaired pixels above which the bin is flagged."""
_BORROWED_MOST = 0.5
"""The same share above which a bin is not a measurement but an interpolation, and its sigma is doubled."""
_REPLACED_VARIANCE = 4.0
"""By how much a replaced sample is trusted less than a measured one."""
_ROUNDING = 1e-6
"""Relative error of a border's mean level where noise does not set it."""


def to_light_curve(
    series: Series, detector: Detector, aperture: Aperture, wavelength_um: Floats, options: CalibrationOptions
) -> tuple[LightCurve, tuple[StepStatistics, ...]]:
    """The light curve of an exposure with bins at `wavelength_um` (B,), and the statistics of each step."""
    dispersed = detector.instrument.dispersed
    bins = time_binning.plan_bins(detector.time_h, options.airs_bin_seconds if dispersed else options.fgs1_bin_seconds)
    usable = usable_pairs(series.saturated)
    flux, edge, outlier = series.flux, series.edge, np.zeros(series.flux.shape, bool)
    white = flux.sum(axis=1)
    whites = {"": white + series.removed, "cosmic_rays": white}
    changed = {"cosmic_rays": series.replaced_share}
    if options.reject_outliers:
        flux, outlier = cosmic_rays.reject(flux, options.series_sigma * cosmic_rays.scatter(flux))
        edge, _ = cosmic_rays.reject(edge, options.series_sigma * cosmic_rays.scatter(edge))
        white = whites["outliers"] = flux.sum(axis=1)
        changed["outliers"] = float(outlier.mean())
    if options.jitter != "keep":
        flux = flux / (1.0 + position_response(flux, series.moments))
        white = whites["jitter"] = flux.sum(axis=1)
    binned, n_pairs = time_binning.bin_mean(flux, usable, bins)
    edge, _ = time_binning.bin_mean(edge, usable, bins)
    replaced = time_binning.bin_sum((outlier & usable[:, None]).astype(float), bins)

    filled = n_pairs > 0
    area = extraction.weighted_sum(aperture.flux[None], np.ones_like(aperture.flux), dispersed)[0]
    subtracted = np.zeros_like(area)
    if options.subtract_foreground:
        subtracted = area * _foreground_per_pixel(binned[filled], edge[filled], wavelength_um, options)
        binned = binned - subtracted
        whites["foreground"] = white - subtracted.sum()

    brightness = binned / np.nanmedian(binned, axis=0)
    pair_variance, borrowed = _pair_variance(brightness, aperture, detector)
    count = np.maximum(n_pairs, 1)[:, None]
    variance = pair_variance / count * (1.0 + (_REPLACED_VARIANCE - 1.0) * replaced / count)
    touched = time_binning.bin_sum((series.replaced | outlier).astype(np.int64), bins) > 0
    saturated = time_binning.bin_sum(series.saturated, bins) > 0
    lost = ~filled[:, None] | ~(area > 0)
    quality = (
        Quality.REPAIRED_PIXEL * (borrowed > _BORROWED_FLAG)
        | Quality.OUTLIER_REMOVED * touched
        | Quality.SATURATED * saturated[:, None]
        | Quality.FEW_SAMPLES * (n_pairs < bins.full)[:, None]
        | Quality.UNUSABLE * lost
    ).astype(np.uint8)
    whites = {name: white[usable] for name, white in whites.items()}
    whites["time_binning"] = binned[filled].sum(axis=1)
    binned[lost], variance[lost] = np.nan, np.inf
    curve = LightCurve(
        detector.instrument,
        binned,
        variance,
        quality,
        time_binning.bin_sum(detector.time_h, bins) / bins.size,
        wavelength_um,
        n_pairs,
        subtracted,
        _pointing_channels(series, "y" if dispersed else "xy", usable, bins),
    )
    steps = pairwise(whites.items())
    return curve, tuple(
        _statistics(name, before, after, changed.get(name, 1.0)) for (_, before), (name, after) in steps
    )


def _statistics(step: str, before: Floats, after: Floats, changed_fraction: float) -> StepStatistics:
    """Of white light curves: electrons per pair in all bins together."""
    noise = [scatter_ppm(white, np.ones(len(white) - 1, bool)) for white in (before, after)]
    return step_statistics(step, before, after, changed_fraction, *noise)


def _foreground_per_pixel(flux: Floats, edge: Floats, wavelength_um: Floats, options: CalibrationOptions) -> Floats:
    middle = 0.5 * (wavelength_um[0] + wavelength_um[-1])
    x = (wavelength_um - middle) / max(float(np.ptp(wavelength_um)) / 2.0, np.finfo(float).tiny)
    edge_variance = cosmic_rays.scatter(edge) ** 2 + (_ROUNDING * (1.0 + np.abs(edge).max())) ** 2
    wings = foreground.starlight_share(edge, flux, x, edge_variance, options.wing_share, options.wing_share_sigma)
    return np.asarray(np.maximum(edge.mean(axis=0), 0.0) - wings)


def _pair_variance(brightness: Floats, aperture: Aperture, detector: Detector) -> tuple[Floats, Floats]:
    """Variance (T, B) of one pair's flux, and the share (B,) of the light that repaired pixels stand for."""
    dispersed = detector.instrument.dispersed
    # A repaired pixel repeats its neighbours: on a spectrometer those of other bins, on an imager those of the same
    # bin, where weights add up before they are squared.
    squares = (aperture.flux if dispersed else fold_weights(aperture.flux, detector.repair)) ** 2
    shot = extraction.weighted_sum(aperture.shot[None], squares, dispersed)[0]
    noise = extraction.weighted_sum(aperture.noise[None], squares, dispersed)[0]
    borrowed = extraction.weighted_sum((aperture.profile * detector.bad)[None], aperture.flux, dispersed)[0]
    variance = shot * np.maximum(brightness, 0.0) + noise
    interpolated = borrowed > _BORROWED_MOST
    if interpolated.any() and not interpolated.all():
        places, good = np.arange(interpolated.size), ~interpolated
        for row in variance:
            row[interpolated] = 4.0 * np.interp(places[interpolated], places[good], row[good])
    return variance, borrowed


def _pointing_channels(
    series: Series, axes: str, usable: NDArray[np.bool_], bins: time_binning.Bins
) -> dict[str, Floats]:
    channels = {}
    for axis, position in zip(axes, series.moments.T, strict=False):
        centre, _ = time_binning.bin_mean(position, usable, bins)
        square, _ = time_binning.bin_mean((position - np.median(position)) ** 2, usable, bins)
        channels[f"centroid_{axis}"] = centre
        channels[f"jitter_{axis}"] = np.sqrt(np.maximum(square - (centre - np.median(position)) ** 2, 0.0))
    return channels
