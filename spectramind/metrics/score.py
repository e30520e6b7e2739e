"""The challenge's score: a Gaussian log likelihood of the true spectra, put on a scale from 0 (reference) to 1 (ideal).

With L the log density of the true depth under a normal law, each planet and bin gets

    r = (L_pred - L_ref) / (L_ideal - L_ref)

where L_pred uses the predicted mean and sigma, L_ref the mean and standard deviation of all train labels (two
scalars), and L_ideal the truth itself with the ideal sigma of the instrument. The 2025 score is the weighted mean of r
over planets and bins, FGS1 weighing 57.846 and each AIRS bin 1, clipped to [0, 1] at the very end. The 2024 score is a
ratio of sums with one ideal sigma and no weights. Higher is better.

Arrays are (planets, bins), transit depths (Rp/Rs)^2; bin 0 is FGS1, the others are AIRS-CH0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spectramind.errors import InputError
from spectramind.instruments import FGS1, INSTRUMENTS
from spectramind.types import Floats

FGS1_WEIGHT = 57.846
FGS1_IDEAL_SIGMA = 1e-6
AIRS_IDEAL_SIGMA = 1e-5
SMALLEST_SIGMA = 1e-15
"""The official scorer raises smaller sigmas, zero included, to this value."""


def reference_of(labels: Floats) -> tuple[float, float]:
    """Mean and population standard deviation of all train labels (planets, bins): the score's reference prediction."""
    return float(np.mean(labels)), float(np.std(labels))


def bin_weights(n_bins: int, fgs1_weight: float = FGS1_WEIGHT) -> Floats:
    """Weight of each bin (bins,) in the 2025 score."""
    weights = np.ones(n_bins)
    weights[FGS1.spectral_slice] = fgs1_weight
    return weights


def ideal_sigmas(
    n_bins: int, fgs1_ideal_sigma: float = FGS1_IDEAL_SIGMA, airs_ideal_sigma: float = AIRS_IDEAL_SIGMA
) -> Floats:
    """Sigma of the ideal prediction (bins,) in the 2025 score."""
    sigmas = np.full(n_bins, airs_ideal_sigma)
    sigmas[FGS1.spectral_slice] = fgs1_ideal_sigma
    return sigmas


def likelihood_span(truth: Floats, train_mean: float, train_std: float, ideal_sigma: Floats | None = None) -> Floats:
    """L_ideal - L_ref (planets, bins), in nats: what one unit of score costs in each planet and bin.

    Raises InputError where the reference would be at least as good as the ideal prediction.
    """
    ideal = ideal_sigmas(truth.shape[1]) if ideal_sigma is None else ideal_sigma
    if not train_std > np.max(ideal):
        raise InputError(
            "the score's reference",
            f"a standard deviation of the train labels above {np.max(ideal):g}",
            f"{train_std:g}",
            "Use the labels of many planets.",
        )
    span: Floats = np.log(train_std / ideal) + 0.5 * ((truth - train_mean) / train_std) ** 2
    return span


@dataclass(frozen=True)
class ScoreParts:
    """The 2025 score taken apart. `width_loss`, `error_loss`, `span` (planets, bins), `weights` (bins,).

    r = 1 - width_loss - error_loss exactly: `width_loss` = ln(sigma / sigma_ideal) / span is what the stated width
    costs even if the mean is perfect, `error_loss` = z^2 / 2 / span what the error costs at that width, with
    span = L_ideal - L_ref. Honest sigmas have E[z^2] = 1.
    """

    width_loss: Floats
    error_loss: Floats
    span: Floats
    weights: Floats

    @property
    def ratio(self) -> Floats:
        """r of each planet and bin (planets, bins)."""
        return 1.0 - self.width_loss - self.error_loss

    @property
    def by_planet(self) -> Floats:
        """Unclipped score of each planet (planets,); their mean is the unclipped score."""
        by_planet: Floats = np.average(self.ratio, axis=1, weights=self.weights)
        return by_planet

    @property
    def by_bin(self) -> Floats:
        """Unclipped score of each bin (bins,); their weighted mean is the unclipped score."""
        by_bin: Floats = np.mean(self.ratio, axis=0)
        return by_bin

    @property
    def unclipped(self) -> float:
        """The weighted mean before clipping: negative where the prediction is worse than the reference."""
        return float(np.mean(self.by_planet))

    @property
    def score(self) -> float:
        """The official score."""
        return float(np.clip(self.unclipped, 0.0, 1.0))

    def summary(self) -> dict[str, dict[str, float]]:
        """Unclipped `score`, `width_loss`, `error_loss` and `sigma_loss` of each instrument and of all bins.

        `sigma_loss` is what the best single factor on the sigmas of these very planets would win: 0 where they are
        calibrated, infinite where the mean is perfect.
        """
        slices = {"all": slice(None)} | {instrument.name: instrument.spectral_slice for instrument in INSTRUMENTS}
        return {name: self._summary(bins) for name, bins in slices.items()}

    def _summary(self, bins: slice) -> dict[str, float]:
        def mean(values: Floats) -> float:
            return float(np.mean(np.average(values[:, bins], axis=1, weights=self.weights[bins])))

        width, error, unit = mean(self.width_loss), mean(self.error_loss), mean(1.0 / self.span)
        # A factor T on sigma costs ln(T) unit + error / T^2, least at T^2 = 2 error / unit.
        gain = error - 0.5 * unit * (1.0 + np.log(2.0 * error / unit)) if error > 0 else np.inf
        return {"score": 1.0 - width - error, "width_loss": width, "error_loss": error, "sigma_loss": float(gain)}


