"""The sum: named parts, maps, switches that leave no trace, and what follows from them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from toy_spectra import N_BINS, WINDOWS, noisy, ppm, predicted, small_axis, tensor

from spectramind.errors import InputError
from spectramind.losses.options import (
    FftOptions,
    LossOptions,
    MoleculeWindows,
    RatioEnvelopesOptions,
    RuleFamily,
    SeamContinuityOptions,
    SymbolicOptions,
)
from spectramind.losses.prediction import Prediction
from spectramind.losses.spectral_axis import spectral_axis
from spectramind.losses.total import GAUSSIAN, RULES, Target, total_loss
from spectramind.losses.violations import NO_BIN, influence_maps, sample_weights, violations

FAMILIES = tuple(
    RuleFamily(name=name, weight=0.03 * (k + 1))
    for k, name in enumerate(
        ("molecular_fingerprint", "gravitational_lensing", "photonic_alignment", "radiative_transfer")
    )
)
ALL = SymbolicOptions(
    fft=FftOptions(cutoff_freq=4.0),
    seam_continuity=SeamContinuityOptions(seam_index=9),
    total_variation=replace(SymbolicOptions().total_variation, enabled=True),
    rules=FAMILIES,
    windows=WINDOWS,
)
RULE_NAMES = tuple(RULES)


def breaking_all() -> Prediction:
    """Rough, partly negative spectra with crossing quantiles and sigmas out of bounds."""
    mean = noisy()
    mean[:, 0] += 2e-3
    mean[0, 3] = -1e-3
    mean[:, 6] += 4e-4
    mean = mean + np.array([[0.0], [4e-4], [-4e-4]])
    sigma = np.full(mean.shape, 2e-4)
    sigma[1, 4], sigma[2, 0] = 0.05, 1e-7
    quantiles = mean[:, None, :] + 1e-4 * np.array([-1.0, 1.5, 1.0])[:, None]
    return predicted(mean, analytic=noisy(seed=8, size_ppm=20.0), sigma=sigma, quantiles=quantiles)


def target(**changes: Any) -> Target:
    return Target(**({"truth": tensor(noisy(seed=9)), "train_mean": 0.0147, "train_std": 0.0107} | changes))


def loss_of(symbolic: SymbolicOptions, options: LossOptions = LossOptions(), **changes: Any):  # type: ignore[no-untyped-def] # noqa: B008
    return total_loss(breaking_all(), target(**changes), small_axis(), options, symbolic)


def switched_off(symbolic: SymbolicOptions, name: str, **changes: Any) -> SymbolicOptions:
    """`symbolic` with rule `name` changed, by default off."""
    changes = changes or {"enabled": False}
    if any(rule.name == name for rule in symbolic.rules):
        rules = tuple(replace(rule, **changes) if rule.name == name else rule for rule in symbolic.rules)
        return replace(symbolic, rules=rules)
    return replace(symbolic, **{name: replace(getattr(symbolic, name), **changes)})


def test_every_rule_has_options_and_all_options_have_a_rule() -> None:
    assert set(SymbolicOptions().by_name) == set(RULES)


def test_all_rules_fire_and_the_total_is_the_sum_of_parts_and_maps() -> None:
    loss = loss_of(ALL)
    assert set(loss.parts) == {GAUSSIAN, *RULES}
    assert all(loss.parts[name] > 0 for name in RULES)
    for name, part in loss.parts.items():
        assert loss.maps[name].shape == (3, N_BINS)
        assert (loss.maps[name] >= 0).all() or name == GAUSSIAN
        assert torch.equal(part, loss.maps[name].sum())
    assert float(loss.total) == pytest.approx(sum(map(float, loss.parts.values())), rel=1e-12)


@pytest.mark.parametrize("name", RULE_NAMES)
def test_off_is_absent_to_the_last_bit(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Off, weight zero and another stage all equal a loss to which the rule is unknown."""
    rules = {rule: values for rule, values in loss_of(ALL).parts.items() if rule != name}
    expected = rules.pop(GAUSSIAN)
    for part in rules.values():
        expected = expected + part
    for changes in ({"enabled": False}, {"weight": 0.0}, {"stages": ("mae",)}):
        with monkeypatch.context() as patch:
            patch.delitem(RULES, name)  # type: ignore[arg-type] # so that it cannot be called
            loss = loss_of(switched_off(ALL, name, **changes))
        assert name not in loss.parts
        assert torch.equal(loss.total, expected)


def test_a_family_that_is_not_listed_is_off() -> None:
    listed = loss_of(replace(ALL, rules=(replace(FAMILIES[0], enabled=False), *FAMILIES[1:])))
    absent = loss_of(replace(ALL, rules=FAMILIES[1:]))
    assert torch.equal(listed.total, absent.total)


def test_without_symbolic_rules_the_likelihood_stays() -> None:
    alone = loss_of(replace(ALL, enabled=False))
    assert set(alone.parts) == {GAUSSIAN}
    assert torch.equal(alone.total, alone.parts[GAUSSIAN])
    assert torch.equal(loss_of(ALL, LossOptions(symbolic_weight_scale=0.0)).total, alone.total)
    assert torch.equal(loss_of(ALL).parts[GAUSSIAN], alone.total)


