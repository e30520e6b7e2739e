"""From what the user said to one `Settings`.

Layers, later wins: defaults, presets (`group=preset`), configuration files, environment, command line. Every value is
one assignment to a dotted key, so that all layers share one grammar, one check for unknown keys, one kind of message.

    group=preset                  the values of settings/<group>/<preset>.yaml
    a.b.c=value                   value in YAML: 3, 1e-3, true, null, text, [1, 2]
    a.rules[0].enabled=false      one item of a list
    a.b=1,2 c=x,y                 with -m/--multirun: every combination, the last key varying fastest
    SPECTRAMIND__A__B__C=value    the same from the environment
"""

from __future__ import annotations

import copy
import difflib
import itertools
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from settings import yaml_text
from settings.groups import GROUPS, PRESETS, S3Url, parameters, presets
from settings.tree import Settings, without_credentials
from spectramind.errors import SettingsError

PROFILES = PRESETS / "profiles"

ENVIRONMENT_PREFIX = "SPECTRAMIND__"
PLAIN_ENVIRONMENT = {
    "SM_SEED": "runtime.seed",
    "MLFLOW_TRACKING_URI": "tracking.uri",
    "MLFLOW_ON": "tracking.enable",
}
"""Variables known by another name; SPECTRAMIND__… wins over them."""

RENAMED = {
    "seed": "runtime.seed",
    "data.path": "data.root",
    "submit": "submission",
    "training": "train",
    "trainer": "train",
    "mlflow": "tracking",
    "loss.composite": "symbolic",
    "symbolic.nonneg": "symbolic.nonnegativity",
    "tracking.tracking_uri": "tracking.uri",
    "model.encoders.fgs1_mamba": "model.ssm",
    "model.encoders.airs_gnn": "model.gnn",
    "model.decoders.mu_head": "model.heads.mu",
    "model.decoders.sigma_head": "model.heads.sigma",
    "train.batch.workers": "train.loader.workers",
    "train.batch.prefetch_factor": "train.loader.prefetch_factor",
    "train.batch.persistent_workers": "train.loader.persistent_workers",
    "train.batch.pin_memory": "train.loader.pin_memory",
    "train.validation.interval_steps": "train.validation_steps",
}
"""Former key, or leading part of a key, to the present one. Only those that lead to a present key are honoured."""

MAX_JOBS = 1000
"""Most runs of one sweep."""

_SWITCH = {"1": "true", "0": "false", "True": "true", "False": "false"}
_WORDS = {str, Path, S3Url, type(None)}
_PART = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)((?:\[[0-9]{1,6}\])*)")

KeyPath = tuple[str | int, ...]


class RenamedSettingWarning(FutureWarning):
    """A setting was given by its former name."""


@dataclass(frozen=True)
class Assignment:
    """`value` for the key at `path`, and where it was written."""

    path: KeyPath
    value: Any
    origin: str


def resolve(
    arguments: Sequence[str] = (),
    config: Path | None = None,
    environ: Mapping[str, str] | None = None,
    *,
    config_name: str | None = None,
    config_folder: Path = PROFILES,
) -> Settings:
    """The settings that `arguments`, the file `config`, the file `config_name` of `config_folder` and `environ` give.

    `environ` defaults to none at all, so that a call in a program depends on nothing but its arguments. SettingsError
    names the key, the value, where it was written and what was expected.
    """
    layers = itertools.chain(
        () if config_name is None else _file(config_folder / f"{config_name}.yaml", config_name),
        () if config is None else _file(config),
        _environment(environ or {}),
        _command_line(arguments),
    )
    return _settled(layers, Settings())


def with_overrides(settings: Settings, arguments: Sequence[str]) -> Settings:
    """`settings` with `arguments` in the command line's grammar on top of them, presets included."""
    return _settled(_command_line(arguments), settings)


def swept(argument: str) -> tuple[str, list[str]]:
    """The key of `argument` and its comma-separated values."""
    key, _, text = argument.partition("=")
    return key.strip(), _split_at_commas(text)


def expand_sweep(arguments: Sequence[str]) -> list[list[str]]:
    """One list of arguments per combination of the comma-separated values in `arguments`, the last varying fastest."""
    choices = []
    for argument in arguments:
        key, separator, text = argument.partition("=")
        choices.append([f"{key}{separator}{choice}" for choice in _split_at_commas(text)])
    jobs = 1
    for choice in choices:
        jobs *= len(choice)
    if jobs > MAX_JOBS:
        raise SettingsError(
            f"the sweep has {jobs} combinations, at most {MAX_JOBS} are allowed; sweep fewer values at once"
        )
    return [list(combination) for combination in itertools.product(*choices)]


