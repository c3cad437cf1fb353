"""The expert: the planner's commands from the present state, and a search for what has not been seen yet.

The planner (Fast Downward) knows where all things are. An expert that searches goes by it only when it has read of the
thing that the plan takes or uses next; before, it looks into one receptacle after the other, in the order of the first
observation. So what it does follows from what a policy has read, too.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

_NAME = "([a-z]+ [0-9]+)"
_SEEN = re.compile(rf"\ba {_NAME}")
_LOOKED = re.compile(rf"(?:On the {_NAME}|The {_NAME} is open. In it), you see")
_CLOSED = re.compile(rf"The {_NAME} is closed")
_USES = re.compile(rf"(?:take|use) {_NAME}")


class Expert:
    """What is known in one episode. receptacles: in the order of the first observation."""

    def __init__(self, receptacles: Sequence[str], searches: bool) -> None:
        self._receptacles, self._searches = receptacles, searches
        self._seen: set[str] = set()
        self._looked: set[str] = set()
        self._closed: str | None = None  # the receptacle that the agent stands at, if it is closed

    def read(self, observation: str) -> None:
        """Take note of an observation."""
        self._seen |= {*_SEEN.findall(observation)}
        self._looked |= {name for names in _LOOKED.findall(observation) for name in names}
        closed = _CLOSED.search(observation)
        if closed is not None:
            self._closed = closed[1]
        elif observation.startswith(("You arrive", "You open")):
            self._closed = None

    def choose(self, plan: Sequence[str], commands: Collection[str]) -> str | None:
        """The next of the commands, by a plan from the present state; None without a plan."""
        uses = [found[1] for found in map(_USES.match, plan) if found is not None]
        unknown = [name for name in self._receptacles if name not in self._looked]
        if not (self._searches and unknown and uses) or uses[0] in self._seen:
            return plan[0] if plan else None
        if unknown[0] == self._closed:
            return f"open {unknown[0]}"
        # Nobody goes to a receptacle at the place where they stand.
        way = f"go to {unknown[0]}"
        return way if way in commands else f"examine {unknown[0]}"
