"""The noise passport against drawn noise and drawn nuisances."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.linalg import block_diag

sys.path.insert(0, str(Path(__file__).parents[1] / "transit"))

from light_curves import star, visit

from spectramind.instruments import AIRS, FGS1, N_WAVELENGTHS
from spectramind.transit.fit import FittedCurves, PlanetFit, fit_planet, fitted_curves
from spectramind.transit.joint import Gaussian, inverse, joint_likelihood
from spectramind.transit.local_likelihood import LocalLikelihood, linearise, model_and_slopes
from spectramind.transit.nuisances import first_guess
from spectramind.transit.options import TransitOptions
from spectramind.types import CalibratedVisit, Floats
from spectramind.uncertainty.noise_passport import (
    AIRS_WHITE,
    DEPTHS,
    NOISE_TERMS,
    TERMS,
    DetectorNoise,
    NoisePassport,
    allan_table,
    noise_passport,
    noise_shares,
)
from spectramind.uncertainty.shared_patterns import pixel_share

OPTIONS = TransitOptions(drift_degree=2, drift_colours=2)
DETECTORS = {FGS1.name: DetectorNoise(300.0, 100.0), AIRS.name: DetectorNoise(300.0, 100.0)}
GROWTH, MOTION, FLAT = 1.5, 0.03, 0.7
"""Variance over the propagated one; rms motion in pixels; rms of the pixels' own, in propagated standard deviations."""
PIXELS = np.sign(np.random.default_rng(5).normal(size=N_WAVELENGTHS - 1))
DRAWS = 400
TOLERANCE = 5 * np.sqrt(2 / DRAWS)
"""Five standard errors of a variance from so many draws."""


