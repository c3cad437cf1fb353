"""Playing episodes: a player, environments, and a queue over a number of slots.

    queue of (example, sample) -> slots          a round: one answer for each live slot, then their steps;
                                                 an ended slot is refilled at once

Random numbers are keyed by (seed, step, id, sample, turn), so an episode depends on neither its slot, nor the order or
number of the others. Several processes sample together, and each carries out the steps of its share of the environments.

A question of a task of one turn, in a data set that has environments too, is an episode of one turn: its action is the
whole answer, of at most the model's `max_candidate_tokens`. Those of a round are scored together.

An answer without the one action in its form is answered with what is wrong, costs its turn and earns nothing; so is one
that was cut off at `turn_tokens`, as the action in it may be half of one. An episode ends when the environment says so, or
with `limit` after the row's `turns`. An environment that raises or takes longer than `episodes.seconds` is opened anew, and
the actions so far are repeated in it, once; where that fails, or gives another observation or reward, the end is `error`.
Such an episode belongs to no mean. More than one of them, and 1 % of all, are a `UserError`.

A step is interrupted by a signal, so episodes are played in a process's main thread, and code outside Python is not
interrupted. Left out: keeping keys and values between the turns of an episode; steps that overlap with sampling.
"""

from __future__ import annotations

import math
import random
import signal
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from operator import itemgetter
from types import FrameType
from typing import Protocol, TypeVar

from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from posttrain.core import processes
from posttrain.core.errors import UserError
from posttrain.core.params import Params
from posttrain.core.progress import DELAY
from posttrain.environments import (
    Action,
    End,
    Environment,
    Form,
    Outcome,
    read_action,
    write_action,
)
from posttrain.environments.question import Question
from posttrain.environments.scripted import Choose, expert, random_legal
from posttrain.models.tokens import tokenize_observations, tokenize_prompts
from posttrain.rollouts.episode import Episode, Step, Window, limits
from posttrain.rollouts.sampling import Sampler
from posttrain.rollouts.writer import Generator
from posttrain.tasks import Example, Score, Task, is_question

MOST_ERRORS = 0.01  # share of the episodes

Item = TypeVar("Item")
Start = tuple[Example, int]  # and the number of the sample
# The step that was taken, the end of the episode if that is reached, what went wrong if that is an error, and the verdict
# on the answer to a question.
_Outcome = tuple[Step | None, End | None, str | None, Score | None]


@dataclass(slots=True)
class Playing:
    """An episode that is being played.

    mine: whether this process has its environment, which is None in the others. window: the rows so far, of a player that
    writes tokens. repeated: whether the environment has failed and its actions were repeated. verdict: on the answer to a
    question.
    """

    example: Example
    sample: int
    mine: bool = True
    environment: Environment | None = None
    steps: list[Step] = field(default_factory=list)
    window: Window | None = None
    repeated: bool = False
    verdict: Score | None = None

    @property
    def turn(self) -> int:
        """Turns taken."""
        return len(self.steps)

    def form(self, otherwise: Form) -> Form:
        """The form of its answers: that of its row, if that has one."""
        form: Form = self.example.get("form", otherwise)
        return form

    def key(self, step: int) -> str:
        """The key of the next turn's random numbers."""
        return f"{step}/{self.example['id']}/{self.sample}/{self.turn}"

    def close(self) -> None:
        """Close the environment, whatever state it is in."""
        environment, self.environment = self.environment, None
        if environment is not None:
            with suppress(Exception):  # it may be the broken one
                environment.close()


@dataclass(frozen=True, slots=True)
class Written:
    """An answer. explored: a random action of a scripted player, see `Step`."""

    text: str
    finished: bool = True
    explored: bool = False


class Player(Protocol):
    """Writes the next answer of each of some episodes."""

    def act(self, live: Sequence[Playing]) -> list[Written]: ...


