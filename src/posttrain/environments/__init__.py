"""Environments: worlds in which a policy acts for many turns, one text action at a time.

An environment is a package beside the tasks, and offers the same functions as one (`posttrain.tasks.Task`) in its module
`posttrain.environments.NAME.task`, with `open` in place of `score`. Its examples are starts of episodes:

    id, kind, seed      of the game; the same row always begins with the same observation
    question            the first observation
    turns               the most actions of an episode

    form                form of an answer, by which `prompt` asks for it
    target_answer       the expert's first answer

A policy reads the task's `prompt` of a row, which ends with the first observation, writes an answer, reads the next
observation, and so on. `read_action` finds the action in an answer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

End = Literal["goal", "failed", "limit", "error"]
Form = Literal["short", "thought", "answer"]

_ACTION = re.compile(r"^\s*Action:\s*(.*?)\s*$", re.DOTALL)
_THOUGHT = re.compile(r"^\s*Thought:(.*?)^Action:\s*(.*?)\s*$", re.DOTALL | re.MULTILINE)
FORMS = {
    "short": "Action: <action>",
    "thought": "Thought: <thought>\nAction: <action>",
    "answer": "<action>",
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an action did.

    observation: the text that the policy reads next. reward: of this action alone; those of an episode add up to at most
    1. end: `goal` if the engine itself says that the goal is reached, `failed` if it can no longer be, `limit` if the
    engine's own limit is used up, None while the episode goes on. valid: whether the action was one that the environment
    knows and could carry out.
    """

    observation: str
    reward: float = 0.0
    end: Literal["goal", "failed", "limit"] | None = None
    valid: bool = True


class Environment(Protocol):
    """One game at a time. A `step` after an end raises `RuntimeError`, until `reset` begins another."""

    def reset(self, row: Mapping[str, Any]) -> str:
        """Begin the episode of a row; its first observation."""

    def step(self, action: str) -> Outcome:
        """Carry out an action."""

    def legal(self) -> Sequence[str] | None:
        """The actions that can be carried out now, in a fixed order; None where they cannot be listed."""

    def expert(self) -> str | None:
        """A good action in the present state; None where no expert knows one."""

    def state_key(self) -> str:
        """A text that is equal in equal states."""

    def close(self) -> None:
        """Give back processes and memory."""


@dataclass(frozen=True, slots=True)
class Action:
    """The action in an answer; `text` is None if it has not the form that was asked for, for the reason in `error`."""

    text: str | None
    error: str | None = None


def read_action(answer: str, form: Form) -> Action:
    """The one action of an answer.

    short: `Action: go north`. thought: `Thought: ...`, and on a later line `Action: go north`. An answer with more than one
    `Action:` has none, so that nobody has to choose; an action is one line. answer: all of it, whatever it is.
    """
    if form == "answer":
        return Action(answer)
    count = len(re.findall(r"\bAction:", answer))
    if count != 1:
        return Action(None, f"expected one 'Action:', found {count}")
    match = (_THOUGHT if form == "thought" else _ACTION).match(answer)
    if match is None:
        return Action(None, f"expected the form {FORMS[form]!r}")
    action = match[match.lastindex or 1]
    if not action or "\n" in action:
        return Action(None, "expected one action on one line after 'Action:'")
    return Action(action)


def write_action(action: str, form: Form) -> str:
    """An answer of this form; its thought, where the form has one, says no more than the action."""
    return FORMS[form].replace("<action>", action).replace("<thought>", f"I will {action}.")
