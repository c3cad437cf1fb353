"""Verifiable tasks: packages that define questions, how they are asked, and how answers are scored.

The rest of the project reaches a task through `get_task(name)`, which offers the functions of the module
`posttrain.tasks.NAME.task`. Three are required (`examples`, `prompt`, `score`); `Task` gives each of the others a
default. An environment, in which a policy acts for many turns, offers `open` in place of `score`, and is a package of
`posttrain.environments`.

An example is one JSON object with `id`, `question` and whatever the task itself needs; stage `examples` adds `prompts`
(variant -> text), `target` (the gold answer's text) and `tolerance`. How to add a task: `docs/adding-a-task.md`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from posttrain.core.errors import UserError
from posttrain.core.files import atomic_directory
from posttrain.core.params import PACKAGE, Params, Variant
from posttrain.core.schema import Section, check

if TYPE_CHECKING:
    from posttrain.environments import Environment

SPLITS = ("train", "val", "test")
NEEDED = (("examples",), ("prompt",), ("score", "open"))  # one of each group
ANSWER = "answer"  # `form` of a row whose one answer ends its episode, see `is_question`

Example = Mapping[str, Any]
Options = TypeVar("Options", bound=Section)


@dataclass(frozen=True, slots=True)
class Score:
    """The verdicts on one answer; `correct` is the main one.

    parts: of the reward, by name, each in [0, 1]; their weights are `reward.weights` in params.yaml.
    status: scored | unparseable (no answer in the text that the task can score) | unscorable (the example's own gold
    answer does not hold).
    value: result of the answer's program, by which a majority is counted. answer: the result that the text states. Both
    are the same in a task without programs. Either may be None, in FinQA also in an answer that is scored.
    program_correct: whether the way to the answer is right. answer_strict, answer_lenient: verdicts on the stated
    answer alone. All three default to `correct`.
    self_consistent: whether the stated answer is the program's own; by default, whether the answer is scored.
    failure: name of the first mistake; for a wrong answer by default wrong_answer, or the status if not scored.
    quality: parts in [0, 1] that rank right answers among themselves, weighted by `generator.pairs.quality`.
    """

    correct: bool
    parts: dict[str, float]
    status: str = "scored"
    value: float | str | None = None
    answer: float | str | None = None
    program_correct: bool | None = None
    answer_strict: bool | None = None
    answer_lenient: bool | None = None
    self_consistent: bool | None = None
    failure: str | None = None
    quality: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        scored = self.status == "scored"
        for name in ("program_correct", "answer_strict", "answer_lenient"):
            if getattr(self, name) is None:
                object.__setattr__(self, name, self.correct)
        if self.self_consistent is None:
            object.__setattr__(self, "self_consistent", scored)
        if self.failure is None and not self.correct:
            object.__setattr__(self, "failure", "wrong_answer" if scored else self.status)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One answer of a pool. `kind` is gold, plausible or corrupted; `edit` says how it differs from gold."""

    text: str
    kind: str
    edit: str


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a page; `place` is its name in programs ("B3", "T1"), or empty."""

    text: str
    place: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of text, which is its pieces joined together."""

    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells; the first row is the header."""

    rows: tuple[tuple[Piece, ...], ...]


@dataclass(frozen=True, slots=True)
class ExplainedStep:
    """One step of a program: `text` as written, `literal` with the page's words in the places it names.

    `value` is the scorer's value of the program up to here, `error` the reason why it has none. Both are None after a
    step that fails.
    """

    operation: str
    text: str
    literal: str
    value: str | None
    error: str | None


@dataclass(frozen=True, slots=True)
class Explanation:
    """An answer taken apart for a reader.

    page: the text that models read, in parts. steps: of the answer's program; none if there is no program, for the
    reason in `error`. places: those on the page that the program reads. answer: the stated answer, or None.
    """

    page: tuple[Line | Table, ...]
    steps: tuple[ExplainedStep, ...]
    places: tuple[str, ...]
    answer: str | None
    error: str | None


Make = Callable[[Example, int], Sequence[Candidate]]


def no_files(params: Params, directory: Path) -> None:
    """Create an empty `directory`, as generated examples need no raw data; `UserError` for a stored data set."""
    if params.selected_dataset.source != "generated":
        raise UserError(
            f"datasets.{params.dataset}: task {params.selected_dataset.task} reads no files, so source must be "
            "generated; a task that reads some offers `fetch` (posttrain.tasks.fetching.fetch_files is one)"
        )
    with atomic_directory(directory):
        pass


def keep_all(source: Path, directory: Path) -> dict[str, Any]:
    """Copy all files of `source` unchanged."""
    files = sorted(path for path in source.rglob("*") if path.is_file())
    with atomic_directory(directory) as output:
        shutil.copytree(source, output, dirs_exist_ok=True)
    return {"files": len(files)}


def nothing_measured(examples: Iterable[Example]) -> dict[str, Any]:
    """No measures."""
    return {}


def no_baselines(examples: Iterable[Example]) -> dict[str, float]:
    """No baselines."""
    return {}


def stored_target(example: Example) -> str:
    """The example's `target_answer`; `UserError` if it has none."""
    if "target_answer" not in example:
        raise UserError(
            f"example {example.get('id')!r} has no field 'target_answer', and its task offers no `target`"
        )
    return str(example["target_answer"])


