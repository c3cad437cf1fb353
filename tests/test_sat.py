"""Claims about SAT: the verifier agrees with enumeration, splits share no formula, pools are not solvable blind."""

from __future__ import annotations

import json
import random
import re
import time
from collections import Counter
from collections.abc import Iterator
from itertools import combinations, product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML
from scipy.stats import chisquare
from workspace import ROOT, copy_project, must, rewarded_pools, set_params

from posttrain.core.errors import UserError
from posttrain.core.files import read_jsonl, write_jsonl
from posttrain.core.params import Params, Pools, check_params
from posttrain.pools.blind import blind_baselines
from posttrain.pools.rewards import summarise_pools
from posttrain.tasks import SPLITS, get_task, read_options
from posttrain.tasks.rendering import render
from posttrain.tasks.reward import reward
from posttrain.tasks.sat import sample
from posttrain.tasks.sat.baselines import majority_polarity
from posttrain.tasks.sat.candidates import make_candidates
from posttrain.tasks.sat.examples import make_example
from posttrain.tasks.sat.formula import (
    fault,
    invariant,
    members,
    satisfying,
    write_assignment,
    write_formula,
)
from posttrain.tasks.sat.options import Options
from posttrain.tasks.sat.sample import generate, level_of
from posttrain.tasks.sat.score import FAILURES, MAX_CHARACTERS, score

VALUES: dict[str, Any] = YAML(typ="safe").load((ROOT / "params.yaml").read_text())
TASK = get_task("sat")
K = 8


def chosen(**changes: Any) -> Params:
    """params.yaml with data set `sat` and other values in its entry."""
    values = json.loads(json.dumps(VALUES))
    values["dataset"] = "sat"
    values["datasets"]["sat"] |= changes
    return check_params(values)


def with_options(**changes: Any) -> Params:
    return chosen(options=VALUES["datasets"]["sat"]["options"] | changes)


PARAMS = chosen()
OPTIONS = read_options(PARAMS, Options)
SIZES = {"train": 300, "val": 50, "test": 200}
ROWS = generate(7, SIZES, OPTIONS)


def rendered(row: dict[str, Any], name: str = "q", operators: Any = "words") -> dict[str, Any]:
    example = make_example({"id": name, "level": 0, **row}, operators, seed=0)
    return render(TASK, example, ("direct", "reflective", "deliberative"), 0.01)


EXAMPLES = {
    split: [rendered(row, f"{split}-{number}") for number, row in enumerate(rows)]
    for split, rows in ROWS.items()
}
TINY = rendered({"variables": 3, "clauses": [[1, 2], [-1, 3], [-2, -3]]})  # x1, not x2, x3, or ...


def plainly_true(clauses: list[list[int]], values: tuple[bool, ...]) -> bool:
    return all(any(values[abs(one) - 1] == (one > 0) for one in clause) for clause in clauses)


def enumerated(variables: int, clauses: list[list[int]]) -> list[tuple[bool, ...]]:
    return [v for v in product((False, True), repeat=variables) if plainly_true(clauses, v)]


def text_of(values: tuple[bool, ...]) -> str:
    return ", ".join(f"x{number}={value}" for number, value in enumerate(values, 1))


# ------------------------------------------------------------------------------ the verifier


