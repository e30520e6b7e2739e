"""Evidence from light curves, and the scaling that uses it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from spectramind.errors import InputError
from spectramind.metrics.score import reference_of, score_parts
from spectramind.uncertainty.evidence import LARGEST, evidence_of
from spectramind.uncertainty.options import UncertaintyOptions
from spectramind.uncertainty.scaling import SigmaScaling, cross_fit_sigma, fit_sigma_scaling

N_BINS = 283
OPTIONS = UncertaintyOptions(stage="evidence")


def drawn(n: int, seed: int, response: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Mean, sigma, truth and evidence: AIRS errors grow by e^response with each unit of its first number."""
    rng = np.random.default_rng(seed)
    truth = np.repeat(rng.lognormal(-4.4, 0.6, (n, 1)), N_BINS, axis=1)
    sigma = 1e-4 * np.exp(0.1 * rng.normal(size=truth.shape))
    evidence = rng.normal(size=(2, n, 3))
    factor = np.ones_like(truth)
    factor[:, 1:] = np.exp(response * evidence[1, :, :1])
    return truth + factor * sigma * rng.normal(size=truth.shape), sigma, truth, evidence


def test_a_response_is_found_and_wins_score_on_unseen_planets() -> None:
    mean, sigma, truth, evidence = drawn(200, 1, 0.4)
    scaling = fit_sigma_scaling(mean, sigma, truth, OPTIONS, 0, evidence)
    assert "evidence" in scaling.groups["AIRS-CH0"].kept
    assert scaling.groups["AIRS-CH0"].gains["evidence"] > 0
    assert scaling.response is not None
    assert scaling.response[:, 5] == pytest.approx([0.4, 0.0, 0.0], abs=0.05)
    new_mean, new_sigma, new_truth, new_evidence = drawn(300, 2, 0.4)
    plain = fit_sigma_scaling(mean, sigma, truth, UncertaintyOptions())

    def unseen(scaled: np.ndarray) -> float:
        return score_parts(new_mean, scaled, new_truth, *reference_of(truth)).unclipped

    assert unseen(scaling.apply(new_sigma, new_evidence)) > unseen(plain.apply(new_sigma)) + 0.005


def test_evidence_that_says_nothing_does_next_to_nothing() -> None:
    mean, sigma, truth, evidence = drawn(120, 3, 0.0)
    scaled = cross_fit_sigma(mean, sigma, truth, OPTIONS, 0, evidence)
    plain = cross_fit_sigma(mean, sigma, truth, UncertaintyOptions())
    score, without = (score_parts(mean, s, truth, *reference_of(truth)).unclipped for s in (scaled, plain))
    assert score > without - 0.002


def test_scaling_with_evidence_is_kept_undone_and_asks_for_it() -> None:
    mean, sigma, truth, evidence = drawn(100, 4, 0.4)
    scaling = SigmaScaling.from_json(fit_sigma_scaling(mean, sigma, truth, OPTIONS, 0, evidence).to_json())
    scaled = scaling.apply(sigma, evidence)
    assert np.ptp(scaled / sigma) > 0.5
    np.testing.assert_allclose(scaling.undo(scaled, evidence), sigma, rtol=1e-12)
    covariance = sigma[:2, :, None] * sigma[:2, None, :] * 0.5 + 0.5 * np.eye(N_BINS) * sigma[:2, :, None] ** 2
    after = scaling.apply_covariance(covariance, evidence[:, :2])
    np.testing.assert_allclose(np.sqrt(np.diagonal(after, axis1=1, axis2=2)), scaled[:2], rtol=1e-9)
    record = json.loads(scaling.to_json()) | {"response": [[0.1]]}
    with pytest.raises(InputError, match="response"):
        SigmaScaling.from_json(json.dumps(record))
    for wrong in (None, evidence[:, :5], evidence[:, :, :1]):
        with pytest.raises(InputError, match="evidence"):
            scaling.apply(sigma, wrong)


def test_numbers_of_visits_and_of_fits_that_measured_nothing() -> None:
    names = ("scatter", "half_difference", "transit_residual")
    good = {
        f"{name}_AIRS-CH0_{visit}": value
        for visit in (0, 1)
        for name, value in zip(names, (1.5, -3.0, 4.0), strict=True)
    }
    wild = {f"{name}_FGS1_0": 1e9 for name in names} | {f"{name}_AIRS-CH0_0": float("nan") for name in names}
    of_json = {name: None if np.isnan(value) else value for name, value in wild.items()}
    evidence = evidence_of([good, wild, {}, of_json])
    assert evidence.shape == (2, 4, 3)
    assert evidence[1, 0] == pytest.approx([np.log(1.5), np.log(4.0), np.log(5.0)])
    assert np.all(evidence[0, [1, 3]] == LARGEST)
    assert np.all(evidence[1, 1:] == 0)