def as_written(text: str, example: Example) -> str:
    """The text itself."""
    return text


def lines(example: Example, text: str) -> Explanation:
    """The lines of the question, and the text as the stated answer."""
    page = tuple(Line((Piece(line),)) for line in example["question"].splitlines())
    return Explanation(page, (), (), text.strip() or None, None)


def not_scored(text: str, example: Example) -> Score:
    """No score: an answer of one turn is not judged in an environment, which rewards episodes."""
    raise NotImplementedError(f"{example['id']}: its task is played, not scored")


def nothing_to_tell(params: Params) -> dict[str, str]:
    """No lines."""
    return {}


class Prompt(Protocol):
    """`prompt` of a task."""

    def __call__(self, example: Example, variant: Variant = "direct") -> str: ...


@dataclass(frozen=True)
class Task:
    """The functions of a task; those with a default may be missing in its module.

    examples(params, split, source)   the examples of a split, from the folder that `audit` wrote
    prompt(example, variant)          the text that a model reads before it answers or sees a candidate; `variant` is
                                      the way of asking (direct | reflective | deliberative), and the form of the
                                      answer is the same in all
    score(text, example)              the one scorer: any text gets a score, in bounded time

    open(params, example)             in place of `score`: the environment in which episodes like the example's are
                                      played (`posttrain.environments`)
    score_all(texts, examples)        `score` of each text as an answer to the example at its place, where that is faster
    fetch(params, directory)          puts raw data into a new folder
    audit(source, directory)          puts the sound rows of the raw data into a new folder, and the others, with
                                      reasons, into its rejected.jsonl; returns metrics
    measure(examples)                 metrics of a split's examples, which may be iterated over more than once
    baselines(examples)               accuracies, by name, of answers that need no model, over a split's examples; of a
                                      mixture, by part and name
    target(example)                   the gold answer as a model should write it
    candidates(params, train)         learns from the training examples what answers look like; returns
                                      make(example, n): n distinct candidates, gold once, always the same.
                                      None: the gold answers of other questions (`posttrain.tasks.others`)
    calculate(text, example)          the answer, stating the result of its own calculation; no verdict on the
                                      calculation changes by that
    explain(example, text)            the page, and an answer's steps; any text is explained
    describe(params)                  lines of the report on how `params` makes questions and answers
    """

    examples: Callable[[Params, str, Path], Iterable[dict[str, Any]]]
    prompt: Prompt
    score: Callable[[str, Example], Score] = not_scored
    open: Callable[[Params, Example], Environment] | None = None
    score_all: Callable[[Sequence[str], Sequence[Example]], list[Score]] | None = None
    fetch: Callable[[Params, Path], None] = no_files
    audit: Callable[[Path, Path], dict[str, Any]] = keep_all
    measure: Callable[[Iterable[Example]], dict[str, Any]] = nothing_measured
    baselines: Callable[[Iterable[Example]], Mapping[str, Any]] = no_baselines
    target: Callable[[Example], str] = stored_target
    candidates: Callable[[Params, Iterable[Example]], Make] | None = None
    calculate: Callable[[str, Example], str] = as_written
    explain: Callable[[Example, str], Explanation] = lines
    describe: Callable[[Params], dict[str, str]] = nothing_to_tell

    def scores(self, texts: Sequence[str], examples: Sequence[Example]) -> list[Score]:
        """The score of each text as an answer to the example at its place."""
        if self.score_all is not None:
            return self.score_all(texts, examples)
        return [self.score(text, example) for text, example in zip(texts, examples, strict=True)]


def read_options(params: Params, kind: type[Options]) -> Options:
    """The task's own options of the chosen data set; `UserError` names the first wrong key."""
    source = f"params.yaml: datasets.{params.dataset}.options"
    return check(kind, params.selected_dataset.options, source)


def is_question(example: Example) -> bool:
    """Whether an example of a data set with environments is of a task of one turn."""
    return example.get("form") == ANSWER


def get_task(name: str, *parts: str) -> Task:
    """The task or environment of that name; `UserError` if its module lacks a required function.

    parts: the tasks of the parts of a mixture, as in `Params.tasks`. It is an environment if one of them is, and then has
    `score` for the questions of the others.
    """
    folder = "tasks" if (PACKAGE / "tasks" / name).is_dir() else "environments"
    module = import_module(f"posttrain.{folder}.{name}.task")
    offered = {
        part.name: getattr(module, part.name) for part in fields(Task) if hasattr(module, part.name)
    }
    for group in NEEDED:
        if not offered.keys() & set(group):
            raise UserError(
                f"src/posttrain/{folder}/{name}/task.py: has no function {' or '.join(group)}"
            )
    if parts:
        played = [get_task(part).open is not None for part in parts]
        for function, wanted in (("open", any(played)), ("score", not all(played))):
            if not wanted:
                offered.pop(function, None)
    return Task(**offered)
