"""Checkpoints, optimisers, masks, augmentation, contrastive loss and mixture, one by one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from toy_training import recipe, toy_planets

from spectramind.errors import InputError
from spectramind.models.analytic import planet_folds
from spectramind.training.checkpoints import SafetensorsIO, load_state
from spectramind.training.masks import hidden_bins
from spectramind.training.mixture import choose_mixture, mix
from spectramind.training.optimizers import build_optimizer, learning_rate_factor
from spectramind.training.options import AugmentationOptions, MaskOptions, OptimizerOptions
from spectramind.training.phases import augmented, contrastive_loss
from spectramind.types import Floats
from spectramind.uncertainty.options import UncertaintyOptions

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text() | st.integers(0, 9) | st.booleans(), inner)
    ),
    max_leaves=12,
)


@settings(deadline=None, max_examples=50)
@given(VALUES)
def test_a_checkpoint_comes_back_as_it_was(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    path = tmp_path_factory.mktemp("checkpoint") / "state.ckpt"
    SafetensorsIO().save_checkpoint({"value": value, "tensor": torch.arange(3)}, path)
    found = load_state(path)
    assert repr(found["value"]) == repr(value)
    assert torch.equal(found["tensor"], torch.arange(3))


def test_nothing_but_plain_values_is_saved_and_nothing_else_loaded(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="Linear"):
        SafetensorsIO().save_checkpoint({"module": nn.Linear(1, 1)}, tmp_path / "a.ckpt")
    torch.save({"weight": torch.zeros(1)}, tmp_path / "pickled.ckpt")
    with pytest.raises(InputError, match="pickled"):
        load_state(tmp_path / "pickled.ckpt")
    with pytest.raises(InputError, match=r"missing\.ckpt"):
        load_state(tmp_path / "missing.ckpt")


def test_the_step_size_rises_and_falls() -> None:
    factor = learning_rate_factor(OptimizerOptions(lr=1.0, min_lr=0.1, warmup_steps=4), 100)
    assert [factor(step) for step in range(4)] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert factor(4) == 1.0
    assert factor(99) == pytest.approx(0.1)
    assert all(factor(step) > factor(step + 1) for step in range(4, 99))
    assert learning_rate_factor(OptimizerOptions(warmup_steps=2000), 50)(5) == 1.0


def test_lookahead_follows_by_hand() -> None:
    weight = nn.Parameter(torch.tensor([1.0]))
    options = OptimizerOptions("sgd", lr=0.1, momentum=0.0, weight_decay=0.0, lookahead_steps=3, lookahead_alpha=0.5)
    optimizer = build_optimizer([weight], options)
    for _ in range(3):
        weight.grad = torch.tensor([1.0])
        optimizer.step()
    assert weight.item() == pytest.approx(1.0 + 0.5 * (0.7 - 1.0))


MOLECULES = torch.zeros(283, dtype=torch.long).index_fill(0, torch.arange(40, 200), 1)


@pytest.mark.parametrize("kind", ["random", "block", "fixed", "snr_aware", "molecule_masked"])
def test_exactly_the_share_of_each_planet_is_hidden(kind: Any) -> None:
    torch.manual_seed(0)
    hidden = hidden_bins(MaskOptions(kind, 0.35), torch.full((6, 283), 40.0), MOLECULES)
    assert hidden.sum(dim=1).tolist() == [99] * 6
    assert (kind == "fixed") == bool((hidden == hidden[:1]).all())


def test_masks_hide_what_their_kind_says() -> None:
    torch.manual_seed(0)
    snr = torch.full((4, 283), 40.0)
    snr[:, :150] = 5.0
    assert not hidden_bins(MaskOptions("snr_aware", 0.35, 10.0), snr, MOLECULES)[:, :150].any()
    assert hidden_bins(MaskOptions("molecule_masked", 0.35), snr, MOLECULES)[:, MOLECULES == 0].sum() == 0
    block = hidden_bins(MaskOptions("block", 0.2), snr, MOLECULES)
    assert ((block != block.roll(1, dims=1)).sum(dim=1) == 2).all()


def test_augmentation_keeps_what_tells_the_spectrum() -> None:
    torch.manual_seed(0)
    inputs = toy_planets(3)[0].batch([0, 1, 2])
    changed = augmented(inputs, AugmentationOptions(0.02, 0.02, 0.3))
    assert (changed.n_steps < inputs.n_steps).all()
    for before, after, count in zip(inputs.fgs1, changed.fgs1, changed.n_steps.tolist(), strict=True):
        flux = after[:count, 0]
        places = [int((before[:, 0] == value).nonzero()[0]) for value in flux]
        assert places == sorted(places)
    assert torch.equal(changed.nodes, inputs.nodes)
    assert augmented(inputs, AugmentationOptions(0, 0, 0)).fgs1.equal(inputs.fgs1)


def test_contrastive_loss_by_hand() -> None:
    one = torch.tensor([[2.0, 0.0], [0.0, 3.0]])
    assert contrastive_loss([one, one], 1.0).item() == pytest.approx(np.log(1 + np.exp(-1.0)))
    assert contrastive_loss([one, one.flip(0)], 1.0).item() == pytest.approx(np.log(1 + np.exp(1.0)))
    assert contrastive_loss([one[:1], one[1:]], 0.07).item() == 0.0


def spectra(error: float, planets: int = 40, seed: int = 0) -> tuple[tuple[Floats, Floats], Floats]:
    """Predictions that are `error` wrong, with honest sigmas, and the truth."""
    rng = np.random.default_rng(seed)
    truth = 0.01 + 0.004 * rng.random((planets, 1)) + 1e-4 * np.random.default_rng(99).normal(size=(planets, 283))
    mean = truth + error * rng.normal(size=truth.shape)
    return (mean, np.full_like(mean, error)), truth


def chosen(analytic: tuple[Floats, Floats], network: tuple[Floats, Floats], truth: Floats) -> Any:
    folds = planet_folds(len(truth), 5, 1)
    return choose_mixture(analytic, network, truth, folds, UncertaintyOptions(), seed=1)


def test_a_network_that_wins_is_used() -> None:
    analytic, truth = spectra(1e-4)
    network = truth + 0.3 * (analytic[0] - truth), 0.3 * analytic[1]
    mixture = chosen(analytic, network, truth)
    assert mixture.weight == 1.0
    assert mixture.report["score_mixture"] > mixture.report["score_analytic"] + 0.05
    np.testing.assert_array_equal(mixture.mean, network[0])


@pytest.mark.parametrize("factor", [0.0001, 1.0, 2.0])
def test_a_network_that_does_not_win_changes_nothing(factor: float) -> None:
    analytic, truth = spectra(1e-4)
    noise = 1e-5 * np.random.default_rng(8).normal(size=truth.shape)
    network = analytic[0] + factor * noise, max(factor, 0.5) * analytic[1]
    mixture = chosen(analytic, network, truth)
    assert mixture.weight == 0.0
    assert mixture.mean is analytic[0]
    assert mixture.sigma is analytic[1]
    assert mixture.report["score_mixture"] == mixture.report["score_analytic"]


def test_luck_with_a_few_planets_does_not_count() -> None:
    analytic, truth = spectra(1e-4)
    lucky = analytic[0].copy()
    lucky[:1] = truth[:1]
    assert chosen(analytic, (lucky, analytic[1]), truth).weight == 0.0


def test_mixing_is_between_both() -> None:
    one, other = (np.array([[1.0]]), np.array([[1.0]])), (np.array([[2.0]]), np.array([[4.0]]))
    assert [float(x[0, 0]) for x in mix(one, other, 0.5)] == [1.5, 2.0]
    assert mix(one, other, 0.0) is one


def test_bad_options_are_refused() -> None:
    with pytest.raises(ValueError, match="min_lr"):
        OptimizerOptions(lr=1e-5, min_lr=1e-4)
    assert recipe().train.mask.ratio == 0.35
