"""Methods by name. A method is one file, `FAMILY/methods/NAME.py`, with its `Settings` beside its loss.

Its section of params.yaml is `FAMILY.NAME`; keys of `Settings` that are missing there come from `FAMILY.common`.
"""

from __future__ import annotations

from importlib import import_module
from itertools import product
from typing import Any

from posttrain.core.errors import UserError
from posttrain.core.overlay import blaming
from posttrain.core.params import FAMILIES, PACKAGE, Params, method_names
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


Values = dict[str, Any]  # setting -> value


def grid(params: Params, family: str, name: str) -> list[Values]:
    """The settings that `tuning` tries for a method, all combinations; `UserError` names a value that it cannot have."""
    section: Values = getattr(params.tuning, family, {})
    method, known = load_method(family, name), method_names(family)
    fields = method.Settings.model_fields
    shared = {key: tried for key, tried in section.items() if key not in known and key in fields}
    lists = {**shared, **section.get(name, {})}
    combinations = [dict(zip(lists, values, strict=True)) for values in product(*lists.values())]
    settings = settings_of(params, family, name, method).model_dump()
    for values in combinations if lists else []:
        check(method.Settings, {**settings, **values}, "params.yaml", f"tuning.{family}")
    return combinations if lists else []


def _check_tuning(params: Params, family: str) -> None:
    section: Values = getattr(params.tuning, family, {})
    methods, where = params.family(family).methods, f"params.yaml: tuning.{family}"
    for key, tried in section.items():
        own = key in method_names(family)
        if own and not isinstance(tried, dict):
            raise UserError(f"{where}.{key}: expected settings with lists of values")
        fields = {
            field
            for name in ([key] if own else methods)
            for field in load_method(family, name).Settings.model_fields
        }
        for setting, values in tried.items() if own else [(key, tried)]:
            place = f"{where}.{key}.{setting}" if own else f"{where}.{key}"
            if setting not in fields:
                hints = fields if own else {*fields, *method_names(family)}
                raise UserError(f"{place}: unknown parameter{nearest(setting, hints)}")
            if not isinstance(values, list) or not values:
                raise UserError(f"{place}: expected a list of values")
            if any(values.count(value) > 1 for value in values):
                raise UserError(f"{place}: a value is listed twice")
    for name in methods:
        grid(params, family, name)


def check_methods(params: Params) -> None:
    """`UserError` for the first wrong key of a method's section, or for a key of `common` that no method has; also with the
    settings of each entry.
    """
    _check_sections(params.plain())
    for kind in ("datasets", "models"):
        for name, entry in getattr(params, kind).items():
            if entry.settings != type(entry.settings)():
                with blaming(f"{kind}.{name}"):
                    _check_sections(params.with_settings_of(kind, name))
    _check_sections(params)
    _check_all_parts(params)
    for family in FAMILIES:
        _check_tuning(params, family)


def _check_parts(params: Params, parts: Any, section: str) -> None:
    """`UserError` for parts to train on that the chosen data set does not have."""
    where = f"params.yaml: {section}.parts"
    if parts == "environments":
        if not any((PACKAGE / "environments" / task).is_dir() for task in params.tasks):
            raise UserError(f"{where}: {params.dataset} has no environments; write all")
    elif parts != "all":
        for name in parts:
            if name not in params.parts:
                hint = nearest(name, params.parts)
                raise UserError(f"{where}: {name!r} is not a part of {params.dataset}{hint}")


def _check_sections(params: Params) -> None:
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


def _check_all_parts(params: Params) -> None:
    _check_parts(params, params.generator.sample.parts, "generator.sample")
    for family in FAMILIES:
        for name in params.family(family).trained:
            settings = settings_of(params, family, name, load_method(family, name))
            _check_parts(params, getattr(settings, "parts", "all"), f"{family}.{name}")
