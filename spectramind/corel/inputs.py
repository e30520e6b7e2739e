"""What is observed of a planet's bins before its truth is known: all that the network may read."""

from __future__ import annotations

import numpy as np

from spectramind.instruments import AIRS, INSTRUMENTS
from spectramind.types import Floats

FEATURES = (
    *("log sigma", "sigma against its bin", "log level", "depth above the level", "bend along wavelength"),
    *("scatter out of transit", "half-transit difference", "visit difference"),
)


def node_features(mean: Floats, sigma: Floats, evidence: Floats | None, typical_log_sigma: Floats) -> Floats:
    """(planets, bins, 8) in the order of `FEATURES`, from predictions (planets, bins), the `evidence` of the fits
    (instruments, planets, 3), zeros without it, and the median log sigma (bins,) of the training planets."""
    level = mean[:, AIRS.spectral_slice].mean(axis=1, keepdims=True)
    bend = np.zeros_like(mean)
    bend[:, 2:-1] = mean[:, 1:-2] - 2 * mean[:, 2:-1] + mean[:, 3:]
    log_sigma = np.log(sigma)
    columns = [
        log_sigma,
        log_sigma - typical_log_sigma,
        np.log(np.maximum(level, 1e-6)) + np.zeros_like(mean),
        np.arcsinh((mean - level) / sigma),
        np.arcsinh(bend / sigma),
    ]
    numbers = np.zeros((*mean.shape, 3))
    if evidence is not None:
        for instrument, own in zip(INSTRUMENTS, evidence, strict=True):
            numbers[:, instrument.spectral_slice] = own[:, None]
    return np.concatenate([np.stack(columns, axis=2), numbers], axis=2)
