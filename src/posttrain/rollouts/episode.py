"""Episodes: what a policy read and wrote, in tokens and in words, and the rewards of its turns.

    prompt | answer 1 | observation 1 | answer 2 | ...       the answers are turns; all other tokens are read, not trained on

Token ids are appended and never made again from text, so those that are trained on are those that were sampled. An
episode is one row while that is no longer than `context`. Before the turn that might not fit, another row begins: the
prompt, and as many of the last whole turns as fill half of it. So every answer is a turn of exactly one row, after the
very tokens that it was sampled from. Masks and rewards derive from turns, so they cannot disagree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

from transformers import PreTrainedTokenizerBase

from posttrain.core.errors import UserError
from posttrain.core.params import Episodes
from posttrain.environments import End
from posttrain.models.tokens import tokenize_answers, tokenize_observations
from posttrain.tasks import Example, Score, is_question


@dataclass(frozen=True, slots=True)
class Turn:
    """The ids from `start` to before `stop` of a row, which the policy wrote, and the reward after them."""

    start: int
    stop: int
    reward: float


@dataclass(frozen=True, slots=True)
class Row:
    """What one forward pass reads: token ids, and the policy's turns in them, from left to right."""

    ids: tuple[int, ...]
    turns: tuple[Turn, ...]

    def __post_init__(self) -> None:
        before = 1  # a state comes before every action
        for turn in self.turns:
            if not before <= turn.start < turn.stop <= len(self.ids):
                raise ValueError(f"{turn} is no turn of {len(self.ids)} ids, or not after another")
            before = turn.stop

    @classmethod
    def masked(cls, ids: Sequence[int], actions: Sequence[bool]) -> Row:
        """A row whose turns are the stretches of actions, without rewards."""
        place, turns = 0, []
        for action, stretch in groupby(actions):
            start, place = place, place + len([*stretch])
            if action:
                turns.append(Turn(start, place, 0.0))
        return cls(tuple(ids), tuple(turns))

    @property
    def actions(self) -> list[bool]:
        """Which of the ids the policy wrote."""
        found = [False] * len(self.ids)
        for turn in self.turns:
            found[turn.start : turn.stop] = [True] * (turn.stop - turn.start)
        return found

    @property
    def lengths(self) -> list[int]:
        """Tokens of each turn."""
        return [turn.stop - turn.start for turn in self.turns]

    @property
    def prompt(self) -> tuple[int, ...]:
        """The ids before the one turn that ends the row, else none."""
        alone = len(self.turns) == 1 and self.turns[0].stop == len(self.ids)
        return self.ids[: self.turns[0].start] if alone else ()


@dataclass(frozen=True, slots=True)
class Step:
    """A turn in words.

    text: the whole answer. action: the one in it, None if it had not the form that was asked for. observation: what the
    policy reads next. finished: whether the answer has an end token. explored: a random action before a scripted player
    took over, which is read and never trained on.
    """

    text: str
    action: str | None
    valid: bool
    reward: float
    observation: str
    finished: bool = True
    explored: bool = False


@dataclass(frozen=True, slots=True)
class Episode:
    """One play of the example `id`; `sample` counts those of the same example.

    rows: empty for scripted players, and where the end is an error. end: None in a task of one turn. score: the sum of
    the rewards. error: what went wrong, if the end is an error. verdict: on the answer to a question, where a data set has
    environments too.
    """

    id: str
    sample: int
    rows: tuple[Row, ...]
    steps: tuple[Step, ...]
    end: End | None
    score: float
    error: str | None = None
    verdict: Score | None = None

    def record(self, policy: str) -> dict[str, Any]:
        """The episode as a JSON object, without token ids."""
        return {
            "id": self.id,
            "sample": self.sample,
            "policy": policy,
            "turns": [asdict(step) for step in self.steps],
            "end": self.end,
            "score": self.score,
        }


