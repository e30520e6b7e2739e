"""YAML as settings are written in it: safe, bounded, and with the scalars of YAML 1.2.

YAML 1.1, PyYAML's dialect, reads `1e-3` as text, `012` as ten and `no` as false. Here numbers are decimal, `1e-3` is
one of them, `012` and `no` stay text, and only `true`, `false` and `null` (or `~`, or nothing) mean more than text.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from spectramind.errors import SettingsError

MAX_BYTES = 2**20
MAX_ALIASES = 100
MAX_DEPTH = 20


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - the attribute PyYAML looks up

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if len(names) != len(node.value):
            raise yaml.constructor.ConstructorError(None, None, "a key is not text", node.start_mark)
        for name in names:
            if names.count(name) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"key {name!r} occurs twice", node.start_mark)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        return mapping


class _Dumper(yaml.SafeDumper):  # type: ignore[misc]
    """Quotes text that would be read as something else, in this dialect or in YAML 1.1."""

    def represent_str(self, text: str) -> yaml.ScalarNode:
        # PyYAML folds these line breaks, and only escapes them between double quotes.
        style = '"' if any(character in text for character in "\x85\u2028\u2029") else None
        return self.represent_scalar("tag:yaml.org,2002:str", text, style)


_Dumper.add_representer(str, _Dumper.represent_str)


_FLOAT = (
    r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?"
    r"|[-+]?[0-9]+[eE][-+]?[0-9]+"
    r"|[-+]?\.inf|\.nan"
)
# The text of an integer is what str() gives back, so that ids made of digits survive.
_SCALARS = (
    ("int", r"0|-?[1-9][0-9]*", "-0123456789"),
    ("float", _FLOAT, "-+.0123456789"),
    ("bool", r"true|false", "tf"),
    ("null", r"null|~|", ["n", "~", ""]),
)
for _name, _pattern, _first in _SCALARS:
    for _dialect in (_Loader, _Dumper):
        _dialect.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(f"^(?:{_pattern})$"), list(_first))


def parse(text: str, where: str) -> Any:
    """The value of a YAML document; SettingsError names `where` if it is too large, too deep or not plain YAML."""
    if len(text.encode()) > MAX_BYTES:
        raise SettingsError(f"{where}: larger than {MAX_BYTES} bytes; settings are small files, check the path")
    try:
        _check_structure(text, where)
        return _Loader(text).get_single_data()
    except yaml.YAMLError as error:
        raise SettingsError(f"{where}: {_first_problem(error)}") from error
    except (RecursionError, ValueError) as error:
        raise SettingsError(f"{where}: not plain YAML ({error})") from error


def dump(value: Any) -> str:
    """`value` as YAML that `parse` reads back as equal."""
    text: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
    return text


def read(path: Path) -> dict[str, Any]:
    """The mapping in a settings file."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise SettingsError(f"{path}: larger than {MAX_BYTES} bytes; settings are small files, check the path")
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read ({error.strerror}); check the path given to --config") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: not UTF-8 text at byte {error.start}; save the file as UTF-8") from error
    value = parse(text, str(path))
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise SettingsError(f"{path}: expected groups of settings such as 'runtime: {{seed: 1}}', found {value!r:.60}")
    return value


def _check_structure(text: str, where: str) -> None:
    depth = aliases = 0
    for event in yaml.parse(text, _Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.AliasEvent):
            aliases += 1
        if depth > MAX_DEPTH or aliases > MAX_ALIASES:
            raise SettingsError(f"{where}: more than {MAX_DEPTH} levels or {MAX_ALIASES} aliases; write the values out")


def _first_problem(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"not plain YAML at line {mark.line + 1}, column {mark.column + 1} ({error.problem})"
    return f"not plain YAML ({error})"