def score_parts(
    mean: Floats,
    sigma: Floats,
    truth: Floats,
    train_mean: float,
    train_std: float,
    *,
    fgs1_weight: float = FGS1_WEIGHT,
    fgs1_ideal_sigma: float = FGS1_IDEAL_SIGMA,
    airs_ideal_sigma: float = AIRS_IDEAL_SIGMA,
) -> ScoreParts:
    """The 2025 score of `mean`, `sigma` against `truth` (planets, bins), by planet and bin.

    `train_mean`, `train_std`: of all train labels, see `reference_of`. Raises InputError on arrays of different shapes
    and on values that void a submission (negative or not finite).
    """
    require_scorable(mean, sigma, truth)
    ideal = ideal_sigmas(truth.shape[1], fgs1_ideal_sigma, airs_ideal_sigma)
    span = likelihood_span(truth, train_mean, train_std, ideal)
    width = np.maximum(sigma, SMALLEST_SIGMA)
    return ScoreParts(
        width_loss=np.log(width / ideal) / span,
        error_loss=0.5 * ((truth - mean) / width) ** 2 / span,
        span=span,
        weights=bin_weights(truth.shape[1], fgs1_weight),
    )


def official_score_2025(
    mean: Floats,
    sigma: Floats,
    truth: Floats,
    train_mean: float,
    train_std: float,
    *,
    fgs1_weight: float = FGS1_WEIGHT,
    fgs1_ideal_sigma: float = FGS1_IDEAL_SIGMA,
    airs_ideal_sigma: float = AIRS_IDEAL_SIGMA,
) -> float:
    """The official 2025 score in [0, 1], higher is better; arguments and errors as `score_parts`."""
    return score_parts(
        mean,
        sigma,
        truth,
        train_mean,
        train_std,
        fgs1_weight=fgs1_weight,
        fgs1_ideal_sigma=fgs1_ideal_sigma,
        airs_ideal_sigma=airs_ideal_sigma,
    ).score


def official_score_2024(
    mean: Floats,
    sigma: Floats,
    truth: Floats,
    train_mean: float,
    train_std: float,
    *,
    ideal_sigma: float = AIRS_IDEAL_SIGMA,
) -> float:
    """The official 2024 score in [0, 1]: sum(L_pred - L_ref) / sum(L_ideal - L_ref).

    Arguments and errors as `score_parts`.
    """
    require_scorable(mean, sigma, truth)
    span = likelihood_span(truth, train_mean, train_std, np.full(truth.shape[1], ideal_sigma))
    width = np.maximum(sigma, SMALLEST_SIGMA)
    loss = np.log(width / ideal_sigma) + 0.5 * ((truth - mean) / width) ** 2
    return float(np.clip(1.0 - np.sum(loss) / np.sum(span), 0.0, 1.0))


def require_scorable(mean: Floats, sigma: Floats, truth: Floats) -> None:
    """Raises InputError unless all three are finite and (planets, bins), and `mean` and `sigma` are not negative."""
    if not (mean.ndim == 2 and mean.shape == sigma.shape == truth.shape and mean.shape[0] > 0 and mean.shape[1] > 1):
        raise InputError(
            "spectra to be scored",
            "mean, sigma and truth of one shape (planets, bins)",
            f"shapes {mean.shape}, {sigma.shape}, {truth.shape}",
            "Score the same planets and bins.",
        )
    for name, values, least in (("mean", mean, 0.0), ("sigma", sigma, 0.0), ("truth", truth, -np.inf)):
        bad = ~np.isfinite(values) | (values < least)
        if np.any(bad):
            planet, bin_id = np.argwhere(bad)[0]
            raise InputError(
                f"{name} to be scored, row {planet}, bin {bin_id}",
                "a finite number" if least < 0 else "a finite number, not negative",
                f"{values[planet, bin_id]} ({np.count_nonzero(bad)} such values)",
                "Correct the table: the official scorer rejects all of it.",
            )


@dataclass(frozen=True)
class BootstrapDifference:
    """Score of A minus score of B over the same planets: `difference`, the limits `low` and `high` of the central
    interval of the resampled differences, and the fraction of resamples in which A wins."""

    difference: float
    low: float
    high: float
    probability_better: float


def paired_bootstrap(
    a_by_planet: Floats, b_by_planet: Floats, *, seed: int = 0, resamples: int = 10_000, level: float = 0.95
) -> BootstrapDifference:
    """Does A beat B beyond the luck of which planets were drawn? Arguments: `ScoreParts.by_planet` of both, (planets,),
    or (seeds, planets) of runs with several seeds.

    Planets are resampled with replacement, the same ones for A and B, since bins of one planet share their errors; so
    are the seeds. The limits are percentiles. Raises InputError if the two do not hold the same planets and seeds.
    """
    if a_by_planet.shape != b_by_planet.shape or a_by_planet.size == 0:
        raise InputError(
            "scores to be compared",
            "one score per planet for both predictions",
            f"shapes {a_by_planet.shape} and {b_by_planet.shape}",
            "Score both predictions on the same planets.",
        )
    difference = np.atleast_2d(a_by_planet - b_by_planet)
    n_seeds, n = difference.shape
    rng = np.random.default_rng(seed)
    planet_counts = rng.multinomial(n, np.full(n, 1.0 / n), size=resamples)
    seed_counts = rng.multinomial(n_seeds, np.full(n_seeds, 1.0 / n_seeds), size=resamples)
    means = np.sum(planet_counts @ difference.T * seed_counts, axis=1) / difference.size
    low, high = np.quantile(means, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return BootstrapDifference(float(np.mean(difference)), float(low), float(high), float(np.mean(means > 0.0)))
