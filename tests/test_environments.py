"""Reading the one action of an answer."""

from __future__ import annotations

import pytest

from posttrain.environments import Form, read_action


@pytest.mark.parametrize(
    ("answer", "form", "action"),
    [
        ("Action: go north", "short", "go north"),
        ("  Action:   go north \n", "short", "go north"),
        ("Thought: it is cold.\nAction: go north", "thought", "go north"),
        ("Thought:\nit is cold.\n\nAction:\ngo north", "thought", "go north"),
        ("go north", "short", None),
        ("Action: go north\nAction: go south", "short", None),
        ("Action: go north\nand south", "short", None),
        ("I will. Action: go north", "short", None),
        ("Action:", "short", None),
        ("Action: go north", "thought", None),
        ("", "short", None),
    ],
)
def test_an_answer_has_one_action_in_its_form_or_none(
    answer: str, form: Form, action: str | None
) -> None:
    found = read_action(answer, form)
    assert found.text == action
    assert (found.error is None) == (action is not None)