class Policy:
    """A generator as a player. step: of the training, 0 outside one."""

    def __init__(
        self,
        model: Generator,
        tokenizer: PreTrainedTokenizerBase,
        sampler: Sampler,
        params: Params,
        *,
        temperature: float,
        top_p: float = 1.0,
        seed: int = 0,
        step: int = 0,
    ) -> None:
        self.model, self.tokenizer, self.sampler = model, tokenizer, sampler
        self.episodes, self.batch_size = params.episodes, params.sampling.batch_size
        self.answer_tokens = params.selected_model.max_candidate_tokens
        self.temperature, self.top_p, self.seed, self.step = temperature, top_p, seed, step

    def act(self, live: Sequence[Playing]) -> list[Written]:
        """Sample an answer to each episode's present row, and append it there."""
        windows = self._read(live)
        written: dict[int, Written] = {}
        for most in sorted({window.turn_tokens for window in windows}):
            places = [n for n, window in enumerate(windows) if window.turn_tokens == most]
            groups = self.sampler(
                self.model,
                self.tokenizer,
                [windows[place].ids for place in places],
                temperatures=[self.temperature],
                max_new_tokens=most,
                top_p=self.top_p,
                seed=self.seed,
                batch_size=self.batch_size,
                keys=[live[place].key(self.step) for place in places],
            )
            for place, (completion,) in zip(places, groups, strict=True):
                windows[place].write(completion.ids)
                written[place] = Written(completion.text, completion.finished)
        return [written[place] for place in range(len(live))]

    def _read(self, live: Sequence[Playing]) -> list[Window]:
        prompts = [e.example["prompts"]["direct"] for e in live if e.window is None]
        starts = iter(tokenize_prompts(prompts, self.tokenizer))
        texts = [each.steps[-1].observation for each in live if each.window is not None]
        observations = iter(tokenize_observations(texts, self.tokenizer))
        windows = []
        for each in live:
            if each.window is None:
                ids = next(starts)
                most = limits(each.example, ids, self.episodes, self.answer_tokens)
                each.window = Window(ids, *most)
            else:
                each.window.read(next(observations))
            windows.append(each.window)
        return windows


class Scripted:
    """A player that needs no model; it writes the actions of `choose`, which gets the environment and random numbers.

    off_path: probability that a turn, after none but such turns, is a random legal action in place of the chosen one, where
    such actions are known.
    """

    def __init__(self, choose: Choose, form: Form, *, off_path: float = 0.0, seed: int = 0) -> None:
        self.choose, self.form, self.off_path, self.seed = choose, form, off_path, seed

    def act(self, live: Sequence[Playing]) -> list[Written]:
        """The answer of each episode; one whose player has no action to choose is empty."""
        own = [
            (place, self._write(each, each.environment))
            for place, each in enumerate(live)
            if each.environment is not None
        ]
        return [*_together(own).values()]

    def _write(self, each: Playing, environment: Environment) -> Written:
        numbers = random.Random(f"{self.seed}/{each.key(0)}")
        explored = all(step.explored for step in each.steps) and numbers.random() < self.off_path
        action = random_legal(environment, numbers) if explored else None
        if action is None:
            explored, action = False, self.choose(environment, numbers)
        text = "" if action is None else write_action(action, each.form(self.form))
        return Written(text, explored=explored)


def off_path(epsilon: float, form: Form, seed: int = 0) -> Scripted:
    """Random legal actions, each followed by another with probability `epsilon`, then the expert."""
    return Scripted(expert, form, off_path=epsilon, seed=seed)


def play(
    player: Player,
    task: Task,
    params: Params,
    starts: Sequence[Start],
    *,
    turns: int | None = None,
    progress: str | None = None,
) -> list[Episode]:
    """An episode of each start, in their order.

    turns: the most turns of an episode, if that is fewer than its row says. progress: the name of a bar, which appears
    after `DELAY` seconds. `UserError` if too many environments fail.
    """
    world = _World(task, params)
    waiting = deque(enumerate(starts))
    live: dict[int, Playing] = {}
    ended: dict[int, Episode] = {}
    shown = _Shown(progress, len(starts))
    try:
        while waiting or live:
            begun = []
            while waiting and len(live) < params.episodes.slots:
                place, (example, sample) = waiting.popleft()
                mine = place % processes.count() == processes.index()
                live[place] = Playing(example, sample, mine)
                begun.append((place, live[place]))
            tried = _together([(place, world.begin(each)) for place, each in begun if each.mine])
            outcomes = {place: found for place, found in tried.items() if found is not None}
            acting = [(place, each) for place, each in live.items() if place not in outcomes]
            written = player.act([each for _, each in acting])
            own = [
                (place, each, answer)
                for (place, each), answer in zip(acting, written, strict=True)
                if each.mine
            ]
            world.judge([(each, answer) for _, each, answer in own])
            outcomes |= _together(
                [(place, world.take(each, answer, turns)) for place, each, answer in own]
            )
            for place, each in list(live.items()):
                step, end, error, each.verdict = outcomes[place]
                if step is not None:
                    each.steps.append(step)
                if end is not None:
                    ended[place] = _episode(each, end, error)
                    each.close()
                    del live[place]
            shown.update(ended, len(acting))
    finally:
        shown.bar.close()
        for each in live.values():
            each.close()
    episodes = [ended[place] for place in range(len(starts))]
    failed = sum(episode.end == "error" for episode in episodes)
    check_errors(failed, len(episodes), episodes)
    return episodes


def check_errors(failed: int, count: int, latest: Sequence[Episode]) -> None:
    """`UserError` if more than one and more than 1 % of `count` episodes ended with an error; it names one of the latest."""
    if failed > max(1, MOST_ERRORS * count):
        first = next(episode for episode in latest if episode.end == "error")
        raise UserError(
            f"{failed} of {count} episodes ended with an error of the environment, the last in episode {first.id}, turn "
            f"{len(first.steps) + 1}: {first.error}"
        )


