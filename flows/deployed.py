"""The flows as deployments run them: the fields of a form, from which the settings follow.

A field is a setting under the name of its key, `data.root` as `data_root`, with the setting's type, default and help;
or a choice of presets. What is left as it is says nothing, so that presets and the worker's environment have their way.
Everything else goes into `overrides`, in the grammar of the command line.
"""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from prefect import flow

from flows.ablate import ablate as run_ablate
from flows.accelerator import on_this_machine
from flows.calibrate import calibrate as run_calibrate
from flows.end_to_end import spectramind_v50 as run_spectramind_v50
from flows.predict import predict_v50 as run_predict_v50
from flows.submit import submit as run_submit
from flows.train import train_v50 as run_train_v50
from settings.groups import parameters, presets
from settings.resolve import PROFILES, resolve
from settings.tree import Settings

UNSAID = "default"
"""Of a choice of presets: none is chosen."""

PLACES = ("outputs.store", "outputs.dir")
TRAINING = ("train.device", "runtime.without_gpu", "runtime.seed", "runtime.budget_hours")
OVERRIDES = "More settings as on the command line, such as uncertainty.stage=bins or model.shape_components=6."

Run = Callable[[Settings], None]


def form(*keys: str, choices: tuple[str, ...] = ()) -> Callable[[Run], Callable[..., None]]:
    """Give a function of settings the fields of a form: `data.root`, a profile, `choices` of presets, `keys`."""

    def decorate(function: Run) -> Callable[..., None]:
        fields = _fields(keys, choices)

        def run(**values: Any) -> None:
            function(on_this_machine(settings_of(values), _warn))

        run.__name__ = run.__qualname__ = function.__name__
        run.__module__ = function.__module__
        told = "\n".join(f"    {field.name}: {text}" for field, text in fields)
        run.__doc__ = f"{inspect.getdoc(function)}\n\nArgs:\n{told}\n"
        run.__signature__ = inspect.Signature([field for field, _ in fields])  # type: ignore[attr-defined]
        return run

    return decorate


def settings_of(values: Mapping[str, Any]) -> Settings:
    """The settings that the filled-in form `values` and this process's environment give.

    SettingsError names a key that is unknown or a value that is out of range.
    """
    known = {_name(key): key for key in parameters()}
    values = {name: value for name, value in values.items() if value is not None}
    profile, overrides = values.pop("profile", UNSAID), values.pop("overrides", [])
    arguments = []
    for name, value in values.items():
        if name not in known:
            arguments += [] if value == UNSAID else [f"{name}={value}"]
        elif value != _default(known[name], type(value)):
            text = str(value) if isinstance(value, str | Path) else json.dumps(value)
            arguments.append(f"{known[name]}={text}")
    return resolve([*arguments, *overrides], None, os.environ, config_name=None if profile == UNSAID else profile)


def _fields(keys: tuple[str, ...], choices: tuple[str, ...]) -> list[tuple[inspect.Parameter, str]]:
    """Each field of a form with what it is for."""
    known = parameters()
    profiles = tuple(sorted(path.stem for path in PROFILES.glob("*.yaml")))
    fields = [
        (_field("data_root", Path), known["data.root"].help),
        (_field("profile", Literal[(UNSAID, *profiles)], UNSAID), "A named set of settings to start from."),
    ]
    for group in choices:
        text = f"A preset of the settings {group}.*, as {group}=NAME on the command line."
        fields.append((_field(group, Literal[(UNSAID, *presets(group))], UNSAID), text))
    for key in (*keys, *PLACES):
        parameter = known[key]
        # An address of S3 storage and a folder are both text in a form.
        annotation = str if key == "outputs.store" else parameter.annotation
        fields.append((_field(_name(key), annotation, _default(key, annotation)), parameter.help))
    fields.append((_field("overrides", list[str], []), OVERRIDES))
    return fields


def _field(name: str, annotation: Any, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _default(key: str, annotation: Any) -> Any:
    """The default of a setting as a field of this type holds it: a path may be text there."""
    default = parameters()[key].default
    return str(default) if annotation is str and isinstance(default, Path) else default


def _name(key: str) -> str:
    return key.replace(".", "_")


def _warn(message: str) -> None:
    from prefect.logging import get_run_logger

    get_run_logger().warning(message)


@flow(name=run_spectramind_v50.name)
@form("data.truth", *TRAINING, "dask.workers", choices=("model",))
def spectramind_v50(settings: Settings) -> None:
    """From raw frames to a checked submission."""
    run_spectramind_v50.fn(settings)


@flow(name=run_calibrate.name)
@form("calibration.stage", "dask.workers")
def calibrate(settings: Settings) -> None:
    """Raw frames to calibrated cubes and the data-quality report."""
    run_calibrate.fn(settings)


@flow(name=run_train_v50.name)
@form(*TRAINING, "dask.workers", choices=("model", "train", "symbolic"))
def train_v50(settings: Settings) -> None:
    """Transit fits, model, out-of-fold score, sigma scaling."""
    run_train_v50.fn(settings)


@flow(name=run_predict_v50.name)
@form("dask.workers", choices=("model",))
def predict_v50(settings: Settings) -> None:
    """Spectra of the test planets from a trained model."""
    run_predict_v50.fn(settings)


@flow(name=run_submit.name)
@form("dask.workers", choices=("model",))
def submit(settings: Settings) -> None:
    """Submission tables, self-test and archive."""
    run_submit.fn(settings)


@flow(name=run_ablate.name)
@form(
    *("ablation.strategy", "ablation.max_runs", "ablation.top_n", "ablation.metric", "ablation.parallel_runs"),
    *TRAINING,
    choices=("ablation", "model"),
)
def ablate(settings: Settings) -> None:
    """A sweep of settings with its leaderboard."""
    run_ablate.fn(settings)
