"""Differences of visits whose likelihoods are drawn from what they say of themselves."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import cholesky, solve_triangular

from spectramind.transit.joint import Gaussian
from spectramind.uncertainty.visit_agreement import visit_agreement

SIZE, VISITS, DRAWS = 5, 3, 2000
DEPTHS = np.column_stack([np.eye(SIZE)[:, :2], [0.5, 0.5, 0, 0, 0]])


@pytest.mark.parametrize("change", [0.0, 2.0])
def test_chi_squared_and_change_are_what_was_drawn(change: float) -> None:
    """What all visits get wrong together is no difference; a change of all depths from visit to visit is found."""
    rng = np.random.default_rng(1)
    roots = [rng.normal(size=(SIZE, 12)) for _ in range(VISITS)]
    known = np.diag([0.01, 0.01, 1.0, 1.0, 1.0])
    unit = solve_triangular(cholesky(known, lower=True), np.eye(SIZE), lower=True)
    mean = rng.normal(size=SIZE)
    chi2, found = [], []
    for _ in range(DRAWS):
        true = mean + unit.T @ rng.normal(size=SIZE)
        visits = []
        for root in roots:
            own = true + change * rng.normal() * np.array([1, 1, 0, 0, 0])
            visits.append(Gaussian(root @ root.T, root @ (root.T @ own + rng.normal(size=12))))
        agreement = visit_agreement(visits, known @ mean, unit, DEPTHS)
        chi2.append(agreement.chi2)
        found.append(agreement.change**2)
    if change:
        error = np.std(found, axis=0) / np.sqrt(DRAWS)
        assert (np.abs(np.mean(found, axis=0) - change**2) < 5 * error + 0.05 * change**2).all()
    else:
        degrees = VISITS - 1
        assert (np.abs(np.mean(chi2, axis=0) - degrees) < 5 * np.sqrt(2 * degrees / DRAWS)).all()


def test_one_visit_has_no_difference() -> None:
    agreement = visit_agreement([Gaussian(np.eye(SIZE), np.zeros(SIZE))], np.zeros(SIZE), np.eye(SIZE), DEPTHS)
    assert agreement.visits == 1
    assert np.isnan([agreement.chi2, agreement.change]).all()


def test_visits_that_say_nothing_agree() -> None:
    agreement = visit_agreement(
        [Gaussian(np.zeros((SIZE, SIZE)), np.zeros(SIZE))] * 2, np.ones(SIZE), np.eye(SIZE), DEPTHS
    )
    np.testing.assert_allclose([agreement.chi2, agreement.change], 0.0, atol=1e-9)
