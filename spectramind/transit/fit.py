"""Joint fit of all light curves of a planet: the likelihood of its spectrum, linearised where the posterior peaks."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectramind.calibration.statistics import GAUSSIAN_MEDIAN
from spectramind.instruments import AIRS, FGS1, N_WAVELENGTHS
from spectramind.transit.joint import Gaussian, SpectrumLikelihood, joint_likelihood, solve
from spectramind.transit.local_likelihood import (
    LocalLikelihood,
    LogCurves,
    covered,
    linearise,
    log_curves,
    model_and_slopes,
)
from spectramind.transit.nuisances import Layout, NuisancePrior, first_guess
from spectramind.transit.options import TransitOptions
from spectramind.transit.white_light import locate, search
from spectramind.types import CalibratedVisit, Floats, Star

CONVERGED = 0.02
"""A step that lowers the objective by less than this, in units of log-likelihood, ends the fit."""
NOISE_SMOOTHING_BINS = 21
MOST_PATTERNS = 3
SHARED_THRESHOLD = 1.1
"""Singular values this much above the largest that independent noise reaches mark noise that bins share."""
LARGEST_SHARED = 8.0
"""Residuals are clipped to this many sigma before patterns are sought: one wild sample is no pattern."""
FEWEST_SHARING = 3.0
"""Effective number of bins below which a pattern is those bins' own affair."""
GROSS_SIGMA = 12.0
SMALLEST_DEPTH = 1e-5
RESIDUAL_TESTS = ("scatter", "half_difference", "transit_residual")
"""Names in the summary of what the white residuals say, see `_residual_tests`."""
FEWEST_SAMPLES = 4
"""Of each part of the light curve that is compared."""
SMALLEST_SHARE = 0.02
"""A transit or a baseline that fills less of the window than this carries no depth."""


@dataclass(frozen=True)
class PlanetFit:
    """The `likelihood` of a planet's spectrum and of the nuisances of `layout`.

    `best` is the posterior mode of the fit's own weak prior, [283 depths, nuisances]; `summary` numbers for reports;
    `flags` say why the fit cannot be trusted, if so.
    """

    planet_id: str
    layout: Layout
    likelihood: SpectrumLikelihood
    best: Floats
    summary: dict[str, float]
    flags: tuple[str, ...] = ()

    def save(self, path: Path) -> None:
        """One uncompressed .npz, without pickled objects."""
        header = {
            "planet_id": self.planet_id,
            "layout": vars(self.layout),
            "summary": self.summary,
            "flags": self.flags,
        }
        encoded = np.frombuffer(json.dumps(header, sort_keys=True).encode(), np.uint8)
        arrays: dict[str, Any] = {"best": self.best, "header": encoded, **vars(self.likelihood)}
        np.savez(path, **arrays)

    @classmethod
    def load(cls, path: Path) -> PlanetFit:
        with np.load(path) as arrays:
            header = json.loads(arrays["header"].tobytes())
            likelihood = SpectrumLikelihood(**{name: arrays[name] for name in SpectrumLikelihood.__dataclass_fields__})
            layout, flags = Layout(**header["layout"]), tuple(header["flags"])
            return cls(header["planet_id"], layout, likelihood, arrays["best"], header["summary"], flags)


