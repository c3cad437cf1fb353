"""Claims about methods that have nothing to train on: they are left out with the reason, and the others go on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from stages.best import best
from stages.generator_evaluate import main as generator_evaluate
from stages.generator_pairs import main as generator_pairs
from stages.generator_rl import main as generator_rl
from stages.generator_sample import main as generator_sample
from stages.selector_evaluate import main as selector_evaluate
from stages.selector_rl import main as selector_rl
from stages.selector_sft import main as selector_sft
from toys import pool_row, write_project
from workspace import set_params

from posttrain.core.code import read_digest
from posttrain.core.errors import UserError
from posttrain.core.files import read_json, read_jsonl, write_json, write_jsonl
from posttrain.core.not_trained import why_not_trained
from posttrain.core.params import load_params
from posttrain.export import read_policy
from posttrain.generator.run import load_policy
from posttrain.models.load import BASE, read_base
from posttrain.report.compare import read_left_out, read_runs
from posttrain.rollouts.writer import save_untrained

SPLITS = {"train": range(8), "val": range(8, 12), "test": range(12, 16)}
SMALL = {
    "selector.common.steps": 2,
    "generator.common.steps": 3,
    "generator.common.evaluations": 1,
    "generator.common.evaluation_questions": 2,
    "generator.common.prompts_per_step": 2,
    "generator.common.samples": 2,
    "evaluate.generator.samples": 2,
    "evaluate.bootstrap": 20,
}


def equal_row(number: int, split: str) -> dict[str, Any]:
    """A pool, in training with candidates that are all worth the same."""
    row = pool_row(number)
    if split == "train":
        for candidate in row["candidates"]:
            candidate["reward"] = 0.2
    return row


def question(number: int) -> dict[str, Any]:
    """An example as written by stage `examples`."""
    return {
        "id": f"q{number}",
        "question": f"what is {number} + 1?",
        "prompts": {"direct": f"revenue was {number}"},
        "target": f'{{"program": ["add({number}, 1)"], "answer": "{number + 1}"}}',
        "target_answer": str(number + 1),
        "exe_ans": float(number + 1),
        "literal_program": f"add({number}, 1)",
        "target_program": f"add({number}, 1)",
        "references": {},
        "table": [],
        "operands": "literal",
        "tolerance": 0.01,
    }


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pools = {split: [equal_row(n, split) for n in numbers] for split, numbers in SPLITS.items()}
    folder = write_project(tmp_path_factory.mktemp("inputs"), pools)
    set_params(folder, SMALL)
    for split, numbers in SPLITS.items():
        write_jsonl(folder / f"data/examples/{split}.jsonl", [question(n) for n in numbers])
    return folder


@pytest.fixture
def project(inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(inputs, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_samples(*rights: list[bool]) -> None:
    """Answers of the SFT generator, an untrained one, to the first training questions."""
    save_untrained(Path("models/generator/sft/0"), read_base(BASE))
    write_json("models/generator/sft/0/manifest.json", {})
    rows = [
        {
            "id": f"q{number}",
            "variant": "direct",
            "index": index,
            "text": f"{number} {right} {index}",
            "tokens": 5,
            "status": "scored",
            "correct": right,
            "reward": 1.0 if right else 0.2,
            "quality": {"format_valid": 1.0},
        }
        for number, verdicts in enumerate(rights)
        for index, right in enumerate(verdicts)
    ]
    write_jsonl("data/generator_sample/0/samples.jsonl", rows)
    made_by = {"stage": "generator_sample", "code": read_digest("generator_sample")}
    write_json("data/generator_sample/0/manifest.json", made_by)


def reason(family: str, policy: str) -> str | None:
    """The reason in the place of the model, of its curves and of its predictions."""
    found = {
        why_not_trained(Path(folder) / policy / "0")
        for folder in (f"models/{family}", f"plots/curves/{family}", f"data/{family}_evaluate")
    }
    (only,) = found
    return only


def test_a_selector_without_different_rewards_is_left_out_and_sft_goes_on(project: Path) -> None:
    params = load_params()
    selector_sft(params, "0")
    for policy in ("ppo", "grpo", "rloo", "dpo", "exact"):
        selector_rl(params, policy, "0")
        selector_evaluate(params, policy, "0")
        told = "in each of the 8 training pools all candidates have the same reward"
        assert reason("selector", policy) == told
        assert read_json(f"metrics/selector_evaluate/{policy}/0.json") == {"not_trained": told}
    selector_evaluate(params, "sft", "0")
    folder, policies = Path("data/selector_evaluate"), ["sft", "dpo", "exact"]
    assert [run.policy for run in read_runs(folder, policies, [0])] == ["sft"]
    assert list(read_left_out(folder, policies, [0])) == ["dpo", "exact"]
    found = best(Path("metrics/selector_evaluate"), "accuracy", policies, [0])
    assert found[:2] == ("sft", 0)
    with pytest.raises(UserError, match="models/selector/dpo/0: was not trained: in each of"):
        read_policy(Path("models/selector/dpo/0"))


def test_one_pool_with_different_rewards_is_enough(project: Path) -> None:
    rows = [equal_row(number, "train") for number in range(7)]
    write_jsonl("data/pools/train.jsonl", [*rows, pool_row(7)])
    selector_sft(load_params(), "0")
    selector_rl(load_params(), "dpo", "0")
    assert why_not_trained(Path("models/selector/dpo/0")) is None


@pytest.mark.parametrize(
    ("rights", "told"),
    [
        ([[False] * 4] * 3, "of 3 sampled questions, 3 with wrong answers only"),
        ([[True]], "of 1 sampled questions, 1 with right answers only"),
        ([], "no question was sampled"),
    ],
)
def test_without_mixed_questions_no_method_that_needs_them_is_trained(
    rights: list[list[bool]], told: str, project: Path
) -> None:
    write_samples(*rights)
    params = load_params()
    generator_pairs(params, "0")
    assert read_jsonl("data/generator_pairs/0/train.jsonl") == []
    assert read_json("metrics/generator_pairs/0.json")["pairs"] == 0
    for policy, what in (
        ("dpo", "no preference pair"),
        ("grpo", "no question to ask"),
        ("ppo", "no"),
    ):
        generator_rl(params, policy, "0")
        generator_evaluate(params, policy, "0")
        found = reason("generator", policy)
        assert found is not None and found.startswith(what) and found.endswith(told)
        assert not list(Path(".checkpoints").iterdir())
    with pytest.raises(UserError, match="models/generator/dpo/0: was not trained: no preference"):
        load_policy(params, "dpo", 0)


def test_without_a_question_that_fits_nothing_is_sampled_and_the_stages_go_on(
    project: Path,
) -> None:
    """The prompts of the variant are too long; those of SFT are not."""
    write_samples()
    rows = [{**question(n), "prompts": {"reflective": "why " * 200}} for n in SPLITS["train"]]
    write_jsonl("data/examples/train.jsonl", rows)
    set_params(project, {"generator.sample.variants": ["reflective"]})
    generator_sample(load_params(), "0")
    generator_pairs(load_params(), "0")
    assert read_jsonl("data/generator_sample/0/samples.jsonl") == []
    assert read_json("metrics/generator_sample/0.json") == {}
    assert read_json("metrics/generator_pairs/0.json")["questions"] == 0


def test_right_answers_alone_have_quality_pairs_so_dpo_is_trained_and_grpo_is_not(
    project: Path,
) -> None:
    write_samples([True, True])
    rows = read_jsonl("data/generator_sample/0/samples.jsonl")
    write_jsonl("data/generator_sample/0/samples.jsonl", [{**rows[0], "tokens": 50}, *rows[1:]])
    params = load_params()
    generator_pairs(params, "0")
    for policy in ("dpo", "grpo"):
        generator_rl(params, policy, "0")
    # One question has pairs, so none is held out and nothing is told of unseen ones.
    meta = read_json("models/generator/dpo/0/generator.json")["meta"]
    assert meta.keys() == {"best_step", "val_reward"}
    assert why_not_trained(Path("models/generator/grpo/0")) is not None


def test_a_method_that_asks_all_questions_needs_no_mixed_ones(project: Path) -> None:
    write_samples([False, False])
    set_params(project, {"generator.common.prompts": "all"})
    generator_pairs(load_params(), "0")
    generator_rl(load_params(), "rloo", "0")
    assert why_not_trained(Path("models/generator/rloo/0")) is None


def test_a_later_training_takes_the_place_of_the_reason(project: Path) -> None:
    write_samples([False, False])
    generator_pairs(load_params(), "0")
    generator_rl(load_params(), "dpo", "0")
    write_samples([False, True], [True, False])
    generator_pairs(load_params(), "0")
    generator_rl(load_params(), "dpo", "0")
    assert why_not_trained(Path("models/generator/dpo/0")) is None
    assert json.loads(Path("models/generator/dpo/0/generator.json").read_text())["meta"]
