"""From light to counts: the two reads of each CDS pair, pixel by pixel.

Both reads sample one ramp, so the photon noise of the first is part of the second:

    charge_1 = Poisson(mean t_1 / t_cds),   charge_2 = charge_1 + Poisson(mean),
    counts_i = floor((L^-1(charge_i) + read noise - offset) gain),

where L is the pixel's linearity polynomial. Counts are truncated, not rounded: real first reads lie half a count lower
than their light. Above `POISSON_LIMIT` electrons the Poisson law is drawn as a normal one of the same mean and
variance; with the read noise added, the skewness that this leaves out is below 0.03.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numba
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from spectramind.simulation.linearity import delinearise
from spectramind.types import Adc, CalibrationFrames, Floats

POISSON_LIMIT = 32.0
FULL_SCALE = 65535.0


@dataclass(frozen=True)
class Scene:
    """What falls on one detector, in electrons per CDS pair and unit response.

    `signal` (S, T) starlight by column (S = C) or in all (S = 1); `images` (6, R, C) Taylor terms of the image;
    `displacement` (T, 2) pixels along columns and rows; `foreground` (S,) electrons per pixel.
    """

    signal: Floats
    images: Floats
    displacement: Floats
    foreground: Floats


def expose(
    rng: Generator,
    scene: Scene,
    response: Floats,
    frames: CalibrationFrames,
    adc: Adc,
    first_read_s: float,
    cds_s: float,
) -> NDArray[np.uint16]:
    """Counts (R C, 2 T) of all frames, first and second read of each pair alternating."""
    rows, columns = response.shape
    source = np.tile(np.arange(columns) if scene.signal.shape[0] == columns else np.zeros(columns, int), rows)
    dark = np.maximum(frames.dark, 0.0).ravel() * cds_s
    mean_light = (scene.signal.mean(axis=1)[source] * scene.images[0].ravel() + scene.foreground[source]).clip(0.0)
    typical = response.ravel() * mean_light + dark
    ramp = np.stack([typical, typical]) * np.array([[first_read_s / cds_s], [1.0 + first_read_s / cds_s]])
    coefficients = _usable_linearity(frames.linear_corr.reshape(frames.linear_corr.shape[0], -1), ramp[1])
    counts = np.empty((rows * columns, 2 * scene.signal.shape[1]), dtype=np.uint16)
    _read_out(
        rng,
        np.ascontiguousarray(scene.signal),
        source,
        np.ascontiguousarray(scene.images.reshape(6, -1).T),
        np.ascontiguousarray(scene.displacement),
        scene.foreground[source] * response.ravel(),
        response.ravel(),
        dark,
        frames.read.ravel(),
        np.ascontiguousarray(coefficients.T),
        ramp.T.copy(),
        np.stack([delinearise(level, coefficients)[0] for level in ramp], axis=1),
        first_read_s / cds_s,
        adc.gain,
        adc.offset,
        counts,
    )
    return counts


def _usable_linearity(coefficients: Floats, brightest: Floats) -> Floats:
    """(6, N) with the identity for pixels whose polynomial cannot be inverted up to 1.5 times their brightest level."""
    usable = np.ones(brightest.shape, dtype=np.bool_)
    for level in (0.0 * brightest, brightest, 1.5 * brightest):
        usable &= delinearise(level, coefficients)[1]
    identity = np.zeros_like(coefficients)
    identity[1] = 1.0
    return np.where(usable, coefficients, identity)


@numba.njit(cache=True)
def _photons(rng: Generator, mean: float) -> float:
    if mean < POISSON_LIMIT:
        return float(rng.poisson(mean))
    return mean + math.sqrt(mean) * rng.standard_normal()


@numba.njit(cache=True)
def _measured(charge: float, level: float, start: float, c: Floats) -> float:
    """L^-1(charge): the tangent at the pixel's typical level, then one Newton step (error below 0.01 electrons)."""
    slope = c[1] + start * (2 * c[2] + start * (3 * c[3] + start * (4 * c[4] + start * 5 * c[5])))
    m = start + (charge - level) / slope
    value = c[0] + m * (c[1] + m * (c[2] + m * (c[3] + m * (c[4] + m * c[5]))))
    slope = c[1] + m * (2 * c[2] + m * (3 * c[3] + m * (4 * c[4] + m * 5 * c[5])))
    return float(m - (value - charge) / slope)


@numba.njit(cache=True)
def _read_out(
    rng: Generator,
    signal: Floats,
    source: NDArray[np.int64],
    images: Floats,
    displacement: Floats,
    foreground: Floats,
    response: Floats,
    dark: Floats,
    read: Floats,
    linear: Floats,
    level: Floats,
    start: Floats,
    share: float,
    gain: float,
    offset: float,
    counts: NDArray[np.uint16],
) -> None:
    n_pixels, n_pairs = counts.shape[0], signal.shape[1]
    for p in range(n_pixels):
        light, image, c = signal[source[p]], images[p], linear[p]
        for t in range(n_pairs):
            dx, dy = displacement[t, 0], displacement[t, 1]
            share_of_light = (
                image[0] + dx * (image[1] + 0.5 * dx * image[3] + dy * image[4]) + dy * (image[2] + 0.5 * dy * image[5])
            )
            mean = response[p] * light[t] * max(share_of_light, 0.0) + foreground[p] + dark[p]
            first = _photons(rng, mean * share)
            second = first + _photons(rng, mean)
            for i in range(2):
                charge = first if i == 0 else second
                electrons = _measured(charge, level[p, i], start[p, i], c) + read[p] * rng.standard_normal()
                counts[p, 2 * t + i] = np.uint16(min(max(math.floor((electrons - offset) * gain), 0.0), FULL_SCALE))
