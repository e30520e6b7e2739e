"""The groups of settings: those of the science, by the options class that each stage owns, and those of a run.

Free of pydantic, so that `--help` can list every key at once.
"""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, NewType, Union, get_args, get_origin, get_type_hints

from spectramind.ablation.options import AblationOptions
from spectramind.calibration.options import CalibrationOptions
from spectramind.corel.options import CorelOptions
from spectramind.cubes.options import CubeOptions, DaskOptions
from spectramind.losses.options import LossOptions, SymbolicOptions
from spectramind.metrics.options import RecoveryOptions
from spectramind.models.options import ModelOptions
from spectramind.options import option
from spectramind.simulation.options import SimulationOptions
from spectramind.training.options import OptimizerOptions, TrainOptions
from spectramind.transit.options import TransitOptions
from spectramind.uncertainty.options import IntervalOptions, UncertaintyOptions

EXPERIMENT = "spectramind_v50"

S3Url = NewType("S3Url", str)
"""s3://BUCKET or s3://BUCKET/PREFIX."""


@dataclass(frozen=True)
class DataOptions:
    """Which data set, and how much of it."""

    root: Path | None = option(None, "Folder of a data set in the challenge's layout.")
    truth: Path | None = option(None, "CSV of true test spectra, in train.csv's format, to score predictions against.")
    planets: tuple[str, ...] = option((), "Use only these planets of each split; empty means all.")
    max_planets: int | None = option(
        None, "Use at most this many planets of each split, in the files' order; null means all.", ge=1, le=1_000_000
    )
    visits: Literal["all", "first"] = option("all", "Join all visits of a planet, or use its first alone.")
    quarantine_limit: float = option(
        0.01, "Largest share of train planets that may be set aside; one always may.", ge=0, le=1
    )


@dataclass(frozen=True)
class CalibrationStages(CalibrationOptions):
    """The calibration, and which part of it a run does."""

    stage: Literal["fgs1", "airs", "features"] = option(
        "features",
        "What `calibrate` makes: the cubes of one instrument alone, or the transit fits with all the cubes they need.",
    )

    @property
    def options(self) -> CalibrationOptions:
        """What a cube depends on: all but the stage."""
        return CalibrationOptions(**{field.name: getattr(self, field.name) for field in fields(CalibrationOptions)})


@dataclass(frozen=True)
class RuntimeOptions:
    """How a run behaves as a process."""

    seed: int = option(1337, "Seed of every random number.", ge=0, le=2**32 - 1)
    budget_hours: float = option(
        9.0,
        "Wall-clock budget: after nine tenths of it no calibration or fit is begun; what is there is delivered.",
        gt=0,
        le=1000,
    )
    without_gpu: Literal["refuse", "cpu"] = option(
        "refuse", "What train.device=gpu does on a machine without a GPU: stop at once, or train on the processor."
    )
    dry_run: bool = option(False, "Check the settings and show what would run, without writing anything.")
    debug: bool = option(False, "Show tracebacks.")


@dataclass(frozen=True)
class TrackingOptions:
    """Experiment tracking with MLflow."""

    enable: bool = option(True, "Record parameters, metrics, figures and models with MLflow.")
    uri: str = option("", "MLflow tracking address; empty means a SQLite database inside outputs.store (or .cache).")
    experiment: str = option(
        EXPERIMENT, f"MLflow experiment that collects the runs; those of a sweep are in {EXPERIMENT}_ablate by default."
    )
    register_models: bool = option(
        True,
        "Register each trained model as a version of spectramind-v50; of a sweep the best alone, by "
        "ablation.register_best.",
    )
    promotion: Literal["off", "score", "gated"] = option(
        "score",
        "When a registered model becomes the champion: never, if it beats the champion on the same held-out planets, "
        "or if it also passes injection-recovery.",
    )


@dataclass(frozen=True)
class OutputsOptions:
    """Where results go."""

    dir: Path | None = option(None, "Directory of this run; null means a new outputs/<date>/<time>-<id>.")
    store: Path | S3Url = option(
        Path("outputs/store"),
        "Store of cubes, fits, models and tracking, shared by runs. S3 storage holds the cubes and fits alone.",
    )
    cache: Path = option(
        Path("outputs/store"), "Folder for what a store in S3 storage does not hold, and for copies of the fits."
    )

    @property
    def local(self) -> Path:
        """The folder of everything that is kept on this machine."""
        return self.store if isinstance(self.store, Path) else self.cache


