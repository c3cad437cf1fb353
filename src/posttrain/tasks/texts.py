"""What answers of all tasks have in common as texts: thoughts before the answer, and numbers as people write them.

FinQA's official verdicts use none of it.
"""

from __future__ import annotations

import re

CURRENCIES = "$€£¥₹"
SPACES = "\u00a0\u2007\u2009\u202f"  # no-break, figure, thin, narrow no-break

# Thousands are separated by commas (also as in 1,23,456) or by one of `SPACES`, so "1,5" and "1 234" are no numbers.
UNSIGNED = rf"(?:(?:(?!0)\d{{1,3}}(?:,\d{{2,3}})*,\d{{3}}|(?!0)\d{{1,3}}(?:[{SPACES}]\d{{3}})+|\d+)(?:\.\d+)?|\.\d+)"

SEPARATORS = str.maketrans("", "", f",{SPACES}")

_MINUS = "\u2010\u2011\u2012\u2013\u2212\ufe63\uff0d"  # hyphens, figure dash, en dash, minus
_PLAIN = str.maketrans(
    {**dict.fromkeys(_MINUS, "-"), **dict(zip("＋．，＄％", "+.,$%", strict=True))}
)
_THOUGHT_END = re.compile(r"</think(?:ing)?>|\[/THINK\]")
_THOUGHT_START = re.compile(r"<think(?:ing)?>|\[THINK\]")


def without_thoughts(text: str) -> str:
    """The text after its last `</think>`, and before any `<think>` there that is not closed.

    `<thinking>` and `[THINK]` are the same. A text that was cut short while it thought has no answer.
    """
    start = max((match.end() for match in _THOUGHT_END.finditer(text)), default=0)
    unclosed = _THOUGHT_START.search(text, start)
    return text[start : unclosed.start() if unclosed else None]


def plain(text: str) -> str:
    """The text with ASCII signs, character for character: any minus or dash that may be one, full-width points."""
    return text.translate(_PLAIN)