def test_the_verifier_agrees_with_enumeration_on_10000_pairs() -> None:
    """100 random formulas of 1 to 9 variables and 1 to 4 literals per clause, 100 assignments each."""
    rng, verdicts = random.Random(0), Counter[bool]()
    pairs = 0
    while pairs < 10_000:
        variables = rng.randint(1, 9)
        clauses = [
            [
                rng.choice((-1, 1)) * number
                for number in rng.sample(range(1, variables + 1), rng.randint(1, min(4, variables)))
            ]
            for _ in range(rng.randint(1, 3 * variables))
        ]
        right = set(enumerated(variables, clauses))
        table = satisfying(variables, clauses)
        assert {write_assignment(one, variables) for one in members(table)} == {
            *map(text_of, right)
        }
        assert table.bit_count() == len(right)
        if not right:
            continue
        example = make_example(
            {"id": str(pairs), "variables": variables, "clauses": clauses, "level": 0}, "words", 0
        )
        few = [*right][:20]
        for number in range(100):
            values = tuple(rng.random() < 0.5 for _ in range(variables))
            values = few[number // 2 % len(few)] if number % 2 else values
            verdict = score(text_of(values), example)
            assert verdict.correct == (values in right)
            true = sum(plainly_true([clause], values) for clause in clauses)
            assert verdict.parts["clauses"] == true / len(clauses)
            assert verdict.parts["format_valid"] == 1.0
            verdicts[verdict.correct] += 1
            pairs += 1
    assert min(verdicts.values()) > 2000


def affine(response: str, clauses: list[list[int]]) -> bool:
    """The reading that the docstring of `score` describes, written down once more."""
    got = {
        int(v): w in ("True", "1") for v, w in re.findall(r"x([0-9]+)=(True|False|1|0)", response)
    }
    return all(any(got.get(abs(one)) == (one > 0) for one in clause) for clause in clauses)


PIECES = st.sampled_from(
    [
        *(f"x{n}={v}" for n in (0, 1, 2, 3, "03", 4, 77) for v in ("True", "False", "1", "0", "T")),
        *("x1 = True", ", ", " ", "\n", "UNSAT", "so max", "<b>", "=", "x", "¬", "\ud800", "٣"),
    ]
)


@given(st.lists(PIECES, max_size=12).map("".join))
def test_values_are_read_as_in_affine(text: str) -> None:
    assert score(text, TINY).correct == affine(text, TINY["clauses"])


@pytest.mark.parametrize(
    ("text", "correct", "failure", "parts"),
    [
        ("x1=True, x2=False, x3=True", True, None, (1, 1, 1)),
        (" x1=True, x2=False, x3=True\n", True, None, (1, 1, 1)),
        ("x3=True, x2=False, x1=True", True, None, (1, 1, 0)),  # another order
        ("x1=1, x2=0, x3=1", True, None, (1, 1, 0)),
        ("The answer is x1=True, x2=False, x3=True.", True, None, (1, 1, 0)),
        ("x1=False, x2=False, x3=True, x1=True", True, None, (1, 1, 0)),  # the last value wins
        ("x1=False, x2=False, x3=True", False, "one_clause_false", (0, 2 / 3, 1)),
        ("x1=True, x2=False", False, "variable_unset", (0, 2 / 3, 0)),
        ("x1=True, x2=True, x3=True, x4=False", False, "one_clause_false", (0, 2 / 3, 0)),
        ("UNSAT", False, "says_unsatisfiable", (0, 0, 0)),
        ("x1 is true", False, "unparseable", (0, 0, 0)),
        ("x9=True", False, "unparseable", (0, 0, 0)),
        ("<think>x1=True, x2=False, x3=True", False, "unparseable", (0, 0, 0)),
        ("<think>x2=True</think>x1=True, x2=False, x3=True", True, None, (1, 1, 0)),
        ("", False, "unparseable", (0, 0, 0)),
    ],
)  # fmt: skip
def test_verdicts(text: str, correct: bool, failure: str | None, parts: tuple[float, ...]) -> None:
    verdict = score(text, TINY)
    assert (verdict.correct, verdict.failure) == (correct, failure)
    found = [verdict.parts[name] for name in ("satisfied", "clauses", "format_valid")]
    assert found == pytest.approx([*parts]) or "</think>" in text
    assert failure is None or failure in FAILURES


def test_some_variables_are_enough_if_they_satisfy_every_clause() -> None:
    example = rendered({"variables": 3, "clauses": [[1, 2], [-2, 1, 3]]})
    verdict = score("x1=True", example)
    assert verdict.correct and verdict.parts["format_valid"] == 0.0
    assert score("x2=True", example).failure == "variable_unset"


def test_two_clauses_or_more_fail_by_another_name_than_one() -> None:
    example = rendered({"variables": 3, "clauses": [[1], [2], [3]]})
    assert score("x1=False, x2=False, x3=True", example).failure == "clauses_false"


def test_a_value_written_otherwise_is_right_leniently_alone() -> None:
    verdict = score("x1 = true, x2: FALSE, X3 =1", TINY)
    assert verdict.answer_lenient and not verdict.correct and verdict.status == "unparseable"


def test_a_variable_with_two_values_is_inconsistent_and_repeats() -> None:
    verdict = score("x1=True, x1=False, x2=True, x2=True", TINY)
    assert not verdict.self_consistent and verdict.quality["no_repetition"] == 0.5
    assert score("x2=True, x2=True", TINY).self_consistent


def test_votes_are_for_assignments_however_written() -> None:
    written = ("x1=True, x2=False, x3=True", "x3=1 x2=0 x1=1, x8=True")
    assert {score(text, TINY).answer for text in written} == {written[0]}


def test_an_example_whose_own_answer_is_wrong_is_unscorable() -> None:
    broken = {**TINY, "target_answer": "x1=False, x2=False, x3=False"}
    assert score(TINY["target"], broken).status == "unscorable"
    with pytest.raises(UserError, match="has no field 'clauses'"):
        score("", {name: TINY[name] for name in TINY if name != "clauses"})


@given(st.one_of(st.text(), st.binary()))
def test_any_text_is_scored_and_explained(text: str | bytes) -> None:
    verdict = score(text, TINY)
    assert 0.0 <= reward(verdict.parts, PARAMS.reward.weights) <= 1.0
    if isinstance(text, str):
        TASK.explain(TINY, text)


@pytest.mark.parametrize(
    "piece", ["x1", "x", "1", "x1=True", "x1 ", "x1=True, ", " ", "x99999=", "UNSA", "<think>"]
)
def test_a_long_text_takes_bounded_time(piece: str) -> None:
    start = time.perf_counter()
    verdict = score(piece * (MAX_CHARACTERS // len(piece)), EXAMPLES["test"][0])
    assert score(piece * MAX_CHARACTERS, TINY).status == "unparseable" or len(piece) == 1
    assert not verdict.correct and time.perf_counter() - start < 2.0


# ------------------------------------------------------------------------------ formulas


def test_generated_formulas_are_what_the_options_say() -> None:
    for split, rows in ROWS.items():
        assert len(rows) == SIZES[split]
        assert set(Counter(row["level"] for row in rows).values()) == {SIZES[split] // 5}
        for row in rows:
            assert fault(row["variables"], row["clauses"]) is None
            assert len(row["clauses"]) == int(4.26 * row["variables"])
            assert {len(clause) for clause in row["clauses"]} == {3}
            share = satisfying(row["variables"], row["clauses"]).bit_count() / 2 ** row["variables"]
            assert 0.0001 <= share <= 0.03 and level_of(share, OPTIONS) == row["level"]
    assert {row["variables"] for row in ROWS["train"]} == {*range(8, 16)}


def test_levels_run_from_the_largest_share_to_the_least() -> None:
    shares = (0.03, 0.01, 0.005, 0.002, 0.0005, 0.0001)
    assert [level_of(share, OPTIONS) for share in shares] == [1, 1, 2, 3, 4, 5]
    assert level_of(0.031, OPTIONS) is level_of(0.00009, OPTIONS) is None


def test_the_signs_of_literals_do_not_give_an_assignment_away() -> None:
    """In a planted formula, 4 of 7 literals are true under the gold assignment; here not many more than half."""
    true = total = 0
    for example in EXAMPLES["train"]:
        gold = re.findall(r"True|False", example["target"])
        for literal in (one for clause in example["clauses"] for one in clause):
            true += (gold[abs(literal) - 1] == "True") == (literal > 0)
            total += 1
    assert 0.5 < true / total < 4 / 7


def renamed(rng: random.Random, variables: int, clauses: list[list[int]]) -> list[list[int]]:
    names = [0, *rng.sample(range(1, variables + 1), variables)]
    other = [[names[abs(one)] * (1 if one > 0 else -1) for one in clause] for clause in clauses]
    return [rng.sample(clause, len(clause)) for clause in rng.sample(other, len(other))]


def test_a_formula_with_other_names_and_order_is_the_same_and_any_other_is_not() -> None:
    rng = random.Random(1)
    for row in ROWS["train"][:100]:
        variables, clauses = row["variables"], row["clauses"]
        assert invariant(renamed(rng, variables, clauses)) == invariant(clauses)
        other = [*clauses[:-1], [-clauses[-1][0], *clauses[-1][1:]]]
        assert invariant(other) != invariant(clauses)


def test_no_two_formulas_are_the_same_within_a_split_or_between_splits() -> None:
    names = [invariant(row["clauses"]) for rows in ROWS.values() for row in rows]
    assert len(set(names)) == len(names)


def test_the_same_seed_gives_the_same_formulas_and_another_seed_others() -> None:
    sizes = {"train": 20}
    assert generate(7, sizes, OPTIONS) == generate(7, sizes, OPTIONS) != generate(8, sizes, OPTIONS)


def test_gold_is_one_of_the_satisfying_assignments_and_not_always_the_first() -> None:
    places = []
    for example in EXAMPLES["train"]:
        right = [*map(text_of, enumerated_fast(example))]
        assert example["satisfying"] == len(right)
        assert example["share"] == len(right) / 2 ** example["variables"]
        if len(right) == 4:
            places.append(right.index(example["target"]))
    assert chisquare([places.count(place) for place in range(4)]).pvalue > 1e-3


def enumerated_fast(example: dict[str, Any]) -> Iterator[tuple[bool, ...]]:
    table = satisfying(example["variables"], example["clauses"])
    for one in members(table):
        yield tuple(bool(one >> place & 1) for place in range(example["variables"]))


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"variables": [0, 5]}, "options: variables.0: Input should be greater than or equal to 1"),
        ({"variables": [9, 8]}, "options: variables: must be [fewest, most] (found [9, 8])"),
        ({"variables": [8, 21]}, "options: variables: at most 20, because all assignments are"),
        ({"variables": [8]}, "options: variables: List should have at least 2 items"),
        ({"k": 9}, "options: k: a clause cannot have more literals than 8 variables (found 9)"),
        ({"k": 0}, "options: k: Input should be greater than or equal to 1 (found 0)"),
        ({"ratio": 0}, "options: ratio: Input should be"),
        ({"ratio": 0.1}, "options: ratio: makes 0 clauses of 8 variables; there must be 1 to 448"),
        ({"ratio": 99.0}, "options: ratio: makes 792 clauses of 8 variables; there must be 1 to"),
        ({"ratio": "4"}, "options: ratio: '4' is text, not a number; write it without quotes"),
        ({"share": [0.1, 0.01]}, "options: share: must be [least, largest]"),
        ({"share": [0, 0.01]}, "options: share.0: Input should be greater than 0 (found 0)"),
        ({"levels": 0}, "options: levels: Input should be greater than or equal to 1 (found 0)"),
        ({"operators": "signs"}, "options: operators: 'signs' is not one of 'words' or 'symbols'"),
        ({"kk": 3}, "options: kk: unknown parameter; did you mean 'k'?"),
    ],
)
def test_options_that_make_no_formula_are_one_line(
    options: dict[str, Any], problem: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as caught:
        TASK.fetch(with_options(**options), tmp_path / "fetch")
    message = str(caught.value)
    assert message.startswith(f"params.yaml: datasets.sat.{problem}") and "\n" not in message
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    "options",
    [
        {"variables": [8, 8], "share": [0.5, 0.9]},
        {"variables": [8, 8], "ratio": 15.0},
        {"variables": [3, 3], "ratio": 1.0, "share": [0.001, 1.0]},
    ],
)
def test_formulas_that_are_too_rare_or_too_few_end_in_one_line(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample, "PATIENCE", 300)
    with pytest.raises(UserError, match="300 formulas in a row have no new one of which"):
        TASK.fetch(with_options(**options), tmp_path / "fetch")
    assert not [*tmp_path.iterdir()]


