"""The tree: every parameter described and bounded, validation strict, the hash blind to what does not matter."""

from __future__ import annotations

import pickle
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from settings import yaml_text
from settings.from_options import FromOptions
from settings.groups import GROUPS, NOT_IN_HASH, parameters, presets
from settings.resolve import resolve
from settings.tree import Settings, settings_hash, without_credentials
from spectramind.options import option


@dataclass(frozen=True)
class Rule:
    name: str = option("smooth", "Name of the rule.")
    enabled: bool = option(True, "Whether the rule counts.")


@dataclass(frozen=True)
class Schedule:
    epochs: int = option(3, "Passes over the data.", ge=1, le=10)


@dataclass(frozen=True)
class Example:
    rate: float = option(1e-3, "Step size.", gt=0, lt=1)
    kind: Literal["a", "b"] = option("a", "One of two.")
    limit: int | None = option(None, "An optional bound.", ge=1, le=5)
    widths: tuple[float, ...] = option((1.0, 2.0), "Widths.", ge=0, le=9)
    pair: tuple[int, str] = option((1, "x"), "A number and a word.")
    rules: tuple[Rule, ...] = option((Rule(),), "Rules.")
    schedule: Schedule = field(default=Schedule())

    def __post_init__(self) -> None:
        if self.kind == "b" and self.limit is None:
            raise ValueError("kind b needs a limit")


class Tree(BaseModel):
    example: Annotated[Example, FromOptions()] = Example()


def test_every_setting_has_a_default_and_a_sentence_of_help() -> None:
    assert resolve() == Settings.model_validate(Settings().to_dict())
    for parameter in parameters().values():
        assert len(parameter.help.split()) >= 2, parameter.key


def test_groups_and_tree_are_the_same() -> None:
    assert {name: type(getattr(Settings(), name)) for name in Settings.model_fields} == GROUPS


def test_options_come_back_as_the_classes_of_the_stages() -> None:
    settings = resolve(["transit.iterations=7"])
    assert type(settings.options("transit")) is GROUPS["transit"]
    assert settings.options("transit").iterations == settings.transit.iterations == 7


def test_the_tree_can_be_sent_to_another_process() -> None:
    settings = resolve(["runtime.seed=5", "data.planets=[a, b]"])
    assert pickle.loads(pickle.dumps(settings)) == settings  # noqa: S301 - made here


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"rate": 0}, "greater_than"),
        ({"rate": float("nan")}, "finite_number"),
        ({"rate": "0.1"}, "float_type"),
        ({"rate": True}, "float_type"),
        ({"kind": "c"}, "literal_error"),
        ({"limit": 6}, "less_than_equal"),
        ({"limit": 1.0}, "int_type"),
        ({"limit": True}, "int_type"),
        ({"widths": [1.0, 10.0]}, "less_than_equal"),
        ({"widths": 1.0}, "tuple_type"),
        ({"widths": []}, "too_short"),
        ({"pair": [1]}, "missing"),
        ({"rules": [{"name": "a", "on": True}]}, "extra_forbidden"),
        ({"rules": [{"enabled": 1}]}, "bool_type"),
        ({"schedule": {"epochs": 0}}, "greater_than_equal"),
        ({"speed": 1}, "extra_forbidden"),
        ({"kind": "b"}, "value_error"),
    ],
)
def test_wrong_values_are_refused(given: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Tree(example=given)  # type: ignore[arg-type]
    assert caught.value.errors()[0]["type"] == problem


def test_nested_options_are_built() -> None:
    tree = Tree.model_validate({"example": {"rules": [{"name": "x"}], "schedule": {"epochs": 9}, "rate": 0.5}})
    assert tree.example == Example(rules=(Rule("x"),), schedule=Schedule(9), rate=0.5)
    assert Tree.model_validate(tree.model_dump()) == tree
    assert Tree.model_validate({"example": tree.example}) == tree


def test_an_option_without_help_is_refused() -> None:
    @dataclass(frozen=True)
    class Silent:
        value: int = 1

    with pytest.raises(TypeError, match="help"):

        class _Tree(BaseModel):
            silent: Annotated[Silent, FromOptions()] = Silent()


def test_keys_left_out_of_the_hash_exist() -> None:
    known = [*GROUPS, *(f"{key}." for key in parameters())]
    assert all(any(f"{name}.".startswith(f"{key}.") for name in known) for key in NOT_IN_HASH)


def test_hash_changes_with_every_setting_that_counts_and_no_other() -> None:
    default = settings_hash(resolve())
    for key, text in {
        "runtime.seed": "3",
        "transit.iterations": "3",
        "data.max_planets": "3",
        "model.kernel_widths": "[0.5]",
        "calibration.weighting": "sum",
    }.items():
        assert settings_hash(resolve([f"{key}={text}"])) != default, key
    for argument in (
        "data.root=/elsewhere",
        "outputs.dir=/x",
        "dask.workers=7",
        "train.loader.workers=7",
        "tracking.enable=false",
        "runtime.debug=true",
    ):
        assert settings_hash(resolve([argument])) == default, argument


def test_hash_does_not_depend_on_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    default = settings_hash(resolve(["data.root=somewhere"]))
    monkeypatch.chdir(tmp_path)
    assert settings_hash(resolve(["data.root=somewhere"])) == default


@given(st.randoms(use_true_random=False), st.integers(0, 2**32 - 1), st.floats(0.001, 0.1))
def test_hash_does_not_depend_on_the_order_of_keys(order: random.Random, seed: int, scale: float) -> None:
    settings = resolve([f"runtime.seed={seed}", f"transit.drift_scale={scale!r}"])

    def shuffled(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        items = list(value.items())
        order.shuffle(items)
        return {key: shuffled(item) for key, item in items}

    assert settings_hash(Settings.model_validate(shuffled(settings.to_dict()))) == settings_hash(settings)


@given(
    st.lists(st.from_regex(r"[0-9A-Za-z_-]{1,64}", fullmatch=True), max_size=4),
    st.floats(1e-300, 0.1),
    st.integers(0, 2**32 - 1),
)
def test_written_settings_read_back_the_same(planets: list[str], scale: float, seed: int) -> None:
    tree = Settings().to_dict()
    tree["data"]["planets"] = planets
    tree["transit"]["drift_scale"] = scale
    tree["runtime"]["seed"] = seed
    settings = Settings.model_validate(tree)
    again = Settings.model_validate(yaml_text.parse(settings.to_yaml(), "text"))
    assert again == Settings.model_validate(settings.to_dict())
    assert settings_hash(again) == settings_hash(settings)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://user:secret@host/db", "postgresql://host/db"),
        ("https://token@host", "https://host"),
        ("postgresql://user:sec/ret@host/db", "postgresql://host/db"),
        ("sqlite:////a/b.db", "sqlite:////a/b.db"),
        ("error at https://u:p@h and https://v:q@k", "error at https://h and https://k"),
    ],
)
def test_credentials_are_left_out(text: str, shown: str) -> None:
    assert without_credentials({"a": [text]}) == {"a": [shown]}


def test_written_settings_hold_no_secret() -> None:
    assert "secret" not in resolve(["tracking.uri=https://me:secret@host"]).to_yaml()


@pytest.mark.parametrize("name", [f"{group}={name}" for group in GROUPS for name in presets(group)])
def test_presets_are_valid(name: str) -> None:
    resolve([name])


@pytest.mark.parametrize("name", ["nominal", "toy", "ci_slice", "kaggle", "ariel_nominal"])
def test_data_presets_exist(name: str) -> None:
    assert name in presets("data")