GROUPS: dict[str, type] = {
    "data": DataOptions,
    "simulation": SimulationOptions,
    "calibration": CalibrationStages,
    "cubes": CubeOptions,
    "transit": TransitOptions,
    "model": ModelOptions,
    "loss": LossOptions,
    "symbolic": SymbolicOptions,
    "optimizer": OptimizerOptions,
    "train": TrainOptions,
    "uncertainty": UncertaintyOptions,
    "intervals": IntervalOptions,
    "corel": CorelOptions,
    "ablation": AblationOptions,
    "recovery": RecoveryOptions,
    "runtime": RuntimeOptions,
    "tracking": TrackingOptions,
    "dask": DaskOptions,
    "outputs": OutputsOptions,
}
"""Every group and its options class; `settings.tree.Settings` has the same fields."""

PRESETS = Path(__file__).parent
"""Presets are settings/<group>/<preset>.yaml."""

NOT_IN_HASH = frozenset(
    {
        "data.root",
        "data.truth",
        "calibration.stage",
        "runtime.without_gpu",
        "runtime.dry_run",
        "runtime.debug",
        "train.loader",
        "ablation",
        "recovery",
        "cubes",
        "tracking",
        "dask",
        "outputs",
    }
)
"""Groups and keys that differ between machines, or that change where and how fast a result appears but not the result.
The data set itself enters a run's identity by the digests of its files."""


@dataclass(frozen=True)
class Parameter:
    """One setting: dotted `key`, `annotation` of its field, default, bounds and sentence of help."""

    key: str
    annotation: Any
    default: Any
    bounds: Mapping[str, float]
    help: str

    @property
    def expected(self) -> str:
        """What a value must be, in words."""
        words = _words(self.annotation, _bounds_in_words(self.bounds))
        return words.replace("a list, ", "a list of one or more, ", 1) if self.default else words


def field_default(field: Field[Any]) -> Any:
    """The default of a dataclass field."""
    if field.default is not MISSING:
        return field.default
    if field.default_factory is not MISSING:
        return field.default_factory()
    raise TypeError(f"option {field.name!r} has no default")


@cache
def parameters() -> dict[str, Parameter]:
    """All settings by dotted key, in the order of the tree."""
    return {parameter.key: parameter for name, group in GROUPS.items() for parameter in _walk(group, name, group())}


def presets(group: str) -> tuple[str, ...]:
    """Names of the presets of `group`."""
    return tuple(sorted(path.stem for path in (PRESETS / group).glob("*.yaml")))


def _walk(options: type, prefix: str, defaults: Any) -> Iterator[Parameter]:
    hints = get_type_hints(options)
    for field in fields(options):
        key, annotation, default = f"{prefix}.{field.name}", hints[field.name], getattr(defaults, field.name)
        if is_dataclass(annotation):
            yield from _walk(annotation, key, default)  # type: ignore[arg-type]
        else:
            bounds = field.metadata.get("bounds", {})
            yield Parameter(key, annotation, default, bounds, field.metadata.get("help", ""))


_NAMES = {
    int: "an integer",
    float: "a number",
    str: "text",
    bool: "true or false",
    Path: "a path",
    S3Url: "s3://BUCKET/PREFIX",
    type(None): "null",
}


def _words(annotation: Any, bounds: str) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return "one of " + ", ".join(str(argument) for argument in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(_words(argument, bounds) for argument in arguments)
    if origin is tuple:
        if arguments[-1] is Ellipsis:
            return f"a list, each item {_words(arguments[0], bounds)}"
        return "a list of " + ", ".join(_words(argument, bounds) for argument in arguments)
    name = _NAMES.get(annotation, f"settings of {getattr(annotation, '__name__', annotation)}")
    return f"{name}{bounds}" if annotation in (int, float) else name


def _bounds_in_words(bounds: Mapping[str, float]) -> str:
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    limits = " and ".join(f"{signs[name]} {bound}" for name, bound in bounds.items())
    return f" {limits}" if limits else ""
