"""The noise passport against drawn noise and drawn nuisances."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "transit"))

from light_curves import star, visit

from spectramind.instruments import AIRS, FGS1, N_WAVELENGTHS
from spectramind.transit.fit import FittedCurves, PlanetFit, fit_planet, fitted_curves
from spectramind.transit.joint import Gaussian, inverse, joint_likelihood
from spectramind.transit.local_likelihood import LogCurves, linearise
from spectramind.transit.nuisances import first_guess
from spectramind.transit.options import TransitOptions
from spectramind.types import CalibratedVisit, Floats
from spectramind.uncertainty.noise_passport import (
    AIRS_WHITE,
    DEPTHS,
    TERMS,
    DetectorNoise,
    NoisePassport,
    allan_table,
    noise_passport,
)

OPTIONS = TransitOptions(drift_degree=2, drift_colours=2)
DETECTORS = {FGS1.name: DetectorNoise(300.0, 100.0), AIRS.name: DetectorNoise(300.0, 100.0)}
DRAWS = 400
TOLERANCE = 5 * np.sqrt(2 / DRAWS)
"""Five standard errors of a variance from so many draws."""


class Planet:
    """Two visits, whose variance is half photons' in AIRS, with a motion that bins share, and their passport."""

    def __init__(self) -> None:
        self.star = star()
        depth = np.full(N_WAVELENGTHS, 0.01)
        self.visits = [self.noisier(visit(self.star, depth, samples=60, seed=3, number=n)) for n in (0, 1)]
        self.fit: PlanetFit = fit_planet(self.visits, self.star, OPTIONS)
        self.curves = fitted_curves(self.fit, self.visits, self.star, OPTIONS)
        prior = first_guess(OPTIONS, 7.5)
        self.nuisance_covariance = prior.covariance(2)
        self.nuisances = Gaussian.from_moments(prior.mean(self.star, 2), self.nuisance_covariance)
        near = np.exp(-((np.arange(N_WAVELENGTHS)[:, None] - np.arange(N_WAVELENGTHS)) ** 2) / 200)
        self.prior_covariance = 1e-4**2 * near + 1e-5**2 * np.eye(N_WAVELENGTHS) + 0.01**2
        self.spectrum = Gaussian.from_moments(depth, self.prior_covariance)
        known = (self.spectrum, self.nuisances)
        self.passport: NoisePassport = noise_passport(
            self.visits, self.curves, self.star, self.fit.layout, *known, DETECTORS
        )

    @staticmethod
    def noisier(given: CalibratedVisit) -> CalibratedVisit:
        rng = np.random.default_rng([7, given.visit])
        curve = given.curves[AIRS.name]
        variance = 2 * curve.variance / curve.n_pairs[:, None]
        motion = rng.normal(size=(len(curve.flux), 1)) * np.sin(np.arange(282) / 20)
        noisy = curve.flux + np.sqrt(variance) * (rng.normal(size=variance.shape) + 2 * motion)
        return replace(given, curves=given.curves | {AIRS.name: replace(curve, flux=noisy, variance=variance)})

    def covariance(self) -> Floats:
        precision = joint_likelihood([[c.likelihood for c in cs] for cs in self.curves], self.fit.layout).dense()
        known = np.zeros_like(precision.precision)
        known[:N_WAVELENGTHS, :N_WAVELENGTHS] = self.spectrum.precision
        known[N_WAVELENGTHS:, N_WAVELENGTHS:] = self.nuisances.precision
        return inverse(precision.precision + known)

    def score(self, noise: list[list[Floats]]) -> Floats:
        """Of light curves to which this noise is added."""
        changed = [
            [self.with_noise(c, n) for c, n in zip(cs, ns, strict=True)]
            for cs, ns in zip(self.curves, noise, strict=True)
        ]
        locals_ = [[linearise(c, self.star, fitted.local)[0] for c, fitted in pair] for pair in changed]
        return joint_likelihood(locals_, self.fit.layout).score

    @staticmethod
    def with_noise(fitted: FittedCurves, noise: Floats) -> tuple[LogCurves, FittedCurves]:
        return replace(fitted.weighted, log_flux=fitted.weighted.log_flux + noise), fitted

    def term(self, name: str) -> Floats:
        return self.passport.terms[TERMS.index(name)]


@pytest.fixture(scope="module")
def planet() -> Planet:
    return Planet()


def depths(errors: Floats) -> Floats:
    """Variances (284,) of drawn errors (draws, 283)."""
    return (np.column_stack([errors, errors[:, AIRS.spectral_slice].mean(axis=1)]) ** 2).mean(axis=0)


def test_the_terms_sum_to_the_variance(planet: Planet) -> None:
    np.testing.assert_allclose(planet.passport.terms.sum(axis=0), planet.passport.variance, rtol=1e-9)
    for name in ("photon", "read", "dark", "jitter", "drift", "orbit", "prior"):
        assert (planet.term(name) > 0).any(), name
    assert DEPTHS[-1] == AIRS_WHITE


def test_noise_terms_are_what_drawn_noise_does_to_the_depths(planet: Planet) -> None:
    """Photons' noise alone, and the motion that bins share alone, drawn into the light curves, linearised anew."""
    rng = np.random.default_rng(1)
    gain = planet.covariance()[:N_WAVELENGTHS]
    rest = planet.score([[np.zeros_like(c.residual) for c in cs] for cs in planet.curves])
    drawn: dict[str, list[Floats]] = {"photon": [], "jitter": []}
    for _ in range(DRAWS):
        photon, jitter = [], []
        for visited, cs in zip(planet.visits, planet.curves, strict=True):
            photon.append([])
            jitter.append([])
            for c in cs:
                curve = visited.curves[c.given.instrument]
                sigma = np.sqrt(curve.flux / curve.n_pairs[:, None]) / curve.flux
                scale = np.sqrt(c.weighted.weight * curve.variance) / curve.flux
                white = sigma * rng.normal(size=sigma.shape)
                photon[-1].append(np.where(c.weighted.weight > 0, white / np.where(scale > 1, scale, 1), 0))
                shared = np.sqrt(c.weighted.excess / (1 - c.weighted.excess)) * rng.normal(
                    size=(len(sigma), len(c.weighted.excess))
                )
                root = np.sqrt(np.where(c.weighted.weight > 0, c.weighted.weight, np.inf))
                jitter[-1].append(shared @ c.weighted.patterns / root)
        drawn["photon"].append(gain @ (planet.score(photon) - rest))
        drawn["jitter"].append(gain @ (planet.score(jitter) - rest))
    for name, errors in drawn.items():
        ratio = depths(np.array(errors)) / planet.term(name)
        assert np.abs(ratio - 1).max() < TOLERANCE, name


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
        ratio = depths((true @ kept.T)[:, :N_WAVELENGTHS]) / planet.term(name)
        assert np.abs(ratio - 1).max() < TOLERANCE, name


def test_independent_noise_falls_as_one_over_the_root_in_the_allan_table(planet: Planet) -> None:
    table = allan_table(planet.curves[0][0])
    assert [count for count, _, _ in table] == [1, 2, 4]
    assert table[0][1] == pytest.approx(table[0][2])
    for count, scatter, expected in table:
        assert scatter == pytest.approx(expected, rel=5 / np.sqrt(2 * 60 / count))
