"""Rules from molecules, transit and star; see `spectramind.losses.shape_rules` for what a rule returns.

All are proxies, linear in the spectrum where they can be: they know band shapes and signs, not line lists. What each
stands for, and where it is only a heuristic, is told in docs/symbolic_rules.md.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from spectramind.instruments import AIRS, FGS1
from spectramind.losses.options import (
    AsymmetryOptions,
    MolecularCoherenceOptions,
    RatioEnvelopesOptions,
    RuleFamily,
)
from spectramind.losses.penalties import PPM, bound_penalty, size_penalty
from spectramind.losses.prediction import Prediction
from spectramind.losses.spectral_axis import SpectralAxis


def asymmetry(prediction: Prediction, axis: SpectralAxis, options: AsymmetryOptions) -> Tensor:
    """Mean square, over all windows, of the odd part of the correction about the window's centre.

    A changed abundance adds a band-shaped correction, an error of the wavelength scale the band's derivative.
    """
    correction = prediction.mean - prediction.analytic
    windows = [window for group in axis.windows.values() for window in group]
    n_bins = sum(window.stop - window.start for window in windows)
    penalty = torch.zeros_like(correction)
    for window in windows:
        odd = 0.5 * (correction[:, window] - correction[:, window].flip(1)) / (options.scale_ppm * PPM)
        penalty = penalty + _placed(size_penalty(odd, options.mode) / n_bins, window, axis)
    return penalty


def molecular_coherence(prediction: Prediction, axis: SpectralAxis, options: MolecularCoherenceOptions) -> Tensor:
    """Mean square, over all windows, of what a level, a slope and the molecule's template leave unexplained.

    Normalised within the window, the misfit's unit is sqrt(variance in the window + scale^2): the penalty is then the
    unexplained fraction of the window's variance, damped where the spectrum is flat.
    """
    bases = axis.window_bases if options.use_templates else axis.parabolas
    scale = options.scale_ppm * PPM
    n_bins = sum(basis.shape[0] for group in bases.values() for basis in group)
    penalty = torch.zeros_like(prediction.mean)
    for molecule, windows in axis.windows.items():
        for window, basis in zip(windows, bases[molecule], strict=True):
            spectrum = _centred(prediction.mean[:, window]) / scale
            misfit = spectrum - spectrum @ basis @ basis.T
            if options.normalize_within_window:
                misfit = misfit / torch.sqrt(1.0 + spectrum.square().mean(dim=1, keepdim=True))
            penalty = penalty + _placed(size_penalty(misfit, options.mode) / n_bins, window, axis)
    return penalty


def ratio_envelopes(prediction: Prediction, axis: SpectralAxis, options: RatioEnvelopesOptions) -> Tensor:
    """How far the contrasts of CH4 and CO2 leave their envelopes about that of H2O: low C(H2O) <= C <= high C(H2O).

    A contrast is the mean depth in the molecule's windows above that in the bins outside all windows, at least 0. Told
    as products, the bounds stay finite where H2O has no contrast. The mean of the two squares; each is spread over the
    windows of CH4 or CO2.
    """
    spectrum = _centred(prediction.mean)
    contrast = {name: torch.relu(spectrum @ (inside - axis.continuum)) for name, inside in axis.members.items()}
    penalty = torch.zeros_like(prediction.mean)
    for molecule, (low, high) in (("ch4", options.ch4_h2o), ("co2", options.co2_h2o)):
        water = contrast["h2o"]
        outside = torch.maximum(low * water - contrast[molecule], contrast[molecule] - high * water)
        squares = bound_penalty(outside / (options.scale_ppm * PPM), options.mode)
        penalty = penalty + 0.5 * squares[:, None] * axis.members[molecule]
    return penalty


def molecular_fingerprint(prediction: Prediction, axis: SpectralAxis, options: RuleFamily) -> Tensor:
    """Bands deepen a transit: mean square of the bands that the least-squares fit of `SpectralAxis.atmosphere` to the
    spectrum needs with a negative sign."""
    spectrum = _centred(prediction.mean[:, AIRS.spectral_slice]) / (options.scale_ppm * PPM)
    amplitudes = (spectrum @ axis.atmosphere_fit.T)[:, 2:]
    penalty = torch.zeros_like(spectrum)
    for column, template in enumerate(axis.templates.values()):
        missing = -amplitudes[:, column, None] * template[AIRS.spectral_slice]
        penalty = penalty + bound_penalty(missing, options.mode) / spectrum.shape[1]
    return pad(penalty, (1, 0))


def radiative_transfer(prediction: Prediction, axis: SpectralAxis, options: RuleFamily) -> Tensor:
    """Mean square of what `SpectralAxis.atmosphere` cannot fit of the AIRS spectrum.

    An isothermal atmosphere has depth = depth_0 + 2 Rp H / Rs^2 ln(opacity) (Lecavelier des Etangs et al. 2008). To
    first order ln(opacity) is a level, a power law in wavelength (haze) and a sum of bands.
    """
    spectrum = _centred(prediction.mean[:, AIRS.spectral_slice]) / (options.scale_ppm * PPM)
    misfit = spectrum - spectrum @ axis.atmosphere_fit.T @ axis.atmosphere.T
    return pad(size_penalty(misfit, options.mode) / spectrum.shape[1], (1, 0))


def gravitational_lensing(prediction: Prediction, axis: SpectralAxis, options: RuleFamily) -> Tensor:
    """Square of the achromatic part of the correction beyond the scale, in equal parts over all bins.

    A lens magnifies all wavelengths alike; so do spots, dilution and errors of the baseline. The white light curve has
    settled such a change, so the network has no grounds for one. The achromatic part is the mean of the middle
    half of the corrections: one confined to less than a quarter of the bins, chromatic, does not move it.
    """
    ordered = (prediction.mean - prediction.analytic).sort(dim=1).values
    quarter = axis.n_bins // 4
    common = ordered[:, quarter : axis.n_bins - quarter].mean(dim=1)
    excess = common.abs() / (options.scale_ppm * PPM) - 1.0
    return bound_penalty(excess, options.mode)[:, None].expand(-1, axis.n_bins) / axis.n_bins


def photonic_alignment(prediction: Prediction, axis: SpectralAxis, options: RuleFamily) -> Tensor:
    """Square of how far FGS1 and the mean of AIRS are apart beyond the scale, told at the FGS1 bin.

    Both see the same planet at the same time.
    """
    fgs1 = prediction.mean[:, FGS1.spectral_slice].mean(dim=1)
    apart = (fgs1 - prediction.mean[:, AIRS.spectral_slice].mean(dim=1)).abs()
    excess = apart / (options.scale_ppm * PPM) - 1.0
    return pad(bound_penalty(excess, options.mode)[:, None], (0, axis.n_bins - 1))


def _centred(spectrum: Tensor) -> Tensor:
    """Without its level, which would cost most of the digits of a product in float32 or TF32."""
    return spectrum - spectrum.mean(dim=1, keepdim=True)


def _placed(penalty: Tensor, window: slice, axis: SpectralAxis) -> Tensor:
    return pad(penalty, (window.start, axis.n_bins - window.stop))
