"""What the agent sees, in words, and the actions that it can take.

The agent looks at a square of cells that lie ahead of it, itself in the middle of the nearest row; what a wall or a closed
door hides is not seen. Places are (steps to the right, steps ahead).
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

LEFT, RIGHT, FORWARD, PICKUP, DROP, TOGGLE, DONE = range(7)  # minigrid's actions

_COLORS = ("red", "green", "blue", "purple", "yellow", "grey")
_STATES = ("open", "closed", "locked")
_EMPTY, _WALL, _FLOOR, _DOOR = 1, 2, 3, 4
_OBJECTS = {5: "key", 6: "ball", 7: "box"}

Place = tuple[int, int]
Pose = tuple[Place, Place]  # where, and the step ahead


@dataclass(frozen=True, slots=True)
class Thing:
    """An object or a door. Of several with one name the nearest is number 1."""

    name: str
    number: int
    place: Place

    def __str__(self) -> str:
        return f"{self.name} {self.number}"


class View:
    """A view, from minigrid's `image`: kind, colour and state of each cell, by column and row."""

    def __init__(self, image: Any) -> None:
        size = len(image)
        cells = {
            (column - size // 2, size - 1 - row): (int(kind), int(color), int(state))
            for column, cells in enumerate(image.tolist())
            for row, (kind, color, state) in enumerate(cells)
        }
        held = cells.pop((0, 0))
        self.carrying = _named(*held)
        self._cells = cells
        self._free = {(0, 0)} | {place for place, cell in cells.items() if _passable(*cell)}
        self.things = tuple(self._things())

    def text(self) -> str:
        """One line for each thing, the wall ahead, and what is carried."""
        lines = [f"{thing}: {_where(*thing.place)}" for thing in self.things]
        wall = next((n for n in range(1, 99) if self._kind((0, n)) in (0, _WALL)), 0)
        if self._kind((0, wall)) == _WALL:
            lines.append(f"wall: {wall} ahead")
        if self.carrying is not None:
            lines.append(f"carrying: {self.carrying}")
        return "\n".join(lines) or "nothing in sight"

    def at(self, place: Place) -> Thing | None:
        """The thing at a place."""
        return next((thing for thing in self.things if thing.place == place), None)

    def actions(self) -> dict[str, list[int]]:
        """The actions that can be taken, and what each is in minigrid's: macro actions go a whole way."""
        found = {"turn left": [LEFT], "turn right": [RIGHT]}
        if (0, 1) in self._free:
            found["move forward"] = [FORWARD]
        for thing in self.things:
            way = self._way(thing.place, beside=True)
            if way is None:
                continue
            # A mission to go where one stands already is accomplished by standing there for a step.
            found[f"go to {thing}"] = way or [DONE]
            *_, state, kind = thing.name.split()
            if kind != "door":
                if self.carrying is None:
                    found[f"pickup {thing}"] = [*way, PICKUP]
            elif state == "open":
                inside = self._way(thing.place, beside=False)
                if inside is not None:
                    found[f"go through {thing}"] = inside
            elif self._opens(thing):
                found[f"toggle and go through {thing}"] = [*way, TOGGLE, FORWARD]
        ahead = self.at((0, 1))
        if ahead is not None and ahead.name.endswith("door") and self._opens(ahead):
            found["toggle"] = [TOGGLE]
        if self.carrying is not None and self._kind((0, 1)) == _EMPTY:
            found["drop"] = [DROP]
        return found

    def _things(self) -> Iterator[Thing]:
        numbers = Counter[str]()
        near = sorted(self._cells, key=lambda place: (abs(place[0]) + place[1], place[1], place[0]))
        for place in near:
            name = _named(*self._cells[place])
            if name is not None:
                numbers[name] += 1
                yield Thing(name, numbers[name], place)

    def _opens(self, door: Thing) -> bool:
        """Whether to toggle the door does something: a locked one needs the key of its colour."""
        color, state, _ = door.name.split()
        return state != "locked" or self.carrying == f"{color} key"

    def _kind(self, place: Place) -> int:
        return self._cells.get(place, (0, 0, 0))[0]

    def _way(self, goal: Place, beside: bool) -> list[int] | None:
        """The shortest way over cells in sight to the goal, or to where one faces it; None if there is none."""
        start: Pose = ((0, 0), (0, 1))
        before: dict[Pose, tuple[Pose, int] | None] = {start: None}
        ahead = deque([start])
        while ahead:
            pose = ahead.popleft()
            place, step = pose
            front = place[0] + step[0], place[1] + step[1]
            if goal == (front if beside else place):
                return _steps(before, pose)
            turned = (-step[1], step[0]), (step[1], -step[0])
            moves: list[tuple[Pose, int]] = [
                ((place, turned[0]), LEFT),
                ((place, turned[1]), RIGHT),
            ]
            if front in self._free:
                moves.insert(0, ((front, step), FORWARD))
            for new, action in moves:
                if new not in before:
                    before[new] = pose, action
                    ahead.append(new)
        return None


def _steps(before: dict[Pose, tuple[Pose, int] | None], pose: Pose) -> list[int]:
    found = []
    while (last := before[pose]) is not None:
        pose, action = last
        found.append(action)
    return found[::-1]


def _named(kind: int, color: int, state: int) -> str | None:
    if kind == _DOOR:
        return f"{_COLORS[color]} {_STATES[state]} door"
    return f"{_COLORS[color]} {_OBJECTS[kind]}" if kind in _OBJECTS else None


def _passable(kind: int, color: int, state: int) -> bool:
    return kind in (_EMPTY, _FLOOR) or (kind == _DOOR and _STATES[state] == "open")


def _where(right: int, ahead: int) -> str:
    parts = [f"{ahead} ahead"] if ahead else []
    if right:
        parts.append(f"{abs(right)} {'right' if right > 0 else 'left'}")
    return ", ".join(parts)
