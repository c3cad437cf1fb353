"""The equality of two FinQA programs by the rules of the FinQA paper's script.

The script gives each distinct operand string of the gold program a symbol (`5829` and `5829.0` are two), writes the
last step of both programs as expressions in these symbols, lets sympy `simplify` each, and compares the results with
`==`. That takes milliseconds per pair, and exponential time on repeated `#k`. Here the same verdict comes from the
graph of steps, by the cheapest test that decides:

1. an operand that the gold program does not have                    -> unequal
2. the same graph up to the order of `add` and `multiply` operands   -> equal
3. different values at a random point                                -> unequal (rational functions modulo the prime
   2^61 - 1; with `exp` or `greater`, at positive points with 60 digits)
4. otherwise (equal in value, unlike in form; or a zero denominator) -> ask sympy, as the script does, and remember the
   pair

`simplify` preserves values, so step 3 never contradicts it; it is not canonical, so step 4 cannot do without it.

In two cases the script gives no verdict. It aborts on a gold program that it or sympy cannot read (`greater` inside
another operation, more than 199 levels), which counts as unequal here. And expressions of more than `MAX_LEAVES`
operands could keep sympy busy for hours, so for them step 3 decides (and more than `MAX_POWERS` nodes with `exp` or
`greater` are unequal unless step 2 shows them equal). Verdicts were compared with sympy 1.14.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal, DecimalException, DivisionByZero, InvalidOperation, Overflow
from functools import lru_cache
from typing import Any

MAX_LEAVES = 24
MAX_LEVELS = 199  # CPython refuses to compile 200 nested parentheses, so sympy cannot read them
PRIME = (1 << 61) - 1
MAX_EXPONENT = 1000
MAX_POWERS = 1000  # nodes of an expression with exp or greater

# An operand: a step's index (0, 1, ...) or a symbol's code (-1, -2, ...).
# A node: (operation, operand, operand), or ("symbol", code, code) for a whole table step.
Node = tuple[str, int, int]
# A step: operation, two operands, and its whole text, which is the name of a table step.
Step = tuple[str, str, str, str]

_SIGNS = {"add": "+", "subtract": "-", "multiply": "*", "divide": "/", "exp": "**", "greater": ">"}
_COMMUTATIVE = frozenset({"add", "multiply"})
_CONTEXT = Context(prec=60, traps=[DivisionByZero, InvalidOperation, Overflow])
_DECIMAL: dict[str, Callable[[Decimal, Decimal], Decimal]] = {
    "add": _CONTEXT.add,
    "subtract": _CONTEXT.subtract,
    "multiply": _CONTEXT.multiply,
    "divide": _CONTEXT.divide,
    "exp": _CONTEXT.power,
}
_POINTS = 4


class Form:
    """The expression of a program's last step; `order` has its nodes, operands first.

    levels: the depth of its parentheses. leaves: its length in operands when written out.
    """

    def __init__(self, nodes: Sequence[Node | None], root: int, order: Sequence[int]) -> None:
        self.nodes, self.root, self.order = nodes, root, order
        reached = [(index, node[0]) for index in order if (node := nodes[index]) is not None]
        self.operations = {op for _, op in reached}
        self.inner_greater = any(op == "greater" and index != root for index, op in reached)
        self.is_greater = "greater" in self.operations
        self.transcendental = self.is_greater or "exp" in self.operations
        levels: dict[int, int] = {}
        leaves: dict[int, int] = {}
        for index in order:
            op, left, right = nodes[index] or ("", 0, 0)
            if op == "symbol":
                levels[index], leaves[index] = 0, 1
            else:
                levels[index] = 1 + max(levels.get(left, 0), levels.get(right, 0))
                leaves[index] = min(leaves.get(left, 1) + leaves.get(right, 1), 1 << 60)
        self.levels, self.leaves = levels[root], leaves[root]

    def text(self) -> str:
        """The expression as the script writes it; only for small `leaves`."""
        texts: dict[int, str] = {}
        for index in self.order:
            op, left, right = self.nodes[index] or ("", 0, 0)
            if op == "symbol":
                texts[index] = f"a{-left - 1}"
            else:
                one, two = (texts[k] if k >= 0 else f"a{-k - 1}" for k in (left, right))
                texts[index] = f"( {one} {_SIGNS[op]} {two} )"
        return texts[self.root]

    def fraction(self) -> tuple[int, int] | None:
        """Numerator and denominator modulo `PRIME` at a fixed random point; None after a division by zero."""
        values: dict[int, tuple[int, int]] = {}
        for index in self.order:
            op, left, right = self.nodes[index] or ("", 0, 0)
            a, b = values[left] if left >= 0 else (_residue(left), 1)
            if op == "symbol":
                values[index] = (a, b)
                continue
            c, d = values[right] if right >= 0 else (_residue(right), 1)
            if op == "divide":
                if c == 0:
                    return None
                values[index] = (a * d % PRIME, b * c % PRIME)
            elif op == "multiply":
                values[index] = (a * c % PRIME, b * d % PRIME)
            else:
                c = -c if op == "subtract" else c
                values[index] = ((a * d + c * b) % PRIME, b * d % PRIME)
        return values[self.root]

    def decimals(self, point: int) -> dict[int, Decimal] | None:
        """Each node's value at one of the positive points (left - right for `greater`).

        None if there are too many nodes, or one has no real value or one too large to compare.
        """
        values: dict[int, Decimal] = {}
        if len(self.order) > MAX_POWERS:
            return None
        try:
            for index in self.order:
                op, left, right = self.nodes[index] or ("", 0, 0)
                one, two = (values[k] if k >= 0 else _decimal(k, point) for k in (left, right))
                if op == "symbol":
                    values[index] = one
                elif op == "greater":
                    values[index] = _CONTEXT.subtract(one, two)
                else:
                    values[index] = _DECIMAL[op](one, two)
                value = values[index]  # 0 to a negative power is Infinity without a signal
                if not value.is_finite() or value.adjusted() > MAX_EXPONENT:
                    return None
        except DecimalException:
            return None
        return values


@dataclass(frozen=True)
class Gold:
    """A gold program prepared for comparisons.

    symbols: operand text (or the whole text of a table step) -> code. identities: node -> canonical number.
    """

    form: Form
    symbols: dict[str, int]
    identities: dict[Hashable, int]
    identity: int
    value: tuple[int, int] | None
    readable: bool | None  # by sympy; None: not known yet


def prepare_gold(steps: Sequence[Step]) -> Gold | None:
    """The gold program's symbols and expression; None if the script aborts on it."""
    symbols: dict[str, int] = {}
    for op, arg1, arg2, text in steps:
        for name in (text,) if "table" in op else (arg1, arg2):
            if "table" in op or "#" not in name:
                symbols.setdefault(name, -len(symbols) - 1)
    nodes: list[Node | None] = []
    for op, arg1, arg2, text in steps:
        if "table" in op:
            nodes.append(("symbol", symbols[text], symbols[text]))
        else:
            left = _gold_step(arg1) if "#" in arg1 else symbols[arg1]
            right = _gold_step(arg2) if "#" in arg2 else symbols[arg2]
            nodes.append((op, left, right) if op in _SIGNS else None)
    order = _reachable(nodes)
    if order is None:
        return None
    form = Form(nodes, len(nodes) - 1, order)
    if form.inner_greater or form.levels > MAX_LEVELS:
        return None
    identities: dict[Hashable, int] = {}
    identity_of: dict[int, int] = {}
    for index in order:
        node = nodes[index]
        assert node is not None
        op, left, right = node
        if op == "symbol":
            identity_of[index] = left
        else:
            key = _key(
                op,
                identity_of[left] if left >= 0 else left,
                identity_of[right] if right >= 0 else right,
            )
            identity_of[index] = identities.setdefault(key, len(identities))
    value = None if form.transcendental else form.fraction()
    readable = True if value is not None or _plain(form) else None
    return Gold(form, symbols, identities, identity_of[form.root], value, readable)


