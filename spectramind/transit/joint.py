"""All light curves of a planet as one quadratic likelihood of its spectrum and its nuisances, and its Gaussian
posterior.

The vector is [283 depths, nuisances of `Layout`].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from spectramind.instruments import AIRS, FGS1, N_WAVELENGTHS
from spectramind.transit.local_likelihood import LocalLikelihood
from spectramind.transit.nuisances import Layout
from spectramind.types import Floats


@dataclass(frozen=True)
class Gaussian:
    """An unnormalised Gaussian by `precision` (n, n) and `score` (n,): log L(x) = -x' precision x / 2 + x' score."""

    precision: Floats
    score: Floats

    def __add__(self, other: Gaussian) -> Gaussian:
        """The product of both densities."""
        return Gaussian(self.precision + other.precision, self.score + other.score)

    @classmethod
    def from_moments(cls, mean: Floats, covariance: Floats) -> Gaussian:
        precision = inverse(covariance)
        return cls(precision, precision @ mean)


def inverse(matrix: Floats) -> Floats:
    """Inverse of a symmetric positive definite matrix whose rows may differ by many orders of magnitude."""
    return solve(matrix, np.eye(matrix.shape[0]))


def solve(matrix: Floats, right: Floats) -> Floats:
    """Solution of a symmetric positive definite system, scaled to a unit diagonal first."""
    scale = 1.0 / np.sqrt(np.diag(matrix))
    factor = cho_factor(matrix * scale[:, None] * scale[None, :], check_finite=False)
    scaled = scale[:, None] * right if right.ndim == 2 else scale * right
    solution = cho_solve(factor, scaled, check_finite=False)
    return np.asarray(scale[:, None] * solution if right.ndim == 2 else scale * solution)


@dataclass(frozen=True)
class SpectrumLikelihood:
    """Likelihood of [spectrum, nuisances] by the parts of its precision: `spectrum` (283, 283), `coupling` (283, p),
    `nuisance` (p, p); `score` (283 + p,)."""

    spectrum: Floats
    coupling: Floats
    nuisance: Floats
    score: Floats

    def dense(self) -> Gaussian:
        """As a Gaussian of all 283 + p variables."""
        precision = np.block([[self.spectrum, self.coupling], [self.coupling.T, self.nuisance]])
        return Gaussian(precision, self.score)

    def given(self, spectrum: Floats) -> Gaussian:
        """The nuisances when the spectrum is known."""
        return Gaussian(self.nuisance, self.score[N_WAVELENGTHS:] - self.coupling.T @ spectrum)

    def nuisances(self, spectrum: Gaussian) -> Gaussian:
        """The nuisances, with a spectrum of prior `spectrum` integrated out."""
        score = self.score[:N_WAVELENGTHS] + spectrum.score
        solved = solve(self.spectrum + spectrum.precision, np.column_stack([self.coupling, score]))
        precision = self.nuisance - self.coupling.T @ solved[:, :-1]
        return Gaussian((precision + precision.T) / 2, self.score[N_WAVELENGTHS:] - self.coupling.T @ solved[:, -1])

    def integrated(self, knowledge: Gaussian) -> Gaussian:
        """The spectrum, with nuisances of prior `knowledge` integrated out."""
        score = self.score[N_WAVELENGTHS:] + knowledge.score
        solved = solve(self.nuisance + knowledge.precision, np.column_stack([self.coupling.T, score]))
        precision = self.spectrum - self.coupling @ solved[:, :-1]
        return Gaussian((precision + precision.T) / 2, self.score[:N_WAVELENGTHS] - self.coupling @ solved[:, -1])


def joint_likelihood(visits: Sequence[Sequence[LocalLikelihood]], layout: Layout) -> SpectrumLikelihood:
    """Likelihood of [spectrum, nuisances] from the local likelihoods of every visit's instruments."""
    spectrum, coupling = np.zeros((N_WAVELENGTHS, N_WAVELENGTHS)), np.zeros((N_WAVELENGTHS, layout.size))
    nuisance, score = np.zeros((layout.size, layout.size)), np.zeros(N_WAVELENGTHS + layout.size)
    for position, instruments in enumerate(visits):
        for local in instruments:
            bins = (AIRS if local.dispersed else FGS1).spectral_slice
            diagonal = np.arange(bins.start, bins.stop)
            design = layout.design(local.dispersed, local.wavelength_um, position)
            rows = design.reshape(-1, layout.size)
            shared = local.shared_slopes[:, :, 0]
            shared_rest = local.shared_slopes[:, :, 1:].reshape(len(shared), len(rows)) @ rows
            spectrum[diagonal, diagonal] += local.precision[:, 0, 0]
            spectrum[bins, bins] -= shared.T @ shared
            score[bins] += local.score[:, 0] - shared.T @ local.shared_data
            coupling[bins] += (local.precision[:, :1, 1:] @ design)[:, 0] - shared.T @ shared_rest
            nuisance += rows.T @ (local.precision[:, 1:, 1:] @ design).reshape(rows.shape)
            nuisance -= shared_rest.T @ shared_rest
            score[N_WAVELENGTHS:] += rows.T @ local.score[:, 1:].ravel() - shared_rest.T @ local.shared_data
    return SpectrumLikelihood(spectrum, coupling, nuisance, score)
