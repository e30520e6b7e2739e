"""Rules that need no molecule: roughness, bounds, order.

A rule takes the prediction, the axis and its options, and returns the penalty by planet and bin (planets, bins). The
sum over bins is the planet's penalty, dimensionless: 1 where the violation has the rule's scale throughout. FGS1 is
no neighbour of AIRS, so rules along wavelength look at AIRS alone.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from spectramind.instruments import AIRS, FGS1
from spectramind.losses.options import (
    FftOptions,
    NonnegativityOptions,
    QuantileMonotonicityOptions,
    SeamContinuityOptions,
    SigmaBoundsOptions,
    SmoothnessOptions,
    TotalVariationOptions,
)
from spectramind.losses.penalties import PPM, bound_penalty, size_penalty
from spectramind.losses.prediction import Prediction
from spectramind.losses.spectral_axis import SpectralAxis


def smoothness(prediction: Prediction, axis: SpectralAxis, options: SmoothnessOptions) -> Tensor:
    """Mean square of s[i - w] - 2 s[i] + s[i + w], outside strong lines: bins where that of the analytic spectrum,
    which the network cannot change, exceeds the cutoff."""
    bend = _second_difference(prediction.mean, options.window) / (options.scale_ppm * PPM)
    penalty = size_penalty(bend, options.mode) / bend.shape[1]
    if options.mask_strong_lines:
        lines = _second_difference(prediction.analytic, options.window).abs() > options.cutoff * PPM
        penalty = penalty.masked_fill(lines, 0.0)
    return pad(penalty, (1 + options.window, options.window))


def fft_suppression(prediction: Prediction, axis: SpectralAxis, options: FftOptions) -> Tensor:
    """Mean square of the spectrum's part above the cutoff frequency.

    The spectrum is mirrored at its ends, as in a discrete cosine transform, so that a difference between the ends is
    no high frequency. By Parseval's theorem the sum over bins is the power above the cutoff.
    """
    spectrum = _airs(prediction.mean)
    n_bins = spectrum.shape[1]
    centred = spectrum - spectrum.mean(dim=1, keepdim=True)
    amplitudes = torch.fft.rfft(torch.cat([centred, centred.flip(1)], dim=1))
    cycles = torch.arange(amplitudes.shape[1], device=spectrum.device) / 2.0
    rough = torch.fft.irfft(amplitudes * (cycles > options.cutoff_freq), n=2 * n_bins)[:, :n_bins]
    return pad(size_penalty(rough / (options.scale_ppm * PPM), options.mode) / n_bins, (1, 0))


def total_variation(prediction: Prediction, axis: SpectralAxis, options: TotalVariationOptions) -> Tensor:
    """Mean of |s[i + 1] - s[i]| (Rudin, Osher & Fatemi 1992), told at bin i; hard: of what exceeds the scale."""
    step = _airs(prediction.mean).diff(dim=1).abs() / (options.scale_ppm * PPM)
    penalty = step if options.mode == "soft" else torch.relu(step - 1.0)
    return pad(penalty / step.shape[1], (1, 1))


def nonnegativity(prediction: Prediction, axis: SpectralAxis, options: NonnegativityOptions) -> Tensor:
    """Mean power of the part of the depth below zero."""
    below = -prediction.mean / (options.scale_ppm * PPM)
    return bound_penalty(below, options.mode, options.power) / axis.n_bins


def seam_continuity(prediction: Prediction, axis: SpectralAxis, options: SeamContinuityOptions) -> Tensor:
    """Square of the step at the seam between the lines through the two bins on either side, half at each bin beside
    the seam."""
    seam, spectrum = options.seam_index, prediction.mean
    left = 1.5 * spectrum[:, seam - 1] - 0.5 * spectrum[:, seam - 2]
    right = 1.5 * spectrum[:, seam] - 0.5 * spectrum[:, seam + 1]
    penalty = size_penalty((right - left) / (options.scale_ppm * PPM), options.mode)
    return pad(0.5 * penalty[:, None].expand(-1, 2), (seam - 1, axis.n_bins - seam - 1))


def quantile_monotonicity(prediction: Prediction, axis: SpectralAxis, options: QuantileMonotonicityOptions) -> Tensor:
    """Mean square of how far a quantile lies above the next higher one. Without quantiles there is nothing to cross:
    those of a Gaussian are in order."""
    if prediction.quantiles is None:
        return torch.zeros_like(prediction.mean)
    crossed = -prediction.quantiles.diff(dim=1) / (options.scale_ppm * PPM)
    return bound_penalty(crossed, options.mode).mean(dim=1) / axis.n_bins


def sigma_bounds(prediction: Prediction, axis: SpectralAxis, options: SigmaBoundsOptions) -> Tensor:
    """Mean square of the e-folds by which sigma lies below its instrument's lowest or above the highest value."""
    lowest = prediction.sigma.new_full((axis.n_bins,), options.min_airs)
    lowest[FGS1.spectral_slice] = options.min_fgs1
    below = torch.log(lowest / prediction.sigma)
    above = torch.log(prediction.sigma / options.max_sigma)
    return bound_penalty(torch.maximum(below, above), options.mode) / axis.n_bins


def _airs(spectrum: Tensor) -> Tensor:
    return spectrum[:, AIRS.spectral_slice]


def _second_difference(spectrum: Tensor, distance: int) -> Tensor:
    """At the AIRS bins that have both neighbours (planets, AIRS bins - 2 distance)."""
    airs = _airs(spectrum)
    return airs[:, : -2 * distance] - 2.0 * airs[:, distance:-distance] + airs[:, 2 * distance :]