def successes(episodes: Sequence[Episode]) -> float:
    """The share of the episodes that reached the goal, not counting those that ended with an error; 0 without others."""
    whole = [episode for episode in episodes if episode.end != "error"]
    return sum(episode.end == "goal" for episode in whole) / max(1, len(whole))


class _World:
    """Opens environments and carries out actions in them."""

    def __init__(self, task: Task, params: Params) -> None:
        self.task, self.params = task, params

    def begin(self, each: Playing) -> _Outcome | None:
        """Open the episode's environment; an outcome only if that fails twice."""
        try:
            self._open(each)
        except UserError:
            raise
        except Exception:
            try:
                self._open(each)
            except Exception as error:
                return None, "error", _told(error), None
        return None

    def judge(self, answered: Sequence[tuple[Playing, Written]]) -> None:
        """Score the answers to questions."""
        asked = [(each, answer.text) for each, answer in answered if is_question(each.example)]
        scores = self.task.scores([text for _, text in asked], [each.example for each, _ in asked])
        for (each, _), score in zip(asked, scores, strict=True):
            each.verdict = score

    def take(self, each: Playing, written: Written, turns: int | None) -> _Outcome:
        """Carry out the action of an answer, if it has one."""
        found = read_action(written.text, each.form(self.params.episodes.form))
        if not written.finished and not is_question(each.example):
            found = Action(None, f"cut off after {self.params.episodes.turn_tokens} tokens")
        if found.text is None:
            outcome = Outcome(f"Invalid answer: {found.error}.", valid=False)
        else:
            try:
                outcome = self._step(each, found.text)
            except UserError:
                raise
            except Exception as error:
                return None, "error", _told(error), None
        end: End | None = outcome.end
        if end is None and each.turn + 1 >= min(each.example["turns"], turns or math.inf):
            end = "limit"
        step = Step(
            written.text,
            found.text,
            outcome.valid,
            outcome.reward,
            outcome.observation,
            written.finished,
            written.explored,
        )
        return step, end, None, each.verdict

    def _step(self, each: Playing, action: str) -> Outcome:
        try:
            return self._act(each, action)
        except UserError:
            raise
        except Exception:
            if each.repeated:
                raise
        each.repeated = True
        self._open(each)
        for number, step in enumerate(each.steps):
            if step.action is not None:
                outcome = self._act(each, step.action)
                if (outcome.observation, outcome.reward) != (step.observation, step.reward):
                    raise RuntimeError(f"turn {number + 1} repeated has another outcome")
        return self._act(each, action)

    def _act(self, each: Playing, action: str) -> Outcome:
        assert each.environment is not None
        if isinstance(each.environment, Question):
            return each.environment.judged(each.verdict)
        with time_limit(self.params.episodes.seconds):
            return each.environment.step(action)

    def _open(self, each: Playing) -> None:
        assert self.task.open is not None
        each.close()
        if is_question(each.example):
            each.environment = Question(self.task, self.params.reward.weights)
            each.environment.reset(each.example)
            return
        with time_limit(self.params.episodes.seconds):
            each.environment = self.task.open(self.params, each.example)
            first = each.environment.reset(each.example)
        if first != each.example["question"]:
            raise RuntimeError("the first observation is not the row's question")


class _Shown:
    """A progress bar with the share of successes and turns per second."""

    def __init__(self, name: str | None, total: int) -> None:
        self.bar = tqdm(
            desc=name,
            total=total,
            unit=" episodes",
            delay=DELAY,
            mininterval=2,
            disable=name is None,
        )
        self.began, self.turns = time.monotonic(), 0

    def update(self, ended: Mapping[int, Episode], turns: int) -> None:
        """Show the episodes that have ended, after a round of so many turns."""
        self.turns += turns
        if not self.bar.disable:
            rate = self.turns / (time.monotonic() - self.began)
            success = f"{successes([*ended.values()]):.2f}"
            self.bar.set_postfix(success=success, turns_per_s=f"{rate:.0f}", refresh=False)
            self.bar.update(len(ended) - self.bar.n)


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """`TimeoutError` inside the block once it has taken so long; for the main thread."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"took more than {seconds:g} seconds")

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _episode(each: Playing, end: End, error: str | None) -> Episode:
    whole = each.window is not None and end != "error"
    rows = each.window.rows(each.steps) if whole and each.window is not None else ()
    score = sum(step.reward for step in each.steps)
    return Episode(
        each.example["id"],
        each.sample,
        rows,
        tuple(each.steps),
        end,
        score,
        error,
        each.verdict,
    )


def _told(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def _together(own: list[tuple[int, Item]]) -> dict[int, Item]:
    """The items of all processes, by their places, in order."""
    return dict(sorted(processes.collect(own), key=itemgetter(0)))