def fit_planet(visits: Sequence[CalibratedVisit], star: Star, options: TransitOptions) -> PlanetFit:
    """Fit every visit of a planet together by Gauss-Newton steps with weak priors on spectrum and nuisances.

    After a first fit the noise is measured on its residuals and outlying samples lose their weight, then the fit is
    repeated from where it was.
    """
    window = max(float(np.ptp(curve.time_h)) for visit in visits for curve in visit.curves.values())
    prior = first_guess(options, window)
    layout = Layout.of(options, len(visits))
    curves = [_log_curves(visit, options.drift_degree) for visit in visits]
    nuisances = Gaussian.from_moments(prior.mean(star, layout.n_visits), prior.covariance(layout.n_visits))
    knowledge = _with_spectrum(_weak_spectral_prior(), nuisances)
    starts = _starting_points(curves, star, options, prior, layout)
    climbs = [_climb(curves, star, layout, knowledge, start, options.iterations) for start in starts]
    point, _, residuals, _ = max(climbs, key=lambda climb: climb[3])
    curves = [
        [_reweight(c, r, options.outlier_sigma) for c, r in zip(cs, rs, strict=True)]
        for cs, rs in zip(curves, residuals, strict=True)
    ]
    point, likelihoods, residuals, _ = _climb(curves, star, layout, knowledge, point, options.iterations)
    summary = _summary(curves, residuals, point, layout, star)
    flags = _flags(curves, star, point, layout)
    return PlanetFit(star.planet_id, layout, joint_likelihood(likelihoods, layout), point, summary, flags)


@dataclass(frozen=True)
class FittedCurves:
    """Light curves of one instrument and visit at a fit's best point: as calibrated (`given`), with the noise that
    their residuals show (`weighted`), the `local` parameters (B, q), and the `residual` (T, B) of the log flux."""

    given: LogCurves
    weighted: LogCurves
    local: Floats
    residual: Floats
    likelihood: LocalLikelihood


def fitted_curves(
    fit: PlanetFit, visits: Sequence[CalibratedVisit], star: Star, options: TransitOptions
) -> list[list[FittedCurves]]:
    """The light curves of `fit`, visit by visit, at its best point."""
    found = []
    for position, visit in enumerate(visits):
        instruments = []
        for given in _log_curves(visit, options.drift_degree):
            local = _local(fit.best, fit.layout, given, position)
            weighted = _reweight(given, linearise(given, star, local)[1], options.outlier_sigma)
            likelihood, residual = linearise(weighted, star, local)
            instruments.append(FittedCurves(given, weighted, local, residual, likelihood))
        found.append(instruments)
    return found


@dataclass(frozen=True)
class WhiteCurve:
    """The white light curve of one instrument and visit beside the fit: `hours` (T,) from the centre of the visit,
    logarithms of the relative flux `data` and `model` (T,), NaN in `data` without a usable sample."""

    instrument: str
    visit: int
    hours: Floats
    data: Floats
    model: Floats


def white_curves(
    fit: PlanetFit, visits: Sequence[CalibratedVisit], star: Star, options: TransitOptions
) -> list[WhiteCurve]:
    """What `fit` makes of the visits that it has seen, in the same order and with the same options: means over bins
    weighted by inverse variance, the drift included."""
    found = []
    for position, visit in enumerate(visits):
        for c in _log_curves(visit, options.drift_degree):
            model, _ = model_and_slopes(c, star, _local(fit.best, fit.layout, c, position))
            share = c.weight / np.maximum(c.weight.sum(axis=0), np.finfo(float).tiny)
            level = (share * model).sum(axis=0)
            residual = c.log_flux - model
            residual = residual - (share * residual).sum(axis=0)
            by_bin = c.weight.mean(axis=0)
            total = c.weight.sum(axis=1)
            own = (c.weight * residual).sum(axis=1) / np.where(total > 0, total, np.nan)
            white = (model - level) @ by_bin / max(float(by_bin.sum()), np.finfo(float).tiny)
            found.append(WhiteCurve(c.instrument, visit.visit, c.hours, white + own, white))
    return found


def _log_curves(visit: CalibratedVisit, drift_degree: int) -> list[LogCurves]:
    centre = np.mean([curve.time_h.min() + np.ptp(curve.time_h) / 2 for curve in visit.curves.values()])
    curves = [log_curves(curve, float(centre), drift_degree) for curve in visit.curves.values()]
    return [_without_gross_outliers(c) if c.dispersed else c for c in curves]


