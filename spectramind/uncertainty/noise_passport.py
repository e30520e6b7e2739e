"""Where the variance of a planet's fitted depths comes from.

With the likelihood's precision L, that of what is known before K, and P = (L + K)^-1, the variance of the posterior
mean u' x of any combination u of depths is

    u' P u  =  u' P L P u  +  u' P K P u,

exactly: the first part is noise of the light curves, the second the errors of what was assumed. The first is a sum over
samples, so that it parts by what made their noise; the second by the nuisances and the spectral prior. A term is what
the error's variance would be if it acted alone and the others were off, with the fit's weights as they are.

Terms of the noise: `photon` from the light that was measured; `read` and `dark`, the rest of the propagated variance,
in the proportion of a typical pixel's; `excess`, by which a bin's own residuals scatter more than was propagated,
whatever its cause; `flat` and `jitter`, what AIRS bins share from time to time: `flat` as far as it differs from pixel
to pixel (`shared_patterns`), `jitter` as motion along dispersion and whatever is smooth in wavelength do. Terms of
assumptions: `orbit` (geometry and limb darkening), `timing` (mid-transits of the visits), `drift` (of the visits),
`prior` (what spectra look like).

A change of the depths from visit to visit is no term: the fit has one spectrum, and its variance none of it. How far
the visits differ is measured beside (`visit_agreement`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import block_diag, cholesky, solve_triangular

from spectramind.instruments import AIRS, FGS1, N_WAVELENGTHS
from spectramind.transit.fit import FittedCurves
from spectramind.transit.joint import Gaussian, inverse, joint_likelihood
from spectramind.transit.local_likelihood import model_and_slopes
from spectramind.transit.nuisances import N_CLOCK, Layout
from spectramind.types import CalibratedVisit, Floats, Star
from spectramind.uncertainty.shared_patterns import pixel_share
from spectramind.uncertainty.visit_agreement import VisitAgreement, visit_agreement

NOISE_TERMS = ("photon", "read", "dark", "excess", "flat", "jitter")
ASSUMED_TERMS = ("orbit", "timing", "drift", "prior")
TERMS = (*NOISE_TERMS, *ASSUMED_TERMS)
VISIT_TERMS = (*NOISE_TERMS, "timing", "drift")
"""Those that each visit draws anew, and that more visits average down."""
AIRS_WHITE = "AIRS white"
DEPTHS = (*(f"wl_{number + 1}" for number in range(N_WAVELENGTHS)), AIRS_WHITE)
"""What has a passport: each bin, wl_1 being FGS1, and the mean of the AIRS bins."""
FEWEST_BINS = 8
"""Of the longest averages in an Allan table."""


@dataclass(frozen=True)
class DetectorNoise:
    """Variances (electrons^2) that a CDS pair of a typical pixel has from `read` noise and `dark` current."""

    read: float
    dark: float


@dataclass(frozen=True)
class NoisePassport:
    """`variance` (284,) of the depths in `DEPTHS`, and its `terms` (terms, 284) in the order of `TERMS`, which sum to
    it; `covariance` (283, 283) of the bins; `agreement` of the visits about the same depths."""

    variance: Floats
    terms: Floats
    covariance: Floats
    agreement: VisitAgreement

    @property
    def shares(self) -> Floats:
        """Each term's share (terms, 284) of the variance."""
        return self.terms / self.variance

    @property
    def averages_down(self) -> Floats:
        """Share (284,) of the variance that each visit draws anew."""
        return np.asarray(self.shares[[TERMS.index(name) for name in VISIT_TERMS]].sum(axis=0))


def noise_passport(
    visits: Sequence[CalibratedVisit],
    curves: Sequence[Sequence[FittedCurves]],
    star: Star,
    layout: Layout,
    spectrum: Gaussian,
    nuisances: Gaussian,
    detectors: Mapping[str, DetectorNoise],
) -> NoisePassport:
    """Of the `visits` of one planet, whose `curves` are those of its fit (`transit.fit.fitted_curves`).

    `spectrum` and `nuisances` are the priors of the depths (283) and of the nuisances of `layout`; `detectors` by
    instrument name.
    """
    likelihoods = _visit_likelihoods(curves, layout)
    precision = np.sum([one.precision for one in likelihoods], axis=0)
    known = block_diag(spectrum.precision, nuisances.precision)
    size = len(known)
    # In units of what is known before, K = root root': the terms then add up however small a remainder of drift is.
    root = cholesky(known, lower=True)
    unit = solve_triangular(root, np.eye(size), lower=True)
    depths = np.eye(size)[:, :N_WAVELENGTHS]
    depths = np.column_stack([depths, depths[:, AIRS.spectral_slice].mean(axis=1)])
    moved = inverse(unit @ precision @ unit.T + np.eye(size)) @ (unit @ depths)
    directions = unit.T @ moved
    covariance = directions[:N_WAVELENGTHS, :N_WAVELENGTHS]
    variance = np.append(np.diag(covariance), directions[AIRS.spectral_slice, -1].mean())
    terms = dict.fromkeys(TERMS, np.zeros(len(DEPTHS)))
    for position, (visit, instruments) in enumerate(zip(visits, curves, strict=True)):
        for fitted in instruments:
            for name, part in _of_noise(visit, fitted, star, layout, position, directions, detectors).items():
                terms[name] = terms[name] + part
    assumed = directions * (root @ moved)
    for name, rows in _assumptions(layout).items():
        terms[name] = assumed[rows].sum(axis=0)
    agreement = visit_agreement(likelihoods, np.concatenate([spectrum.score, nuisances.score]), unit, depths)
    return NoisePassport(variance, np.stack([terms[name] for name in TERMS]), covariance, agreement)


