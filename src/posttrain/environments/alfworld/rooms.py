"""What stands in a generated room, and what lies where: a part of the kinds of the package alfworld.

Each kind of object may lie where the package allows it to, and has the properties that the package gives it.
"""

from __future__ import annotations


def _kinds(*lines: str) -> tuple[str, ...]:
    return tuple(kind for line in lines for kind in line.split())


def _set(*lines: str) -> frozenset[str]:
    return frozenset(_kinds(*lines))


OPENABLE = _set("Cabinet Drawer Fridge Microwave Safe")
LAMP = "DeskLamp"
LAMP_PLACES = _set("Desk SideTable")

# Receptacles that a room has, and those that it may have, as often as they are named.
ROOMS = {
    "kitchen": (
        _kinds("CounterTop Fridge Microwave SinkBasin"),
        _kinds(
            "Cabinet Cabinet Cabinet Drawer Drawer CounterTop DiningTable Shelf GarbageCan",
            "CoffeeMachine",
        ),
    ),
    "bathroom": (
        _kinds("CounterTop SinkBasin Toilet"),
        _kinds("Cabinet Cabinet Cabinet Drawer Drawer Shelf BathtubBasin GarbageCan"),
    ),
    "bedroom": (
        _kinds("Bed Desk"),
        _kinds("SideTable Dresser Drawer Drawer Drawer Shelf Shelf ArmChair Safe GarbageCan"),
    ),
    "living room": (
        _kinds("Sofa SideTable"),
        _kinds(
            "CoffeeTable ArmChair Drawer Drawer Shelf Shelf Cabinet DiningTable Safe GarbageCan"
        ),
    ),
}

OBJECTS = {
    "kitchen": _kinds(
        "Apple Bowl Bread Cup DishSponge Egg Fork Knife Lettuce Mug Pan PepperShaker Plate Potato",
        "SaltShaker Spatula Spoon Tomato",
    ),
    "bathroom": _kinds(
        "Candle Cloth DishSponge HandTowel SoapBar SoapBottle SprayBottle ToiletPaper"
    ),
    "bedroom": _kinds(
        "AlarmClock Book Bowl CD CellPhone CreditCard KeyChain Laptop Mug Pen Pencil Pillow"
    ),
    "living room": _kinds(
        "Book CellPhone CreditCard KeyChain Laptop Newspaper Pillow RemoteControl Statue TissueBox",
        "Vase Watch",
    ),
}

PROPERTIES = {
    "cleanable": _set(
        "Apple Bowl Cloth Cup DishSponge Egg Fork Knife Lettuce Mug Pan Plate Potato SoapBar Spatula",
        "Spoon Tomato",
    ),
    "heatable": _set("Apple Bread Cup Egg Mug Plate Potato Tomato"),
    "coolable": _set("Apple Bowl Bread Cup Egg Lettuce Mug Pan Plate Potato Tomato"),
    "sliceable": _set("Apple Bread Egg Lettuce Potato Tomato"),
    "isReceptacleObject": _set("Bowl Cup Mug Pan Plate"),
}

_ANYTHING = frozenset(kind for kinds in OBJECTS.values() for kind in kinds) - {"Pillow"}
_ON_A_SEAT = _set("Book CellPhone CreditCard KeyChain Laptop Newspaper Pillow RemoteControl")
_ON_A_DESK = _set(
    "AlarmClock Book Bowl CD CellPhone CreditCard Cup KeyChain Laptop Mug Newspaper Pen Pencil",
    "RemoteControl Statue TissueBox Vase Watch",
)
CONTAINS = {
    "CounterTop": _ANYTHING,
    "DiningTable": _ANYTHING,
    "CoffeeTable": _ANYTHING,
    "SideTable": _ANYTHING,
    "Desk": _ON_A_DESK,
    "Dresser": _ON_A_DESK,
    "Sofa": _ON_A_SEAT,
    "ArmChair": _ON_A_SEAT,
    "Bed": _set("Book CellPhone Laptop Newspaper Pillow"),
    "Fridge": PROPERTIES["coolable"],
    "Microwave": PROPERTIES["heatable"] | {"Bowl"},
    "SinkBasin": PROPERTIES["cleanable"] | {"HandTowel"},
    "CoffeeMachine": _set("Mug"),
    "BathtubBasin": _set("Cloth DishSponge HandTowel SoapBar"),
    "Toilet": _set(
        "Candle Cloth DishSponge HandTowel Newspaper SoapBar SoapBottle SprayBottle TissueBox",
        "ToiletPaper",
    ),
    "Safe": _set("CD CellPhone CreditCard KeyChain Statue Vase Watch"),
    "Cabinet": _set(
        "Book Bowl CD Candle Cloth Cup DishSponge HandTowel Mug Newspaper Pan PepperShaker Plate",
        "SaltShaker SoapBar SoapBottle SprayBottle TissueBox ToiletPaper Vase",
    ),
    "Drawer": _set(
        "Book CD Candle CellPhone Cloth CreditCard DishSponge Fork HandTowel KeyChain Knife Newspaper",
        "Pen Pencil PepperShaker RemoteControl SaltShaker SoapBar SoapBottle Spatula Spoon SprayBottle",
        "TissueBox ToiletPaper Watch",
    ),
    "Shelf": _set(
        "AlarmClock Book Bowl CD Candle CellPhone Cloth CreditCard Cup DishSponge HandTowel KeyChain",
        "Mug Newspaper Pen Pencil PepperShaker Plate RemoteControl SaltShaker SoapBar SoapBottle",
        "SprayBottle Statue TissueBox ToiletPaper Vase Watch",
    ),
    "GarbageCan": _set(
        "Apple Bread CD Cloth DishSponge Egg HandTowel Lettuce Newspaper Pen Pencil Potato SoapBar",
        "SoapBottle SprayBottle TissueBox ToiletPaper Tomato",
    ),
}
