"""The engine: alfworld's domain and grammar, textworld's logic and texts, and the planner Fast Downward.

It is what `AlfredTWEnv` of the package alfworld plays with, put together anew, as that derives the text of every admissible
command in every step from the grammar, which takes nine tenths of its time. The texts are the same, in the order of the
names of things; there the order is that of Python's sets.

A library of the planner holds one game at a time, so each engine has a copy of its own, which is used again.
"""

from __future__ import annotations

import importlib.util
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from posttrain.core.errors import UserError

REQUIREMENTS = "requirements-alfworld.txt"
NOTHING = "Nothing happens."  # the engine's answer to what cannot be done
_MARKS = {"_bar_": "|", "_minus_": "-", "_plus_": "+", "_dot_": ".", "_comma_": ","}
_KEPT = 64  # translated games

_free: list[Any] = []  # libraries that no engine uses


class Engine:
    """One game at a time."""

    def __init__(self) -> None:
        self._logic = _logic()
        self._library = _free.pop() if _free else _load_library()

    def begin(self, problem: str, task: str) -> str:
        """Begin the game of a PDDL problem; what the agent sees, and the task."""
        self._problem, self._planned = problem, False
        self._state = _state_class()(self._library, _translated(problem, False), self._logic)
        self._things = _things(self._state)
        self._actions: dict[str, Any] | None = None
        return f"{self._tell('#look.feedback#', {})}\n\nYour task is to: {task}."

    def commands(self) -> list[str]:
        """The admissible commands, sorted."""
        return sorted(self._admissible())

    def do(self, command: str) -> str | None:
        """Carry out a command; what comes of it, or None where it is not admissible."""
        action = self._admissible().get(command)
        if action is None:
            return None
        self._state.apply(action)
        self._actions = None
        return self._tell(action.feedback_rule, action.mapping)

    def won(self) -> bool:
        """Whether the goal is reached."""
        return bool(self._state.check_goal())

    def plan(self) -> list[str]:
        """Commands that lead from the present state to the goal; none if it is reached or cannot be."""
        if not self._planned:
            _, sas = _translated(self._problem, True)
            self._library.load_sas_replan(sas.encode())
            self._planned = True
        return [*self._state.replan(self._things)]

    def receptacles(self) -> list[str]:
        """The names of all receptacles, in the order of the first observation."""
        named = sorted(self._things.items())
        return [info.name for _, info in named if info.type == "receptacle"]

    def facts(self) -> list[str]:
        """What holds, sorted."""
        return sorted(map(str, self._state.facts))

    def close(self) -> None:
        """Give the library back."""
        if self._library is not None:
            self._library.cleanup()
            _free.append(self._library)
            self._library = None

    def _admissible(self) -> dict[str, Any]:
        if self._actions is None:
            self._actions = {}
            for action in self._state.all_applicable_actions():
                names = {
                    place.name: self._things[it.name].name for place, it in action.mapping.items()
                }
                # The grammar's own template for going looks up the receptacle that is named already.
                template = "go to {r}" if action.name == "gotolocation" else action.command_template
                self._actions.setdefault(template.format(**names), action)
        return self._actions

    def _tell(self, rule: str, mapping: Any) -> str:
        context = {
            "state": self._state,
            "facts": [],
            "variables": {place.name: self._things[it.name] for place, it in mapping.items()},
            "mapping": mapping,
            "entity_infos": self._things,
        }
        return str(self._logic.grammar.derive(rule, context))


def check_installed() -> None:
    """`UserError` if a package is missing."""
    try:
        if importlib.util.find_spec("alfworld") is None:
            raise ModuleNotFoundError(name="alfworld")
        import fast_downward  # noqa: F401
        import textworld  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"the environment alfworld needs the package {error.name}; pip install -r {REQUIREMENTS}"
        ) from error


@cache
def _logic() -> Any:
    """The package's grammar, read."""
    check_installed()
    from textworld.envs.pddl.logic import GameLogic

    return GameLogic(domain=_file("alfred.pddl"), grammar=_file("alfred.twl2"))


