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

    def moments(self) -> tuple[Floats, Floats]:
        """Mean (n,) and covariance (n, n)."""
        covariance = inverse(self.precision)
        return covariance @ self.score, covariance

    def condition(self, first: Floats) -> Gaussian:
        """The last variables when the leading ones are known to be `first`."""
        n = first.size
        return Gaussian(self.precision[n:, n:], self.score[n:] - self.precision[n:, :n] @ first)

    def marginal(self, n: int) -> Gaussian:
        """The leading `n` variables, the others integrated out."""
        coupling = np.column_stack([self.precision[n:, :n], self.score[n:]])
        solved = solve(self.precision[n:, n:], coupling)
        return Gaussian(
            self.precision[:n, :n] - self.precision[:n, n:] @ solved[:, :n],
            self.score[:n] - self.precision[:n, n:] @ solved[:, n],
        )


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


def joint_likelihood(visits: Sequence[Sequence[LocalLikelihood]], layout: Layout) -> Gaussian:
    """Likelihood of [spectrum, nuisances] from the local likelihoods of every visit's instruments."""
    size = N_WAVELENGTHS + layout.size
    precision, score = np.zeros((size, size)), np.zeros(size)
    rest = slice(N_WAVELENGTHS, size)
    for position, instruments in enumerate(visits):
        for local in instruments:
            bins = np.arange(N_WAVELENGTHS)[(AIRS if local.dispersed else FGS1).spectral_slice]
            design = layout.design(local.dispersed, local.wavelength_um, position)
            precision[bins, bins] += local.precision[:, 0, 0]
            score[bins] += local.score[:, 0]
            coupling = np.einsum("bi,bip->bp", local.precision[:, 0, 1:], design)
            precision[bins, rest] += coupling
            precision[rest, bins] += coupling.T
            weighted = local.precision[:, 1:, 1:] @ design
            precision[rest, rest] += np.tensordot(design, weighted, axes=([0, 1], [0, 1]))
            score[rest] += np.tensordot(design, local.score[:, 1:], axes=([0, 1], [0, 1]))
    return Gaussian(precision, score)