def _without_gross_outliers(curves: LogCurves) -> LogCurves:
    """Drop samples that are far from what all bins do at that time: one such would bend the first fit."""
    centred = curves.log_flux - np.median(curves.log_flux, axis=0)
    own = centred - np.median(centred, axis=1, keepdims=True)
    scatter = GAUSSIAN_MEDIAN * np.median(np.abs(own), axis=0)
    weight = np.where(np.abs(own) > GROSS_SIGMA * scatter, 0.0, curves.weight)
    return curves.with_noise(weight, curves.patterns, curves.excess)


def _starting_points(
    curves: list[list[LogCurves]], star: Star, options: TransitOptions, prior: NuisancePrior, layout: Layout
) -> list[Floats]:
    """The most promising mid-transits, each with white-light depths: number n takes every visit's n-th best."""
    mean = np.concatenate([np.zeros(N_WAVELENGTHS), prior.mean(star, layout.n_visits)])
    centre_scatter = math.sqrt(prior.visit_covariance[0, 0])
    searches, candidates = [], []
    for position, instruments in enumerate(curves):
        found = {}
        for c in instruments:
            local = _local(mean, layout, c, position)
            found[c.dispersed] = search(c, star, local[:, 3].mean(), local[:, 4].mean(), options.drift_scale)
        searches.append(found)
        candidates.append(locate(found, centre_scatter, options.clock_scatter_h, options.starts))
    points = []
    for rank in range(max(len(ranked) for ranked in candidates)):
        point = mean.copy()
        depths: dict[bool, list[float]] = {True: [], False: []}
        for position, (found, ranked) in enumerate(zip(searches, candidates, strict=True)):
            mid_time, clock = ranked[min(rank, len(ranked) - 1)]
            first = N_WAVELENGTHS + layout.visit(position).start
            point[first], point[first + 1] = mid_time, clock
            for dispersed, one in found.items():
                at = np.abs(one.mid_times - mid_time - (0.0 if dispersed else clock)).argmin()
                depths[dispersed].append(float(one.depth[at]))
        for dispersed, values in depths.items():
            depth = max(float(np.mean(values or depths[not dispersed])), 1e-4)
            point[:N_WAVELENGTHS][(AIRS if dispersed else FGS1).spectral_slice] = depth
        points.append(point)
    return points


def _weak_spectral_prior() -> Gaussian:
    """Depths of a few percent at most, shapes of a few hundred ppm that vary smoothly across AIRS, FGS1 loosely tied
    to them."""
    position = np.arange(N_WAVELENGTHS, dtype=float)
    smooth = np.exp(-((position[:, None] - position) ** 2) / (2 * 15.0**2))
    smooth[0, 1:] = smooth[1:, 0] = 0.0
    covariance = 0.02**2 + 3e-4**2 * smooth + 5e-5**2 * np.eye(N_WAVELENGTHS)
    covariance[0, 0] += 5e-4**2
    return Gaussian.from_moments(np.full(N_WAVELENGTHS, 0.015), covariance)


def _with_spectrum(spectrum: Gaussian, nuisances: Gaussian) -> Gaussian:
    n, m = spectrum.score.size, nuisances.score.size
    precision = np.zeros((n + m, n + m))
    precision[:n, :n], precision[n:, n:] = spectrum.precision, nuisances.precision
    return Gaussian(precision, np.concatenate([spectrum.score, nuisances.score]))


def _local(point: Floats, layout: Layout, curves: LogCurves, position: int) -> Floats:
    """Local parameters (B, q) of one instrument at a point of the joint vector."""
    depth = point[:N_WAVELENGTHS][(AIRS if curves.dispersed else FGS1).spectral_slice]
    rest = layout.design(curves.dispersed, curves.wavelength_um, position) @ point[N_WAVELENGTHS:]
    return np.column_stack([depth, rest])


Residuals = list[list[Floats]]