def read_record(
    record: Mapping[str, Any],
    prompt: Sequence[int],
    tokenizer: PreTrainedTokenizerBase,
    context: int,
    turn_tokens: int,
) -> Episode:
    """The episode of a `record`, with rows as if its answers had been sampled after the ids `prompt`.

    context, turn_tokens: as in `Window`. Turns that a player explored are no turns of the rows.
    """
    steps = tuple(Step(**turn) for turn in record["turns"])
    answers = tokenize_answers([step.text for step in steps], tokenizer)
    observations = tokenize_observations([step.observation for step in steps], tokenizer)
    window = Window(prompt, context, turn_tokens)
    for place, (step, ids) in enumerate(zip(steps, answers, strict=True)):
        if place:
            window.read(observations[place - 1])
        window.write(ids if step.finished else ids[:-1])
    rows = window.rows(steps)
    return Episode(record["id"], record["sample"], rows, steps, record["end"], record["score"])


def limits(
    example: Example, prompt: Sequence[int], settings: Episodes, answer_tokens: int
) -> tuple[int, int]:
    """The `context` and `turn_tokens` of an example's `Window`.

    answer_tokens: the most tokens of an answer to a question, whose one row has no other limit.
    """
    if is_question(example):
        return len(prompt) + answer_tokens, answer_tokens
    return settings.context, settings.turn_tokens


def completion_episode(
    prompt: Sequence[int],
    completion: Sequence[int],
    reward: float,
    *,
    id: str = "",
    sample: int = 0,
    text: str = "",
    finished: bool = True,
) -> Episode:
    """An episode of one turn, rewarded at its last token."""
    if not prompt or not completion:
        raise ValueError("an episode needs a prompt and at least one action")
    ids = (*prompt, *completion)
    rows = (Row(ids, (Turn(len(prompt), len(ids), reward),)),)
    steps = (Step(text, None, True, reward, "", finished),)
    return Episode(id, sample, rows, steps, None, reward)


class Window:
    """The rows of an episode while it is played.

    context: the most tokens of a row. turn_tokens: the most tokens of an answer, for which `read` leaves room.
    `UserError` if `context` is too short for the prompt, the last turn and an answer.
    """

    def __init__(self, prompt: Sequence[int], context: int, turn_tokens: int) -> None:
        self.prompt = list(prompt)
        self.context = context
        self.turn_tokens = turn_tokens
        self.turns: list[list[int]] = []  # ids of each answer and of the observation after it
        self.written: list[tuple[list[int], list[tuple[int, int]]]] = []
        self._begin(self.prompt)

    @property
    def ids(self) -> list[int]:
        """The ids of the present row, after which the next answer is sampled."""
        return self.written[-1][0]

    def write(self, ids: Sequence[int]) -> None:
        """Append an answer."""
        row, spans = self.written[-1]
        spans.append((len(row), len(row) + len(ids)))
        row += ids
        self.turns.append(list(ids))

    def read(self, ids: Sequence[int]) -> None:
        """Append the observation after the last answer, or begin another row that ends with both."""
        self.turns[-1] += ids
        if len(self.ids) + len(ids) + self.turn_tokens <= self.context:
            self.ids.extend(ids)
            return
        kept = self.turns[-1:]
        length = len(self.prompt) + len(kept[0])
        for turn in reversed(self.turns[:-1]):
            length += len(turn)
            if length > self.context // 2:
                break
            kept.insert(0, turn)
        self._begin([*self.prompt, *(id for turn in kept for id in turn)])

    def rows(self, steps: Sequence[Step]) -> tuple[Row, ...]:
        """The rows, given the steps of the answers; those that were explored are no turns."""
        left = iter(steps)
        rows = []
        for ids, spans in self.written:
            played = [(span, next(left)) for span in spans]
            turns = (Turn(*span, step.reward) for span, step in played if not step.explored)
            rows.append(Row(tuple(ids), tuple(turns)))
        return tuple(row for row in rows if row.turns)

    def _begin(self, ids: list[int]) -> None:
        if len(ids) + self.turn_tokens > self.context:
            raise UserError(
                f"episodes.context: {self.context} tokens do not hold a prompt of {len(self.prompt)}, a turn of "
                f"{len(ids) - len(self.prompt)} and an answer of {self.turn_tokens}; raise it"
            )
        self.written.append((list(ids), []))
