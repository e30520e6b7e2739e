"""Layers, grammar and messages."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from settings import yaml_text
from settings.groups import parameters
from settings.resolve import MAX_JOBS, RENAMED, RenamedSettingWarning, expand_sweep, resolve, swept, with_overrides
from settings.tree import settings_hash
from spectramind.errors import SettingsError


def message(*arguments: str, environ: dict[str, str] | None = None, config: Path | None = None) -> str:
    with pytest.raises(SettingsError) as caught:
        resolve(arguments, config, environ)
    text = str(caught.value)
    assert "\n" not in text
    assert caught.value.exit_code == 2
    return text


def test_layers_later_wins(tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("data: {max_planets: 20}\nmodel: {folds: 20}\nruntime: {seed: 20}\n")
    environ = {"SPECTRAMIND__MODEL__FOLDS": "30", "SPECTRAMIND__RUNTIME__SEED": "30", "SM_SEED": "25"}
    arguments = ["data=ci_slice", "runtime.seed=40"]
    assert resolve(arguments[:1]).data.max_planets == 8
    settings = resolve(arguments, config, environ)
    assert (settings.data.max_planets, settings.model.folds, settings.runtime.seed) == (20, 30, 40)
    assert resolve([], config, {"SM_SEED": "25"}).runtime.seed == 25
    assert resolve([], None, environ).runtime.seed == 30


def test_plain_environment_names() -> None:
    settings = resolve([], None, {"SM_SEED": "7", "MLFLOW_TRACKING_URI": "http://127.0.0.1:5000", "MLFLOW_ON": "0"})
    assert settings.runtime.seed == 7
    assert settings.tracking.uri == "http://127.0.0.1:5000"
    assert settings.tracking.enable is False


def test_presets_can_be_named_in_files_and_environment(tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("data: ci_slice\nruntime:\n  # nothing\n")
    assert resolve([], config).data.max_planets == 8
    assert resolve(["data=nominal"], config).data.max_planets is None
    assert resolve([], None, {"SPECTRAMIND__DATA": "ci_slice"}).data.max_planets == 8


def test_named_configurations(tmp_path: Path) -> None:
    assert resolve(config_name="kaggle").tracking.enable is False
    (tmp_path / "mine.yaml").write_text("runtime: {seed: 3}")
    assert resolve(config_name="mine", config_folder=tmp_path).runtime.seed == 3
    with pytest.raises(SettingsError, match="did you mean 'mine'"):
        resolve(config_name="mime", config_folder=tmp_path)


def test_values_are_merged_deeply(tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("runtime: {budget_hours: 2}")
    settings = resolve(["runtime={seed: 3}"], config)
    assert (settings.runtime.seed, settings.runtime.budget_hours) == (3, 2.0)


def test_list_items_can_be_set() -> None:
    assert resolve(["model.kernel_widths[1]=1e-1"]).model.kernel_widths[:2] == (1.0, 0.1)
    assert "has 4 items" in message("model.kernel_widths[4]=1")
    assert "runtime.seed has no items" in message("runtime.seed[0]=1")


def test_resolved_settings_replay(tmp_path: Path) -> None:
    settings = resolve(["simulation=tiny", "data.planets=[007, '1e5']", "runtime.seed=9"])
    config = tmp_path / "resolved_config.yaml"
    config.write_text(settings.to_yaml())
    again = resolve([], config)
    assert again == settings
    assert settings_hash(again) == settings_hash(settings)


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("runtime.sead=3", "did you mean 'runtime.seed'"),
        ("folds=3", "did you mean 'model.folds'"),
        ("dta=toy", "did you mean 'data'"),
        ("data=toys", "did you mean 'toy'"),
        ("runtime.seed=abc", "runtime.seed='abc' (command line): expected an integer ≥ 0"),
        ("runtime.seed=-1", "expected an integer ≥ 0"),
        ("runtime.seed=1.5", "expected an integer"),
        ("runtime.seed=true", "expected an integer"),
        ("runtime.seed=1,2", "use -m to sweep"),
        ("runtime.seed={a: 1}", "unknown setting runtime.seed.a"),
        ("runtime.budget_hours=.nan", "expected a number > 0"),
        ("tracking.enable=yes", "expected true or false"),
        ("calibration.weighting=best", "expected one of optimal, sum"),
        ("model.kernel_widths=x", "expected a list of one or more, each item a number"),
        ("data.root=", "expected a path or null"),
        ("runtime", "expected group=preset or key=value"),
        ("=3", "expected group=preset or key=value"),
        ("run-time.seed=3", "is not a key such as"),
        ("runtime.seed=[1", "not plain YAML"),
        ("runtime.seed=!!python/object/apply:os.system [x]", "not plain YAML"),
        ("dask.workers=1000000", "expected an integer ≥ 0 and ≤ 1024"),
        ("simulation.train_planets=1000000000", "expected an integer"),
    ],
)
def test_messages_name_key_value_and_cure(argument: str, expected: str) -> None:
    assert expected in message(argument)


def test_unknown_environment_variables_stop() -> None:
    text = message(environ={"SPECTRAMIND__RUNTIM__SEED": "3"})
    assert "SPECTRAMIND__RUNTIM__SEED" in text
    assert "did you mean 'runtime.seed'" in text
    assert "SPECTRAMIND__RUNTIME__SEED" in message(environ={"SPECTRAMIND__RUNTIME__SEED": "x"})


def test_wrong_files_stop(tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    assert "cannot be read" in message(config=config)
    config.write_text("- 1\n")
    assert "expected groups of settings" in message(config=config)
    config.write_text("runtime: {sede: 3}")
    assert f"file {config}" in message(config=config)
    config.write_text("runtime: 3")
    assert "no such preset" in message(config=config)
    config.write_text("nothing: {}")
    assert "unknown setting nothing" in message(config=config)
    config.write_bytes(b"\xff\xfe\x00")
    assert "not UTF-8" in message(config=config)


def test_former_names_are_understood_with_a_warning() -> None:
    with pytest.warns(RenamedSettingWarning, match=r"seed is now called runtime\.seed"):
        assert resolve(["seed=3"]).runtime.seed == 3
    with pytest.warns(RenamedSettingWarning, match=r"tracking\.uri"):
        assert resolve(["mlflow.uri=x"]).tracking.uri == "x"
    assert not set(RENAMED) & set(parameters())


def test_paths_and_names_are_taken_as_they_are(tmp_path: Path) -> None:
    odd = tmp_path / "a: b #c [d]"
    assert resolve([f"data.root={odd}"]).data.root == odd
    assert resolve(["data.root=~"]).data.root is None
    assert resolve(["tracking.uri="]).tracking.uri == ""
    assert resolve(["outputs.store=relative"]).outputs.store == Path.cwd() / "relative"


def test_a_store_is_a_path_or_in_s3_storage() -> None:
    outputs = resolve(["outputs.store=s3://bucket-1/a/b", "outputs.cache=c"]).outputs
    assert (outputs.store, outputs.local) == ("s3://bucket-1/a/b", Path.cwd() / "c")
    assert resolve(["outputs.store=here"]).outputs.local == Path.cwd() / "here"
    for wrong in ("gs://bucket/a", "s3:/bucket", "s3://", "s3://user:secret@bucket/a", "s3://bucket/../a"):
        assert "expected a path or s3://BUCKET/PREFIX" in message(f"outputs.store={wrong}")
    assert "expected a path or null" in message("data.root=s3://bucket/data")


def test_planet_ids_of_digits_stay_as_written() -> None:
    assert resolve(["data.planets=[12, 0012, 1_0, '3']"]).data.planets == ("12", "0012", "1_0", "3")


@pytest.mark.parametrize("key", parameters())
def test_defaults_written_as_arguments_change_nothing(key: str) -> None:
    group, *rest = key.split(".")
    value = resolve().to_dict()[group]
    for part in rest:
        value = value[part]
    text = yaml_text.dump(value).removesuffix("...\n").strip()
    assert resolve([f"{key}={text}"]) == resolve()


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=1e-200, max_value=0.1, exclude_min=True))
def test_numbers_survive_the_command_line(value: float) -> None:
    assert resolve([f"transit.drift_scale={value!r}"]).transit.drift_scale == value


def test_sweeps_are_products_in_a_fixed_order() -> None:
    assert expand_sweep(["a=1,2", "b=x", "c=3,4"]) == [
        ["a=1", "b=x", "c=3"],
        ["a=1", "b=x", "c=4"],
        ["a=2", "b=x", "c=3"],
        ["a=2", "b=x", "c=4"],
    ]


def test_commas_inside_brackets_and_quotes_do_not_sweep() -> None:
    assert expand_sweep(["a=[1,2],[3]", "b='x,y'", "c={p: 1, q: 2}"]) == [
        ["a=[1,2]", "b='x,y'", "c={p: 1, q: 2}"],
        ["a=[3]", "b='x,y'", "c={p: 1, q: 2}"],
    ]


@given(st.lists(st.lists(st.integers(0, 99), min_size=1, max_size=4), max_size=4))
def test_sweeps_of_numbers(values: list[list[int]]) -> None:
    arguments = [f"k{place}={','.join(map(str, choice))}" for place, choice in enumerate(values)]
    expected = [[f"k{place}={value}" for place, value in enumerate(job)] for job in itertools.product(*values)]
    assert expand_sweep(arguments) == expected


def test_sweeps_are_bounded() -> None:
    values = ",".join(map(str, range(40)))
    with pytest.raises(SettingsError, match=f"{MAX_JOBS}"):
        expand_sweep([f"a={values}", f"b={values}"])


def test_the_key_and_values_of_an_argument() -> None:
    assert swept("a.b=1, 2,[3,4]") == ("a.b", ["1", "2", "[3,4]"])
    assert swept("model=analytic") == ("model", ["analytic"])


def test_overrides_on_resolved_settings_equal_the_same_on_the_command_line(tmp_path: Path) -> None:
    shared = [f"data.root={tmp_path}", "tracking.uri=http://user:secret@host", "model.kernel_widths=[1.0,0.5]"]
    own = ["simulation=tiny", "uncertainty.stage=none", "model.kernel_widths[1]=0.4"]
    assert with_overrides(resolve(shared), own) == resolve([*shared, *own])
    assert with_overrides(resolve(shared), []) == resolve(shared)
    with pytest.raises(SettingsError, match="did you mean"):
        with_overrides(resolve(shared), ["uncertainty.stag=none"])
