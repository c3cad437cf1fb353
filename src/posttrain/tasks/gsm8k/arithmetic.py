"""Exact arithmetic for calculator annotations: decimals, + - * /, brackets. Nothing is ever evaluated as code.

    evaluate("100-50-30-15") == 5        evaluate(".20*85") == 17

The lengths of an expression and of its numbers are bounded, so any text is safe to evaluate.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache

from posttrain.tasks.texts import CURRENCIES, SEPARATORS, UNSIGNED, plain

MAX_EXPRESSION = 100  # characters
MAX_NUMBER = 30
ROUNDING = Fraction(1, 100)  # largest relative error of a rounded result
DECIMALS = 4  # of a result without end

_TOKEN = re.compile(r"\s*(\d+\.?\d*|\.\d+|[-+*/()])")
_NUMBER = re.compile(rf"(?:-?(?:[{CURRENCIES}] ?)?|[{CURRENCIES}]-)({UNSIGNED})[{CURRENCIES}]?\.?")

Token = str | Fraction  # a number as written or as a value, an operator, a bracket


class InvalidExpression(ValueError):
    """The text is not an expression, or divides by zero."""


@lru_cache(maxsize=1 << 14)
def read_number(text: str) -> Fraction | None:
    """The value of a decimal; None for any other text, also for one that begins with a number ("1/2", "1,5", "5 %").

    Ignored: a currency sign, separators of thousands, and a full stop after the number. Any minus sign is one.
    """
    match = _NUMBER.fullmatch(plain(text))
    if match is None:
        return None
    number = match[1].translate(SEPARATORS)
    if len(number) > MAX_NUMBER:
        return None
    value = Fraction(number)
    return -value if "-" in match[0] else value


def format_number(value: Fraction, decimals: int = 0) -> str:
    """The shortest decimal, with at least `decimals` places; one without end is rounded to `DECIMALS`."""
    if value.denominator == 1 and not decimals:
        return str(value.numerator)
    scaled = round(abs(value) * 10**DECIMALS)
    whole, part = divmod(scaled, 10**DECIMALS)
    digits = f"{part:0{DECIMALS}d}".rstrip("0").ljust(decimals, "0")
    return f"{'-' if value < 0 else ''}{whole}{'.' if digits else ''}{digits}"


def tokenize(expression: str) -> list[str]:
    """Numbers, operators and brackets; `InvalidExpression` for anything else."""
    if len(expression) > MAX_EXPRESSION:
        raise InvalidExpression(f"longer than {MAX_EXPRESSION} characters")
    tokens = []
    expression = plain(expression)
    position, end = 0, len(expression.rstrip())
    while position < end:
        match = _TOKEN.match(expression, position)
        if match is None:
            raise InvalidExpression(f"{expression[position]!r} is no arithmetic")
        tokens.append(match[1])
        position = match.end()
    return tokens


def evaluate(expression: str | Sequence[Token]) -> Fraction:
    """The value of an expression, or of its tokens; `InvalidExpression` if it has none."""
    parser = _Parser(tokenize(expression) if isinstance(expression, str) else expression)
    value = parser.sum()
    if parser.token is not None:
        raise InvalidExpression(f"unexpected {parser.token}")
    return value


def agrees(stated: str, value: Fraction) -> bool:
    """Whether a written result is the value: exactly, or rounded to its last digit and at most 1 % off."""
    number = read_number(stated)
    if number is None:
        return False
    unit = Fraction(1, 10 ** len(stated.partition(".")[2]))
    return number == value or abs(number - value) <= min(unit / 2, ROUNDING * abs(value))


class _Parser:
    """Recursive descent over sums of products of signed numbers and brackets."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        self.tokens = tokens
        self.position = 0

    @property
    def token(self) -> Token | None:
        return self.tokens[self.position] if self.position < len(self.tokens) else None

    def sum(self) -> Fraction:
        value = self._product()
        while self.token in ("+", "-"):
            sign = 1 if self._next() == "+" else -1
            value += sign * self._product()
        return value

    def _product(self) -> Fraction:
        value = self._factor()
        while self.token in ("*", "/"):
            if self._next() == "*":
                value *= self._factor()
                continue
            divisor = self._factor()
            if not divisor:
                raise InvalidExpression("division by zero")
            value /= divisor
        return value

    def _factor(self) -> Fraction:
        token = self._next()
        if isinstance(token, Fraction):
            return token
        if token in ("+", "-"):  # the data set has "+8", which its own calculator takes
            return self._factor() if token == "+" else -self._factor()
        if token == "(":
            value = self.sum()
            if self._next() != ")":
                raise InvalidExpression("a bracket is not closed")
            return value
        number = read_number(token)
        if number is None:
            raise InvalidExpression(f"unexpected {token}")
        return number

    def _next(self) -> Token:
        token = self.token
        if token is None:
            raise InvalidExpression("the expression breaks off")
        self.position += 1
        return token
