"""What is left in residuals: autocorrelation and power spectrum. White noise has none of the first beyond lag zero and
a flat second."""

from __future__ import annotations

import numpy as np

from spectramind.types import Floats


def autocorrelation(residuals: Floats, most_lags: int) -> Floats:
    """Mean autocorrelation (lags,) of series (series, samples) at the lags 0 to `most_lags` in samples.

    Each series has its own mean removed and is normalised by its own variance (the biased estimator, Box & Jenkins
    1976), so that noise alone lies within about 2 / sqrt(series * samples) of -1 / samples. Samples that are not finite
    and series without variance do not count; NaN if none does.
    """
    lags = min(most_lags, residuals.shape[1] - 1)
    total, count = np.zeros(lags + 1), 0
    for series in residuals:
        known = np.isfinite(series)
        if known.sum() < 2:
            continue
        centred = np.where(known, series - series[known].mean(), 0.0)
        variance = float(centred @ centred)
        if variance == 0:
            continue
        total += [float(centred[: centred.size - lag] @ centred[lag:]) / variance for lag in range(lags + 1)]
        count += 1
    return total / count if count else np.full(lags + 1, np.nan)


def power_spectrum(residuals: Floats, spacing: float) -> tuple[Floats, Floats]:
    """Frequencies (n,) in cycles per unit of `spacing`, and the mean power (n,) of series (series, samples) over that
    of white noise of the same variance: flat at 1 if nothing is left. The zero frequency is left out.

    Samples that are not finite count as the mean of their series.
    """
    samples = residuals.shape[1]
    frequency: Floats = np.fft.rfftfreq(samples, spacing)[1:].astype(float)
    powers = []
    for series in residuals:
        known = np.isfinite(series)
        centred = np.where(known, series - series[known].mean(), 0.0) if known.any() else np.zeros(samples)
        variance = float(centred @ centred)
        if variance > 0:
            powers.append(np.abs(np.fft.rfft(centred)[1:]) ** 2 / variance)
    mean: Floats = np.mean(powers, axis=0) if powers else np.full(frequency.size, np.nan)
    return frequency, mean