@cache
def _file(name: str) -> str:
    """A file of the package alfworld, whose import would make a folder in the user's home."""
    spec = importlib.util.find_spec("alfworld")
    assert spec is not None and spec.submodule_search_locations is not None
    return (Path(spec.submodule_search_locations[0]) / "data" / name).read_text(encoding="utf-8")


def _load_library() -> Any:
    import fast_downward

    return fast_downward.load_lib()


@lru_cache(maxsize=_KEPT)
def _translated(problem: str, for_plans: bool) -> tuple[Any, str]:
    """The planner's task, and its text in the form SAS."""
    import fast_downward

    with _own_arguments():
        task, sas = fast_downward.pddl2sas(_file("alfred.pddl"), problem, optimize=for_plans)
    return task, sas


@contextmanager
def _own_arguments() -> Iterator[None]:
    """The translation writes its own arguments over those of the program."""
    arguments = sys.argv
    try:
        yield
    finally:
        sys.argv = arguments


@cache
def _state_class() -> Any:
    from fast_downward.translate.pddl.conditions import Atom as Literal
    from textworld.envs.pddl.logic import Atom, PddlState
    from textworld.logic import Proposition, Type, Variable

    class State(PddlState):  # type: ignore[misc]
        """textworld's, with a translation that is made once, and facts in a fixed order."""

        def __init__(self, library: Any, translated: tuple[Any, str], logic: Any) -> None:
            self._facts: Any = defaultdict(set)
            self._vars_by_type: Any = defaultdict(set)
            self._vars_by_name: dict[str, Any] = {}
            self._var_counts = Counter[str]()
            self.downward_lib, self._logic = library, logic
            self.task, sas = translated
            library.load_sas(sas.encode())
            self._actions = {action.name: action for action in self.task.actions}
            self.name2type = {each.name: each.type_name for each in self.task.objects}
            for each in self.task.types:
                with suppress(ValueError):  # the type is there, from a game before
                    logic.types.add(Type(each.name, each.supertype_names))
            for each in self.task.init:
                if isinstance(each, Literal) and each.predicate != "=":
                    named = [Variable(name, self.name2type[name]) for name in each.args]
                    self.add_fact(Proposition(each.predicate, named))
            atoms = (Atom * library.get_state_size())()
            library.get_state(atoms)
            for atom in atoms:
                fact = atom.get_fact(self.name2type)
                if not fact.is_negation:
                    self.add_fact(fact)

        def facts_with_signature(self, signature: Any) -> Any:
            return sorted(super().facts_with_signature(signature), key=str)

    return State


def _things(state: Any) -> dict[str, Any]:
    """textworld's information on everything that a fact names, with alfworld's names: `mug 1`, `sinkbasin 1`."""
    from textworld.generator.game import EntityInfo

    kinds = {each.name: each.type for fact in state.facts for each in fact.arguments}
    found = {}
    for identifier, name in names([*kinds]).items():
        info = found[identifier] = EntityInfo(identifier, kinds[identifier])
        info.name, info.definite, info.indefinite = name, "the", "a"
    return found


def names(identifiers: list[str]) -> dict[str, str]:
    """alfworld's name of each thing: kind and number, from the last of the kind, by identifier, to the first."""
    kinds = {}
    for identifier in sorted(identifiers):
        kind, bar, _ = identifier.partition("_bar_")
        kinds[identifier] = kind + "basin" if bar and "basin" in identifier else kind
    left = Counter(kind for identifier, kind in kinds.items() if "_bar_" in identifier)
    found = {}
    for identifier, kind in kinds.items():
        if "_bar_" not in identifier:
            for mark, sign in _MARKS.items():
                kind = kind.replace(mark, sign)
            found[identifier] = f"{kind} "
            continue
        found[identifier] = f"{kind} {left[kind]}"
        left[kind] -= 1
    return found
