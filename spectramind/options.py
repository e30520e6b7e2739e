"""How a stage declares its knobs.

Each stage owns a small frozen dataclass beside the function that it configures. `option` gives a field its default, its
bounds and its sentence of help; `settings/` turns these into validated settings, the command line into `--help`.
Plain dataclasses keep the science importable where only NumPy and PyTorch are installed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, is_dataclass
from typing import Any, TypeVar, get_type_hints

Options = TypeVar("Options")


def option(
    default: Any,
    help: str,
    *,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
) -> Any:
    """A dataclass field with default, help and inclusive (`ge`, `le`) or exclusive (`gt`, `lt`) bounds."""
    bounds = {name: bound for name, bound in (("ge", ge), ("gt", gt), ("le", le), ("lt", lt)) if bound is not None}
    metadata = {"help": help, "bounds": bounds}
    if isinstance(default, (list, dict)):
        raise TypeError("an option's default is immutable: use a tuple")
    return field(default=default, metadata=metadata)


def from_dict(options: type[Options], values: Mapping[str, Any]) -> Options:
    """The inverse of `dataclasses.asdict` after a way through JSON, which makes tuples lists."""
    hints = get_type_hints(options)
    built = {
        name: from_dict(hints[name], value) if is_dataclass(hints[name]) else _tuples(value)
        for name, value in values.items()
    }
    return options(**built)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
