"""Settings of the loss: presets as documented, every rule within reach of the command line."""

from __future__ import annotations

import pytest

from settings.groups import presets
from settings.resolve import RenamedSettingWarning, resolve
from settings.tree import Settings
from spectramind.errors import SettingsError
from spectramind.losses.options import RuleOptions, SymbolicOptions


def symbolic(*arguments: str) -> SymbolicOptions:
    options: SymbolicOptions = resolve(arguments).options("symbolic")
    return options


def weights(*arguments: str) -> dict[str, float]:
    """Weights of the rules that are active."""
    return {name: rule.weight for name, rule in symbolic(*arguments).active("supervised").items()}


def test_the_base_presets_are_the_defaults() -> None:
    assert resolve(["loss=base", "symbolic=base"]) == Settings()


@pytest.mark.parametrize(
    ("preset", "changed"),
    [
        ("v50", {"gravitational_lensing": 0.05}),
        ("arch_v50", {"fft": 0.1, "nonnegativity": 0.5}),
        ("ablation", {"fft": 0.1}),
        ("small", {"smoothness": 0.05, "nonnegativity": 0.02}),
    ],
)
def test_presets_differ_as_documented(preset: str, changed: dict[str, float]) -> None:
    assert weights(f"symbolic={preset}") == weights() | changed


def test_without_rules() -> None:
    assert weights("symbolic=none") == {}
    assert set(presets("symbolic")) == {"ablation", "arch_v50", "base", "none", "small", "v50"}
    assert resolve(["loss=score"]).options("loss").clip_above is None


@pytest.mark.parametrize("name", sorted(SymbolicOptions().by_name))
def test_every_rule_can_be_switched_and_weighted(name: str) -> None:
    families = [rule.name for rule in SymbolicOptions().rules]
    key = f"symbolic.rules[{families.index(name)}]" if name in families else f"symbolic.{name}"
    rule: RuleOptions = symbolic(f"{key}.enabled=false", f"{key}.weight=0.3", f"{key}.mode=hard").by_name[name]
    assert (rule.enabled, rule.weight, rule.mode) == (False, 0.3, "hard")


def test_former_names_still_reach_the_rules() -> None:
    with pytest.warns(RenamedSettingWarning, match=r"symbolic\.smoothness\.enabled"):
        assert not symbolic("loss.composite.smoothness.enabled=false").smoothness.enabled
    with pytest.warns(RenamedSettingWarning, match=r"symbolic\.nonnegativity\.weight"):
        assert symbolic("symbolic.nonneg.weight=0.2").nonnegativity.weight == 0.2


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("loss.gll_weight=0", r"loss\.gll_weight=0.*> 0"),
        ("symbolic.windows.h2o=[[40, 283]]", r"symbolic\.windows\.h2o.*283.*282"),
        ("symbolic.windows.h2o=[[40, 41]]", "windows of 4 or more bins"),
        ("symbolic.rules[4].enabled=true", "has 4 items"),
        ("symbolic.smoothnes.weight=0.1", "symbolic.smoothness.weight"),
        ("symbolic.seam_continuity.seam_index=282", r"seam_index=282.*281"),
    ],
)
def test_wrong_values_are_told(argument: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        resolve([argument])