def equivalent(gold: Gold | None, steps: Sequence[Step]) -> bool:
    """Whether the steps are equal to the gold program by the script's rules."""
    if gold is None or not steps:
        return False
    symbols, identities = gold.symbols, gold.identities
    nodes: list[Node | None] = []
    found: list[int | None] = []  # each step's canonical number in the gold program
    for index, (op, arg1, arg2, text) in enumerate(steps):
        if "table" in op:
            code = symbols.get(text)
            if code is None:
                return False
            nodes.append(("symbol", code, code))
            found.append(code)
            continue
        left = symbols.get(arg1) if "#" not in arg1 else _earlier(arg1, index)
        right = symbols.get(arg2) if "#" not in arg2 else _earlier(arg2, index)
        if left is None or right is None:
            return False
        if op not in _SIGNS or left == _MISSING or right == _MISSING:
            nodes.append(None)
            found.append(None)
            continue
        nodes.append((op, left, right))
        one = found[left] if left >= 0 else left
        two = found[right] if right >= 0 else right
        found.append(None if one is None or two is None else identities.get(_key(op, one, two)))
    if found[-1] is not None and found[-1] == gold.identity:
        return gold.readable or (gold.readable is None and _ask(gold.form, gold.form))
    order = _reachable(nodes)
    if order is None:
        return False
    form = Form(nodes, len(nodes) - 1, order)
    if form.inner_greater or form.is_greater != gold.form.is_greater or form.levels > MAX_LEVELS:
        return False
    same = _same_value(gold, form)
    if same is False:
        return False
    if max(form.leaves, gold.form.leaves) > MAX_LEAVES:
        return same is True
    return _ask(gold.form, form)


