"""Questions beside environments are episodes of one turn; trainings on some parts of a mixture; curricula."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hallway import TOKENIZER, hallway_params, hallway_task, start, walker
from stages.demonstrations import demonstrate
from workspace import ROOT

from posttrain.core.errors import UserError
from posttrain.core.files import write_jsonl
from posttrain.core.methods import check_methods
from posttrain.core.params import check_params, load_params
from posttrain.environments.question import Question
from posttrain.environments.scripted import expert, first_legal
from posttrain.generator import data
from posttrain.generator.curriculum import Groups
from posttrain.generator.data import IGNORED, Data, of_parts
from posttrain.generator.settings import Curriculum
from posttrain.models.tokens import tokenize_answers
from posttrain.rollouts.episode import Episode
from posttrain.rollouts.play import Policy, Scripted, off_path, play
from posttrain.rollouts.record import score_episode
from posttrain.rollouts.sampling import sample
from posttrain.tasks import Score, Task, is_question

WEIGHTS = {"first": 3.0, "short": 1.0}
LIMITS = {"max_prompt_tokens": 64, "max_candidate_tokens": 3}


def question(number: int) -> dict[str, Any]:
    """Where to walk, answered in one word."""
    side = ("left", "right")[number % 2]
    row = start(number) | {"id": f"q{number}", "target": side, "form": "answer", "turns": 1}
    return row | {"part": "sides", "level": number % 2}


def score(text: str, example: Any) -> Score:
    right = text == example["side"]
    parts = {"first": float(text[:1] == example["side"][0]), "short": float(len(text) < 6)}
    return Score(right, parts, status="scored" if text else "unparseable")


def both() -> Task:
    task = hallway_task()
    return Task(task.examples, task.prompt, score, task.open)


def params_of(**episodes: Any) -> Any:
    params = hallway_params(**episodes)
    entry = params.selected_model.model_copy(update=LIMITS)
    reward = params.reward.model_copy(update={"weights": WEIGHTS})
    return params.model_copy(update={"models": {params.model: entry}, "reward": reward})


TASK, PARAMS = both(), params_of()
WALKS = [start(number) | {"part": "walks", "level": 2} for number in range(4)]
STARTS = [(row, 0) for pair in zip(WALKS, map(question, range(4)), strict=True) for row in pair]


def by_kind(episodes: list[Episode]) -> tuple[list[Episode], list[Episode]]:
    walks = [one for one in episodes if one.id[0] == "h"]
    return walks, [one for one in episodes if one.id[0] == "q"]


# ------------------------------------------------------------------------------------ one engine


def test_the_expert_of_a_question_gives_its_gold_answer_and_explores_nothing() -> None:
    for player in (Scripted(expert, "short"), off_path(0.9, "short")):
        _, questions = by_kind(play(player, TASK, PARAMS, STARTS))
        for episode, (row, _) in zip(questions, STARTS[1::2], strict=True):
            (step,) = episode.steps
            assert (step.text, step.explored, episode.end) == (row["side"], False, "goal")
            assert episode.score == 1.0 and episode.verdict == score(row["side"], row)
    walks, questions = by_kind(play(Scripted(first_legal, "short"), TASK, PARAMS, STARTS))
    assert [episode.end for episode in questions] == ["failed"] * 4
    assert {episode.end for episode in walks} == {"goal", "limit"}


@pytest.mark.parametrize(
    ("text", "end", "reward", "valid"),
    [
        ("left", "goal", 1.0, True),
        ("lost", "failed", 1.0, True),
        ("Action: left", "failed", 0.0, True),
        ("", "failed", 0.25, False),
        ("left\nAction: left\nAction: left", "failed", 0.75, True),
    ],
)
def test_the_whole_text_is_the_answer_and_earns_what_the_task_gives(
    text: str, end: str, reward: float, valid: bool
) -> None:
    class Says(Scripted):
        def _write(self, each: Any, environment: Any) -> Any:
            return super()._write(each, environment).__class__(text, finished=False)

    (episode,) = play(Says(expert, "short"), TASK, PARAMS, [(question(0), 0)])
    (step,) = episode.steps
    assert (episode.end, step.action, step.valid) == (end, text, valid)
    assert episode.score == step.reward == reward
    record = score_episode(episode, policy="sft", index=0)
    assert record["parts"] == score(text, question(0)).parts and record["reward"] == reward
    failure = None if end == "goal" else "wrong_answer" if valid else "unparseable"
    assert (record["correct"], record["failure"], record["finished"]) == (
        end == "goal",
        failure,
        False,
    )


def test_a_question_is_answered_once() -> None:
    environment = Question(TASK, WEIGHTS)
    assert environment.reset(question(0)) == question(0)["question"]
    assert environment.step("left").end == "goal" and environment.expert() is None
    with pytest.raises(RuntimeError, match="is answered"):
        environment.step("left")


@pytest.mark.parametrize("slots", [1, 3])
def test_episodes_of_both_kinds_depend_on_neither_slots_nor_each_other(slots: int) -> None:
    def played(starts: Any, **episodes: Any) -> list[Episode]:
        player = Policy(walker(0), TOKENIZER, sample, PARAMS, temperature=1.0, seed=5, step=2)
        return play(player, TASK, params_of(**episodes), starts)

    expected = played(STARTS)
    assert played(STARTS, slots=slots) == expected
    assert played(STARTS[1::2]) == expected[1::2] and played(STARTS[::2]) == expected[::2]
    walks, questions = by_kind(expected)
    assert walks == play(
        Policy(walker(0), TOKENIZER, sample, PARAMS, temperature=1.0, seed=5, step=2),
        hallway_task(),
        PARAMS,
        STARTS[::2],
    )
    longest = [
        max(length for one in some for row in one.rows for length in row.lengths)
        for some in (walks, questions)
    ]
    assert 3 < longest[0] <= 8, "a turn has episodes.turn_tokens"
    assert longest[1] == 3, "an answer has the model's max_candidate_tokens"


def test_sft_learns_gold_answers_and_the_experts_turns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "DEMONSTRATIONS", tmp_path)
    examples = [row for row, _ in STARTS]
    records, told = demonstrate(TASK, PARAMS, examples)
    assert told["demonstrated"] == 8
    write_jsonl(tmp_path / "train.jsonl", records)
    entry = PARAMS.selected_model
    found = Data(examples, TOKENIZER, entry, tmp_path, tmp_path, PARAMS.episodes).gold_answers()
    learned = [[id for id in row["labels"] if id != IGNORED] for row in found]
    gold = tokenize_answers([row["side"] for row in examples[1::2]], TOKENIZER)
    assert learned[1::2] == gold
    turns = tokenize_answers(["Action: left", "Action: right"], TOKENIZER)
    assert learned[0][-len(turns[0]) :] == turns[0] and learned[2][-len(turns[1]) :] == turns[1]


# ------------------------------------------------------------------------------------ some parts


def test_parts_to_train_on_are_all_the_environments_or_those_named() -> None:
    rows = [row for row, _ in STARTS]
    assert of_parts(rows, "all") == rows
    assert of_parts(rows, "environments") == WALKS
    assert of_parts(rows, ["sides"]) == [row for row in rows if is_question(row)]
    assert of_parts([{"id": "x", "part": "sides"}], "environments") == []


@pytest.mark.parametrize(
    ("dataset", "section", "parts", "problem"),
    [
        ("agentgym", "ppo", ["textcraf"], "not a part of agentgym; did you mean 'textcraft'?"),
        ("sample", "common", ["sample"], "'sample' is not a part of sample"),
        ("affine", "sft", "environments", "affine has no environments; write all"),
        ("affine", "sample", ["sta"], "not a part of affine; did you mean 'sat'?"),
        ("affine-agentgym", "common", "environments", None),
        ("affine-agentgym", "ppo", ["sat", "babyai"], None),
    ],
)
def test_parts_that_a_data_set_does_not_have_are_one_line(
    dataset: str, section: str, parts: Any, problem: str | None
) -> None:
    values = load_params(ROOT / "params.yaml").model_dump() | {"dataset": dataset}
    values["generator"][section]["parts"] = parts
    params = check_params(values)
    if problem is None:
        check_methods(params)
        return
    with pytest.raises(UserError, match=r"^params.yaml: generator\.\w+\.parts: ") as error:
        check_methods(params)
    assert str(error.value).endswith(problem)


# ------------------------------------------------------------------------------------ curricula


def groups(steps: int = 6, **settings: Any) -> Groups:
    rows = [question(number) for number in range(4)] + WALKS
    return Groups(Curriculum(**{"by": "level"} | settings), rows, steps)


def earned(*rewards: float) -> list[Any]:
    return [SimpleNamespace(score=reward, end="failed") for reward in rewards]


def test_groups_open_in_equal_parts_of_the_training() -> None:
    found = groups()
    asked = [{*found.ask(20, 0, step)} for step in range(6)]
    opened = [{0, 2}, {0, 1, 2, 3}, {*range(8)}]
    assert asked == [opened[0]] * 2 + [opened[1]] * 2 + [opened[2]] * 2
    by_part = groups(by="part", order=["walks", "sides"])
    assert {*by_part.ask(20, 0, 0)} == {4, 5, 6, 7}
    draws = {tuple(found.ask(3, seed, 5)) for seed in range(9)}
    assert len(draws) > 4 and all(len({*draw}) == 3 for draw in draws)
    assert found.ask(3, 7, 5) == groups().ask(3, 7, 5)


def test_the_next_group_opens_once_the_newest_earns_enough() -> None:
    found = groups(reward=0.6)
    assert {*found.ask(9, 0, 5)} == {0, 2}
    assert found.learn([0, 2], earned(1.0, 1.0, 0.0, 1.0)) == {
        "open_groups": 1,
        "newest_reward": 0.75,
    }
    assert found.state.tolist() == [1, 0.375]
    found.learn([0, 2], earned(1.0, 1.0, 1.0, 1.0))
    assert found.state.tolist() == [2, 0] and {*found.ask(9, 0, 0)} == {0, 1, 2, 3}
    # Of group 0 nothing counts any more, and without one of the newest the mean stays.
    assert found.learn([0], earned(1.0, 1.0)) == {"open_groups": 2}
    for _ in range(3):
        found.learn([0, 1], earned(0.0, 0.0, 1.0, 1.0))
    assert found.state[0] == 3
    for _ in range(9):
        found.learn([4], earned(1.0, 1.0))
    assert found.state[0] == 3, "there are no more"


def test_a_group_that_is_not_there_is_one_line() -> None:
    with pytest.raises(UserError, match=r"curriculum\.by: q0 has no 'depth'"):
        groups(by="depth")
    with pytest.raises(UserError, match=r"order: expected the groups .* questions, 0, 1, 2$"):
        groups(order=[0, 1])
