"""Where the score is lost: a ledger per bin, planet and instrument, in points of the official score.

The loss 1 - r of a planet and bin (see `score`) with stated sigma s, error e = truth - mean and span = L_ideal - L_ref
is [ln(s / s_ideal) + e^2 / (2 s^2)] / span. Two corrections, one after the other, part it exactly:

    bias         what subtracting the bin's mean error b would win, at the stated sigmas:
                 [e^2 - (e - b)^2] / (2 s^2) / span
    sigma        what scaling the bin's sigmas by their best factor T would then win:
                 [(1 - 1 / T^2) (e - b)^2 / (2 s^2) - ln T] / span
    unavoidable  what is left: the loss of errors without bias and with sigmas of the right size

b is the mean over planets weighted by 1 / (s^2 span), T^2 the mean of (e - b)^2 / s^2 weighted by 1 / span; both are
the optimum, so that bias and sigma cost nothing or more in each bin and in each sum of whole bins. In a planet they
may be negative: a bias may have helped it. T never takes a sigma below the ideal one, and a single planet has no bias.
Both are estimated from the planets that they are applied to, so that luck alone looks like a loss: `bias_by_chance`
and `sigma_by_chance` say how large it is expected to be for honest, normal errors.

A cell weighs the bin's weight over planets and sum of weights, so that rows add up: bias, sigma, unavoidable and the
clipping of the score to [0, 1] sum to 1 - score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from spectramind.errors import InputError
from spectramind.instruments import INSTRUMENTS
from spectramind.metrics.score import bin_weights, ideal_sigmas, likelihood_span, score_parts
from spectramind.types import Floats


@dataclass(frozen=True)
class LedgerRow:
    """Part of the score: `level` "all", "instrument", "bin" or "planet", and its `name`.

    In points of the whole score: the most it could give (`share`), what it loses, parted in three, and `scaling_gain`,
    what one best factor on the sigmas of this row alone would win with the means as they are; `scaling_factor` is that
    factor. `bias_ppm` is the mean error over planets and bins (prediction minus truth).
    """

    level: str
    name: str
    share: float
    loss: float
    bias: float
    sigma: float
    unavoidable: float
    bias_by_chance: float
    sigma_by_chance: float
    scaling_gain: float
    scaling_factor: float
    bias_ppm: float


@dataclass(frozen=True)
class Ledger:
    """`rows`: all, instruments, bins, planets; each level sums to "all". `clip`: what the clipping takes, negative
    where it gives: score = 1 - bias - sigma - unavoidable - clip, those of the first row."""

    score: float
    clip: float
    planets: int
    rows: tuple[LedgerRow, ...]

    def level(self, level: str) -> tuple[LedgerRow, ...]:
        """The rows of one level."""
        return tuple(row for row in self.rows if row.level == level)

    def to_do(self, most: int = 10) -> tuple[LedgerRow, ...]:
        """The bins where bias and sigma cost most beyond chance, worst first."""

        def excess(row: LedgerRow) -> float:
            return row.bias - row.bias_by_chance + row.sigma - row.sigma_by_chance

        worst = sorted(self.level("bin"), key=excess, reverse=True)[:most]
        return tuple(row for row in worst if excess(row) > 0)


def score_ledger(
    planet_ids: Sequence[str], mean: Floats, sigma: Floats, truth: Floats, train_mean: float, train_std: float
) -> Ledger:
    """The ledger of `mean`, `sigma` against `truth` (planets, bins).

    `train_mean`, `train_std`: of all train labels, see `reference_of`. Raises InputError on what cannot be scored and
    on sigmas of zero.
    """
    parts = score_parts(mean, sigma, truth, train_mean, train_std)
    if len(planet_ids) != len(truth) or not np.all(sigma > 0):
        found = f"{len(planet_ids)} ids for {len(truth)} planets, smallest sigma {np.min(sigma):g}"
        raise InputError("score ledger", "one id per planet and positive sigmas", found, "Correct the table.")
    n_planets, n_bins = truth.shape
    unit = parts.weights / (n_planets * np.sum(parts.weights)) / parts.span  # points per nat
    error = truth - mean
    precision = unit / sigma**2
    bias = np.sum(precision * error, axis=0) / np.sum(precision, axis=0) if n_planets > 1 else np.zeros(n_bins)
    rest2 = ((error - bias) / sigma) ** 2
    least = np.minimum(1.0, np.min(ideal_sigmas(n_bins) / sigma, axis=0))
    factor = np.maximum(np.sqrt(np.sum(unit * rest2, axis=0) / np.sum(unit, axis=0)), least)
    cells = {
        "loss": unit * parts.span * (1.0 - parts.ratio),
        "bias": 0.5 * unit * ((error / sigma) ** 2 - rest2),
        "sigma": unit * (0.5 * rest2 * (1.0 - factor**-2.0) - np.log(factor)),
        "unavoidable": unit * (np.log(factor * sigma / ideal_sigmas(n_bins)) + 0.5 * rest2 * factor**-2.0),
        # Expectations for errors N(0, sigma^2), handed out to the cells of the bin.
        "bias_by_chance": 0.5 * unit * precision / np.sum(precision, axis=0) * (n_planets > 1),
        "sigma_by_chance": 0.5 * unit**2 / np.sum(unit, axis=0),
    }

    def row(level: str, name: str, planets: slice, bins: slice) -> LedgerRow:
        sums = {part: float(np.sum(values[planets, bins])) for part, values in cells.items()}
        z2, weight = (error[planets, bins] / sigma[planets, bins]) ** 2, unit[planets, bins]
        best = np.sqrt(np.sum(weight * z2) / np.sum(weight))
        best = max(float(best), float(np.min(least[bins])))
        gain = float(np.sum(weight * (0.5 * z2 * (1.0 - best**-2.0) - np.log(best))))
        share = float(np.sum((unit * parts.span)[planets, bins]))
        miss = -1e6 * float(np.mean(error[planets, bins]))
        return LedgerRow(level, name, share, **sums, scaling_gain=gain, scaling_factor=best, bias_ppm=miss)

    every = slice(None)
    rows = [row("all", "all", every, every)]
    rows += [row("instrument", instrument.name, every, instrument.spectral_slice) for instrument in INSTRUMENTS]
    rows += [row("bin", f"wl_{number + 1}", every, slice(number, number + 1)) for number in range(n_bins)]
    rows += [row("planet", name, slice(number, number + 1), every) for number, name in enumerate(planet_ids)]
    return Ledger(parts.score, parts.unclipped - parts.score, n_planets, tuple(rows))


def gains_without(shares: Floats, mean: Floats, sigma: Floats, train_mean: float, train_std: float) -> Floats:
    """Points of the score (terms, bins) that honest predictions would win without one term of their variance.

    `shares` (terms, planets, bins) of the variance of `mean`, `sigma` (planets, bins). Without a term, sigma is
    sqrt(1 - share) times as large, never smaller than the ideal one, and the loss ln(sigma / s_ideal) + 1/2 of honest
    errors is smaller by the logarithm. The unknown truth's span is that of the mean. Gains of several terms do not add
    up: without both of two equal terms more is won than without each.
    """
    ideal = ideal_sigmas(mean.shape[1])
    left = np.sqrt(np.maximum(1.0 - shares, (np.minimum(ideal, sigma) / sigma) ** 2))
    weights = bin_weights(mean.shape[1])
    unit = weights / np.sum(weights) / likelihood_span(mean, train_mean, train_std)
    gains: Floats = -np.mean(unit * np.log(left), axis=1)
    return gains
