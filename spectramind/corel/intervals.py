"""Conformal intervals about the network's quantiles, and what planets that nothing was fitted on say of them.

Planets are parted three ways, each with all its visits: those that train the network, those that make it conformal, and
those that only check. At level q with quantiles lo, mid and hi of z, the score of a planet and bin is the distance of
z from the median in units of the half-width on its side, and the interval is the median -+ k half-widths, k
the finite-sample quantile of the conformalising planets (`uncertainty.conformal`). Its promise is that of split
conformal prediction, whatever the network is worth: marginal coverage in each bin, or of all bins by the largest score
of a planet. A network of quantiles alone promises nothing.

Some of the training planets choose the network's weight: quantiles are (1 - weight) times those of a normal law plus
weight times the network's. With few planets it learns their luck, and weight 0 is plain split conformal prediction.
The same planets say whether a planet's own light curves then widen or narrow its quantiles (`instance`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectramind.corel.inputs import node_features
from spectramind.corel.instance import fit_instance, stretched
from spectramind.corel.network import LEVELS, MEDIAN, RelationalQuantiles
from spectramind.corel.options import CorelOptions
from spectramind.corel.train import predict_quantiles, train_quantiles
from spectramind.errors import InputError
from spectramind.instruments import INSTRUMENTS
from spectramind.metrics.score import require_scorable
from spectramind.metrics.statistics import COVERAGE_LEVELS
from spectramind.models.spectral_graph import SpectralGraph
from spectramind.types import Floats
from spectramind.uncertainty.conformal import conformal_quantile, conformal_rank

Rows = NDArray[np.intp]
FEWEST_PLANETS = 5
"""Two for each of conformalising and checking, and one that trains."""

WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Tried for the network, the least first."""


@dataclass(frozen=True)
class Split:
    """Rows of the planets that `train`, make conformal (`hold`) and `check`."""

    train: Rows
    hold: Rows
    check: Rows


