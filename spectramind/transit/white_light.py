"""Where the transit is: mid-transit and depth from the white light curve, with the star table's geometry."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spectramind.transit.light_curve import hidden_moments, limb_darkened_loss, sky_distance
from spectramind.transit.local_likelihood import LogCurves
from spectramind.types import Floats, Star

GRID_STEP_H = 0.04
NEIGHBOURHOOD_H = 0.5
UNLIKE_CLOCKS = 15.0
"""Log-likelihood that a clock offset between the instruments has to gain before it is believed."""
WORTH_A_TRY = 0.7
"""A rival mid-transit is tried if it gains this share of the best one's log-likelihood."""
TYPICAL_RADIUS_RATIO = 0.11
SEARCH_DEGREE = 2
"""Drift that the search allows: a richer one would swallow a transit that differs from the template."""


@dataclass(frozen=True)
class TransitSearch:
    """`mid_times` (N,) tried, in hours from the window's centre; at each the `gain` (N,) of log-likelihood that a
    transit
    brings over drift alone, and the best `depth` (N,), never negative."""

    mid_times: Floats
    gain: Floats
    depth: Floats


def search(curves: LogCurves, star: Star, u1: float, u2: float, drift_scale: float) -> TransitSearch:
    """Try mid-transits over the window and half a window beyond each end; depth and drift are solved at each.

    The template is a transit of typical depth, which is enough to find it; drift coefficients have scatter
    `drift_scale`.
    """
    log_flux, weight = white_light(curves)
    window = np.ptp(curves.hours)
    mid_times = np.arange(-0.75 * window, 0.75 * window + GRID_STEP_H, GRID_STEP_H)
    z = np.stack([sky_distance(curves.hours, mid, star.P, star.sma, star.i) for mid in mid_times])
    template = -np.log1p(-limb_darkened_loss(hidden_moments(z, TYPICAL_RADIUS_RATIO), u1, u2)) / TYPICAL_RADIUS_RATIO**2
    baseline = np.column_stack([np.ones_like(curves.hours), curves.drift[:, :SEARCH_DEGREE]])
    ridge = np.diag([0.0, *np.full(baseline.shape[1] - 1, drift_scale**-2)])
    weighted = baseline * weight[:, None]
    right = np.column_stack([weighted.T @ log_flux, weighted.T @ template.T])
    solved = np.linalg.solve(baseline.T @ weighted + ridge, right)
    projection = solved[:, 1:].T @ (weighted.T @ log_flux)
    information = np.einsum("nt,t,nt->n", template, weight, template)
    information -= np.einsum("kn,kn->n", weighted.T @ template.T, solved[:, 1:])
    score = template @ (weight * log_flux) - projection
    depth = np.maximum(-score / np.maximum(information, 1e-12), 0.0)
    return TransitSearch(mid_times, depth * np.maximum(-score, 0.0) / 2, depth)


def white_light(curves: LogCurves) -> tuple[Floats, Floats]:
    """Weighted mean over bins of the log flux, each bin's median removed: value and weight (T,)."""
    weight = curves.weight.sum(axis=1)
    centred = curves.log_flux - np.median(curves.log_flux, axis=0)
    return (curves.weight * centred).sum(axis=1) / np.maximum(weight, 1e-300), weight


def locate(
    searches: dict[bool, TransitSearch], centre_scatter_h: float, clock_scatter_h: float, count: int
) -> list[tuple[float, float]]:
    """The `count` most promising pairs of AIRS mid-transit and clock offset of FGS1, in hours, best first.

    Keys tell AIRS (True) from FGS1; one instrument alone decides the mid-transit, with no offset. Pairs closer than
    half an hour to a better one are left out, as are those that gain far less, and transits at the window's centre are
    the most likely by `centre_scatter_h`.
    """
    first = searches.get(True) or searches[False]
    total = first.gain - first.mid_times**2 / (2 * centre_scatter_h**2)
    offset = np.zeros_like(total)
    if len(searches) == 2:
        fgs1 = searches[False]
        offsets = fgs1.mid_times[None, :] - first.mid_times[:, None]
        unlike = UNLIKE_CLOCKS + offsets**2 / (2 * clock_scatter_h**2)
        both = fgs1.gain[None, :] - np.where(np.abs(offsets) < 1.5 * GRID_STEP_H, 0.0, unlike)
        both[np.abs(offsets) > 3 * clock_scatter_h] = -np.inf
        best = both.argmax(axis=1)
        offset = offsets[np.arange(len(best)), best]
        total = total + both.max(axis=1)
    found: list[tuple[float, float]] = []
    for i in np.argsort(-total):
        if total[i] < WORTH_A_TRY * total.max():
            break
        if all(abs(first.mid_times[i] - mid) > NEIGHBOURHOOD_H for mid, _ in found):
            found.append((float(first.mid_times[i]), float(offset[i])))
        if len(found) == count:
            break
    return found or [(0.0, 0.0)]
