"""Observations in fewer words: a thing and its state on one line, without articles, air, and what is empty of itself."""

from __future__ import annotations

import re

LONGEST = 1200  # characters; a list of all that an action could mean may have more
_REPLACED = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (
            r"^This (?:room|outside location) is called the (.*)\. (?:In it|Here),? you see:$",
            r"\1:",
        ),
        (r"\(that is (open|closed)\)", r"(\1)"),
        (r"\. The [\w ]+? door is (open|closed)\.", r" (\1)."),
        (r",? which is (?:turned )?(\w+)", r" (\1)"),
        (r"\.? (?:In|On) the [\w ]+? is: nothing\.$", ""),
        (r"\.? (?:In|On) the [\w ]+? is: (.*?)\.$", r": \1"),
        (r"\(containing nothing\)", "(empty)"),
        (r", currently reading a temperature of (-?\d+) degrees celsius", r" (\1 degrees)"),
        (r"\ba substance called ", ""),
        (r"(?<![^\s(])(?:[Aa]n?|the) ", ""),
    )
]
_DOOR = re.compile(r"^door to (.*)$")
_LEFT_OUT = {"agent", "air", "You also see:"}


def shorten(text: str) -> str:
    """An observation in fewer words, cut off after `LONGEST` characters."""
    lines, doors = [], []
    for line in text.split("\n"):
        short = line.strip()
        if line.startswith(("\t", "This room", "This outside")):
            for pattern, replacement in _REPLACED:
                short = pattern.sub(replacement, short)
            short = short.removesuffix(".")
        door = _DOOR.match(short)
        if door is not None:
            doors.append(door[1])
        elif short and short not in _LEFT_OUT:
            lines.append(short)
    if doors:
        lines.append(f"doors to: {', '.join(doors)}")
    found = "\n".join(lines)
    return found if len(found) <= LONGEST else f"{found[: LONGEST - 3]}..."
