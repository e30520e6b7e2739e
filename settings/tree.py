"""All settings of a run as one typed, validated, immutable tree."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from settings import yaml_text
from settings.from_options import FromOptions
from settings.groups import (
    NOT_IN_HASH,
    CalibrationStages,
    DataOptions,
    OutputsOptions,
    RuntimeOptions,
    TrackingOptions,
)
from spectramind.ablation.options import AblationOptions
from spectramind.corel.options import CorelOptions
from spectramind.cubes.options import CubeOptions, DaskOptions
from spectramind.losses.options import LossOptions, SymbolicOptions
from spectramind.metrics.options import RecoveryOptions
from spectramind.models.options import ModelOptions
from spectramind.simulation.options import SimulationOptions
from spectramind.training.options import OptimizerOptions, TrainOptions
from spectramind.transit.options import TransitOptions
from spectramind.uncertainty.options import IntervalOptions, UncertaintyOptions

Options = TypeVar("Options")
Group = Annotated[Options, FromOptions()]

_CREDENTIALS = re.compile(r"(?<=://)(?:[^/@\s:]*:[^@\s]*|[^/@\s]+)@")


class Settings(BaseSettings):
    """One attribute per group; each is the options dataclass that the stage's functions take.

    `Settings()` is the defaults; `settings.resolve.resolve` reads presets, files, environment and command line.
    """

    model_config = SettingsConfigDict(extra="forbid", frozen=True)

    data: Group[DataOptions] = DataOptions()
    simulation: Group[SimulationOptions] = SimulationOptions()
    calibration: Group[CalibrationStages] = CalibrationStages()
    cubes: Group[CubeOptions] = CubeOptions()
    transit: Group[TransitOptions] = TransitOptions()
    model: Group[ModelOptions] = ModelOptions()
    loss: Group[LossOptions] = LossOptions()
    symbolic: Group[SymbolicOptions] = SymbolicOptions()
    optimizer: Group[OptimizerOptions] = OptimizerOptions()
    train: Group[TrainOptions] = TrainOptions()
    uncertainty: Group[UncertaintyOptions] = UncertaintyOptions()
    intervals: Group[IntervalOptions] = IntervalOptions()
    corel: Group[CorelOptions] = CorelOptions()
    ablation: Group[AblationOptions] = AblationOptions()
    recovery: Group[RecoveryOptions] = RecoveryOptions()
    runtime: Group[RuntimeOptions] = RuntimeOptions()
    tracking: Group[TrackingOptions] = TrackingOptions()
    dask: Group[DaskOptions] = DaskOptions()
    outputs: Group[OutputsOptions] = OutputsOptions()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what is given: `resolve` merges the layers, since presets and list items need their order."""
        return (init_settings,)

    def options(self, group: str) -> Any:
        """The options of `group`, as the stage's functions take them."""
        return getattr(self, group)

    def to_dict(self) -> dict[str, Any]:
        """The tree as plain JSON values."""
        return self.model_dump(mode="json")

    def to_yaml(self) -> str:
        """The tree as YAML that `--config` reads back. User names and passwords inside addresses are left out."""
        return f"# settings hash {settings_hash(self)}\n{yaml_text.dump(without_credentials(self.to_dict()))}"


def without_credentials(value: Any) -> Any:
    """`value` with `user:password@` removed from every address in it, at any depth."""
    if isinstance(value, str):
        return _CREDENTIALS.sub("", value)
    if isinstance(value, Mapping):
        return {key: without_credentials(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_credentials(item) for item in value]
    return value


def settings_hash(settings: Settings) -> str:
    """SHA-256 of the settings that can change a result, the same on any machine and for any order of keys.

    Left out are the keys in `settings.groups.NOT_IN_HASH`: paths, tracking, scheduling and verbosity.
    """
    relevant = _without(settings.to_dict(), NOT_IN_HASH)
    canonical = json.dumps(relevant, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _without(tree: Mapping[str, Any], keys: frozenset[str], prefix: str = "") -> dict[str, Any]:
    return {
        name: _without(value, keys, f"{prefix}{name}.") if isinstance(value, Mapping) else value
        for name, value in tree.items()
        if f"{prefix}{name}" not in keys
    }
