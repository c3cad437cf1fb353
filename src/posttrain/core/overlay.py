"""Settings that an entry of `datasets` or `models` brings with it, laid over the sections of params.yaml.

What suits a task of one answer does not suit an episode, and a rate that suits a million parameters ruins a billion. So an
entry may have `settings`, which apply to runs of that data set or model alone. Those of the model win over the data set's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from pydantic import Field

from posttrain.core.errors import UserError
from posttrain.core.schema import Section, nearest

Settings = dict[str, dict[str, Any]]  # section of a family -> key -> value


class ModelSettings(Section):
    """Parameters by their names in params.yaml."""

    selector: Settings = Field(default_factory=dict)
    generator: Settings = Field(default_factory=dict)
    sampling: dict[str, Any] = Field(default_factory=dict)

    def leaves(self) -> dict[str, Any]:
        """The value of each parameter, by its dotted name."""
        return dict(_leaves(self.model_dump()))


class DatasetSettings(ModelSettings):
    """Those of a model, and how episodes are played."""

    episodes: dict[str, Any] = Field(default_factory=dict)


def _leaves(values: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if not isinstance(values, dict):
        yield name, values
        return
    for key, value in values.items():
        yield from _leaves(value, f"{name}.{key}" if name else key)


@contextmanager
def blaming(entry: str, source: str = "params.yaml") -> Iterator[None]:
    """Let a `UserError` about a section, which is right without them, name the `settings` of an entry instead.

    entry: such as `models.pocket`.
    """
    try:
        yield
    except UserError as error:
        where, message = f"{source}: ", str(error)
        raise UserError(f"{where}{entry}.settings.{message.removeprefix(where)}") from error


def lay_over(
    values: Mapping[str, Any],
    settings: ModelSettings,
    methods: Mapping[str, Sequence[str]],
    source: str,
) -> dict[str, Any]:
    """params.yaml with the settings of an entry, which win over each section that they name.

    Its own for `common` win over the methods' sections as well, except for those that it has for a method. methods: the
    names of each family's.
    """
    found = dict(values)
    for name in ("sampling", "episodes"):
        own = getattr(settings, name, {})
        if own:
            found[name] = {**(values.get(name) or {}), **own}
    for family, names in methods.items():
        found[family] = _family(values[family], getattr(settings, family), family, names, source)
    if "form" in found.get("episodes", {}) and "form" in getattr(settings, "episodes", {}):
        raise UserError(
            f"{source}: episodes.form: not a parameter that an entry can set, as the examples depend on it"
        )
    if "variants" in settings.generator.get("sample", {}):
        raise UserError(
            f"{source}: generator.sample.variants: not a parameter that an entry can set, as the examples depend on it"
        )
    return found


def _family(
    section: Mapping[str, Any], own: Settings, family: str, methods: Sequence[str], source: str
) -> dict[str, Any]:
    found = dict(section)
    known = [key for key in section if key not in ("methods", "policies")]
    for key in own:
        if key not in known:
            hint = nearest(key, known)
            raise UserError(f"{source}: {family}.{key}: not a section that an entry can set{hint}")
    common = own.get("common", {})
    for key in known:
        kept = section[key]
        if key in methods and isinstance(kept, dict):
            kept = {name: value for name, value in kept.items() if name not in common}
        found[key] = {**kept, **own.get(key, {})} if isinstance(kept, dict) else kept
    return found