# ------------------------------------------------------------------------------ files


def test_the_data_stages_keep_every_generated_formula(tmp_path: Path) -> None:
    params = chosen(train=20, val=5, test=10)
    TASK.fetch(params, tmp_path / "fetch")
    metrics = TASK.audit(tmp_path / "fetch", tmp_path / "audit")
    assert {split: found["clean"] for split, found in metrics.items()} == {
        "train": 20,
        "val": 5,
        "test": 10,
    }
    (first, *_) = TASK.examples(params, "test", tmp_path / "audit")
    assert first["id"] == "sat-test-00001" and first["level"] in range(1, 6)
    assert TASK.describe(params)["formulas"] == (
        "3-SAT, 8 to 15 variables, 4.26 clauses per variable, not planted; "
        "0.0001 to 0.03 of the assignments satisfy, in 5 levels"
    )


GOOD = {"variables": 3, "clauses": [[1, 2, 3], [-1, 2]]}


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder of formulas from elsewhere; each file has one."""
    folder = tmp_path / "given"
    for number, split in enumerate(SPLITS):
        write_jsonl(
            folder / f"{split}.jsonl", [{"variables": 4, "clauses": [[1], [2, 3, 4][: number + 1]]}]
        )
    return folder


@pytest.mark.parametrize(
    ("row", "reason", "detail"),
    [
        ({"clauses": [[1, -1, 2]]}, "no_formula", "clause 1 has a variable twice: [1, -1, 2]"),
        ({"clauses": [[1], []]}, "no_formula", "clause 2 is empty"),
        ({"clauses": []}, "no_formula", "no clauses"),
        ({"clauses": [[1, 9]]}, "no_formula", "clause 1 has 9; variables are 1 to 3"),
        ({"clauses": [[0]]}, "no_formula", "clause 1 has 0; variables are 1 to 3"),
        ({"variables": 0}, "no_formula", "0 variables; there must be 1 to 20"),
        ({"variables": 21}, "no_formula", "21 variables; there must be 1 to 20"),
        ({"clauses": [[1], [-1]]}, "unsatisfiable", "no assignment satisfies the formula"),
        ({"clauses": [[3, -2], [1, 3, 2]]}, "duplicate_formula", "the formula of good with other"),
        ({"id": "good", "clauses": [[2]]}, "duplicate_id", "an earlier row has the id 'good'"),
    ],
)
def test_a_formula_that_makes_no_sense_is_left_out_with_a_reason(
    files: Path, tmp_path: Path, row: dict[str, Any], reason: str, detail: str
) -> None:
    write_jsonl(files / "train.jsonl", [GOOD | {"id": "good"}, GOOD | row])
    TASK.audit(files, tmp_path / "audit")
    (rejected,) = read_jsonl(tmp_path / "audit/rejected.jsonl")
    assert (rejected["reason"], rejected["row"]) == (reason, 1)
    assert rejected["detail"].startswith(detail)
    assert len(read_jsonl(tmp_path / "audit/train.jsonl")) == 1


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"variables": "3"}, "train.jsonl: row 0: field 'variables' must be a whole number"),
        ({"variables": True}, "train.jsonl: row 0: field 'variables' must be a whole number"),
        ({"clauses": [1, 2]}, "row 0: field 'clauses' must be a list of lists of whole numbers"),
        ({"clauses": [["x1"]]}, "row 0: field 'clauses' must be a list of lists of whole numbers"),
        ({"id": ""}, "row 0: field 'id' must be a non-empty string"),
    ],
)
def test_a_row_of_another_type_is_one_line(
    files: Path, tmp_path: Path, row: dict[str, Any], problem: str
) -> None:
    write_jsonl(files / "train.jsonl", [GOOD | row])
    with pytest.raises(UserError, match=re.escape(problem)):
        TASK.audit(files, tmp_path / "audit")
    assert not (tmp_path / "audit").exists()


def test_the_test_file_is_kept_where_files_share_a_formula(files: Path, tmp_path: Path) -> None:
    write_jsonl(files / "train.jsonl", [{"variables": 4, "clauses": [[2]]}, GOOD])
    write_jsonl(files / "test.jsonl", [{"variables": 3, "clauses": [[-3, 1], [2, 1, 3]]}])
    metrics = TASK.audit(files, tmp_path / "audit")
    assert metrics["train"]["rejected"] == {"duplicate_formula": 1}
    assert metrics["test"]["clean"] == 1


def test_formulas_of_a_folder_are_read_without_options_of_the_generator(
    files: Path, tmp_path: Path
) -> None:
    stored = {"task": "sat", "source": "path", "path": str(files), "repository": "", "blobs": {}}
    values = json.loads(json.dumps(VALUES))
    values["dataset"], values["datasets"]["sat"] = "sat", stored | {"commit": "0" * 40}
    params = check_params(values)
    TASK.fetch(params, tmp_path / "fetch")
    TASK.audit(tmp_path / "fetch", tmp_path / "audit")
    (example,) = TASK.examples(params, "test", tmp_path / "audit")
    assert "SAT formula over variables x1..x4:\n(x1) and (x2 or x3 or x4)" in example["question"]
    assert TASK.describe(params) == {}
    values["datasets"]["sat"]["options"] = {"k": 3}
    with pytest.raises(UserError, match="options: k: unknown parameter"):
        TASK.fetch(check_params(values), tmp_path / "again")


# ------------------------------------------------------------------------------ texts


def test_prompts_are_the_formula_and_the_form_of_the_answer() -> None:
    assert TINY["prompts"]["direct"] == (
        "Find a satisfying assignment for the following SAT formula over variables x1..x3:\n"
        "(x1 or x2) and (not x1 or x3) and (not x2 or not x3)\n"
        "Provide your answer as comma-separated assignments like `x1=True, x2=False, ...`, or "
        "respond `UNSAT` if it has no solution.\nAnswer:"
    ).replace("SAT formula", "2-SAT formula", 1)
    assert len({*TINY["prompts"].values()}) == 3
    assert write_formula([[1, -2], [3]], "symbols") == "(x1 ∨ ¬x2) ∧ (x3)"


def test_every_gold_answer_is_right_and_in_the_form_asked_for() -> None:
    for split in SPLITS:
        for example in EXAMPLES[split]:
            verdict = score(example["target"], example)
            assert verdict.correct and set(verdict.parts.values()) == {1.0}


def test_the_false_clauses_of_an_answer_are_shown() -> None:
    explained = TASK.explain(TINY, "x1=True, x2=True, x3=False")
    assert explained.places == ("C2",)
    assert [(step.text, step.literal, step.value) for step in explained.steps] == [
        ("C2", "(not x1 or x3)", "False")
    ]
    assert [line.pieces[0].place for line in explained.page] == ["", "C1", "C2", "C3"]
    assert TASK.explain(TINY, TINY["target"]).steps == ()
    assert TASK.explain(TINY, "UNSAT").error == "no assignment such as x1=True"


# ------------------------------------------------------------------------------ baselines


def test_the_baselines_are_exact_on_a_formula_checked_by_hand() -> None:
    """x1 twice positive, x2 tied, x3 once: majority is x1, x3 and either x2, which one clause then needs."""
    row = {"variables": 3, "clauses": [[1, 2], [1, 3], [-2, -1]]}
    example = rendered(row)
    assert majority_polarity(example) == 0.5
    assert TASK.baselines([example]) == {"random_assignment": 3 / 8, "majority_polarity": 0.5}


def test_the_baselines_are_what_sampled_answers_get() -> None:
    rng = random.Random(0)
    examples = EXAMPLES["train"]
    expected = TASK.baselines(examples)
    assert expected["random_assignment"] < 0.01 < expected["majority_polarity"] < 0.15
    hits, tries = 0.0, 40
    for example in examples:
        balance = Counter[int]()
        for literal in (one for clause in example["clauses"] for one in clause):
            balance[abs(literal)] += 1 if literal > 0 else -1
        for _ in range(tries):
            values = tuple(
                balance[number] > 0 if balance[number] else rng.random() < 0.5
                for number in range(1, example["variables"] + 1)
            )
            hits += plainly_true(example["clauses"], values)
    assert hits / tries / len(examples) == pytest.approx(expected["majority_polarity"], abs=0.01)


def test_measures_count_the_questions_of_each_level() -> None:
    found = TASK.measure(EXAMPLES["val"])
    assert found["levels"] == {str(level): 10 for level in range(1, 6)}


def test_stage_examples_writes_the_baselines_of_each_split(tmp_path: Path) -> None:
    sizes = {"datasets.sat.train": 12, "datasets.sat.val": 5, "datasets.sat.test": 5}
    project = copy_project(tmp_path, {})
    set_params(project, {**sizes, "dataset": "sat"})
    for stage in ("code", "fetch", "audit", "examples"):
        must(project, "python", f"stages/{stage}.py")
    metrics = json.loads((project / "metrics/examples.json").read_text())
    for split in SPLITS:
        rows = read_jsonl(project / f"data/examples/{split}.jsonl")
        assert metrics[split]["baselines"] == TASK.baselines(rows)


# ------------------------------------------------------------------------------ pools


@pytest.fixture(scope="module")
def pools() -> dict[str, list[list[dict[str, Any]]]]:
    return rewarded_pools(TASK, PARAMS, EXAMPLES)


def test_a_pool_has_k_distinct_candidates_and_gold_alone_is_right(
    pools: dict[str, list[list[dict[str, Any]]]],
) -> None:
    for pool in pools["train"] + pools["test"]:
        assert len({made["text"] for made in pool}) == K
        assert [made["correct"] for made in pool] == [made["kind"] == "gold" for made in pool]
        assert max(made["reward"] for made in pool if not made["correct"]) < 1.0
    summary = summarise_pools(pools["train"])
    assert chisquare(list(summary["gold_slots"].values())).pvalue > 1e-3
    assert summary["edits"].keys() == {"gold", "neighbour", "random_assignment", "unset_variable"}


def test_neighbours_nearly_satisfy(pools: dict[str, list[list[dict[str, Any]]]]) -> None:
    near = [made for pool in pools["train"] for made in pool if made["kind"] == "plausible"]
    assert sum(made["parts"]["clauses"] for made in near) / len(near) > 0.9


def test_no_rule_that_reads_only_the_candidates_wins(
    pools: dict[str, list[list[dict[str, Any]]]],
) -> None:
    rates = blind_baselines(pools["train"], {"test": pools["test"]})["test"]
    assert max(rates.values()) < 0.25, rates


def test_gold_is_not_the_middle_of_its_pool(
    pools: dict[str, list[list[dict[str, Any]]]],
) -> None:
    """By the number of values in which a candidate differs from the others; rivals are the other near ones."""
    ranks = []
    for pool in pools["train"] + pools["test"]:
        near = [made for made in pool if made["kind"] != "corrupted"]
        bits = [re.findall(r"True|False", made["text"]) for made in near]
        far = [
            sum(a != b for other in bits for a, b in zip(one, other, strict=True)) for one in bits
        ]
        gold = next(number for number, made in enumerate(near) if made["kind"] == "gold")
        ahead = [one < far[gold] for number, one in enumerate(far) if number != gold]
        tied = [one == far[gold] for number, one in enumerate(far) if number != gold]
        ranks.append((sum(ahead) + sum(tied) / 2) / max(1, len(ahead)))
    assert sum(ranks) / len(ranks) == pytest.approx(0.5, abs=0.05)


def test_a_pool_depends_on_the_seed_and_the_example_alone() -> None:
    def made(seed: int) -> list[Any]:
        return make_candidates(EXAMPLES["val"][3], count=K, seed=seed, corruption_rate=0.3)

    assert made(0) == made(0) != made(1)


def test_a_small_formula_gets_a_full_pool_or_one_line() -> None:
    settings: dict[str, Any] = {"seed": 0, "corruption_rate": 0.0}
    example = rendered({"variables": 4, "clauses": [[1, 2], [3], [4]]})
    pool = make_candidates(example, count=K, **settings)
    assert len({made.text for made in pool}) == K
    assert [score(made.text, example).correct for made in pool].count(True) == 1
    with pytest.raises(UserError, match="q: 13 candidates are all that its 4 variables give"):
        make_candidates(example, count=30, **settings)


def test_pools_of_other_sizes_are_made(pools: Any) -> None:
    changes = PARAMS.pools.model_dump() | {"count": 40, "oversample": 1}
    params = PARAMS.model_copy(update={"pools": Pools.model_validate(changes)})
    examples = {split: EXAMPLES[split][:5] for split in SPLITS}
    for pool in rewarded_pools(TASK, params, examples)["train"]:
        assert len({made["text"] for made in pool}) == 40


def test_assignments_of_all_variables_are_told_apart() -> None:
    texts = {write_assignment(one, 5) for one in range(32)}
    assert len(texts) == 32 and all(a != b for a, b in combinations(sorted(texts), 2))