def _split_at_commas(text: str) -> list[str]:
    """`text` cut at the commas outside brackets and quotes."""
    parts, depth, quote = [""], 0, ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        elif character in "[{(":
            depth += 1
        elif character in "]})":
            depth -= 1
        if character == "," and depth == 0 and not quote:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]


def _command_line(arguments: Sequence[str]) -> Iterator[Assignment]:
    for argument in arguments:
        key, separator, text = argument.partition("=")
        if not separator or not key:
            raise SettingsError(
                f"argument {argument!r}: expected group=preset or key=value{_nearest(argument.strip())}"
            )
        yield from _parsed(key, text, f"{key.strip()} (command line)", "command line")


def _environment(environ: Mapping[str, str]) -> Iterator[Assignment]:
    for name, key in PLAIN_ENVIRONMENT.items():
        if environ.get(name):
            text = _SWITCH.get(environ[name], environ[name]) if key == "tracking.enable" else environ[name]
            yield from _parsed(key, text, name, f"environment variable {name}")
    for name in sorted(environ):
        if name.upper().startswith(ENVIRONMENT_PREFIX):
            key = name[len(ENVIRONMENT_PREFIX) :].lower().replace("__", ".")
            yield from _parsed(key, environ[name], name, f"environment variable {name}")


def _parsed(key: str, text: str, where: str, origin: str) -> Iterator[Assignment]:
    path = _parse_key(key.strip(), where)
    return _assignments(path, _parse_value(text, _present_name(path), where), origin)


def _file(path: Path, name: str | None = None) -> Iterator[Assignment]:
    if name is not None and not path.is_file():
        known = sorted(file.stem for file in path.parent.glob("*.yaml"))
        close = _nearest(name, known)
        raise SettingsError(
            f"no configuration {name!r} in {path.parent}{close}. There are: {', '.join(known) or 'none'}"
        )
    yield from _assignments((), yaml_text.read(path), f"file {path}")


def _preset(group: str, name: str) -> Iterator[Assignment]:
    known = presets(group)
    if name not in known:
        close = _nearest(name, known)
        raise SettingsError(f"{group}={name}: no such preset{close}{_listed(known)}")
    yield from _assignments((group,), yaml_text.read(PRESETS / group / f"{name}.yaml"), f"preset {group}={name}")


def _assignments(path: KeyPath, value: Any, origin: str) -> Iterator[Assignment]:
    """One assignment per leaf of `value`."""
    if isinstance(value, dict) and (value or not path):
        for key, item in value.items():
            yield from _assignments((*path, *_parse_key(key, origin)), item, origin)
    else:
        # A group with nothing below it, as when all its lines are comments.
        yield Assignment(path, {} if value is None and len(path) == 1 else value, origin)


def _as_preset(assignment: Assignment) -> tuple[str, str] | None:
    """(group, preset) if the assignment gives a whole group a name."""
    group = _present_name(assignment.path)
    if len(group) != 1 or group[0] not in GROUPS or isinstance(assignment.value, dict | list):
        return None
    return str(group[0]), str(assignment.value)


def _settled(layers: Iterable[Assignment], base: Settings) -> Settings:
    """`base` with the presets that `layers` choose, and then with their single values."""
    chosen: dict[str, str] = {}
    values: list[Assignment] = []
    for assignment in layers:
        preset = _as_preset(assignment)
        if preset is None:
            values.append(assignment)
        else:
            chosen[preset[0]] = preset[1]
    presets = [item for group, name in chosen.items() for item in _preset(group, name)]
    return _validated(*_applied([*presets, *values], base))


def _applied(assignments: Sequence[Assignment], base: Settings) -> tuple[dict[str, Any], dict[str, str]]:
    """The tree of values of `base` after all `assignments`, and the origin of each key that was set."""
    tree = copy.deepcopy(base.to_dict())
    origins: dict[str, str] = {}
    for assignment in assignments:
        path = _present_name(assignment.path)
        if path != assignment.path:
            old, new = _key_text(assignment.path), _key_text(path)
            warnings.warn(f"{old} is now called {new} ({assignment.origin})", RenamedSettingWarning, stacklevel=3)
        _assign(tree, path, assignment.value, assignment.origin)
        origins[_key_text(path)] = assignment.origin
    return tree, origins


