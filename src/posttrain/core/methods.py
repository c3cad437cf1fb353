"""Methods by name. A method is one file, `FAMILY/methods/NAME.py`, with its `Settings` beside its loss.

Its section of params.yaml is `FAMILY.NAME`; keys of `Settings` that are missing there come from `FAMILY.common`.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from posttrain.core.errors import UserError
from posttrain.core.params import FAMILIES, Params, method_names
from posttrain.core.schema import Section, check, nearest


def load_method(family: str, name: str) -> Any:
    """The module of a method; `UserError` for a method that the family does not have."""
    known = method_names(family)
    if name not in known:
        raise UserError(f"method {name!r}: expected one of {', '.join(known)}")
    return import_module(f"posttrain.{family}.methods.{name}")


def settings_of(params: Params, family: str, name: str, method: Any) -> Any:
    """The method's settings; `UserError` names the first wrong key."""
    section = params.family(family)
    own = section.sections.get(name)
    if own is None:
        raise UserError(f"params.yaml: {family}.{name}: missing")
    kind: type[Section] = method.Settings
    shared = {key: value for key, value in section.common.items() if key in kind.model_fields}
    if not isinstance(own, dict):
        return check(kind, own, "params.yaml", f"{family}.{name}")
    try:
        return check(kind, {**shared, **own}, "params.yaml", f"{family}.{name}")
    except UserError as error:
        message = str(error)
        for key in shared.keys() - own.keys():
            message = message.replace(f"{family}.{name}.{key}:", f"{family}.common.{key}:")
        raise UserError(message) from error


def check_methods(params: Params) -> None:
    """`UserError` for the first wrong key of a method's section, or for a key of `common` that no method has."""
    for family in FAMILIES:
        section, known = params.family(family), set[str]()
        for name in section.sections:
            method = load_method(family, name)
            settings_of(params, family, name, method)
            known |= method.Settings.model_fields.keys()
        for key in section.common:
            if key not in known:
                raise UserError(
                    f"params.yaml: {family}.common.{key}: unknown parameter{nearest(key, known)}"
                )
