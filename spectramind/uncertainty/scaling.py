"""Sigma scaling: what held-out planets teach about the size of the errors.

Fitted on out-of-fold predictions, each instrument by itself, in stages, each on top of those kept before:

    instrument   sigma1 = T sigma                 T^2 = weighted mean of z^2, the exact optimum, shrunk
    bins         sigma2 = f_b sigma1              per-bin T, shrunk towards a curve smooth along wavelength, this shrunk
    power        sigma3 = e^a sigma2^c            c by one-dimensional search, a in closed form, both shrunk
    evidence     sigma4 = e^(b + x g) sigma3      x: a planet's own light curves (`evidence`), g shrunk towards zero

`stage="global"` is the single temperature for both instruments. Temperature acts on the standard deviation alone, the
mean stays. With objective "score" planet and bin weigh the instrument's weight over L_ideal - L_ref, so that the
fit optimises exactly the part of the 2025 score that depends on sigma; with "nll" all weigh the same. A stage is kept
only if it lowers the loss ln(sigma) + z^2 / 2 of planets left out of its fit.

Few planets tell a size badly, the more so as the bins of a planet err together. What is found is therefore shrunk
towards "sigma is right" by its sampling variance over planets, with a t prior of the scale `prior_scatter` (`_belief`).

Arrays are (planets, bins), bin 0 is FGS1. One row per planet: rows are assigned to folds as they are, so visits of one
planet must be combined before.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectramind.errors import InputError
from spectramind.instruments import FGS1, INSTRUMENTS
from spectramind.metrics.score import bin_weights, likelihood_span, reference_of, require_scorable
from spectramind.metrics.statistics import excess_kurtosis
from spectramind.types import Floats
from spectramind.uncertainty.evidence import evidence_response
from spectramind.uncertainty.options import UncertaintyOptions

STEPS = ("temperature", "bins", "power", "evidence")
"""In the order in which they are tried."""

PRIOR_FREEDOM = 4.0
BELIEF_STEPS = 50

Folds = list[NDArray[np.intp]]
"""Indices of the planets of each fold."""


@dataclass(frozen=True)
class GroupReport:
    """What was fitted for one group of bins (an instrument, or all).

    `kept` stages; `temperature` and `exponent` as applied; `gains` of every stage tried: what held-out planets win by
    it, in points of the official score with objective "score", in nats per bin with "nll"; `limited_fraction` of errors
    beyond the tail limit; `z_kurtosis` (excess) before scaling.
    """

    kept: tuple[str, ...]
    temperature: float
    exponent: float
    gains: Mapping[str, float]
    limited_fraction: float
    z_kurtosis: float


@dataclass(frozen=True)
class SigmaScaling:
    """sigma' = max(floor, e^(offset + evidence . response) sigma^exponent), with `offset`, `exponent`, `floor` (bins,)
    and `response` (numbers, bins) to the evidence of the bin's instrument; no rows: the evidence does not matter."""

    offset: Floats
    exponent: Floats
    floor: Floats
    n_planets: int
    groups: Mapping[str, GroupReport]
    response: Floats | None = None

    @classmethod
    def identity(cls, n_bins: int) -> SigmaScaling:
        """Changes nothing."""
        return cls(np.zeros(n_bins), np.ones(n_bins), np.zeros(n_bins), 0, {})

    def apply(self, sigma: Floats, evidence: Floats | None = None) -> Floats:
        """Scaled sigma (planets, bins); `evidence` (instruments, planets, numbers) of the same planets.

        Raises InputError unless sigma is positive and finite with as many bins, and if evidence is wanted and missing.
        """
        self._require_bins(sigma.shape[-1])
        if not np.all(np.isfinite(sigma) & (sigma > 0)):
            raise InputError("sigma to be scaled", "positive finite numbers", "others", "Check the predictor's output.")
        # Powers first: exponent 1 and offset 0 return sigma to the last bit.
        scaled: Floats = np.maximum(sigma**self.exponent * np.exp(self._shift(sigma, evidence)), self.floor)
        return scaled

    def undo(self, sigma: Floats, evidence: Floats | None = None) -> Floats:
        """The sigma (planets, bins) that `apply` turns into this one; where that is the floor, the largest such."""
        self._require_bins(sigma.shape[-1])
        unscaled: Floats = (sigma * np.exp(-self._shift(sigma, evidence))) ** (1.0 / self.exponent)
        return unscaled

    def apply_covariance(self, covariance: Floats, evidence: Floats | None = None) -> Floats:
        """D C D (planets, bins, bins) with D = diag(sigma' / sigma): correlations stay, the diagonal is sigma'^2."""
        self._require_bins(covariance.shape[-1])
        sigma = np.sqrt(np.diagonal(covariance, axis1=-2, axis2=-1))
        return rescaled(covariance, self.apply(sigma, evidence) / sigma)

    def to_json(self) -> str:
        """All numbers as JSON text, exact to the last bit."""
        record = {
            "offset": self.offset.tolist(),
            "exponent": self.exponent.tolist(),
            "floor": self.floor.tolist(),
            "n_planets": self.n_planets,
            "response": None if self.response is None else self.response.tolist(),
            "groups": {name: asdict(group) for name, group in self.groups.items()},
        }
        return json.dumps(record, indent=1, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> SigmaScaling:
        """Inverse of `to_json`. Raises InputError on text that is not such a record."""
        try:
            record = json.loads(text)
            groups = {
                name: GroupReport(**{**group, "kept": tuple(group["kept"])}) for name, group in record["groups"].items()
            }
            offset, exponent, floor = (np.array(record[key], dtype=float) for key in ("offset", "exponent", "floor"))
            response = None if record["response"] is None else np.array(record["response"], dtype=float)
            scaling = cls(offset, exponent, floor, int(record["n_planets"]), groups, response)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise _bad_record(str(error)) from error
        if not (offset.ndim == 1 and offset.shape == exponent.shape == floor.shape):
            raise _bad_record(f"shapes {offset.shape}, {exponent.shape}, {floor.shape}")
        if response is not None and (response.ndim, response.shape[-1:]) != (2, offset.shape):
            raise _bad_record(f"response of shape {response.shape} to {offset.size} bins")
        return scaling

    def save(self, path: Path) -> None:
        path.write_text(self.to_json(), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> SigmaScaling:
        return cls.from_json(path.read_text(encoding="utf-8"))

    def _shift(self, sigma: Floats, evidence: Floats | None) -> Floats:
        """ln of the factor, of (bins,) or (planets, bins)."""
        if self.response is None:
            return self.offset
        expected = f"evidence of {len(sigma)} planets, {len(self.response)} numbers of each instrument"
        if evidence is None or evidence.shape != (len(INSTRUMENTS), len(sigma), len(self.response)):
            found = "none" if evidence is None else f"shape {evidence.shape}"
            raise InputError("sigma scaling", expected, found, "Give the evidence of the planets' fits.")
        shift = np.tile(self.offset, (len(sigma), 1))
        for instrument, numbers in zip(INSTRUMENTS, evidence, strict=True):
            shift[:, instrument.spectral_slice] += numbers @ self.response[:, instrument.spectral_slice]
        return shift

    def _require_bins(self, n_bins: int) -> None:
        if n_bins != self.offset.size:
            raise InputError(
                "sigma scaling",
                f"{self.offset.size} bins",
                f"{n_bins}",
                "Fit the scaling on predictions of the same bins.",
            )


def _bad_record(found: str) -> InputError:
    return InputError("sigma scaling", "a JSON record of offset, exponent, floor and groups", found, "Fit it again.")


def rescaled(covariance: Floats, ratio: Floats) -> Floats:
    """D C D (…, bins, bins) with D = diag(`ratio` (…, bins)): sigmas times the ratio, the same correlations."""
    scaled: Floats = covariance * (ratio[..., :, None] * ratio[..., None, :])
    return scaled


def fit_sigma_scaling(
    mean: Floats,
    sigma: Floats,
    truth: Floats,
    options: UncertaintyOptions | None = None,
    seed: int = 0,
    evidence: Floats | None = None,
) -> SigmaScaling:
    """Scaling fitted on out-of-fold `mean`, `sigma` and `truth` (planets, bins), planets assigned to folds by `seed`.

    `evidence` (instruments, planets, numbers): see `evidence.evidence_of`; without it that stage is not tried.

    The score's reference is the mean and standard deviation of `truth`. Raises InputError on arrays that cannot be
    scored and on sigmas of zero.
    """
    return _fit(mean, sigma, truth, options or UncertaintyOptions(), seed, evidence)


def _fit(
    mean: Floats,
    sigma: Floats,
    truth: Floats,
    options: UncertaintyOptions,
    seed: int,
    evidence: Floats | None,
    chosen: Mapping[str, tuple[str, ...]] | None = None,
) -> SigmaScaling:
    """The scaling of the stages that held-out planets choose, or of those `chosen` for each group."""
    require_scorable(mean, sigma, truth)
    if not np.all(sigma > 0):
        raise InputError("sigma to be scaled", "positive numbers", "zero", "Check the predictor's output.")
    n_planets, n_bins = truth.shape
    weights = _weights(truth, options)
    offset, exponent, reports = np.zeros(n_bins), np.ones(n_bins), {}
    response = None if evidence is None else np.zeros((evidence.shape[2], n_bins))
    folds = _folds(n_planets, options.folds, seed)
    for name, bins in _groups(options).items():
        own = None if evidence is None or name not in _INSTRUMENT else evidence[_INSTRUMENT[name]]
        sample = _Sample.of(mean[:, bins], sigma[:, bins], truth[:, bins], weights[:, bins], options.tail_limit, own)
        if chosen is None:
            chain, gains = _select(sample, _stages(options, sample), folds, options)
        else:
            chain, gains = _fit_chain(sample, chosen[name], options), {}
        if response is not None and chain.response is not None:
            response[:, bins] = chain.response[:, None]
        offset[bins], exponent[bins] = chain.offset, chain.exponent
        worth = _points_per_nat(weights[:, bins], n_bins) if options.objective == "score" else 1.0
        reports[name] = GroupReport(
            kept=chain.stages,
            temperature=chain.temperature,
            exponent=chain.exponent,
            gains={stage: worth * gain for stage, gain in gains.items()},
            limited_fraction=sample.limited_fraction,
            z_kurtosis=excess_kurtosis((truth[:, bins] - mean[:, bins]) / sigma[:, bins]),
        )
    response = response if response is not None and np.any(response) else None
    return SigmaScaling(offset, exponent, _floor(n_bins, options), n_planets, reports, response)


def cross_fit_sigma(
    mean: Floats,
    sigma: Floats,
    truth: Floats,
    options: UncertaintyOptions | None = None,
    seed: int = 0,
    evidence: Floats | None = None,
) -> Floats:
    """Scaled sigma (planets, bins) where each planet's scaling was fitted without it; what an out-of-fold score of the
    scaled predictions is computed from.

    All have the stages that all planets choose (by other folds), so that it is the score of the predictor in use.
    """
    options = options or UncertaintyOptions()
    whole = _fit(mean, sigma, truth, options, seed, evidence)
    chosen = {name: group.kept for name, group in whole.groups.items()}
    scaled = np.empty_like(sigma)
    for fold in _folds(len(truth), options.folds, seed + 1):
        rest = np.setdiff1d(np.arange(len(truth)), fold)
        known, own = (None, None) if evidence is None else (evidence[:, rest], evidence[:, fold])
        scaling = _fit(mean[rest], sigma[rest], truth[rest], options, seed, known, chosen)
        scaled[fold] = scaling.apply(sigma[fold], own)
    return scaled


def _groups(options: UncertaintyOptions) -> dict[str, slice]:
    if options.stage == "global":
        return {"all": slice(None)}
    return {instrument.name: instrument.spectral_slice for instrument in INSTRUMENTS}


def _stages(options: UncertaintyOptions, sample: _Sample) -> tuple[str, ...]:
    n_planets, n_bins = sample.weight.shape
    if n_planets < options.min_planets:
        return ()
    furthest = {"none": 0, "global": 1, "instrument": 1, "bins": 2, "power": 3, "evidence": 4}[options.stage]
    stages = STEPS[:furthest]
    absent = {"bins": n_bins == 1, "evidence": sample.evidence is None}
    return tuple(stage for stage in stages if not absent.get(stage, False))


def _weights(truth: Floats, options: UncertaintyOptions) -> Floats:
    if options.objective == "nll":
        return np.ones_like(truth)
    weights: Floats = bin_weights(truth.shape[1]) / likelihood_span(truth, *reference_of(truth))
    return weights


def _points_per_nat(weights: Floats, n_bins: int) -> float:
    """Of the official score, for a group of bins that all lose one nat; `weights` are those of the group."""
    return float(np.sum(np.mean(weights, axis=0)) / np.sum(bin_weights(n_bins)))


def _floor(n_bins: int, options: UncertaintyOptions) -> Floats:
    floor = np.full(n_bins, options.floor_airs)
    floor[FGS1.spectral_slice] = options.floor_fgs1
    return floor


def _folds(n_planets: int, folds: int, seed: int) -> Folds:
    order = np.random.default_rng(seed).permutation(n_planets)
    return np.array_split(order, min(folds, n_planets))


@dataclass(frozen=True)
class _Sample:
    """Errors of one group of bins: `log_sigma`, `error2` (squared, tails limited), `weight` (of mean 1), and the
    `evidence` (planets, numbers)."""

    log_sigma: Floats
    error2: Floats
    weight: Floats
    evidence: Floats | None
    limited_fraction: float = 0.0

    @classmethod
    def of(
        cls, mean: Floats, sigma: Floats, truth: Floats, weight: Floats, tail_limit: float, evidence: Floats | None
    ) -> _Sample:
        z2 = ((truth - mean) / sigma) ** 2
        limit = tail_limit**2 * float(np.median(z2)) / 0.4549364  # median of a squared standard normal variable
        limited = np.minimum(z2, limit)
        share = float(np.mean(z2 > limit))
        return cls(np.log(sigma), limited * sigma**2, weight / np.mean(weight), evidence, share)

    def take(self, rows: NDArray[np.intp]) -> _Sample:
        evidence = None if self.evidence is None else self.evidence[rows]
        return _Sample(self.log_sigma[rows], self.error2[rows], self.weight[rows], evidence)

    def z2(self, chain: _Chain) -> Floats:
        z2: Floats = self.error2 * np.exp(-2.0 * chain.log_sigma(self))
        return z2

    def loss(self, chain: _Chain) -> Floats:
        """Contribution of each planet (planets,) to the objective, in nats per bin."""
        loss: Floats = np.mean(self.weight * (chain.log_sigma(self) + 0.5 * self.z2(chain)), axis=1)
        return loss


@dataclass(frozen=True)
class _Chain:
    """ln sigma' = offset + exponent ln sigma + evidence . response: the stages fitted so far."""

    offset: Floats
    exponent: float = 1.0
    temperature: float = 1.0
    response: Floats | None = None
    stages: tuple[str, ...] = ()

    def log_sigma(self, sample: _Sample) -> Floats:
        log_sigma: Floats = self.offset + self.exponent * sample.log_sigma
        if self.response is None or sample.evidence is None:
            return log_sigma
        scaled: Floats = log_sigma + (sample.evidence @ self.response)[:, None]
        return scaled


def _select(
    sample: _Sample, stages: tuple[str, ...], folds: Folds, options: UncertaintyOptions
) -> tuple[_Chain, dict[str, float]]:
    """The stages that lower the held-out loss, fitted on all planets, and the gain of each stage tried."""
    kept: tuple[str, ...] = ()
    gains: dict[str, float] = {}
    best = _held_out_loss(sample, kept, folds, options)
    for stage in stages:
        loss = _held_out_loss(sample, (*kept, stage), folds, options)
        gain = best - loss
        gains[stage] = float(np.mean(gain))
        if gains[stage] > options.min_gain * float(np.std(gain)) / np.sqrt(gain.size):
            kept, best = (*kept, stage), loss
    return _fit_chain(sample, kept, options), gains


def _held_out_loss(sample: _Sample, stages: tuple[str, ...], folds: Folds, options: UncertaintyOptions) -> Floats:
    """Loss of each planet (planets,) under the chain fitted without its fold."""
    n_planets = len(sample.weight)
    loss = np.empty(n_planets)
    for fold in folds:
        rest = np.setdiff1d(np.arange(n_planets), fold)
        loss[fold] = sample.take(fold).loss(_fit_chain(sample.take(rest), stages, options))
    return loss


def _fit_chain(sample: _Sample, stages: tuple[str, ...], options: UncertaintyOptions) -> _Chain:
    chain = _Chain(np.zeros(sample.weight.shape[1]))
    for stage in stages:
        chain = _STAGES[stage](sample, chain, options)
    return chain


def _belief(size2: float, variance: float, options: UncertaintyOptions) -> float:
    """What to believe of an effect whose square is found to be `size2`, 0 to 1: the most probable share under a t prior
    of the scale `prior_scatter`, which little holds back effects that are larger by far than it and than chance."""
    belief = 0.0
    for _ in range(BELIEF_STEPS):
        precision = (PRIOR_FREEDOM + 1.0) / (PRIOR_FREEDOM * options.prior_scatter**2 + belief**2 * size2)
        belief = 1.0 / (1.0 + variance * precision)
    return belief


def _fit_temperature(sample: _Sample, chain: _Chain, options: UncertaintyOptions) -> _Chain:
    """T^2 = weighted mean of z^2 minimises sum w (ln T + z^2 / (2 T^2)); ln T is then shrunk."""
    z2 = sample.z2(chain)
    mean_z2 = max(float(np.average(z2, weights=sample.weight)), _TINY)
    influence = np.mean(sample.weight * (z2 / mean_z2 - 1.0), axis=1) / (2.0 * len(z2))
    found = 0.5 * float(np.log(mean_z2))
    factor = _bounded_log(found * _belief(found**2, float(influence @ influence), options), options)
    return replace(
        chain, offset=chain.offset + factor, temperature=float(np.exp(factor)), stages=(*chain.stages, "temperature")
    )


def _fit_bins(sample: _Sample, chain: _Chain, options: UncertaintyOptions) -> _Chain:
    """Per-bin factors, empirical-Bayes shrunk: a bin departs from the smooth curve only as far as its own sampling
    variance (falling as one over the number of planets) leaves the departure credible, and so does the curve from
    zero."""
    z2, weight = sample.z2(chain), sample.weight
    mean_z2 = np.maximum(np.average(z2, axis=0, weights=weight), _TINY)
    raw = 0.5 * np.log(mean_z2)
    influence = weight * (z2 / mean_z2 - 1.0) / (2.0 * np.sum(weight, axis=0))
    variance = np.sum(influence**2, axis=0) + _TINY
    smoother = _smoother(1.0 / variance, options.smoothing_bins)
    smooth = smoother @ raw
    chance = float(np.mean(np.sum((influence @ smoother.T) ** 2, axis=0)))
    departure = raw - smooth
    credible = max(0.0, float(np.mean(departure**2 - variance)))
    curve = smooth * _belief(float(np.mean(smooth**2)), chance, options)
    factor = _bounded_log(curve + departure * credible / (credible + variance), options)
    return replace(chain, offset=chain.offset + factor, stages=(*chain.stages, "bins"))


def _fit_power(sample: _Sample, chain: _Chain, options: UncertaintyOptions) -> _Chain:
    """e^a sigma^c: for each c the best a has a closed form, and the loss left over is convex in c. Both are shrunk by
    their sandwich variance (Huber 1967), a at the middle of ln sigma, where it does not depend on c."""
    from scipy.optimize import minimize_scalar

    log_sigma = chain.log_sigma(sample)
    centre = float(np.average(log_sigma, weights=sample.weight))
    x = log_sigma - centre

    def intercept(c: float) -> float:
        return 0.5 * float(_log(np.average(sample.error2 * np.exp(-2.0 * c * x), weights=sample.weight)))

    bounds = (1.0 - options.max_exponent_change, 1.0 + options.max_exponent_change)
    c = 1.0 if np.ptp(x) < _SAME_SIGMA else float(minimize_scalar(intercept, bounds=bounds, method="bounded").x)
    a = intercept(c) - centre
    z2 = sample.error2 * np.exp(-2.0 * (intercept(c) + c * x))
    slopes = [np.mean(sample.weight * (1.0 - z2) * factor, axis=1) for factor in (1.0, x)]
    curvatures = [float(np.sum(np.mean(2.0 * sample.weight * z2 * x**power, axis=1))) for power in range(3)]
    gradient, inverse = np.stack(slopes, axis=1), np.linalg.pinv([curvatures[:2], curvatures[1:]])
    variance = np.diag(inverse @ (gradient.T @ gradient) @ inverse)
    a *= _belief(a**2, float(variance[0]), options)
    c = 1.0 + (c - 1.0) * _belief((c - 1.0) ** 2, float(variance[1]), options)
    shift = centre + _bounded_log(a, options) - c * centre
    return replace(chain, offset=shift + c * chain.offset, exponent=c * chain.exponent, stages=(*chain.stages, "power"))


def _fit_evidence(sample: _Sample, chain: _Chain, options: UncertaintyOptions) -> _Chain:
    """e^(b + x g), `evidence_response`."""
    if sample.evidence is None:
        return chain
    weight = np.mean(sample.weight, axis=1)
    loss = 0.5 * np.mean(sample.weight * sample.z2(chain), axis=1)
    fitted = evidence_response(weight, loss, sample.evidence, options.evidence_scatter, options.max_factor)
    return replace(chain, offset=chain.offset + fitted[0], response=fitted[1:], stages=(*chain.stages, "evidence"))


_STAGES: dict[str, Callable[[_Sample, _Chain, UncertaintyOptions], _Chain]] = {
    "temperature": _fit_temperature,
    "bins": _fit_bins,
    "power": _fit_power,
    "evidence": _fit_evidence,
}
_INSTRUMENT = {instrument.name: number for number, instrument in enumerate(INSTRUMENTS)}
_TINY = 1e-100
_SAME_SIGMA = 1e-6
"""Spread of ln sigma below which an exponent cannot be told from a factor."""


def _log(value: Any) -> Any:
    return np.log(np.maximum(value, _TINY))


def _bounded_log(log_factor: Any, options: UncertaintyOptions) -> Any:
    bound = np.log(options.max_factor)
    return np.clip(log_factor, -bound, bound)


def _smoother(precision: Floats, width: float) -> Floats:
    """Gaussian-kernel mean along bins, weighted by precision: what turns values (bins,) into smooth ones."""
    index = np.arange(precision.size)
    kernel = np.exp(-0.5 * ((index[:, None] - index[None, :]) / width) ** 2) * precision
    smoother: Floats = kernel / np.sum(kernel, axis=1, keepdims=True)
    return smoother