class Planet:
    """Two visits of known noise and their passport.

    Half of the propagated variance is photons', and residuals scatter `GROWTH` times as much. Bins share motion along
    dispersion, and, weaker, noise whose sign is any for each pixel. The second visit is deeper by `change`.
    """

    def __init__(self, change: float = 0.0) -> None:
        self.star = star()
        depth = np.full(N_WAVELENGTHS, 0.01)
        self.visits = [
            self.noisier(visit(self.star, depth + n * change, samples=60, seed=None, number=n)) for n in (0, 1)
        ]
        self.fit: PlanetFit = fit_planet(self.visits, self.star, OPTIONS)
        self.curves = fitted_curves(self.fit, self.visits, self.star, OPTIONS)
        prior = first_guess(OPTIONS, 7.5)
        self.nuisance_covariance = prior.covariance(2)
        self.nuisances = Gaussian.from_moments(prior.mean(self.star, 2), self.nuisance_covariance)
        near = np.exp(-((np.arange(N_WAVELENGTHS)[:, None] - np.arange(N_WAVELENGTHS)) ** 2) / 200)
        self.prior_covariance = 1e-4**2 * near + 1e-4**2 * np.eye(N_WAVELENGTHS) + 0.01**2
        self.spectrum = Gaussian.from_moments(depth, self.prior_covariance)
        known = (self.spectrum, self.nuisances)
        self.passport: NoisePassport = noise_passport(
            self.visits, self.curves, self.star, self.fit.layout, *known, DETECTORS
        )

    @staticmethod
    def noisier(given: CalibratedVisit) -> CalibratedVisit:
        rng = np.random.default_rng([7, given.visit])
        curves = {}
        for name, curve in given.curves.items():
            bins = np.arange(curve.flux.shape[1])
            waves = np.exp(0.4 * np.sin(bins / 12)) if curve.instrument.dispersed else 1.0
            flux = curve.flux * waves
            variance = 2 * flux / curve.n_pairs[:, None]
            noise = np.sqrt(GROWTH * variance) * rng.normal(size=flux.shape)
            if curve.instrument.dispersed:
                in_time = np.sqrt(len(flux)) * np.linalg.qr(rng.normal(size=(len(flux), 2)))[0]
                slope = np.gradient(np.log(flux[0]))
                noise += np.outer(in_time[:, 0], MOTION * slope) * flux
                noise += np.outer(in_time[:, 1], FLAT * PIXELS) * np.sqrt(variance)
            curves[name] = replace(curve, flux=flux + noise, variance=variance)
        return replace(given, curves=curves)

    def covariance(self) -> Floats:
        precision = joint_likelihood([[c.likelihood for c in cs] for cs in self.curves], self.fit.layout).dense()
        known = block_diag(self.spectrum.precision, self.nuisances.precision)
        return inverse(precision.precision + known)

    def score(self, noise: list[Floats]) -> Floats:
        """Of light curves to which this noise of the log flux (T, B) is added, curve by curve."""
        left = iter(noise)
        changed = [[self.with_noise(c, next(left)) for c in cs] for cs in self.curves]
        return joint_likelihood(changed, self.fit.layout).score

    def with_noise(self, fitted: FittedCurves, noise: Floats) -> LocalLikelihood:
        curves = replace(fitted.weighted, log_flux=fitted.weighted.log_flux + noise)
        return linearise(curves, self.star, fitted.local)[0]

    def score_changes(self, noise: list[Floats]) -> Floats:
        """How the score (draws, n) changes with noise (draws, T, B) of each curve, to which it is linear."""
        total = np.zeros((len(noise[0]), len(self.covariance())))
        left = iter(noise)
        for position, cs in enumerate(self.curves):
            for c in (fitted.weighted for fitted in cs):
                root = np.sqrt(c.weight)
                z = next(left) * root
                z = z - root * (z * root).sum(axis=1, keepdims=True) / c.weight.sum(axis=0)
                z = z - (z @ c.patterns.T * c.excess) @ c.patterns
                slopes = model_and_slopes(c, self.star, cs[int(c.dispersed)].local)[1]
                slopes = slopes - ((c.weight * slopes).sum(axis=1) / c.weight.sum(axis=0))[:, None]
                own = np.einsum("qtb,dtb->dbq", slopes * root, z)
                bins = (AIRS if c.dispersed else FGS1).spectral_slice
                design = self.fit.layout.design(c.dispersed, c.wavelength_um, position)
                total[:, bins] += own[:, :, 0]
                total[:, N_WAVELENGTHS:] += np.einsum("dbq,bqn->dn", own[:, :, 1:], design)
        return total

    def noise(self, kind: str, rng: np.random.Generator) -> list[Floats]:
        """Drawn noise (draws, T, B) of the log flux of one kind alone, curve by curve."""
        drawn = []
        for visited, cs in zip(self.visits, self.curves, strict=True):
            for c in cs:
                curve, used = visited.curves[c.given.instrument], c.weighted.weight > 0
                found = np.where(used, 1.0 / np.where(used, c.weighted.weight, 1.0), 0.0)
                stated = np.minimum(curve.variance / curve.flux**2, found)
                photon = stated * curve.flux / curve.n_pairs[:, None] / curve.variance
                variance = {
                    "photon": photon,
                    "read": 0.75 * (stated - photon),
                    "dark": 0.25 * (stated - photon),
                    "excess": found - stated,
                }
                shape = (DRAWS, *stated.shape)
                if kind in variance:
                    drawn.append(np.sqrt(variance[kind]) * rng.normal(size=shape))
                else:
                    share = pixel_share(c.weighted, OPTIONS.drift_colours)
                    share = share if kind == "flat" else 1 - share
                    strength = np.sqrt(share * c.weighted.excess / (1 - c.weighted.excess))
                    shared = strength * rng.normal(size=(*shape[:2], len(share)))
                    drawn.append(np.sqrt(found) * (shared @ c.weighted.patterns))
        return drawn

    def term(self, name: str) -> Floats:
        return self.passport.terms[TERMS.index(name)]


@pytest.fixture(scope="module")
def planet() -> Planet:
    return Planet()


def variances(errors: Floats) -> Floats:
    """Variances (284,) of drawn errors (draws, 283) of the depths in `DEPTHS`."""
    return np.asarray((np.column_stack([errors, errors[:, AIRS.spectral_slice].mean(axis=1)]) ** 2).mean(axis=0))


def test_the_terms_sum_to_the_variance(planet: Planet) -> None:
    np.testing.assert_allclose(planet.passport.terms.sum(axis=0), planet.passport.variance, rtol=1e-9)
    for name in TERMS:
        assert (planet.term(name) > 0).any(), name
    assert DEPTHS[-1] == AIRS_WHITE


