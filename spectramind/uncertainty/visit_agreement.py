"""Whether the visits of a planet, each by itself, give the same depths.

A visit's own estimate is the posterior mean of its likelihood alone under the assumptions that all visits share. Two
visits err together where these assumptions are wrong: with posterior covariances P_v and K the precision of what is
known before, the estimates of a depth u' x have variances u' P_v u and covariances u' P_v K P_w u.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from spectramind.transit.joint import Gaussian, inverse
from spectramind.types import Floats

NO_DIFFERENCE = 1e-12
"""Relative variance of a combination of estimates below which it is none: visits that say nothing all say the prior."""


@dataclass(frozen=True)
class VisitAgreement:
    """Of D depths seen in `visits` visits: `chi2` (D,) of their differences, expected to be `visits` - 1, and `change`
    (D,), the standard deviation of a depth from visit to visit that would raise it to what is found. NaN for one visit.
    """

    visits: int
    chi2: Floats
    change: Floats


def visit_agreement(visits: Sequence[Gaussian], score: Floats, unit: Floats, depths: Floats) -> VisitAgreement:
    """Of likelihoods of `visits`, each of the whole vector x (n,), with the prior's `score` (n,) and the inverse `unit`
    (n, n) of its precision's root, K^-1 = unit' unit; the `depths` are combinations (n, D) of x.

    The change follows by moments: chi2 = d' M d of estimates d is V - 1 + change^2 tr M on average, and no change is
    stated where chi2 is below that.
    """
    if len(visits) == 1:
        missing = np.full(depths.shape[1], np.nan)
        return VisitAgreement(1, missing, missing)
    aims = unit @ depths
    moved = [inverse(unit @ visit.precision @ unit.T + np.eye(len(unit))) @ aims for visit in visits]
    found = np.stack([m.T @ (unit @ (v.score + score)) for m, v in zip(moved, visits, strict=True)], axis=1)  # D V
    covariance = np.einsum("vnd,wnd->dvw", moved, moved)
    own = np.arange(len(visits))
    covariance[:, own, own] = np.einsum("nd,vnd->dv", aims, moved)
    weights = np.linalg.pinv(covariance, rcond=NO_DIFFERENCE, hermitian=True)
    total = weights.sum(axis=2)
    weights -= total[:, :, None] * total[:, None, :] / total.sum(axis=1)[:, None, None]
    chi2 = np.einsum("dv,dvw,dw->d", found, weights, found)
    known = np.maximum(np.trace(weights, axis1=1, axis2=2), np.finfo(float).tiny)
    excess = (chi2 - (len(visits) - 1)) / known
    return VisitAgreement(len(visits), chi2, np.sqrt(np.maximum(excess, 0.0)))
