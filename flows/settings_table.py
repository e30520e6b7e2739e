"""The settings as a table for people."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from settings.groups import GROUPS, Parameter, parameters, presets
from spectramind.errors import SettingsError


def print_settings(keys: Sequence[str], title: str) -> None:
    """Print the settings whose key is one of `keys` or lies below one."""
    table = Table(title=title, box=None, title_justify="left", title_style="bold", show_header=False, pad_edge=False)
    table.add_column(overflow="fold", ratio=2)
    table.add_column(overflow="fold", ratio=3)
    for parameter in parameters().values():
        if any(parameter.key == key or parameter.key.startswith(f"{key}.") for key in keys):
            setting = f"{parameter.key}=[cyan]{escape(_default(parameter))}[/]"
            help_text = parameter.help[:1].upper() + parameter.help[1:].removesuffix(".")
            table.add_row(setting, f"{escape(help_text)} [dim]({escape(parameter.expected)})[/]")
    Console().print(table)


def _default(parameter: Parameter) -> str:
    value = parameter.default
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(map(str, value))}]"
    return str(value) if isinstance(value, Path) or value != "" else '""'


def print_group(name: str) -> None:
    """Print a group, or the keys below `name`, with the group's presets. SettingsError if there is no such key."""
    group = name.partition(".")[0]
    if not any(key == name or key.startswith(f"{name}.") for key in parameters()):
        raise SettingsError(f"no settings {name!r}; there are the groups {', '.join(GROUPS)}")
    names = presets(group)
    print_settings([name], f"{name}   presets: {', '.join(names)}" if names else name)
