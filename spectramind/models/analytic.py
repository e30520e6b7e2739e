"""The analytic predictor: transit likelihoods, nuisances and spectral prior joined into a posterior of each spectrum.

Training learns, from planets with known spectra: how far geometry, limb darkening and drift may stray
(`nuisance_learning`), what relative error calibration leaves (`response`), and what spectra look like
(`spectral_prior`). Every planet's training prediction is made by a model that has not seen it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from spectramind.errors import InputError
from spectramind.instruments import N_WAVELENGTHS
from spectramind.models.nuisance_learning import learn_nuisance_prior
from spectramind.models.options import AnalyticOptions
from spectramind.models.response import correct_response, learn_response
from spectramind.models.spectral_prior import SpectralPrior, learn_spectral_prior, posterior, reduce_likelihood
from spectramind.transit.fit import PlanetFit
from spectramind.transit.joint import Gaussian
from spectramind.transit.nuisances import Layout, NuisancePrior, first_guess
from spectramind.transit.options import TransitOptions
from spectramind.types import Floats, Spectra, Star

FORMAT = "spectramind-analytic-1"
FEWEST_PLANETS = 8


@dataclass(frozen=True)
class AnalyticModel:
    """Everything that prediction needs; `wavelengths_um` (283,), `response` (283,) measured over true depth."""

    nuisances: NuisancePrior
    response: Floats
    spectra: SpectralPrior
    wavelengths_um: Floats
    layout: Layout
    amplitude_steps: int

    def predict(self, fits: Sequence[PlanetFit], stars: Sequence[Star]) -> Spectra:
        """Posterior spectra, one per fit. A fit without a usable transit keeps the prior, which is wide, and is
        flagged.

        Raises InputError if a fit's nuisances are not those that the model was trained with.
        """
        means, covariances = [], []
        for fit, star in zip(fits, stars, strict=True):
            if replace(fit.layout, n_visits=1) != self.layout:
                raise InputError(
                    f"fit of planet {fit.planet_id}",
                    f"nuisances {self.layout}",
                    f"{fit.layout}",
                    "Fit and train with the same transit settings.",
                )
            measured = _marginal_spectrum(fit.likelihood(), fit, star, self.nuisances)
            reduced = reduce_likelihood(correct_response(measured, self.response), self.spectra)
            mean, covariance = posterior(reduced, star, self.spectra, self.amplitude_steps)
            means.append(mean)
            covariances.append(covariance)
        covariance = np.stack(covariances)
        return Spectra(
            planet_ids=tuple(fit.planet_id for fit in fits),
            mean=np.stack(means),
            sigma=np.sqrt(np.diagonal(covariance, axis1=1, axis2=2)),
            covariance=covariance,
            flags=tuple(fit.flags for fit in fits),
        )

    def save(self, directory: Path) -> None:
        """`model.safetensors` and `model.json` in an existing directory."""
        from safetensors.numpy import save_file

        arrays = self.nuisances.to_arrays() | self.spectra.to_arrays()
        arrays |= {"response": self.response, "wavelengths_um": self.wavelengths_um}
        save_file({name: np.ascontiguousarray(a) for name, a in arrays.items()}, directory / "model.safetensors")
        header = {"format": FORMAT, "layout": vars(self.layout), "amplitude_steps": self.amplitude_steps}
        (directory / "model.json").write_text(json.dumps(header, indent=2, sort_keys=True) + "\n")

    @classmethod
    def load(cls, directory: Path) -> AnalyticModel:
        """Raises InputError if the files are missing or of another format."""
        from safetensors.numpy import load_file

        path = directory / "model.json"
        header: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"format": "no model.json"}
        if header.get("format") != FORMAT:
            raise InputError(path, FORMAT, str(header.get("format")), "Point to a directory that training wrote.")
        arrays = load_file(directory / "model.safetensors")
        return cls(
            NuisancePrior.from_arrays(arrays),
            arrays["response"],
            SpectralPrior.from_arrays(arrays),
            arrays["wavelengths_um"],
            Layout(**header["layout"]),
            header["amplitude_steps"],
        )


@dataclass(frozen=True)
class _Planets:
    """Training planets; `joint` likelihoods of spectrum and nuisances, `truth` (N, 283)."""

    fits: tuple[PlanetFit, ...]
    stars: tuple[Star, ...]
    joint: tuple[Gaussian, ...]
    truth: Floats

    def part(self, chosen: Sequence[int]) -> _Planets:
        return _Planets(
            tuple(self.fits[i] for i in chosen),
            tuple(self.stars[i] for i in chosen),
            tuple(self.joint[i] for i in chosen),
            self.truth[list(chosen)],
        )


def train_analytic(
    fits: Sequence[PlanetFit],
    stars: Sequence[Star],
    labels: Floats,
    wavelengths_um: Floats,
    options: AnalyticOptions,
    transit: TransitOptions,
    seed: int,
) -> tuple[AnalyticModel, Spectra]:
    """Train on planets with true spectra `labels` (N, 283); returns the model and out-of-fold predictions of all N.

    The kernel width of a fold is the one that predicts the other folds' planets best, so that no planet takes part in
    any choice made for it. Raises InputError for fewer than eight planets.
    """
    if len(fits) < FEWEST_PLANETS:
        raise InputError(
            "training planets", f"at least {FEWEST_PLANETS}", str(len(fits)), "Add planets with known spectra."
        )
    planets = _Planets(tuple(fits), tuple(stars), tuple(fit.likelihood() for fit in fits), labels)
    folds = _folds(len(fits), min(options.folds, len(fits)), seed)
    start = first_guess(transit, window_h=8.0)
    everyone = list(range(len(fits)))
    nuisances = _learn_nuisances(planets, start, options.learning_iterations)
    candidates: dict[float, list[Spectra]] = {width: [] for width in options.kernel_widths}
    for fold in folds:
        seen = planets.part([i for i in everyone if i not in set(fold)])
        held_out = planets.part(fold)
        learned = _learn_nuisances(seen, start, options.learning_iterations)
        for model in _models(seen, learned, options.kernel_widths, wavelengths_um, options):
            candidates[model.spectra.width].append(model.predict(held_out.fits, held_out.stars))
    quality = {width: _fold_quality(predictions, folds, labels) for width, predictions in candidates.items()}
    means, covariances = np.empty_like(labels), np.empty((len(fits), N_WAVELENGTHS, N_WAVELENGTHS))
    for number, fold in enumerate(folds):
        others = [n for n in range(len(folds)) if n != number]
        width = max(quality, key=lambda w: quality[w][others].sum())
        prediction = candidates[width][number]
        assert prediction.covariance is not None
        means[fold], covariances[fold] = prediction.mean, prediction.covariance
    best = max(quality, key=lambda w: quality[w].sum())
    model = _models(planets, nuisances, (best,), wavelengths_um, options)[0]
    out_of_fold = Spectra(
        tuple(fit.planet_id for fit in fits),
        means,
        np.sqrt(np.diagonal(covariances, axis1=1, axis2=2)),
        covariances,
        tuple(fit.flags for fit in fits),
    )
    return model, out_of_fold


def _folds(n: int, count: int, seed: int) -> list[list[int]]:
    order = np.random.default_rng(seed).permutation(n)
    return [sorted(int(i) for i in order[k::count]) for k in range(count)]


def _learn_nuisances(planets: _Planets, start: NuisancePrior, iterations: int) -> NuisancePrior:
    usable = [i for i, fit in enumerate(planets.fits) if not fit.flags]
    chosen = planets.part(usable)
    given = [joint.condition(truth) for joint, truth in zip(chosen.joint, chosen.truth, strict=True)]
    visits = [fit.layout.n_visits for fit in chosen.fits]
    return learn_nuisance_prior(given, chosen.stars, visits, start, iterations)


def _models(
    planets: _Planets,
    nuisances: NuisancePrior,
    widths: Sequence[float],
    wavelengths_um: Floats,
    options: AnalyticOptions,
) -> list[AnalyticModel]:
    """One model per kernel width, all else being shared."""
    usable = [i for i, fit in enumerate(planets.fits) if not fit.flags]
    measured = [_marginal_spectrum(planets.joint[i], planets.fits[i], planets.stars[i], nuisances) for i in usable]
    response = learn_response(measured, planets.truth[usable], wavelengths_um)
    layout = replace(planets.fits[0].layout, n_visits=1)
    priors = [learn_spectral_prior(planets.truth, planets.stars, options.shape_components, w) for w in widths]
    return [
        AnalyticModel(nuisances, response, prior, wavelengths_um, layout, options.amplitude_steps) for prior in priors
    ]


def _marginal_spectrum(joint: Gaussian, fit: PlanetFit, star: Star, nuisances: NuisancePrior) -> Gaussian:
    """Likelihood of the spectrum alone, nuisances integrated out; without information where the fit is flagged."""
    if fit.flags:
        return Gaussian(1e-6 * np.eye(N_WAVELENGTHS), np.zeros(N_WAVELENGTHS))
    n_visits = fit.layout.n_visits
    prior = Gaussian.from_moments(nuisances.mean(star, n_visits), nuisances.covariance(n_visits))
    precision, score = joint.precision.copy(), joint.score.copy()
    precision[N_WAVELENGTHS:, N_WAVELENGTHS:] += prior.precision
    score[N_WAVELENGTHS:] += prior.score
    return Gaussian(precision, score).marginal(N_WAVELENGTHS)


def _fold_quality(predictions: Sequence[Spectra], folds: Sequence[Sequence[int]], labels: Floats) -> Floats:
    """Total log density of the truth in each fold, per bin, clipped so that one failed planet does not decide."""
    totals = []
    for prediction, fold in zip(predictions, folds, strict=True):
        z = (labels[list(fold)] - prediction.mean) / prediction.sigma
        per_planet = (-0.5 * z**2 - np.log(prediction.sigma)).mean(axis=1)
        totals.append(np.maximum(per_planet, np.median(per_planet) - 10.0).sum())
    return np.array(totals)