def test_weights_scale_their_parts() -> None:
    once = loss_of(ALL)
    twice = loss_of(ALL, LossOptions(gll_weight=3.0, symbolic_weight_scale=2.0))
    for name, part in once.parts.items():
        assert float(twice.parts[name]) == pytest.approx(float(part) * (3 if name == GAUSSIAN else 2), rel=1e-12)
    heavier = loss_of(switched_off(ALL, "fft", weight=5 * ALL.fft.weight))
    assert float(heavier.parts["fft"]) == pytest.approx(5 * float(once.parts["fft"]), rel=1e-12)


@pytest.mark.parametrize("name", sorted({*RULES} - {"sigma_bounds", "gravitational_lensing", "photonic_alignment"}))
def test_penalties_fall_with_the_scale(name: str) -> None:
    """Twice the scale is a quarter of a soft penalty, half of a total variation."""
    if name == "molecular_coherence":
        changes: dict[str, Any] = {"normalize_within_window": False}
    else:
        changes = {}
    base = ALL.by_name[name].scale_ppm  # type: ignore[attr-defined]
    small, large = (
        float(loss_of(switched_off(ALL, name, scale_ppm=scale, **changes)).parts[name]) for scale in (base, 2 * base)
    )
    assert small / large == pytest.approx(2 if name == "total_variation" else 4, rel=1e-9)


@pytest.mark.parametrize("mode", ["soft", "hard"])
@pytest.mark.parametrize("name", RULE_NAMES)
def test_gradients(name: str, mode: str) -> None:
    """With respect to mean, sigma and quantiles, in units of 100 ppm and e-folds."""
    start, axis = breaking_all(), small_axis()
    rule = replace(ALL.by_name[name], mode=mode)
    assert start.quantiles is not None
    zeros = [torch.zeros_like(values).requires_grad_() for values in (start.mean, start.sigma, start.quantiles)]

    def penalty(shift: torch.Tensor, stretch: torch.Tensor, shift_quantiles: torch.Tensor) -> torch.Tensor:
        moved = Prediction(
            start.mean + 1e-4 * shift,
            start.sigma * torch.exp(stretch),
            start.analytic,
            start.quantiles + 1e-4 * shift_quantiles,
        )
        return RULES[name](moved, axis, rule)

    assert torch.autograd.gradcheck(penalty, zeros)
    gradients = torch.autograd.grad(penalty(*zeros).sum(), zeros, materialize_grads=True)
    assert any(gradient.abs().max() > 0 for gradient in gradients)


@pytest.mark.parametrize("name", RULE_NAMES)
def test_single_precision_agrees(name: str) -> None:
    double = breaking_all()
    single = Prediction(*(values.float() for values in vars(double).values()))
    axis = spectral_axis(np.array([0.7, *np.linspace(1.95, 3.9, N_BINS - 1)]), WINDOWS)
    rule = ALL.by_name[name]
    np.testing.assert_allclose(
        RULES[name](single, axis, rule).numpy(), RULES[name](double, small_axis(), rule).numpy(), rtol=1e-2, atol=1e-6
    )


def test_stages_of_the_curriculum() -> None:
    symbolic = switched_off(ALL, "fft", stages=("mae", "supervised"))
    assert list(symbolic.active("mae")) == ["fft"]
    assert list(symbolic.active("contrastive")) == []
    assert set(symbolic.active("supervised")) == set(RULES)
    early = total_loss(breaking_all(), target(), small_axis(), LossOptions(), symbolic, stage="mae")
    assert set(early.parts) == {GAUSSIAN, "fft"}


def test_planet_weights_weigh_whole_planets() -> None:
    equal = loss_of(ALL)
    doubled = loss_of(ALL, planet_weights=tensor([2.0, 0.0, 1.0]))
    for name, values in equal.maps.items():
        torch.testing.assert_close(doubled.maps[name], values * tensor([[2.0], [0.0], [1.0]]))


def test_violations_say_which_planet_breaks_which_rule_where() -> None:
    spectra = np.full((3, N_BINS), 0.01)
    spectra[1, 4] = -2e-4
    spectra[2, 0] += 1.5e-3
    only = replace(SymbolicOptions(windows=WINDOWS), rules=(RuleFamily(name="photonic_alignment", scale_ppm=500.0),))
    for name in set(only.by_name) - {"nonnegativity", "photonic_alignment"}:
        only = switched_off(only, name)
    table = violations(predicted(spectra), small_axis(), only)
    assert table.rules == ("nonnegativity", "photonic_alignment")
    np.testing.assert_allclose(table.penalty[:, 0], [0, 4 / N_BINS, 0], rtol=1e-9)
    np.testing.assert_allclose(table.penalty[2], [0, 4.0], rtol=1e-9)
    np.testing.assert_array_equal(table.worst_bin, [[NO_BIN, NO_BIN], [4, NO_BIN], [NO_BIN, 0]])
    np.testing.assert_allclose(table.by_bin.sum(axis=2).T, table.penalty)
    assert table.by_bin.shape == (2, 3, N_BINS)