def _climb(
    curves: list[list[LogCurves]], star: Star, layout: Layout, knowledge: Gaussian, point: Floats, iterations: int
) -> tuple[Floats, list[list[LocalLikelihood]], Residuals, float]:
    """Gauss-Newton with step halving: the posterior mode, the likelihoods linearised there, residuals, log
    posterior."""
    likelihoods, residuals, height = _evaluate(curves, star, layout, knowledge, point)
    for _ in range(iterations):
        posterior = joint_likelihood(likelihoods, layout).dense() + knowledge
        step = solve(posterior.precision, posterior.score) - point
        for _ in range(8):
            next_point = point + step
            next_point[:N_WAVELENGTHS] = np.maximum(next_point[:N_WAVELENGTHS], SMALLEST_DEPTH)
            tried = _evaluate(curves, star, layout, knowledge, next_point)
            if tried[2] >= height - CONVERGED:
                break
            step = step / 2
        else:
            break
        gained, point = tried[2] - height, next_point
        likelihoods, residuals, height = tried
        if gained < CONVERGED:
            break
    return point, likelihoods, residuals, height


def _evaluate(
    curves: list[list[LogCurves]], star: Star, layout: Layout, knowledge: Gaussian, point: Floats
) -> tuple[list[list[LocalLikelihood]], Residuals, float]:
    """Linearised likelihoods, residuals and the log posterior at a point."""
    likelihoods: list[list[LocalLikelihood]] = []
    residuals: Residuals = []
    height = float(point @ (knowledge.score - knowledge.precision @ point / 2))
    for position, instruments in enumerate(curves):
        done = [linearise(c, star, _local(point, layout, c, position)) for c in instruments]
        likelihoods.append([likelihood for likelihood, _ in done])
        residuals.append([residual for _, residual in done])
        height -= sum(c.misfit(r) / 2 for c, (_, r) in zip(instruments, done, strict=True))
    return likelihoods, residuals, height


def _reweight(curves: LogCurves, residual: Floats, outlier_sigma: float) -> LogCurves:
    """Noise that matches the residuals: weights by their scatter, smoothed across wavelength, and what bins share.
    Samples that still stand out lose their weight."""
    z = residual * np.sqrt(curves.weight)
    scale = _smooth_noise_scale(np.where(curves.weight > 0, z, np.nan))
    z = (z - np.median(z, axis=0)) / scale  # a strong outlier has moved the mean of its bin
    patterns, excess = _shared_noise(np.clip(z, -LARGEST_SHARED, LARGEST_SHARED))
    own = z - (z @ patterns.T) @ patterns
    weight = np.where(np.abs(own) > outlier_sigma, 0.0, curves.weight / scale**2)
    return curves.with_noise(weight, patterns, excess)


def _shared_noise(z: Floats) -> tuple[Floats, Floats]:
    """Patterns (r, B) across wavelength in which the whitened residuals (T, B) vary together from time to time, as when
    the spectrum moves along the detector, and the share of their variance that is common.

    A singular value that independent noise cannot reach marks a pattern; its variance follows by the spiked covariance
    model (Baik & Silverstein 2006, J. Multivariate Anal. 97, 1382). What one or two bins do alone is not shared.
    """
    n_times, n_bins = z.shape
    if n_bins < NOISE_SMOOTHING_BINS:
        return np.zeros((0, n_bins)), np.zeros(0)
    _, values, vectors = np.linalg.svd(z, full_matrices=False)
    strongest, patterns = values[:MOST_PATTERNS], vectors[:MOST_PATTERNS]
    found = strongest > SHARED_THRESHOLD * (np.sqrt(n_times) + np.sqrt(n_bins))
    found &= 1 / (patterns**4).sum(axis=1) > FEWEST_SHARING
    power = strongest[found] ** 2 / n_times
    middle = power + 1 - n_bins / n_times
    variance = (middle + np.sqrt(np.maximum(middle**2 - 4 * power, 0.0))) / 2
    return patterns[found], 1 - 1 / np.maximum(variance, 1.0)