def _assign(tree: dict[str, Any], path: KeyPath, value: Any, origin: str) -> None:
    container: Any = tree
    for depth in range(len(path) - 1):
        container = _item(container, path, depth, origin)
    present = _item(container, path, len(path) - 1, origin)
    if isinstance(present, dict) and not isinstance(value, dict):
        raise SettingsError(f"{_key_text(path)} ({origin}): this is a group of settings; set one of {_children(path)}")
    if not isinstance(present, dict):
        container[path[-1]] = value


def _item(container: Any, path: KeyPath, depth: int, origin: str) -> Any:
    part = path[depth]
    if isinstance(part, int):
        if isinstance(container, list) and part < len(container):
            return container[part]
        size = f"{len(container)} items" if isinstance(container, list) else "no items"
        raise SettingsError(f"{_key_text(path)} ({origin}): {_key_text(path[:depth])} has {size}")
    if isinstance(container, dict) and part in container:
        return container[part]
    raise SettingsError(f"unknown setting {_key_text(path)} ({origin}){_nearest(_key_text(path))}")


def _validated(tree: dict[str, Any], origins: Mapping[str, str]) -> Settings:
    try:
        return Settings(**tree)
    except ValidationError as error:
        raise SettingsError(_told(error, origins)) from error


def _told(error: ValidationError, origins: Mapping[str, str]) -> str:
    """The first problem in one line: key, value, origin, what was expected."""
    problem = error.errors(include_url=False)[0]
    place = _key_text(problem["loc"])
    key = next((key for key in parameters() if _within(place, key)), None)
    written = [origin for name, origin in origins.items() if _within(place, name) or _within(name, place)]
    where = f" ({written[-1]})" if written else ""
    value = repr(without_credentials(problem["input"]))
    shown = value if len(value) <= 80 else f"{value[:77]}..."
    if key is None:
        return f"{place}{where}: {problem['msg'].removeprefix('Value error, ')}"
    sweep = "; use -m to sweep over several values" if isinstance(problem["input"], str) and "," in shown else ""
    return f"{key}={shown}{where}: expected {parameters()[key].expected}{sweep}"


def _parse_key(key: str, where: str) -> KeyPath:
    parts: list[str | int] = []
    for part in key.split("."):
        match = _PART.fullmatch(part)
        if match is None:
            raise SettingsError(f"{where}: {key!r:.80} is not a key such as runtime.seed or group.list[0].item")
        parts.append(match[1])
        parts.extend(int(index) for index in re.findall(r"[0-9]+", match[2]))
    return tuple(parts)


def _parse_value(text: str, path: KeyPath, where: str) -> Any:
    """The YAML value of `text`. Paths and names are taken as they are, so that they may hold `: ` or ` #`."""
    parameter = parameters().get(_key_text(path))
    words = parameter is not None and set(get_args(parameter.annotation) or [parameter.annotation]) <= _WORDS
    if not text.strip() or (words and not text.startswith(("'", '"')) and text not in ("null", "~")):
        return text.strip()
    return yaml_text.parse(text, where)


def _present_name(path: KeyPath) -> KeyPath:
    """`path` with a former name replaced, if the replacement exists."""
    for depth in range(len(path), 0, -1):
        new = RENAMED.get(_key_text(path[:depth]))
        if new is not None:
            candidate = (*new.split("."), *path[depth:])
            if _exists(_key_text([part for part in candidate if isinstance(part, str)])):
                return candidate
    return path


def _exists(key: str) -> bool:
    return key in GROUPS or any(_within(known, key) for known in parameters())


def _within(key: str, group: str) -> bool:
    """Whether `key` is `group` or lies below it."""
    return key == group or key.startswith((f"{group}.", f"{group}["))


def _key_text(path: Sequence[str | int]) -> str:
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _nearest(name: str, known: Sequence[str] | None = None) -> str:
    """`; did you mean 'x'?` for the nearest of `known`, by default of all keys, or nothing."""
    candidates = [*parameters(), *GROUPS] if known is None else list(known)
    close = difflib.get_close_matches(name, candidates, n=1, cutoff=0.5)
    if not close and known is None:
        by_last_part = [key for key in parameters() if key.rpartition(".")[2] == name.rpartition(".")[2]]
        close = by_last_part[:1]
    return f"; did you mean {close[0]!r}?" if close else ""


def _listed(names: Sequence[str]) -> str:
    return f" (there are: {', '.join(names) or 'none'})"


def _children(path: KeyPath) -> str:
    prefix = f"{_key_text(path)}."
    names = list(dict.fromkeys(key[len(prefix) :].split(".")[0] for key in parameters() if key.startswith(prefix)))
    return ", ".join(names)
