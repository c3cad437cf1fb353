"""A mixture draws examples of other data sets by weight, and each goes by its own part's task; no other data set counts."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from workspace import ROOT

from posttrain.core import code
from posttrain.core.errors import UserError
from posttrain.core.files import JsonLines, write_jsonl
from posttrain.core.inputs import hash_inputs
from posttrain.core.params import Params, check_params, load_params
from posttrain.measures.answers import mean_quality
from posttrain.pools.make import make_pools
from posttrain.pools.rewards import RewardedPools
from posttrain.report.browser import Policy, browser_data
from posttrain.tasks import SPLITS, get_task
from posttrain.tasks.mixture.task import counts
from posttrain.tasks.rendering import rendered

SIZES = {"train": 40, "val": 7, "test": 10}


def chosen(parts: Any, **options: Any) -> Params:
    """A mixture of small parts, without the sandbox."""
    values = load_params(ROOT / "params.yaml").model_dump()
    for part in ("sat", "gsm8k-sample"):
        values["datasets"][part] |= {"train": 40, "val": 10, "test": 10}
    mixture = {"task": "mixture", "source": "generated", "seed": 0, **SIZES}
    values["datasets"]["both"] = {**mixture, "options": {"parts": parts, **options}}
    return check_params(values | {"dataset": "both"})


PARAMS = chosen({"sat": 1, "gsm8k-sample": 3})
TASK = get_task(*PARAMS.tasks)


def drawn(params: Params, folder: Path, audited: Path | None = None) -> dict[str, list[Any]]:
    """The examples of each split, as the stages write them; `audited`: the parts' data, else made here."""
    task = get_task(*params.tasks)
    if audited is None:
        task.fetch(params, folder / "fetch")
        audited = folder / "audit"
        task.audit(folder / "fetch", audited)
    return {
        split: [*rendered(task, task.examples(params, split, audited), ("direct",), 0.01)]
        for split in SPLITS
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mixture")


@pytest.fixture(scope="module")
def examples(folder: Path) -> dict[str, list[Any]]:
    return drawn(PARAMS, folder)


def test_each_part_has_as_many_examples_as_its_weight_says(examples: dict[str, list[Any]]) -> None:
    assert counts(PARAMS, "val") == {"sat": 2, "gsm8k-sample": 5}  # of 1.75 and 5.25
    for split, size in SIZES.items():
        found = Counter(example["part"] for example in examples[split])
        assert found == counts(PARAMS, split) and found.total() == size
        assert len({example["id"] for example in examples[split]}) == size
        parts = [example["part"] for example in examples[split]]
        assert parts not in (sorted(parts), sorted(parts, reverse=True))


def test_the_seed_of_the_mixture_draws_from_the_same_examples_of_its_parts(
    folder: Path, examples: dict[str, list[Any]]
) -> None:
    assert drawn(PARAMS, folder, folder / "audit") == examples
    values = PARAMS.model_dump()
    values["datasets"]["both"]["seed"] = 1
    others = drawn(check_params(values), folder, folder / "audit")
    (audited,) = folder.glob("audit/sat/train.jsonl")
    known = {f"sat/{row['id']}" for row in JsonLines(audited)}
    for some in (examples["train"], others["train"]):
        assert {row["id"] for row in some if row["part"] == "sat"} <= known
    assert {row["id"] for row in others["train"]} != {row["id"] for row in examples["train"]}


def test_an_example_is_asked_scored_and_explained_by_its_part(
    examples: dict[str, list[Any]],
) -> None:
    rows = examples["test"]
    texts = [*(row["target"] for row in rows), *("x1=True" for _ in rows)]
    scores = TASK.scores(texts, [*rows, *rows])
    for text, row, found in zip(texts, [*rows, *rows], scores, strict=True):
        task = get_task(PARAMS.datasets[row["part"]].task)
        assert row["prompts"]["direct"] == task.prompt(row)
        assert row["target"] == task.target(row)
        assert found == TASK.score(text, row) == task.score(text, row)
        assert TASK.explain(row, text) == task.explain(row, text)
        assert TASK.calculate(text, row) == task.calculate(text, row)
    assert all(found.correct for found in scores[: len(rows)])
    assert {len(found.parts) for found in scores} == {3, 4}


def test_measures_and_baselines_are_by_part(examples: dict[str, list[Any]]) -> None:
    found = TASK.measure(examples["test"])["parts"]
    assert {part: of["examples"] for part, of in found.items()} == counts(PARAMS, "test")
    assert "variables_mean" in found["sat"] and "variables_mean" not in found["gsm8k-sample"]
    of_sat = [row for row in examples["test"] if row["part"] == "sat"]
    expected = {"sat": get_task("sat").baselines(of_sat), "gsm8k-sample": {}}
    assert TASK.baselines(examples["test"]) == expected


def pools_of(params: Params, examples: Any, path: Path) -> dict[str, list[Any]]:
    task = get_task(*params.tasks)
    found = {split: [*rows] for split, rows in make_pools(task, params, examples)}
    write_jsonl(path, found["test"])
    return found


def test_candidates_are_those_of_the_part_or_other_gold_answers_of_it(
    examples: dict[str, list[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = PARAMS.model_dump()
    values["pools"] |= {"oversample": 1, "count": 4}
    params = check_params(values)
    pools = pools_of(params, examples, tmp_path / "test.jsonl")
    edits = {"sat": {"neighbour", "random_assignment", "unset_variable", "gold"}}
    for row in pools["test"]:
        assert len(row["candidates"]) == 4
        kinds = {made["edit"] for made in row["candidates"]}
        assert (kinds <= edits["sat"]) == (row["part"] == "sat")
    of_part = [*RewardedPools(tmp_path / "test.jsonl", "sat")]
    assert of_part == [row["candidates"] for row in pools["test"] if row["part"] == "sat"]

    from posttrain.tasks.mixture import task as mixture

    bare = {name: get_task(name) for name in ("sat", "gsm8k")}
    object.__setattr__(bare["gsm8k"], "candidates", None)
    monkeypatch.setattr(mixture, "task_named", bare.__getitem__)
    gold = {row["target"] for row in examples["train"] if row["part"] == "gsm8k-sample"}
    for row in pools_of(params, examples, tmp_path / "test.jsonl")["test"]:
        wrong = {made["text"] for made in row["candidates"] if made["edit"] == "other question"}
        assert wrong <= gold and (len(wrong) == 3) == (row["part"] == "gsm8k-sample")
    few = [row for row in examples["train"] if row["part"] == "sat"]
    few += [row for row in examples["train"] if row["part"] != "sat"][:3]
    with pytest.raises(UserError, match="questions of gsm8k-sample have 3 different answers"):
        pools_of(params, examples | {"train": few}, tmp_path / "test.jsonl")


def test_the_browser_shows_of_each_answer_the_parts_of_its_own_reward(
    examples: dict[str, list[Any]], tmp_path: Path
) -> None:
    values = PARAMS.model_dump()
    values["pools"] |= {"oversample": 1, "count": 4}
    pools = pools_of(check_params(values), examples, tmp_path / "test.jsonl")["test"]
    rows = examples["test"]
    scores = TASK.scores([row["target"] for row in rows], rows)
    answers = [
        {"id": row["id"], "text": row["target"], "reward": 1.0, "correct": True, "parts": one.parts}
        for row, one in zip(rows, scores, strict=True)
    ]
    policy = Policy("generator", "sft", 0, answers, ["right"] * len(rows))
    data = browser_data(TASK, rows, pools, [policy], PARAMS.reward.weights, 20)
    names = [name for name, _ in data["parts"]]
    assert len(names) == 6 and len(data["questions"]) == len(rows)
    for row, shown, one in zip(rows, data["policies"][0]["rows"], scores, strict=True):
        assert shown["answer"]["parts"] == [one.parts.get(name) for name in names], row["id"]
        assert None in shown["answer"]["parts"]


def test_quality_is_a_mean_over_the_answers_that_have_that_part() -> None:
    records = [{"quality": {"a": 1.0}}, {"quality": {"a": 0.0, "b": 0.5}}]
    assert mean_quality(records) == {"a": 0.5, "b": 0.5}


def test_stored_data_is_a_part_like_any_other(folder: Path, tmp_path: Path) -> None:
    """Of a split with a limit of its own, the mixture draws from those that the limit leaves."""
    shutil.copytree(folder / "fetch/sat", tmp_path / "stored")
    values = PARAMS.model_dump()
    entry = {"task": "sat", "source": "path", "path": str(tmp_path / "stored"), "repository": "a/b"}
    entry |= {"commit": "0" * 40, "blobs": {}, "train": 10, "val": None, "test": None, "seed": 0}
    values["datasets"]["stored"] = {**entry, "options": {}}
    values["datasets"]["both"]["options"]["parts"] = {"stored": 1, "gsm8k-sample": 3}
    params = check_params(values)
    found = drawn(params, tmp_path)
    assert Counter(row["part"] for row in found["train"])["stored"] == 10
    assert hash_inputs(params)["dataset"].keys() == {
        "datasets.stored",
        *(f"datasets.stored/{name}.jsonl" for name in SPLITS),
        "datasets.gsm8k-sample",
    }
    values["datasets"]["both"]["options"]["parts"]["stored"] = 3
    short = r"both\.train: 20 of its 40 examples are of stored, which has 10"
    with pytest.raises(UserError, match=short):
        drawn(check_params(values), tmp_path, tmp_path / "audit")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"parts": {"sta": 1}}, r"both\.options\.parts\.sta: not one of datasets; did you mean 's"),
        ({"parts": {"both": 1}}, r"parts\.both: has parts itself, which a part must not"),
        ({"parts": {"sat": 0}}, r"parts\.sat: expected a weight above 0 \(found 0\)"),
        ({"parts": {"sat": True}}, r"parts\.sat: expected a weight above 0 \(found True\)"),
        ({"parts": []}, r"options\.parts: expected data sets with their weights"),
        ({"parts": {"sat": 1}, "weights": {"gsm8k": 1}}, r"weights: expected the names of `parts`"),
    ],
)
def test_parts_that_cannot_be_are_one_line(options: Any, problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        chosen(**options)


def test_a_part_without_a_question_is_refused(tmp_path: Path) -> None:
    params = chosen({"sat": 1, "gsm8k-sample": 1000})
    with pytest.raises(UserError, match=r"both\.val: of 7 examples none are of sat, by its weight"):
        counts(params, "val")


def test_a_stage_depends_on_the_tasks_of_all_parts_and_on_no_other() -> None:
    assert PARAMS.tasks == ["mixture", "sat", "gsm8k"]
    files = code.digest("generator_evaluate", *PARAMS.tasks)
    tasks = "src/posttrain/tasks"
    needed = {f"{tasks}/{name}" for name in ("sat/score.py", "gsm8k/score.py", "mixture/task.py")}
    assert needed <= files.keys()
    left_out = ("finqa/", "sat/explain.py", "sat/candidates.py")
    assert not [file for file in files for name in left_out if file.startswith(f"{tasks}/{name}")]
    alone = code.digest("generator_evaluate", "sat")
    assert {file: files[file] for file in alone} == alone


def test_what_fetch_stands_on_changes_with_a_part_and_with_no_other_data_set() -> None:
    def with_seed(name: str) -> Params:
        values = PARAMS.model_dump()
        values["datasets"][name]["seed"] += 1
        return check_params(values)

    before = hash_inputs(PARAMS)["dataset"]
    assert before.keys() == {"datasets.sat", "datasets.gsm8k-sample"}
    assert hash_inputs(with_seed("sat"))["dataset"] != before
    assert hash_inputs(with_seed("ded-sample"))["dataset"] == before
    plain = load_params(ROOT / "params.yaml")
    assert hash_inputs(plain)["dataset"] == {} and plain.tasks == [plain.selected_dataset.task]


def test_a_mixture_is_an_environment_if_a_part_is_and_scores_the_questions_of_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def offered(name: str) -> Any:
        module = name.split(".")[-2]
        both = {"mixture": ("score", "open"), "rooms": ("open",), "woods": ("open",)}
        names = ("examples", "prompt", *both.get(module, ("score",)))
        return SimpleNamespace(**dict.fromkeys(names, print))

    monkeypatch.setattr("posttrain.tasks.import_module", offered)
    assert get_task("mixture", "rooms", "woods").open is not None
    assert get_task("mixture", "sat", "ded").open is None
    both = get_task("mixture", "sat", "rooms")
    assert both.open is print and both.score is print
    assert get_task("mixture", "rooms").score is not print
