"""Verifiable tasks. A task is one package that owns its data, prompt, scorer and candidates.

The rest of the project reaches it through `get_task(name)`, the module `posttrain.tasks.NAME.task`, whose
functions are the protocol below. An example is one JSON object; outside the task only `id`, `question`,
`input_text`, `target_answer` and `target_program` may be read from it. `docs/adding-a-task.md` adds one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

from posttrain.core.params import Params, Variant
from posttrain.core.schema import Section, check

SPLITS = ("train", "val", "test")

Example = Mapping[str, Any]
Options = TypeVar("Options", bound=Section)


class Score(Protocol):
    """The verdict on one answer. `status` is scored, unparseable or unscorable.

    `value` is what the program executes to (a task without programs: the stated answer), `answer`
    what the text states; None where there is none. `execution_correct`, the headline, and
    `program_correct` judge the program, `answer_strict` and `answer_lenient` the stated answer.
    `quality` has parts in [0, 1], of those that `preferences.quality` names: how good the way to a
    right answer is.
    """

    @property
    def status(self) -> str: ...
    @property
    def components(self) -> dict[str, float]: ...
    @property
    def execution_correct(self) -> bool: ...
    @property
    def program_correct(self) -> bool: ...
    @property
    def answer_strict(self) -> bool: ...
    @property
    def answer_lenient(self) -> bool: ...
    @property
    def value(self) -> float | str | None: ...
    @property
    def answer(self) -> float | str | None: ...
    @property
    def self_consistent(self) -> bool: ...
    @property
    def failure(self) -> str | None: ...
    @property
    def quality(self) -> dict[str, float]: ...


class Candidate(Protocol):
    """One answer of a pool: its text, its kind (gold, plausible, corrupted) and the edit that made it."""

    @property
    def text(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def edit(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a page. `place` is what a program may call it ("B3", "T1"), or empty."""

    text: str
    place: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of text; the texts of its pieces in a row are the line."""

    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells; the first row is the header."""

    rows: tuple[tuple[Piece, ...], ...]


@dataclass(frozen=True, slots=True)
class ExplainedStep:
    """One step of a program: as written, and with what stands on the page in the places it names.

    `value` is what the scorer's executor gives for the program up to here, `error` why it gives none. Both are None
    in steps after one that fails.
    """

    operation: str
    text: str
    literal: str
    value: str | None
    error: str | None


@dataclass(frozen=True, slots=True)
class Explanation:
    """An answer taken apart for a reader.

    page: what models read, in parts. steps: of the answer's program; none where `error` says why there is no program.
    places: those on the page that the program reads. answer: the stated answer, None if there is none.
    """

    page: tuple[Line | Table, ...]
    steps: tuple[ExplainedStep, ...]
    places: tuple[str, ...]
    answer: str | None
    error: str | None


class Task(Protocol):
    """What a task package offers."""

    def fetch(self, params: Params, directory: Path) -> None:
        """Put the raw data set in `directory`."""

    def audit(self, source: Path, directory: Path) -> dict[str, Any]:
        """Check the raw data; write the sound rows by file and rejected.jsonl; return the metrics."""

    def prepare(self, params: Params, source: Path, directory: Path) -> dict[str, Any]:
        """Turn audited rows into examples, {train,val,test}.jsonl; return the metrics."""

    def candidate_maker(
        self, params: Params, train: Iterable[Example]
    ) -> Callable[[Example, int], Sequence[Candidate]]:
        """What makes n distinct candidates for an example of any split, gold once, always the same.

        What is typical of an answer is learned from `train` alone.
        """

    def render_prompt(self, example: Example, variant: Variant = "direct") -> str:
        """The text that a model reads before it answers or before it sees a candidate.

        `variant` is how it asks; the form of the answer is the same in all.
        """

    def render_target(self, example: Example) -> str:
        """The gold answer as a model should write it."""

    def prompt_hash(self, variant: Variant = "direct") -> str:
        """Changes whenever the text of prompts of that variant, or of answers, does."""

    def score(self, text: str, example: Example, tolerance: float) -> Score:
        """The one scorer."""

    def calculate(self, text: str, example: Example) -> str:
        """The answer with what its calculation gives as the result it states; unchanged where it has none.

        No verdict on the calculation changes by that.
        """

    def reward(self, components: Mapping[str, float], weights: Mapping[str, float]) -> float:
        """The weighted mean of a score's components, in [0, 1]."""

    def explain(self, example: Example, text: str) -> Explanation:
        """The page, and what an answer to its question does step by step; any text is explained."""

    def describe(self, params: Params) -> dict[str, str]:
        """Lines of the report: how `params` makes pages and answers."""


def read_options(params: Params, kind: type[Options]) -> Options:
    """The task's own options of the chosen data set; `UserError` names the first wrong key."""
    source = f"params.yaml: datasets.{params.dataset}.options"
    return check(kind, params.selected_dataset.options, source)


def get_task(name: str) -> Task:
    """The task package of that name."""
    return cast(Task, import_module(f"posttrain.tasks.{name}.task"))