def test_no_active_rule_is_an_empty_table() -> None:
    table = violations(breaking_all(), small_axis(), replace(ALL, enabled=False))
    assert table.rules == ()
    assert table.penalty.shape == table.worst_bin.shape == (3, 0)
    np.testing.assert_array_equal(sample_weights(table, ALL), np.ones(3))


def test_retraining_weighs_planets_by_the_rank_of_their_violations() -> None:
    """Violations 0, 0, 9, 1e6: ranks 0, 0, 2, 3 of 3, weights 1, 1, 5/3, 2 over their mean 17/12."""
    spectra = np.full((4, N_BINS), 0.01)
    spectra[2:, 0] += [1e-3, 1.0]
    table = violations(predicted(spectra), small_axis(), SymbolicOptions(seam_continuity=ALL.seam_continuity))
    expected = np.array([1, 1, 5 / 3, 2]) * 12 / 17
    np.testing.assert_allclose(sample_weights(table, SymbolicOptions(retraining_strength=1.0)), expected)
    np.testing.assert_array_equal(sample_weights(table, SymbolicOptions()), np.ones(4))


def test_influence_is_the_change_of_the_loss_per_ppm() -> None:
    prediction, axis = breaking_all(), small_axis()
    influence = influence_maps(prediction, target(), axis, LossOptions(), ALL)
    assert set(influence) == {GAUSSIAN, *RULES}
    nudge = torch.zeros_like(prediction.mean)
    nudge[2, 11] = 1e-9
    for name in (GAUSSIAN, "fft", "radiative_transfer", "molecular_coherence"):
        up, down = (
            total_loss(replace(prediction, mean=prediction.mean + step), target(), axis, LossOptions(), ALL).maps[name]
            for step in (nudge, -nudge)
        )
        slope = float((up - down).sum()) * 3 / (2 * 1e-9) * 1e-6
        assert influence[name][2, 11] == pytest.approx(slope, rel=1e-4)
    assert (influence["sigma_bounds"] == 0).all()
    assert prediction.mean.grad is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mean": torch.zeros(2, N_BINS)}, "predicted sigma"),
        ({"sigma": torch.ones(3, N_BINS).half()}, "float32 or float64"),
        ({"quantiles": torch.ones(3, N_BINS)}, "predicted quantiles"),
    ],
)
def test_predictions_that_cannot_be_used(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(breaking_all(), **changes)


def test_shapes_that_do_not_fit() -> None:
    with pytest.raises(InputError, match="true spectra"):
        loss_of(ALL, truth=tensor(noisy(1)))
    with pytest.raises(InputError, match="weights of the planets"):
        loss_of(ALL, planet_weights=tensor([1.0]))
    with pytest.raises(InputError, match=r"25 bins of torch\.float64, as the axis has"):
        violations(predicted(ppm(*range(24))), small_axis(), ALL)


@pytest.mark.parametrize("windows", [((0, 10),), ((270, 283),), ((9, 5),), ((5, 7),), ((-1, 9),)])
def test_windows_lie_on_the_axis(windows: Any) -> None:
    with pytest.raises(ValueError, match=r"h2o: expected windows of 4 or more bins within 1\.\.282"):
        MoleculeWindows(h2o=windows)


def test_windows_of_another_axis_are_refused() -> None:
    with pytest.raises(InputError, match=r"windows of h2o.*\[40, 85\]"):
        spectral_axis(np.linspace(1.9, 3.9, N_BINS), MoleculeWindows())
    with pytest.raises(InputError, match="outside all windows"):
        spectral_axis(np.linspace(1.9, 3.9, 13), MoleculeWindows(h2o=((1, 4),), co2=((5, 8),), ch4=((9, 12),)))


def test_options_that_contradict_themselves() -> None:
    with pytest.raises(ValueError, match="at most once"):
        SymbolicOptions(rules=(RuleFamily(), RuleFamily()))
    with pytest.raises(ValueError, match="lowest ratio first"):
        RatioEnvelopesOptions(ch4_h2o=(3.0, 0.2))


def test_defaults_on_283_bins() -> None:
    """In single precision a flat spectrum keeps every rule, and a rough one breaks the rules on roughness."""
    wavelength = np.array([0.7, *np.linspace(1.952, 3.895, 282)])
    symbolic = SymbolicOptions()
    axis = spectral_axis(wavelength, symbolic.windows)
    flat = torch.full((2, 283), 0.0147)
    kept = violations(Prediction(flat, torch.full_like(flat, 1e-4), flat), axis, symbolic)
    assert set(kept.rules) == set(RULES) - {"total_variation", "gravitational_lensing"}
    assert kept.penalty.max() < 1e-6
    rough = flat + 1e-4 * torch.randn(flat.shape, generator=torch.Generator().manual_seed(0))
    broken = violations(Prediction(rough, torch.full_like(flat, 1e-4), flat), axis, symbolic)
    fired = {name for name, values in zip(broken.rules, broken.penalty.T, strict=True) if values.min() > 0.1}
    assert {"smoothness", "fft", "asymmetry", "molecular_coherence", "radiative_transfer"} <= fired
