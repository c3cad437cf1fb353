"""Games as problems in PDDL, for the domain that the package alfworld brings (`alfred.pddl`).

A game is a room with receptacles, each at a place of its own, objects in them, an agent that stands at none of them, and
one of the six types of task.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

from posttrain.environments.alfworld.rooms import (
    CONTAINS,
    LAMP,
    LAMP_PLACES,
    OBJECTS,
    OPENABLE,
    PROPERTIES,
    ROOMS,
)

PICK, LOOK, TWO = "pick_and_place_simple", "look_at_obj_in_light", "pick_two_obj_and_place"
# What a task does to the object on its way: the property that this asks for, the state that it makes, and where.
TREATMENTS = {
    "pick_clean_then_place_in_recep": ("cleanable", "isClean", "SinkBasin", "clean"),
    "pick_heat_then_place_in_recep": ("heatable", "isHot", "Microwave", "hot"),
    "pick_cool_then_place_in_recep": ("coolable", "isCool", "Fridge", "cool"),
}
KINDS = (PICK, LOOK, *TREATMENTS, TWO)  # in the package's order of numbers

# Those of the package's templates for each type whose words differ most; {0} is the object, {1} the receptacle or lamp.
_SENTENCES = {
    PICK: ("put a {0} in {1}", "put some {0} on {1}"),
    LOOK: ("look at {0} under the {1}", "examine the {0} with the {1}"),
    "pick_clean_then_place_in_recep": (
        "put a clean {0} in {1}",
        "clean some {0} and put it in {1}",
    ),
    "pick_heat_then_place_in_recep": ("put a hot {0} in {1}", "heat some {0} and put it in {1}"),
    "pick_cool_then_place_in_recep": ("put a cool {0} in {1}", "cool some {0} and put it in {1}"),
    TWO: ("put two {0} in {1}", "find two {0} and put them in {1}"),
}
_NAMED_IN_THE_DOMAIN = ("SinkBasin", "Microwave", "Fridge"), ("Knife", "ButterKnife")


@dataclass(frozen=True, slots=True)
class Game:
    """receptacles: kinds, in their order. objects: kind, and number of its receptacle. target: the kind of object that the
    task is about. place: the kind of receptacle that it shall be put in, or the lamp.
    """

    kind: str
    receptacles: tuple[str, ...]
    objects: tuple[tuple[str, int], ...]
    target: str
    place: str
    task: str


def draw(random: Random, kind: str, receptacles: int, distractors: int) -> Game:
    """A game of that type of task with so many receptacles, and so many objects that the task is not about.

    It can be solved, as the target lies where it can be taken from, what treats it is in the room, and it may be put in the
    place. It is not won at the start, as no object of the target's kind is in such a place, or in the agent's hand.
    """
    while True:
        room = random.choice(_rooms(kind))
        stood = _furnish(random, room, receptacles)
        pairs = [*_pairs(kind, room, stood)]
        if pairs:
            break
    target, place = random.choice(pairs)
    objects = _targets(random, kind, stood, target, place)
    others = [each for each in OBJECTS[room] if each != target]
    for _ in range(distractors):
        other = random.choice(others)
        objects.append((other, random.choice(_places_of(other, stood))))
    random.shuffle(objects)
    sentence = random.choice(_SENTENCES[kind]).format(target.lower(), place.lower())
    return Game(kind, tuple(stood), tuple(objects), target, place, sentence)


def _rooms(kind: str) -> list[str]:
    if kind == LOOK:
        return ["bedroom", "living room"]
    if kind in TREATMENTS:
        return ["kitchen", "bathroom"] if "clean" in kind else ["kitchen"]
    return [*ROOMS]


def _furnish(random: Random, room: str, count: int) -> list[str]:
    needed, possible = ROOMS[room]
    return sorted([*needed, *random.sample(possible, min(len(possible), count - len(needed)))])


def _places_of(kind: str, stood: Sequence[str]) -> list[int]:
    return [number for number, each in enumerate(stood) if kind in CONTAINS[each]]


def _pairs(kind: str, room: str, stood: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The targets and places of a task of this kind, in this room."""
    needs, _, device, _ = TREATMENTS.get(kind, ("", "", "", ""))
    for target in OBJECTS[room]:
        if needs and target not in PROPERTIES[needs]:
            continue
        if kind == LOOK:
            yield target, LAMP
            continue
        homes = {stood[number] for number in _places_of(target, stood)}
        yield from ((target, place) for place in sorted(homes - {device}) if len(homes) > 1)


