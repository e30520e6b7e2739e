"""The analytic predictor: transit likelihoods, nuisances and spectral prior joined into a posterior of each spectrum.

Training learns, from planets with known spectra: how far geometry, limb darkening and drift may stray
(`nuisance_learning`), what relative error calibration leaves (`response`), and what spectra look like
(`spectral_prior`). Every planet's training prediction is made by a model that has not seen it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from spectramind.errors import InputError
from spectramind.instruments import N_WAVELENGTHS
from spectramind.models.nuisance_learning import learn_nuisance_prior, planet_nuisances
from spectramind.models.options import AnalyticOptions, Drift
from spectramind.models.response import correct_response, learn_response
from spectramind.models.spectral_prior import (
    N_FEATURES,
    SpectralPrior,
    broad_gaussian,
    learn_spectral_prior,
    posterior,
    reduce_likelihood,
)
from spectramind.transit.fit import PlanetFit
from spectramind.transit.joint import Gaussian
from spectramind.transit.nuisances import Layout, NuisancePrior, first_guess
from spectramind.transit.options import TransitOptions
from spectramind.types import Floats, Spectra, Star

FORMAT = "spectramind-analytic-1"
FEWEST_PLANETS = 8
IMPLAUSIBLE, UNDETECTED = "implausible depth", "no transit found"
DETECTION_SIGMA = 5.0
"""Mean depth over its own standard deviation below which no transit was seen."""
NOTHING = Gaussian(1e-6 * np.eye(N_WAVELENGTHS), np.zeros(N_WAVELENGTHS))
"""Likelihood of a spectrum of which nothing was measured."""
_CHECKPOINT_CURE = "Point to a directory that training wrote with this version and these settings."
TYPICAL_WINDOW_H = 8.0
"""Length of a visit from which the learning of mid-transits starts."""


@dataclass(frozen=True)
class AnalyticModel:
    """Everything that prediction needs; `response` (283,) measured over true depth, `width` of the spectral
    prior's kernel."""

    nuisances: NuisancePrior
    response: Floats
    spectra: SpectralPrior
    width: float
    layout: Layout
    amplitude_steps: int

    def predict(self, fits: Sequence[PlanetFit], stars: Sequence[Star]) -> Spectra:
        """Posterior spectra, one per fit. A fit without a usable transit keeps the prior, which is wide, and its flags.

        Raises InputError if a fit's nuisances are not those that the model was trained with.
        """
        return self.predict_by_width(fits, stars, (self.width,))[self.width]

    def predict_by_width(
        self, fits: Sequence[PlanetFit], stars: Sequence[Star], widths: Sequence[float]
    ) -> dict[float, Spectra]:
        """The predictions with each kernel width; all else is computed once."""
        posteriors: dict[float, list[tuple[Floats, Floats]]] = {width: [] for width in widths}
        flags = []
        usable = [number for number, fit in enumerate(fits) if not fit.flags]
        knowledge = self.nuisance_knowledge([fits[n] for n in usable], [stars[n] for n in usable])
        known = dict(zip(usable, knowledge, strict=True))
        for number, (fit, star) in enumerate(zip(fits, stars, strict=True)):
            found, words = self._posteriors(fit, star, known.get(number), widths)
            flags.append(words)
            for width, moments in found.items():
                posteriors[width].append(moments)
        return {
            width: _spectra(fits, np.stack([mean for mean, _ in moments]), np.stack([c for _, c in moments]), flags)
            for width, moments in posteriors.items()
        }

    def _posteriors(
        self, fit: PlanetFit, star: Star, nuisances: Gaussian | None, widths: Sequence[float]
    ) -> tuple[dict[float, tuple[Floats, Floats]], tuple[str, ...]]:
        """Mean and covariance by kernel width, and the planet's flags. A posterior that reaches below zero depth means
        a fit gone astray, one whose depth does not stand out of its own sigma a transit that is not there: the planet
        falls back to the prior."""
        measured = NOTHING if nuisances is None else fit.likelihood.integrated(nuisances)
        reduced = reduce_likelihood(correct_response(measured, self.response), self.spectra)
        found = {width: posterior(reduced, star, self.spectra, width, self.amplitude_steps) for width in widths}
        if fit.flags or not (doubt := _doubt(found.values())):
            return found, fit.flags
        return self._posteriors(replace(fit, flags=(doubt,)), star, None, widths)

    @cached_property
    def any_spectrum(self) -> Gaussian:
        return broad_gaussian(self.spectra)

    def nuisance_knowledge(self, fits: Sequence[PlanetFit], stars: Sequence[Star]) -> list[Gaussian]:
        """What is known of planets' nuisances before their light curves, but for the drift that they ask for.

        Raises InputError if a fit's nuisances are not those that the model was trained with.
        """
        for fit in fits:
            if replace(fit.layout, n_visits=1) != self.layout:
                raise InputError(
                    f"fit of planet {fit.planet_id}",
                    f"nuisances {self.layout}",
                    f"{fit.layout}",
                    "Fit and train with the same transit settings.",
                )
        return _nuisance_knowledge(fits, stars, self.nuisances, self.any_spectrum)

    def save(self, directory: Path) -> None:
        """`model.safetensors` and `model.json` in an existing directory."""
        from safetensors.numpy import save_file

        arrays = self.nuisances.to_arrays() | self.spectra.to_arrays()
        arrays["response"] = self.response
        save_file({name: np.ascontiguousarray(a) for name, a in arrays.items()}, directory / "model.safetensors")
        header = {
            "format": FORMAT,
            "layout": vars(self.layout),
            "width": self.width,
            "amplitude_steps": self.amplitude_steps,
        }
        (directory / "model.json").write_text(json.dumps(header, indent=2, sort_keys=True) + "\n")

    @classmethod
    def load(cls, directory: Path) -> AnalyticModel:
        """Raises InputError if the files are missing, damaged, of another format or those of a model of another size,
        whose arrays are then listed."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        path = directory / "model.json"
        try:
            header: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"format": "no model.json"}
        except ValueError as error:
            raise InputError(path, FORMAT, f"damaged text ({error})", _CHECKPOINT_CURE) from None
        if header.get("format") != FORMAT:
            raise InputError(path, FORMAT, str(header.get("format")), _CHECKPOINT_CURE)
        path = directory / "model.safetensors"
        try:
            arrays = load_file(path)
        except (OSError, SafetensorError) as error:
            raise InputError(path, "the arrays of a model", str(error), _CHECKPOINT_CURE) from None
        layout = Layout(**header["layout"])
        if wrong := _other_shapes(arrays, layout):
            raise InputError(path, f"the arrays of a model with {layout}", "; ".join(wrong), _CHECKPOINT_CURE)
        return cls(
            NuisancePrior.from_arrays(arrays),
            arrays["response"],
            SpectralPrior.from_arrays(arrays),
            header["width"],
            layout,
            header["amplitude_steps"],
        )


def _other_shapes(arrays: Mapping[str, Floats], layout: Layout) -> list[str]:
    """What the arrays of a checkpoint lack, have beside, or have in another shape, one entry per array."""
    planets, components = arrays["spectrum.centres"].shape if "spectrum.centres" in arrays else (0, 0)
    shared, visit, bins, one = layout.n_shared, layout.n_per_visit, N_WAVELENGTHS, (1,)
    free = arrays.get("nuisance.drift_time", np.empty(1)).size == 0
    degree = 0 if free else layout.drift_degree
    expected: dict[str, tuple[int, ...]] = {
        "nuisance.shared_law": (shared, 3),
        "nuisance.shared_covariance": (shared, shared),
        "nuisance.visit_mean": (visit,),
        "nuisance.visit_covariance": (visit, visit),
        "nuisance.drift_time": (degree, degree),
        "nuisance.drift_colour": (layout.drift_colours + 1, layout.drift_colours + 1),
        "response": (bins,),
        "spectrum.basis": (bins, 1 + components),
        "spectrum.remainder": (bins,),
        "spectrum.centres": (planets, components),
        "spectrum.scatter": (components, components),
        "spectrum.level_mean": one,
        "spectrum.level_sigma": one,
        "spectrum.regression": (N_FEATURES,),
        "spectrum.amplitude_sigma": one,
        "spectrum.typical_log_amplitude": one,
    }
    found = {name: array.shape for name, array in arrays.items()}
    return [
        f"{name} {found.get(name, 'missing')} instead of {expected.get(name, 'nothing')}"
        for name in sorted(expected.keys() | found.keys())
        if found.get(name) != expected.get(name)
    ]


def _doubt(posteriors: Iterable[tuple[Floats, Floats]]) -> str:
    """Why a planet's posteriors (mean, covariance) cannot be trusted; empty if they can."""
    for mean, covariance in posteriors:
        if mean.min() <= 0:
            return IMPLAUSIBLE
        if mean.mean() < DETECTION_SIGMA * np.sqrt(covariance.mean()):
            return UNDETECTED
    return ""