@pytest.mark.parametrize("kind", NOISE_TERMS)
def test_noise_terms_are_what_drawn_noise_does_to_the_depths(planet: Planet, kind: str) -> None:
    """One kind of noise alone, drawn into the light curves."""
    noise = planet.noise(kind, np.random.default_rng(1))
    changes = planet.score_changes(noise)
    rest = planet.score([np.zeros_like(one[0]) for one in noise])
    np.testing.assert_allclose(changes[0], planet.score([one[0] for one in noise]) - rest, rtol=1e-6, atol=1e-3)
    ratio = variances(changes @ planet.covariance()[:, :N_WAVELENGTHS]) / planet.term(kind)
    assert np.abs(ratio - 1).max() < TOLERANCE


def test_shared_noise_is_told_by_its_pattern(planet: Planet) -> None:
    """The stronger pattern is motion, however the spectrum's slope varies; the weaker one differs by pixel."""
    for _, airs in planet.curves:
        motion, pixels = pixel_share(airs.weighted, OPTIONS.drift_colours)
        assert motion < 0.005
        assert pixels > 0.95


def test_excess_is_what_residuals_scatter_beyond_the_propagated(planet: Planet) -> None:
    for visited, (_, airs) in zip(planet.visits, planet.curves, strict=True):
        curve = visited.curves[AIRS.name]
        motion = MOTION * np.gradient(np.median(np.log(curve.flux), axis=0))
        planted = GROWTH + FLAT**2 + motion**2 * np.median(curve.flux**2 / curve.variance, axis=0)
        excess = noise_shares(visited, airs, DETECTORS)[3].mean(axis=0)
        assert np.median(1 / (1 - excess) / planted) == pytest.approx(1, rel=0.15)


def test_visits_that_differ_are_told_from_noise(planet: Planet) -> None:
    changed = Planet(change=4e-4).passport.agreement
    for depth in (0, -1):
        assert planet.passport.agreement.chi2[depth] < 10
        assert changed.chi2[depth] > 30
        assert changed.change[depth] == pytest.approx(4e-4 / np.sqrt(2), rel=0.3)


def test_assumed_terms_are_what_drawn_nuisances_do_to_the_depths(planet: Planet) -> None:
    """The drift alone, and the spectrum alone, drawn from what is assumed of them, in the linearised fit."""
    rng = np.random.default_rng(2)
    covariance = planet.covariance()
    layout = planet.fit.layout
    precision = joint_likelihood([[c.likelihood for c in cs] for cs in planet.curves], layout).dense().precision
    kept = np.eye(len(covariance)) - covariance @ precision  # the error that a true deviation leaves
    full = np.zeros_like(covariance)
    full[:N_WAVELENGTHS, :N_WAVELENGTHS] = planet.prior_covariance
    full[N_WAVELENGTHS:, N_WAVELENGTHS:] = planet.nuisance_covariance
    drift = np.zeros(len(full), bool)
    for position in range(2):
        part = layout.visit(position)
        drift[N_WAVELENGTHS + part.start + 2 : N_WAVELENGTHS + part.stop] = True
    for name, rows in (("drift", drift), ("prior", np.arange(len(full)) < N_WAVELENGTHS)):
        root = np.linalg.cholesky(full[np.ix_(rows, rows)])
        true = np.zeros((DRAWS, len(full)))
        true[:, rows] = rng.normal(size=(DRAWS, root.shape[0])) @ root.T
        ratio = variances((true @ kept.T)[:, :N_WAVELENGTHS]) / planet.term(name)
        assert np.abs(ratio - 1).max() < TOLERANCE, name


def test_independent_noise_falls_as_one_over_the_root_in_the_allan_table(planet: Planet) -> None:
    table = allan_table(planet.curves[0][0])
    assert [count for count, _, _ in table] == [1, 2, 4]
    assert table[0][1] == pytest.approx(table[0][2])
    for count, scatter, expected in table:
        assert scatter == pytest.approx(expected, rel=5 / np.sqrt(2 * 60 / count))
