"""Typed YAML files: every key is known, no value is coerced, and an error is one line.

Files are read as YAML 1.2, like DVC does, so that a learning rate written `2e-5` by `dvc exp run -S` is the same number
to DVC and to the stage (PyYAML, YAML 1.1, would read text). Text in place of a number (`"2e-5"` in quotes) is an error.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from posttrain.core.errors import UserError
from posttrain.core.files import read_text, unwritable

Positive = Annotated[int, Field(ge=1)]
AtLeastTwo = Annotated[int, Field(ge=2)]
# What torch multiplies by must fit 32 bits (3.4e38), and so must logits divided by a temperature.
NonNegative = Annotated[float, Field(ge=0, le=1e30)]
Rate = Annotated[float, Field(gt=0, le=1e30)]
Temperature = Annotated[float, Field(ge=1e-6, le=1e6)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Parts = Literal["all", "environments"] | Annotated[list[str], Field(min_length=1)]  # of a mixture
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class Section(BaseModel):
    """A part of params.yaml: every key is known, and no value is coerced from another type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, protected_namespaces=())


Kind = TypeVar("Kind", bound=Section)


def read_yaml(path: str | Path) -> Any:
    """The content of a YAML 1.2 file; `UserError` if it is not valid, or JSON in UTF-8 cannot hold it."""
    text = read_text(path)
    try:
        values = YAML(typ="safe", pure=True).load(text)
    except RecursionError as error:
        raise UserError(f"{path}: not valid YAML: nested too deeply") from error
    # ruamel.yaml lets through the errors of Python for a value that is not of its tag, such as the date 2020-13-45.
    except (YAMLError, ValueError, KeyError) as error:
        problem = " ".join(str(error).split())
        raise UserError(f"{path}: not valid YAML: {problem}") from error
    found = unwritable(values)
    if found is not None:
        raise UserError(f"{path}: {found}")
    return values


def check(kind: type[Kind], values: Any, source: str, section: str = "") -> Kind:
    """`values` as a `kind`; `UserError` names the first wrong key of `source` and the nearest valid one.

    section: the key of `source` that holds the values.
    """
    if not isinstance(values, dict):
        where = f"{section}: " if section else ""
        raise UserError(f"{source}: {where}expected sections, found {type(values).__name__}")
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{source}: {_explain(kind, error, values, section)}") from error


def _explain(
    kind: type[Section], error: ValidationError, values: dict[str, Any], section: str
) -> str:
    problems = error.errors(include_url=False)
    # An unknown key is usually a misspelling, and then the cause of a "missing" beside it.
    first = min(problems, key=lambda problem: problem["type"] != "extra_forbidden")
    path = _path_in(first["loc"], values)
    key = ".".join([*([section] if section else []), *map(str, path)])
    if first["type"] == "extra_forbidden":
        known = _known_keys(kind, first["loc"])
        return f"{key}: unknown parameter{nearest(str(path[-1]), known)}"
    if first["type"] == "missing":
        return f"{key}: missing"
    found = first["input"]
    if first["type"] == "literal_error" and isinstance(found, str):
        allowed = first["ctx"]["expected"]
        names = allowed.replace("'", "").replace(" or ", ", ").split(", ")
        return f"{key}: {found!r} is not one of {allowed}{nearest(found, names)}"
    if isinstance(found, str) and first["type"] in ("float_type", "int_type"):
        return f"{key}: {found!r} is text, not a number; write it without quotes"
    shown = "" if isinstance(found, dict) else f" (found {found!r})"
    return f"{key or 'params'}: {first['msg'].removeprefix('Value error, ')}{shown}"


def _path_in(location: tuple[int | str, ...], values: Any) -> list[int | str]:
    """The location as keys of the file, without the union members that pydantic also names."""
    path: list[int | str] = []
    for index, part in enumerate(location):
        inside = isinstance(values, dict) and part in values
        item = isinstance(values, list) and isinstance(part, int) and part < len(values)
        if inside or item:
            path.append(part)
            values = values[part]
        elif index == len(location) - 1 and isinstance(values, dict):
            path.append(part)
    return path


def _known_keys(kind: type[Section], location: tuple[int | str, ...]) -> list[str]:
    """The valid siblings of an unknown key, from the schema."""
    kinds: list[Any] = [kind]
    for part in location[:-1]:
        found: list[Any] = []
        for section in kinds:
            if isinstance(section, type) and issubclass(section, Section):
                field = section.model_fields.get(str(part))
                found += _sections(field.annotation) if field else []
        kinds = found or kinds
    return sorted({name for section in kinds for name in section.model_fields})


def _sections(annotation: Any) -> list[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [found for part in getattr(annotation, "__args__", ()) for found in _sections(part)]


def nearest(name: str, known: Any) -> str:
    """The hint `; did you mean ...?`, empty if no known name is near."""
    close = difflib.get_close_matches(name, [str(key) for key in known], n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""