def _smooth_noise_scale(z: Floats) -> Floats:
    """Robust standard deviation of each column of `z` (T, B), by its running median over neighbouring columns: (B,)."""
    raw = GAUSSIAN_MEDIAN * np.nanmedian(np.abs(z), axis=0)
    raw = np.where(np.isfinite(raw) & (raw > 0), raw, 1.0)
    half = NOISE_SMOOTHING_BINS // 2
    padded = np.pad(raw, half, mode="reflect") if raw.size > half else np.full(raw.size + 2 * half, np.median(raw))
    smooth: Floats = np.median(np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1), axis=1)
    return smooth


def _summary(
    curves: list[list[LogCurves]], residuals: Residuals, point: Floats, layout: Layout, star: Star
) -> dict[str, float]:
    summary = {
        "depth_fgs1": float(point[0]),
        "depth_airs": float(point[1:N_WAVELENGTHS].mean()),
        "axis_offset": float(point[N_WAVELENGTHS]),
        "impact_offset": float(point[N_WAVELENGTHS + 1]),
    }
    for position, (instruments, parts) in enumerate(zip(curves, residuals, strict=True)):
        first = N_WAVELENGTHS + layout.visit(position).start
        summary[f"mid_time_h_{position}"] = float(point[first])
        summary[f"clock_offset_h_{position}"] = float(point[first + 1])
        for c, r in zip(instruments, parts, strict=True):
            used = c.weight > 0
            summary[f"chi2_{c.instrument}_{position}"] = c.misfit(r) / max(int(used.sum()), 1)
            summary[f"rejected_{c.instrument}_{position}"] = float(1 - used.mean())
            in_transit = covered(c, star, _local(point, layout, c, position))
            for name, value in zip(RESIDUAL_TESTS, _residual_tests(c, r, in_transit, point[first]), strict=True):
                summary[f"{name}_{c.instrument}_{position}"] = value
    return summary


def _residual_tests(
    curves: LogCurves, residual: Floats, in_transit: NDArray[np.bool_], mid_time_h: float
) -> tuple[float, float, float]:
    """Of the white residuals: their scatter out of transit over that of independent noise; how much the first half of
    the transit differs from the second, and the transit from the rest, in standard errors by that scatter. The last
    is zero for one visit, whose depth is free, and shows the difference of several, whose depth is one. NaN where
    there are too few samples."""
    total = curves.weight.sum(axis=1)
    usable = total > 0
    white = (curves.weight * residual).sum(axis=1)[usable] / total[usable]
    inside, hours = in_transit[usable], curves.hours[usable]
    parts = inside & (hours < mid_time_h), inside & (hours >= mid_time_h)
    if (~inside).sum() < FEWEST_SAMPLES or min(part.sum() for part in parts) < FEWEST_SAMPLES:
        return math.nan, math.nan, math.nan
    scatter = max(float(np.std(white[~inside])), np.finfo(float).tiny)

    def difference(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
        return float((white[a].mean() - white[b].mean()) / (scatter * math.sqrt(1 / a.sum() + 1 / b.sum())))

    expected = math.sqrt(float(np.mean(1.0 / total[usable][~inside])))
    return scatter / expected, difference(*parts), difference(inside, ~inside)


def _flags(curves: list[list[LogCurves]], star: Star, point: Floats, layout: Layout) -> tuple[str, ...]:
    """Why the likelihood says nothing about the depth: a transit that misses the window, or that leaves no baseline."""
    inside, outside = 0.0, 0.0
    for position, instruments in enumerate(curves):
        for c in instruments:
            local = _local(point, layout, c, position)
            in_transit = covered(c, star, local)
            inside = max(inside, float(in_transit.mean()))
            outside = max(outside, float(1 - in_transit.mean()))
    flags = []
    if inside < SMALLEST_SHARE:
        flags.append("no transit in the window")
    if outside < SMALLEST_SHARE:
        flags.append("no baseline outside the transit")
    return tuple(flags)