def allan_table(curves: FittedCurves) -> list[tuple[int, float, float]]:
    """Samples averaged, scatter (ppm) of the averages of the white residuals, and what independent noise would leave of
    the scatter of one sample: one over the root of the number."""
    total = curves.weighted.weight.sum(axis=1)
    usable = total > 0
    white = (curves.weighted.weight * curves.residual).sum(axis=1)[usable] / total[usable]
    rows, count = [], 1
    while len(white) // count >= FEWEST_BINS:
        averages = white[: len(white) // count * count].reshape(-1, count).mean(axis=1)
        rows.append((count, 1e6 * float(np.std(averages)), 1e6 * float(np.std(white)) / count**0.5))
        count *= 2
    return rows


def noise_shares(visit: CalibratedVisit, curves: FittedCurves, detectors: Mapping[str, DetectorNoise]) -> Floats:
    """Of each sample's own variance, the shares (4, T, B) of photon, read, dark and excess; they sum to one."""
    curve, detector = visit.curves[curves.given.instrument], detectors[curves.given.instrument]
    used = curves.weighted.weight > 0
    photons = np.where(used, (curve.flux + curve.foreground) / np.maximum(curve.n_pairs, 1)[:, None], 0.0)
    photon = np.clip(photons / np.where(used, curve.variance, 1.0), 0.0, 1.0)
    read = detector.read / max(detector.read + detector.dark, np.finfo(float).tiny)
    growth = np.where(used, curves.given.weight / np.where(used, curves.weighted.weight, 1.0), 1.0)
    propagated = 1.0 / np.maximum(growth, 1.0)
    rest = (1.0 - photon) * propagated
    return np.stack([photon * propagated, rest * read, rest * (1.0 - read), 1.0 - propagated])


def _of_noise(
    visit: CalibratedVisit,
    fitted: FittedCurves,
    star: Star,
    layout: Layout,
    position: int,
    directions: Floats,
    detectors: Mapping[str, DetectorNoise],
) -> dict[str, Floats]:
    """Each noise term (284,) of one instrument and visit."""
    c = fitted.weighted
    bins = np.arange(N_WAVELENGTHS)[(AIRS if c.dispersed else FGS1).spectral_slice]
    slopes = model_and_slopes(c, star, fitted.local)[1]
    weight = c.weight / np.maximum(c.weight.sum(axis=0), 1e-300)
    slopes = (slopes - (weight * slopes).sum(axis=1)[:, None]) * np.sqrt(c.weight)
    design = layout.design(c.dispersed, c.wavelength_um, position)
    local = np.concatenate([directions[bins][:, None], design @ directions[N_WAVELENGTHS:]], axis=1)  # B q 284
    shares = noise_shares(visit, fitted, detectors)
    pixels = pixel_share(c, layout.drift_colours)
    found = {name: np.zeros(directions.shape[1]) for name in NOISE_TERMS}
    for time in range(slopes.shape[1]):
        seen = np.einsum("qb,bqd->bd", slopes[:, time], local)  # what each sample says of each depth, whitened
        common = c.patterns @ seen
        own = (seen - c.patterns.T @ (c.excess[:, None] * common)) ** 2
        for name, share in zip(NOISE_TERMS, shares[:, time], strict=False):
            found[name] += share @ own
        shared = (c.excess - c.excess**2)[:, None] * common**2
        found["flat"] += pixels @ shared
        found["jitter"] += (1.0 - pixels) @ shared
    return found


def _visit_likelihoods(curves: Sequence[Sequence[FittedCurves]], layout: Layout) -> list[Gaussian]:
    """Of each visit alone, of the whole vector: it says nothing of the others' nuisances."""
    found = []
    for position in range(len(curves)):
        alone = [[c.likelihood for c in cs] if at == position else [] for at, cs in enumerate(curves)]
        found.append(joint_likelihood(alone, layout).dense())
    return found


def _assumptions(layout: Layout) -> dict[str, list[int]]:
    """Rows of the joint vector by term."""
    starts = [N_WAVELENGTHS + layout.visit(position).start for position in range(layout.n_visits)]
    return {
        "prior": list(range(N_WAVELENGTHS)),
        "orbit": list(range(N_WAVELENGTHS, N_WAVELENGTHS + layout.n_shared)),
        "timing": [row for start in starts for row in range(start, start + N_CLOCK)],
        "drift": [row for start in starts for row in range(start + N_CLOCK, start + layout.n_per_visit)],
    }
