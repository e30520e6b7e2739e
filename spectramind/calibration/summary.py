"""One row of numbers for each light curve: what the data contracts judge and the data-quality report shows.

Everything is measured on the white light curve, the sum over the instrument's bins, and needs no star: the transit is
found by a matched filter, a trapezoid on a smooth baseline.
"""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import numpy as np
from numpy.polynomial import legendre
from numpy.typing import NDArray

from spectramind.calibration import cosmic_rays
from spectramind.calibration.statistics import point_to_point
from spectramind.types import Floats, LightCurve, Quality


class Quantity(NamedTuple):
    """A number of the row: `title` and `meaning` for people, `unit` (UDUNITS; 1 for shares and ratios), and `least`,
    below which differences mean little."""

    title: str
    unit: str
    least: float
    meaning: str


QUANTITIES = {
    "electrons_per_pair": Quantity("Level", "electron", 1.0, "median white light of a CDS pair, foreground removed"),
    "n_pairs": Quantity("CDS pairs", "1", 1.0, "averaged in all time bins together"),
    "scatter_ppm": Quantity("Scatter", "ppm", 1.0, "from time bin to time bin, blind to slow changes"),
    "noise_over_photon": Quantity("Scatter / photon noise", "1", 0.1, "1 is the limit that physics sets"),
    "noise_over_propagated": Quantity("Scatter / propagated noise", "1", 0.1, "1 if the variance is honest"),
    "out_of_transit_ppm": Quantity(
        "Scatter out of transit", "ppm", 1.0, "about the smooth baseline, slow noise included"
    ),
    "drift_ppm": Quantity("Drift", "ppm", 100.0, "peak-to-peak change of the smooth baseline"),
    "transit_depth_ppm": Quantity("Transit depth", "ppm", 100.0, "of the trapezoid that fits the white light best"),
    "transit_snr": Quantity("Transit signal-to-noise", "1", 5.0, "that depth over its error; chance alone reaches 5"),
    "bad_pixel_share": Quantity("Bad pixels", "1", 1e-3, "share that is dead, hot or always saturated"),
    "saturated_share": Quantity("Saturated samples", "1", 1e-3, "share at the converter's upper end"),
    "unusable_pairs_share": Quantity("Unusable pairs", "1", 1e-3, "share of CDS pairs that is saturated as a whole"),
    "outlier_share": Quantity("Outliers", "1", 1e-4, "share of samples that was replaced as hit by a cosmic ray"),
    "foreground_electrons": Quantity("Foreground", "electron", 1.0, "subtracted from the white light of a CDS pair"),
    "foreground_share": Quantity(
        "Foreground / level", "1", 1e-3, "what was subtracted, over what the star is left with"
    ),
    "centroid_motion_px": Quantity("Motion", "pixel", 0.01, "of the star on the detector, peak to peak"),
}
"""By key of `summarise`'s row, in the order of the report."""

_BASELINE_DEGREE = 4
_OUTLIER_SIGMA = 6.0
_SEARCH_BINS = 400
"""The filter sees the light curve in at most this many bins: a transit lasts for many of them."""
_FEWEST_BINS = 16
_MID_TIMES = np.linspace(-0.05, 1.05, 56)
"""Of the templates, in units of the window; either end may cut a transit."""
_DURATIONS = np.geomspace(0.06, 0.75, 12)
_INGRESSES = np.array([0.04, 0.1, 0.25, 0.5])
"""Share of a template's duration that its ingress takes, and its egress."""
_MARGIN = 1.1
"""Out of transit begins outside this many durations."""
_LEAST_OUTSIDE = 0.15
"""Share of the bins out of transit below which a template cannot be told from a baseline."""
_ROUNDING = 1e-12
_SIGNIFICANT = 5.0
"""Signal-to-noise from which a transit is cut out of the baseline; the best template finds up to 5 in mere noise."""


class Transit(NamedTuple):
    """What the matched filter finds: `depth` and its signal-to-noise `snr`; `drift`, peak to peak, and `scatter` out of
    transit. All but `snr` are relative to the star's level; all are NaN where there are too few bins."""

    depth: float
    snr: float
    drift: float
    scatter: float


def summarise(
    curve: LightCurve,
    bad_pixel_share: float,
    saturated_share: float,
    unusable_pairs_share: float,
    outlier_share: float,
) -> dict[str, float]:
    """The row of `curve`, given the shares of bad pixels, saturated samples, unusable pairs and replaced samples.

    `QUANTITIES` says what each number is and in which unit. A number that cannot be measured is NaN: all those of an
    empty light curve, noise and transit where there are few time bins, the motion of a star that is not imaged.
    """
    good = (curve.quality & Quality.UNUSABLE) == 0
    columns, rows = good.any(axis=0), good.any(axis=1)
    white = curve.flux[np.ix_(rows, columns)].sum(axis=1)
    variance = curve.variance[np.ix_(rows, columns)].sum(axis=1)
    level = _median(white)
    starlight = level if level > 0 else np.nan
    scatter = point_to_point(white)
    photon = np.sqrt(starlight / _median(curve.n_pairs[rows]))
    propagated = np.sqrt(_median(variance))
    transit = matched_filter(white / starlight, curve.time_h[rows])
    foreground = float(curve.foreground[columns].sum())
    motion = [_span(curve.channels[name]) for name in ("centroid_x", "centroid_y") if name in curve.channels]
    return {
        "electrons_per_pair": level,
        "n_pairs": float(curve.n_pairs.sum()),
        "scatter_ppm": 1e6 * scatter / starlight,
        "noise_over_photon": float(scatter / photon),
        "noise_over_propagated": float(scatter / propagated),
        "out_of_transit_ppm": 1e6 * transit.scatter,
        "drift_ppm": 1e6 * transit.drift,
        "transit_depth_ppm": 1e6 * transit.depth,
        "transit_snr": transit.snr,
        "bad_pixel_share": bad_pixel_share,
        "saturated_share": saturated_share,
        "unusable_pairs_share": unusable_pairs_share,
        "outlier_share": outlier_share,
        "foreground_electrons": foreground,
        "foreground_share": foreground / starlight,
        "centroid_motion_px": max(motion, default=np.nan),
    }


