"""The Gaussian part is the official score, and outliers are bounded."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toy_spectra import tensor

from spectramind.losses.gaussian import gaussian_loss, saturate
from spectramind.metrics.score import official_score_2025, score_parts

REFERENCE = (0.0147, 0.0107)


def draw(seed: int, n_planets: int = 4, n_bins: int = 6) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.uniform(0.004, 0.03, (n_planets, n_bins))
    sigma = rng.uniform(5e-5, 3e-4, truth.shape)
    return truth + sigma * rng.standard_normal(truth.shape), sigma, truth


@given(st.integers(0, 2**32 - 1))
def test_loss_is_one_minus_the_score(seed: int) -> None:
    mean, sigma, truth = draw(seed)
    parts = score_parts(mean, sigma, truth, *REFERENCE)
    loss = gaussian_loss(tensor(mean), tensor(sigma), tensor(truth), *REFERENCE)
    share = parts.weights / parts.weights.sum()
    np.testing.assert_allclose(loss.numpy(), (1 - parts.ratio) * share, rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(loss.sum(dim=1).numpy(), 1 - parts.by_planet, rtol=1e-10)


def test_differences_are_differences_of_the_official_score() -> None:
    mean, sigma, truth = draw(3)
    losses, scores = [], []
    for widened in (1.0, 1.5):
        scores.append(official_score_2025(mean, widened * sigma, truth, *REFERENCE))
        by_bin = gaussian_loss(tensor(mean), tensor(widened * sigma), tensor(truth), *REFERENCE, clip_above=3.0)
        losses.append(float(by_bin.sum() / len(mean)))
    assert 0 < scores[1] < scores[0] < 1
    assert losses[1] - losses[0] == pytest.approx(scores[0] - scores[1], rel=1e-10)


def test_one_bin_in_figures() -> None:
    """FGS1 100 ppm off at sigma 100 ppm, truth at the train mean: (ln(1e-4 / 1e-6) + 1/2) / ln(0.01 / 1e-6)."""
    truth = tensor([[0.01, 0.01]])
    sigma = tensor([[1e-4, 1e-5]])
    loss = gaussian_loss(truth + tensor([[1e-4, 0.0]]), sigma, truth, 0.01, 0.01)
    by_hand = (4.605170185988092 + 0.5) / 9.210340371976184 * 57.846 / 58.846
    np.testing.assert_allclose(loss.numpy(), [[by_hand, 0.0]], rtol=1e-9, atol=1e-12)


def test_single_precision_resolves_the_ideal_prediction() -> None:
    _, _, truth = draw(5)
    mean = torch.as_tensor(truth, dtype=torch.float32)
    ideal = torch.tensor([1e-6, 1e-5, 1e-5, 1e-5, 1e-5, 1e-5]).expand_as(mean)
    loss = gaussian_loss(mean, ideal, mean, *REFERENCE)
    assert loss.abs().max() < 1e-6


def test_an_outlier_is_bounded_and_its_gradient_finite() -> None:
    mean, sigma, truth = (tensor(values) for values in draw(1))
    mean[0, 0] = 1e3
    free = gaussian_loss(mean, sigma, truth, *REFERENCE)
    mean.requires_grad_()
    sigma.requires_grad_()
    clipped = gaussian_loss(mean, sigma, truth, *REFERENCE, clip_above=3.0)
    assert free[0, 0] > 1e6
    assert float(clipped[0, 0].detach()) == pytest.approx(6.0 * 57.846 / 62.846)
    torch.testing.assert_close(clipped[1:], free[1:], rtol=0, atol=0)
    clipped.sum().backward()
    for values in (mean, sigma):
        assert values.grad is not None
        assert torch.isfinite(values.grad).all()
    assert mean.grad is not None
    assert abs(mean.grad[0, 0]) <= abs(mean.grad[1:]).max()


def test_shrinking_sigma_never_pays_for_an_outlier() -> None:
    """A bound on z^2 alone would reward it: here the loss rises until it saturates."""
    sigma = tensor(np.geomspace(1e-3, 1e-9, 200)[:, None] * np.ones((1, 2)))
    truth = torch.full_like(sigma, 0.01)
    loss = gaussian_loss(truth + 1e-2, sigma, truth, *REFERENCE, clip_above=3.0)
    assert (loss.diff(dim=0) >= 0).all()


def test_saturation_is_continuous_in_value_and_slope() -> None:
    knee = 3.0
    loss = tensor([knee - 1e-7, knee + 1e-7]).requires_grad_()
    bounded = saturate(loss, knee)
    (slope,) = torch.autograd.grad(bounded.sum(), loss)
    np.testing.assert_allclose(bounded.detach().numpy(), knee, atol=2e-7)
    np.testing.assert_allclose(slope.numpy(), 1.0, atol=1e-6)
    by_hand = 3.0 + 3.0 * (1.0 - np.exp(-1.0))
    assert float(saturate(tensor(6.0), knee)) == pytest.approx(by_hand, rel=1e-12)
    assert float(saturate(tensor(-40.0), knee)) == -40.0


def test_gradients() -> None:
    mean, sigma, truth = (tensor(values) for values in draw(11))
    # In units of sigma, so that the finite differences are neither lost in nor larger than the curvature.
    units = torch.zeros_like(mean).requires_grad_(), torch.zeros_like(sigma).requires_grad_()

    def loss(shift: torch.Tensor, stretch: torch.Tensor) -> torch.Tensor:
        return gaussian_loss(mean + sigma * shift, sigma * torch.exp(stretch), truth, *REFERENCE, clip_above=1.0)

    assert torch.autograd.gradcheck(loss, units)