@dataclass(frozen=True)
class _Planets:
    """Training planets with `truth` (N, 283)."""

    fits: tuple[PlanetFit, ...]
    stars: tuple[Star, ...]
    truth: Floats

    def part(self, chosen: Sequence[int]) -> _Planets:
        return _Planets(
            tuple(self.fits[i] for i in chosen), tuple(self.stars[i] for i in chosen), self.truth[list(chosen)]
        )

    def usable(self) -> _Planets:
        return self.part([i for i, fit in enumerate(self.fits) if not fit.flags])


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

    Drift law and kernel width of a fold are those that predict the other folds' planets best, so that a planet's own
    prediction takes no part in the choice made for it. Raises InputError for fewer than eight planets.
    """
    planets = _Planets(tuple(fits), tuple(stars), labels)
    if len(planets.usable().fits) < FEWEST_PLANETS:
        raise InputError(
            "training planets",
            f"at least {FEWEST_PLANETS} with a usable transit",
            f"{len(planets.usable().fits)} of {len(fits)}",
            "Add planets with known spectra.",
        )
    folds = planet_folds(len(fits), options.folds, seed)
    choices = [(drift, width) for drift in options.drifts for width in options.kernel_widths]
    candidates: list[list[Spectra]] = []
    for fold in folds:
        held_out = planets.part(fold)
        seen = planets.part([i for i in range(len(fits)) if i not in set(fold)])
        tried: list[Spectra] = []
        for drift in options.drifts:
            model = _learn(seen, drift, options.kernel_widths[0], wavelengths_um, options, transit)
            by_width = model.predict_by_width(held_out.fits, held_out.stars, options.kernel_widths)
            tried += [by_width[width] for width in options.kernel_widths]
        candidates.append(tried)
    quality = np.array(
        [[_log_density(one, labels[fold]) for one in tried] for tried, fold in zip(candidates, folds, strict=True)]
    )
    mean, covariance = np.empty_like(labels), np.empty((len(fits), N_WAVELENGTHS, N_WAVELENGTHS))
    flags: list[tuple[str, ...]] = [()] * len(fits)
    for number, fold in enumerate(folds):
        elsewhere = quality.sum(axis=0) - quality[number]
        chosen = candidates[number][int(elsewhere.argmax())]
        mean[fold], covariance[fold] = chosen.mean, chosen.covariance
        for planet, words in zip(fold, chosen.flags, strict=True):
            flags[planet] = words
    drift, width = choices[int(quality.sum(axis=0).argmax())]
    return _learn(planets, drift, width, wavelengths_um, options, transit), _spectra(fits, mean, covariance, flags)


def planet_folds(n: int, count: int, seed: int) -> list[list[int]]:
    """The planets 0 to n - 1 in at most `count` folds: the rows of each, ascending."""
    order = np.random.default_rng(seed).permutation(n)
    count = min(count, n)
    return [sorted(int(i) for i in order[k::count]) for k in range(count)]


def _learn(
    planets: _Planets,
    drift: Drift,
    width: float,
    wavelengths_um: Floats,
    options: AnalyticOptions,
    transit: TransitOptions,
) -> AnalyticModel:
    known = planets.usable()
    given = [fit.likelihood.given(truth) for fit, truth in zip(known.fits, known.truth, strict=True)]
    visits = [fit.layout.n_visits for fit in known.fits]
    start = first_guess(transit, TYPICAL_WINDOW_H)
    if drift != "shared":
        start = start.with_separate_drifts() if drift == "product" else start.with_free_drift()
    nuisances = learn_nuisance_prior(given, known.stars, visits, start, options.learning_iterations)
    spectra = learn_spectral_prior(planets.truth, planets.stars, options.shape_components)
    knowledge = _nuisance_knowledge(known.fits, known.stars, nuisances, broad_gaussian(spectra))
    measured = [fit.likelihood.integrated(about) for fit, about in zip(known.fits, knowledge, strict=True)]
    return AnalyticModel(
        nuisances,
        learn_response(measured, known.truth, wavelengths_um),
        spectra,
        width,
        replace(planets.fits[0].layout, n_visits=1),
        options.amplitude_steps,
    )


def _nuisance_knowledge(
    fits: Sequence[PlanetFit], stars: Sequence[Star], nuisances: NuisancePrior, any_spectrum: Gaussian
) -> list[Gaussian]:
    """With the drift that a planet's light curves ask for if its spectrum is one of `any_spectrum`."""
    marginals = [fit.likelihood.nuisances(any_spectrum) for fit in fits]
    visits = [fit.layout.n_visits for fit in fits]
    return [Gaussian.from_moments(*found) for found in planet_nuisances(marginals, stars, nuisances, visits)]


def _spectra(fits: Sequence[PlanetFit], mean: Floats, covariance: Floats, flags: Sequence[tuple[str, ...]]) -> Spectra:
    return Spectra(
        planet_ids=tuple(fit.planet_id for fit in fits),
        mean=mean,
        sigma=np.sqrt(np.diagonal(covariance, axis1=1, axis2=2)),
        covariance=covariance,
        flags=tuple(flags),
    )


def _log_density(prediction: Spectra, truth: Floats) -> float:
    """Log density of the truth per bin, summed over planets and clipped so that one failed planet does not decide."""
    z = (truth - prediction.mean) / prediction.sigma
    per_planet = (-0.5 * z**2 - np.log(prediction.sigma)).mean(axis=1)
    return float(np.maximum(per_planet, np.median(per_planet) - 10.0).sum())