def split_planets(n: int, options: CorelOptions, seed: int) -> Split:
    """A random split of n planets. Raises InputError for fewer than five."""
    if n < FEWEST_PLANETS:
        raise InputError("conformal intervals", f"{FEWEST_PLANETS} planets or more", str(n), "Use more planets.")
    order = np.random.default_rng(seed).permutation(n)
    hold, check = (max(2, round(share * n)) for share in (options.holdout, options.check))
    hold, check = min(hold, (n - 1) // 2), min(check, (n - 1) // 2)
    return Split(np.sort(order[hold + check :]), np.sort(order[:hold]), np.sort(order[hold : hold + check]))


@dataclass(frozen=True)
class Corel:
    """The `network` (None: too few planets, quantiles of a normal law) and its `weight`; how features are standardised;
    factors on the half-widths: `factor` (levels, bins) for each bin, `band` (levels,) for all bins at once;
    `temperature` (bins,) of its sigma; `response` (instruments, numbers) of widths to the evidence, None for none."""

    levels: tuple[float, ...]
    network: RelationalQuantiles | None
    weight: float
    centre: Floats
    scale: Floats
    typical_log_sigma: Floats
    factor: Floats
    band: Floats
    temperature: Floats
    response: Floats | None = None

    def quantiles(self, mean: Floats, sigma: Floats, evidence: Floats | None) -> Floats:
        """Of z, before the conformal step: (planets, levels of `LEVELS`, bins)."""
        if self.network is None:
            return _normal(mean.shape)
        features = node_features(mean, sigma, evidence, self.typical_log_sigma)
        found = _mixed(predict_quantiles(self.network, (features - self.centre) / self.scale), self.weight)
        if self.response is None or evidence is None:
            return found
        return stretched(found, MEDIAN, evidence, self.response)

    def limits(
        self, mean: Floats, sigma: Floats, evidence: Floats | None, *, band: bool = False
    ) -> tuple[Floats, Floats]:
        """Lower and upper limits (levels, planets, bins) that hold each bin, or all bins of a planet at once."""
        quantiles = self.quantiles(mean, sigma, evidence)
        middle = quantiles[:, MEDIAN]
        low, high = [], []
        for number, level in enumerate(self.levels):
            below, above = _half_widths(quantiles, level)
            factor = self.band[number] if band else self.factor[number]
            low.append(mean + sigma * (middle - factor * below))
            high.append(mean + sigma * (middle + factor * above))
        return np.stack(low), np.stack(high)

    def sigma(self, mean: Floats, sigma: Floats, evidence: Floats | None) -> Floats:
        """Standard deviations (planets, bins): half the network's 68 % interval, its size fitted on the conformalising
        planets."""
        scaled: Floats = _spread(self.quantiles(mean, sigma, evidence)) * sigma * self.temperature
        return scaled


@dataclass(frozen=True)
class CorelReport:
    """What the checking planets say.

    By level: `coverage` (levels, bins) with `beta_low`, `beta_high`, within which all bins stay with 95 % probability
    if the intervals keep their promise, `band_coverage`, mean `width_ppm` and that of plain split-conformal intervals.
    `weight` of the network; `nll` (nats per bin) of the stated sigma and of the network's; `instance_gain` (nats per
    bin) of the planets that choose, None where that step was not tried.
    """

    weight: float
    n_train: int
    n_conformal: int
    n_check: int
    levels: tuple[float, ...]
    coverage: Floats
    beta_low: tuple[float, ...]
    beta_high: tuple[float, ...]
    band_coverage: tuple[float, ...]
    width_ppm: tuple[float, ...]
    plain_width_ppm: tuple[float, ...]
    nll: float
    nll_corel: float
    losses: tuple[float, ...]
    instance_gain: float | None

    def to_json(self) -> dict[str, Any]:
        """Plain numbers; coverage per instrument instead of per bin."""
        numbers = asdict(self)
        numbers["coverage"] = {
            i.name: [float(np.mean(row[i.spectral_slice])) for row in self.coverage] for i in INSTRUMENTS
        }
        return numbers


def fit_corel(
    mean: Floats,
    sigma: Floats,
    truth: Floats,
    evidence: Floats | None,
    graph: SpectralGraph,
    options: CorelOptions,
    seed: int = 0,
) -> tuple[Corel, CorelReport, Split]:
    """From out-of-fold predictions (planets, bins), one row per planet, and the evidence of the fits or None.

    With fewer planets than `min_planets` no network is trained. Raises InputError on arrays that cannot be scored,
    sigmas of zero and fewer than five planets.
    """
    require_scorable(mean, sigma, truth)
    if not np.all(sigma > 0):
        raise InputError("sigma of conformal intervals", "positive numbers", "zero", "Check the predictor's output.")
    split = split_planets(len(truth), options, seed)
    levels = tuple(sorted({*COVERAGE_LEVELS, options.target}))
    z = (truth - mean) / sigma
    typical = np.median(np.log(sigma[split.train]), axis=0)
    features = node_features(mean, sigma, evidence, typical)
    centre = features[split.train].mean(axis=(0, 1))
    scale = np.maximum(features[split.train].std(axis=(0, 1)), 1e-6)
    network, weight, quantiles = None, 0.0, _normal(mean.shape)
    response, gain = None, None
    losses: list[float] = []
    if len(truth) >= options.min_planets:
        standard = (features - centre) / scale
        choosing, taught = _parted(split.train, seed)
        network, losses = train_quantiles(standard[taught], z[taught], graph, options, seed)
        found = predict_quantiles(network, standard)
        weight = _best_weight(found[choosing], z[choosing])
        quantiles = _mixed(found, weight)
        if options.instance and evidence is not None:
            ratio = (z - quantiles[:, MEDIAN]) / _spread(quantiles)
            tried, gain = fit_instance(ratio, evidence, taught, choosing)
            if gain > 0:
                response, quantiles = tried, stretched(quantiles, MEDIAN, evidence, tried)
    scores = np.stack([_scores(quantiles, z, level) for level in levels])
    factor = np.stack([conformal_quantile(s[split.hold], level) for s, level in zip(scores, levels, strict=True)])
    band = np.stack(
        [conformal_quantile(s[split.hold].max(axis=1), level) for s, level in zip(scores, levels, strict=True)]
    )
    spread = _spread(quantiles)
    ratio2 = (z[split.hold] / spread[split.hold]) ** 2
    temperature = np.ones(mean.shape[1])
    for instrument in INSTRUMENTS:
        temperature[instrument.spectral_slice] = np.sqrt(ratio2[:, instrument.spectral_slice].mean())
    fitted = Corel(levels, network, weight, centre, scale, typical, factor, band, temperature, response)
    report = _report(fitted, quantiles, scores, sigma, z, split, losses, gain)
    return fitted, report, split


def _report(
    fitted: Corel,
    quantiles: Floats,
    scores: Floats,
    sigma: Floats,
    z: Floats,
    split: Split,
    losses: list[float],
    instance_gain: float | None,
) -> CorelReport:
    check, hold, n_bins = split.check, split.hold, z.shape[1]
    coverage, bands, widths, plain_widths, low, high = [], [], [], [], [], []
    for number, level in enumerate(fitted.levels):
        inside = scores[number, check] <= fitted.factor[number]
        coverage.append(inside.mean(axis=0))
        bands.append(float((scores[number, check].max(axis=1) <= fitted.band[number]).mean()))
        below, above = _half_widths(quantiles[check], level)
        widths.append(1e6 * float(np.mean(sigma[check] * fitted.factor[number] * (below + above))))
        plain = conformal_quantile(np.abs(z[hold]), level)
        plain_widths.append(1e6 * float(np.mean(2.0 * sigma[check] * plain)))
        limits = coverage_limits(len(hold), len(check), level, n_bins)
        low.append(limits[0])
        high.append(limits[1])
    ratio = _spread(quantiles[check]) * fitted.temperature
    stated, network = np.log(sigma[check]) + z[check] ** 2 / 2, z[check] / ratio
    return CorelReport(
        fitted.weight,
        len(split.train) if fitted.network is not None else 0,
        len(hold),
        len(check),
        fitted.levels,
        np.stack(coverage),
        tuple(low),
        tuple(high),
        tuple(bands),
        tuple(widths),
        tuple(plain_widths),
        float(np.mean(stated)),
        float(np.mean(np.log(sigma[check] * ratio) + network**2 / 2)),
        tuple(losses),
        instance_gain,
    )


def _parted(train: Rows, seed: int) -> tuple[Rows, Rows]:
    """Training planets that choose the weight, and those that teach the network."""
    order = np.random.default_rng(seed + 1).permutation(train)
    count = max(1, len(train) // 4)
    return order[:count], order[count:]


def _best_weight(quantiles: Floats, z: Floats) -> float:
    """The weight of the least pinball loss."""

    def loss(weight: float) -> float:
        error = z[:, None] - _mixed(quantiles, weight)
        levels = np.array(LEVELS)[:, None]
        return float(np.maximum(levels * error, (levels - 1) * error).mean())

    return min(WEIGHTS, key=loss)


def _mixed(quantiles: Floats, weight: float) -> Floats:
    return np.asarray((1 - weight) * _normal(quantiles[:, 0].shape) + weight * quantiles)


def coverage_limits(n_conformal: int, n_check: int, level: float, tests: int) -> tuple[float, float]:
    """Between which the observed coverage of `n_check` planets falls with 95 % probability in all of `tests` bins
    (Bonferroni) if planets are exchangeable: a beta-binomial law, the Beta law of the coverage given the conformalising
    planets and the binomial one of the checking. (1, 1) where no finite interval exists: that covers everything."""
    from scipy.stats import betabinom

    k = conformal_rank(n_conformal, level)
    if k > n_conformal:
        return 1.0, 1.0
    law = betabinom(n_check, k, n_conformal + 1 - k)
    tail = 0.025 / tests
    return float(law.ppf(tail)) / n_check, float(law.isf(tail)) / n_check


def _half_widths(quantiles: Floats, level: float) -> tuple[Floats, Floats]:
    """Distances (planets, bins) of the ends of the central interval from the median; between the network's levels by
    interpolation, beyond them in proportion to the normal law."""
    from scipy.special import ndtri

    upper = 0.5 + 0.5 * level
    known = np.array(LEVELS[MEDIAN:])
    wanted, nodes = float(ndtri(upper)), np.asarray(ndtri(known))
    last = len(nodes) - 1
    right = int(np.clip(np.searchsorted(nodes, wanted), 1, last))
    share = (wanted - nodes[right - 1]) / (nodes[right] - nodes[right - 1])
    if wanted > nodes[last]:
        right, share = last, wanted / nodes[last]

    def distance(side: int) -> Floats:
        outer = np.abs(quantiles[:, MEDIAN + side * right] - quantiles[:, MEDIAN])
        if wanted > nodes[last]:
            return np.asarray(outer * share)
        inner = np.abs(quantiles[:, MEDIAN + side * (right - 1)] - quantiles[:, MEDIAN])
        return np.asarray(inner + share * (outer - inner))

    return np.maximum(distance(-1), _TINY), np.maximum(distance(1), _TINY)


def _scores(quantiles: Floats, z: Floats, level: float) -> Floats:
    below, above = _half_widths(quantiles, level)
    distance = z - quantiles[:, MEDIAN]
    return np.asarray(np.where(distance < 0, -distance / below, distance / above))


def _spread(quantiles: Floats) -> Floats:
    """Half the central 68 % interval."""
    below, above = _half_widths(quantiles, 0.68)
    return (below + above) / 2


def _normal(shape: tuple[int, ...]) -> Floats:
    from scipy.special import ndtri

    return np.broadcast_to(ndtri(np.array(LEVELS))[None, :, None], (shape[0], len(LEVELS), shape[1])).copy()


_TINY = 1e-6
"""In z: keeps half-widths apart from zero."""
