"""What the tasks about programs share: calling a function on literals, and comparing outputs outside the sandbox."""

from __future__ import annotations

import ast

from posttrain.tasks.sandbox import Result

ENDS = ("syntax_error", "timeout", "memory", "output_limit", "not_text", "crash", "wrong_answer")
MAX_LITERAL = 10_000  # characters of an output that are read as a value

_SYNTAX = ("SyntaxError", "IndentationError", "TabError")
_CALL = """
import ast as _ast, sys as _sys
print("\\n" + repr({name}(*_ast.literal_eval(_sys.stdin.read()))))
"""


def calling(program: str, name: str) -> str:
    """The program, followed by a call of its function with the arguments on stdin, a tuple of literals."""
    return f"{program}\n{_CALL.format(name=name)}"


def ended(result: Result) -> str:
    """What is wrong with a run whose output is not the expected one, one of `ENDS`."""
    if result.status == "ok":
        return "wrong_answer"
    if result.status == "error":
        return "syntax_error" if result.error.partition(":")[0] in _SYNTAX else "crash"
    return result.status


def same_text(found: str, expected: str) -> bool:
    """Whether two outputs are equal, apart from spaces at the ends of lines and empty lines at the end."""
    return _lines(found) == _lines(expected)


def _lines(text: str) -> list[str]:
    return "\n".join(line.rstrip() for line in text.split("\n")).rstrip("\n").split("\n")


def same_value(found: str, expected: str) -> bool:
    """Whether the last line of an output is the expected Python value, or the same text where it is no literal."""
    last = found.rstrip("\n").rpartition("\n")[2]
    if len(last) > MAX_LITERAL:
        return False
    try:
        return bool(ast.literal_eval(last) == ast.literal_eval(expected))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return last == expected