_MISSING = 1 << 60  # an operand that names no step


def _gold_step(name: str) -> int:
    """The step that a gold program's reference names, earlier or not."""
    try:
        step = int(name.replace("#", ""))
    except ValueError:
        return _MISSING
    return step if step >= 0 else _MISSING


def _earlier(name: str, index: int) -> int | None:
    """The step that a predicted reference names; `_MISSING` for a negative one, None for one that is not earlier."""
    try:
        step = int(name.strip("#"))
    except ValueError:
        return None
    return None if step >= index else step if step >= 0 else _MISSING


def _key(op: str, left: int, right: int) -> Hashable:
    return (op, right, left) if right < left and op in _COMMUTATIVE else (op, left, right)


def _reachable(nodes: Sequence[Node | None]) -> list[int] | None:
    """Indices of the nodes under the last one, operands first; None if one is missing or depends on itself."""
    order: list[int] = []
    state: dict[int, bool] = {}  # False: its operands are being visited; True: done
    stack = [len(nodes) - 1]
    while stack:
        index = stack[-1]
        if state.get(index):
            stack.pop()
            continue
        node = nodes[index] if 0 <= index < len(nodes) else None
        if node is None:
            return None
        waiting = (
            [k for k in node[1:] if isinstance(k, int) and k >= 0 and not state.get(k)]
            if node[0] != "symbol"
            else []
        )
        if not waiting:
            state[index] = True
            order.append(index)
            stack.pop()
        elif index in state:
            return None
        else:
            state[index] = False
            stack.extend(dict.fromkeys(waiting))
    return order


def _same_value(gold: Gold, form: Form) -> bool | None:
    """False: certainly unequal. True: equal at the random points. None: one of the two has no value there."""
    if not gold.form.transcendental and not form.transcendental:
        value = form.fraction()
        if value is None or gold.value is None:
            return None
        return (value[0] * gold.value[1] - value[1] * gold.value[0]) % PRIME == 0
    same: bool | None = None
    small = Decimal("1e-25")
    for point in range(_POINTS):
        gold_values, values_here = gold.form.decimals(point), form.decimals(point)
        if gold_values is None or values_here is None:
            continue
        one, two = gold_values[gold.form.root], values_here[form.root]
        if form.is_greater:
            # Equal relations may differ by a positive factor, so only opposite signs prove them unequal.
            if abs(one) > small and abs(two) > small and (one > 0) != (two > 0):
                return False
        elif abs(one - two) > small * max(abs(one), abs(two), Decimal(1)):
            return False
        same = True
    return same


def _plain(form: Form) -> bool:
    """Whether sympy certainly reads the expression: no zero in it could make an undefined or complex number."""
    if form.operations == {"exp"} or form.operations == {"greater"}:
        return True
    if "exp" in form.operations and form.is_greater:
        return False
    values = form.decimals(0)
    return values is not None and all(
        value != 0 for index, value in values.items() if index != form.root
    )


def _ask(gold: Form, predicted: Form) -> bool:
    if max(gold.leaves, predicted.leaves) > MAX_LEAVES:
        return gold is predicted
    return _compare(gold.text(), predicted.text())


@lru_cache(maxsize=1 << 16)
def _compare(gold: str, predicted: str) -> bool:
    one = _simplified(gold)
    return one is not None and bool(one == _simplified(predicted))


@lru_cache(maxsize=1 << 14)
def _simplified(expression: str) -> Any:
    from sympy import simplify  # half a second to import, and most programs never need it

    try:
        return simplify(expression, evaluate=False)
    except Exception:  # whatever sympy raises, the script counts as unequal
        return None


@lru_cache(maxsize=1 << 14)
def _residue(code: int) -> int:
    return random.Random(-code).randrange(1, PRIME)


@lru_cache(maxsize=1 << 14)
def _decimal(code: int, point: int) -> Decimal:
    """A number between 0.5 and 2 for a symbol, so that towers of `exp` stay small."""
    return Decimal(
        random.Random(-code * _POINTS + point).randrange(5 * 10**17, 2 * 10**18)
    ) / Decimal(10**18)