def _targets(
    random: Random, kind: str, stood: Sequence[str], target: str, place: str
) -> list[tuple[str, int]]:
    free = [number for number in _places_of(target, stood) if stood[number] != place]
    objects = [(target, random.choice(free)) for _ in range(2 if kind == TWO else 1)]
    if kind == LOOK:
        lit = [number for number, each in enumerate(stood) if each in LAMP_PLACES]
        objects.append((LAMP, random.choice(lit)))
    return objects


# ------------------------------------------------------------------------------------- PDDL


def write(game: Game) -> str:
    """The problem of a game.

    Names are those that the package reads numbers from: `Mug_bar_01`, and `Sink_bar_01_bar_SinkBasin`.
    """
    receptacles, objects = _names(game.receptacles), _names(kind for kind, _ in game.objects)
    places = [f"loc_bar_{number:02}" for number in range(len(receptacles) + 1)]
    kinds = sorted({*game.receptacles, *_NAMED_IN_THE_DOMAIN[0]})
    carried = sorted({*(kind for kind, _ in game.objects), *_NAMED_IN_THE_DOMAIN[1]})
    declared = ["agent1 - agent"]
    declared += [f"{name} - location" for name in places]
    declared += [f"{name} - receptacle" for name in receptacles]
    declared += [f"{name} - object" for name in objects]
    declared += [f"{kind}Type - rtype" for kind in kinds] + [
        f"{kind}Type - otype" for kind in carried
    ]
    facts = [f"atLocation agent1 {places[0]}"]
    for name, kind, place in zip(receptacles, game.receptacles, places[1:], strict=True):
        facts += [f"receptacleType {name} {kind}Type", f"receptacleAtLocation {name} {place}"]
        facts += [f"openable {name}"] if kind in OPENABLE else []
    for name, (kind, number) in zip(objects, game.objects, strict=True):
        facts += [f"objectType {name} {kind}Type", f"inReceptacle {name} {receptacles[number]}"]
        facts += [f"objectAtLocation {name} {places[number + 1]}"]
        facts += [f"toggleable {name}" if kind == LAMP else f"pickupable {name}"]
        facts += [f"{word} {name}" for word, having in PROPERTIES.items() if kind in having]
    for kind in sorted({*game.receptacles}):
        held = sorted(CONTAINS[kind] & {*carried})
        facts += [f"canContain {kind}Type {each}Type" for each in held]
    parts = ["(define (problem game)", "(:domain alfred)", "(:objects", *declared, ")", "(:init"]
    parts += [*(f"({fact})" for fact in facts), ")", f"(:goal {_goal(game)})", ")"]
    return "\n".join(parts) + "\n"


def _names(kinds: Iterator[str] | Sequence[str]) -> list[str]:
    numbers, names = Counter[str](), []
    for kind in kinds:
        numbers[kind] += 1
        name = f"{kind.removesuffix('Basin')}_bar_{numbers[kind]:02}"
        names.append(name if not kind.endswith("Basin") else f"{name}_bar_{kind}")
    return names


def _goal(game: Game) -> str:
    """As the package's `goal_library` has it for each type of task."""
    target, place = f"{game.target}Type", f"{game.place}Type"
    if game.kind == LOOK:
        return (
            "(and (exists (?t - object ?r - receptacle ?a - agent ?l - location) (and "
            f"(objectType ?t {place}) (toggleable ?t) (isToggled ?t) (receptacleAtLocation ?r ?l) (atLocation ?a ?l) "
            f"(inReceptacle ?t ?r))) (exists (?o - object ?a - agent) (and (objectType ?o {target}) (holds ?a ?o))))"
        )
    put = f"(objectType ?o {target}) (receptacleType ?r {place}) (inReceptacle ?o ?r)"
    if game.kind in TREATMENTS:
        needs, state, _, _ = TREATMENTS[game.kind]
        put += f" ({needs} ?o) ({state} ?o)"
    if game.kind == TWO:
        put += f" (exists (?p - object) (and (not (= ?o ?p)) (objectType ?p {target}) (inReceptacle ?p ?r)))"
    return f"(and (exists (?r - receptacle) (exists (?o - object) (and {put}))))"