def matched_filter(white: Floats, time_h: Floats) -> Transit:
    """The transit of a white light curve (T,) relative to its level, from trapezoids on a quartic baseline.

    The baseline of scatter and drift is fitted to the bins out of transit alone, so that neither a transit that the
    window cuts nor the star's limb darkening counts as drift. Single outliers count for nothing.
    """
    if len(white) < _FEWEST_BINS or not np.isfinite(white).all():
        return Transit(np.nan, np.nan, np.nan, np.nan)
    threshold = _OUTLIER_SIGMA * cosmic_rays.scatter(white[:, None])
    clean = cosmic_rays.reject(white[:, None], threshold)[0][:, 0]
    phase = (time_h - time_h[0]) / (time_h[-1] - time_h[0])
    seen, at = _coarse(clean), _coarse(phase)
    coarse = _best(seen, at, _MID_TIMES, _DURATIONS, _INGRESSES)
    steps = np.linspace(-1.0, 1.0, 9)
    best = _best(
        *(seen, at, coarse.mid_time + steps * np.diff(_MID_TIMES)[0]),
        *(coarse.duration * (_DURATIONS[1] / _DURATIONS[0]) ** steps, _INGRESSES),
    )
    noise = _baseline(seen, at, best.outside(at))[1]
    snr = float(best.amplitude / noise) if noise > _ROUNDING else np.nan
    free = np.ones(len(white), bool)
    if snr >= _SIGNIFICANT:
        free = best.outside(phase)
    drift, scatter = _baseline(clean, phase, free)
    return Transit(best.depth, snr, drift, scatter)


class _Template(NamedTuple):
    """A trapezoid dip, its times in units of the window; `depth` as found, and `amplitude`, the depth in units of its
    error if that of each bin is one."""

    mid_time: float
    duration: float
    depth: float
    amplitude: float

    def outside(self, phase: Floats) -> NDArray[np.bool_]:
        return np.asarray(np.abs(phase - self.mid_time) > 0.5 * _MARGIN * self.duration)


def _best(series: Floats, phase: Floats, mid_times: Floats, durations: Floats, ingresses: Floats) -> _Template:
    """Of all combinations, the template that explains most of the series (T,) on a smooth baseline."""
    grid = np.array(list(itertools.product(mid_times, durations, ingresses)))
    mid, duration, ingress = grid.T[:, :, None]
    distance = np.abs(phase - mid) / duration
    dips = -np.clip((0.5 - distance) / ingress, 0.0, 1.0)
    outside = (distance > 0.5 * _MARGIN).sum(axis=1)
    told = (outside >= max(_LEAST_OUTSIDE * len(phase), _BASELINE_DEGREE + 4)) & (dips.min(axis=1) < -0.9)
    smooth = np.linalg.qr(_powers(phase))[0]
    shapes = dips - dips @ smooth @ smooth.T
    strength = np.sqrt((shapes**2).sum(axis=1))
    amplitude = np.where(told, shapes @ series / np.where(told, strength, 1.0), -np.inf)
    best = int(np.argmax(amplitude))
    mid_time, duration, _ingress = map(float, grid[best])
    return _Template(mid_time, duration, float(amplitude[best] / strength[best]), float(amplitude[best]))


def _baseline(series: Floats, phase: Floats, free: NDArray[np.bool_]) -> tuple[float, float]:
    """Peak-to-peak change of the smooth baseline of the bins `free`, and their standard deviation about it."""
    powers = _powers(phase[free])
    fitted = powers @ np.linalg.lstsq(powers, series[free])[0]
    freedom = max(int(free.sum()) - powers.shape[1], 1)
    return float(np.ptp(fitted)), float(np.sqrt(((series[free] - fitted) ** 2).sum() / freedom))


def _powers(phase: Floats) -> Floats:
    return np.asarray(legendre.legvander(2.0 * phase - 1.0, _BASELINE_DEGREE))


def _coarse(series: Floats) -> Floats:
    """Means of equal runs, at most `_SEARCH_BINS` of them."""
    first = np.arange(0, len(series), -(-len(series) // _SEARCH_BINS))
    return np.asarray(np.add.reduceat(series, first) / np.diff(np.append(first, len(series))))


def _median(values: NDArray[Any]) -> float:
    return float(np.median(values)) if values.size else np.nan


def _span(series: Floats) -> float:
    finite = series[np.isfinite(series)]
    return float(np.ptp(finite)) if finite.size else np.nan
