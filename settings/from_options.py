"""Validation of the options dataclasses by pydantic, for all of them by one rule.

A field's type, default, bounds and help come from its dataclass. Types are strict: `true` is no integer, `3` is a
number, `"3"` is neither. Unknown keys are refused. Bounds of a list are those of its items; a list that is not empty
by default must not be empty. A validated group is an instance of the dataclass itself.
"""

from __future__ import annotations

import re
import types
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from functools import cache, reduce
from operator import or_
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import (
    AfterValidator,
    AllowInfNan,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    Strict,
    create_model,
)
from pydantic_core import CoreSchema, core_schema

from settings.groups import S3Url, field_default

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


def _number_as_text(value: Any) -> Any:
    """Planet ids are text that YAML reads as integers; `settings.yaml_text` reads only those whose digits come back."""
    return str(value) if type(value) is int else value


def _path_text(value: Any) -> Any:
    if value == "" or (isinstance(value, str) and _URL.match(value)):
        raise ValueError("not a path")
    return _number_as_text(value)


def _absolute(path: Path) -> Path:
    return path.expanduser().absolute()


Text = Annotated[str, Strict(), BeforeValidator(_number_as_text)]
AbsolutePath = Annotated[Path, AfterValidator(_absolute), BeforeValidator(_path_text)]
BucketUrl = Annotated[str, Strict(), Field(pattern=r"^s3://[a-z0-9][a-z0-9.-]+(/[\w=-][\w.=-]*)*/?$")]


@dataclass(frozen=True)
class FromOptions:
    """Annotation of a field whose type is an options dataclass: `transit: Annotated[TransitOptions, FromOptions()]`."""

    def __get_pydantic_core_schema__(self, source: type, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema = handler.generate_schema(options_model(source))
        built = core_schema.no_info_after_validator_function(_builder(source), schema)
        return core_schema.no_info_before_validator_function(
            _field_values, built, serialization=core_schema.plain_serializer_function_ser_schema(_field_values)
        )


@cache
def options_model(options: type) -> type[BaseModel]:
    """The pydantic model that validates the fields of the dataclass `options`."""
    hints = get_type_hints(options)
    definitions: dict[str, Any] = {}
    for field in fields(options):
        annotation = _validated(hints[field.name], field.metadata.get("bounds", {}))
        default = field_default(field)
        if isinstance(default, tuple) and default:
            annotation = Annotated[annotation, Field(min_length=1)]
        description = field.metadata.get("help")
        if not description and not is_dataclass(hints[field.name]):
            raise TypeError(f"{options.__name__}.{field.name} has no help: declare it with option()")
        definitions[field.name] = (annotation, Field(default=default, description=description))
    config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), title=options.__name__)
    return create_model(options.__name__, __config__=config, __doc__=options.__doc__, **definitions)


def _builder(options: type) -> Callable[[BaseModel], Any]:
    return lambda model: options(**{field.name: getattr(model, field.name) for field in fields(options)})


def _field_values(value: Any) -> Any:
    """An options instance as a mapping of its fields; anything else as it is."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _field_values(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, tuple):
        return tuple(_field_values(item) for item in value)
    return value


def _validated(annotation: Any, bounds: dict[str, Any]) -> Any:
    """`annotation` with strictness and `bounds` put where the scalars are."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is bool:
        return Annotated[bool, Strict()]
    if annotation is int:
        return Annotated[int, Strict(), Field(**bounds)]
    if annotation is float:
        return Annotated[float, Strict(), AllowInfNan(False), Field(**bounds)]
    if annotation is str:
        return Text
    if annotation is Path:
        return AbsolutePath
    if annotation is S3Url:
        return BucketUrl
    if annotation is type(None) or annotation is Ellipsis or origin is Literal:
        return annotation
    if is_dataclass(annotation):
        return Annotated[annotation, FromOptions()]
    if origin in (Union, types.UnionType):
        return reduce(or_, (_validated(argument, bounds) for argument in arguments))
    if origin is tuple:
        return tuple.__class_getitem__(tuple(_validated(argument, bounds) for argument in arguments))
    raise TypeError(f"options cannot have the type {annotation}")
