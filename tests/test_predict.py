"""Claims about scoring pools, and stage evaluate on a tiny model from files to metrics."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from pretrain.model import build_model, llama_config, save_pocket, train_tokenizer
from ruamel.yaml import YAML
from stages.evaluate import main
from transformers import AutoModelForCausalLM, LlamaConfig

from posttrain.core.errors import UserError
from posttrain.core.files import write_json, write_jsonl
from posttrain.core.params import load_params
from posttrain.models.load import read_base, write_base
from posttrain.selector.batch import TokenizedPool, collate
from posttrain.selector.model import Selector, load_reader, load_selector, save_selector
from posttrain.selector.predict import longest_first, score_pools
from posttrain.selector.run import score_rows

ROOT = Path(__file__).resolve().parent.parent


def tiny_selector() -> Selector:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        attention_dropout=0.5,
    )
    return Selector(AutoModelForCausalLM.from_config(config, attn_implementation="sdpa"))


def pool(name: str, length: int, count: int = 3) -> TokenizedPool:
    return TokenizedPool(
        name,
        [(7 * i + length) % 50 for i in range(length)],
        [[(k + 3 * i) % 50 for i in range(2 + k)] for k in range(count)],
    )


POOLS = [pool("short", 4), pool("long", 30), pool("middle", 11), pool("longer", 31)]


def test_results_come_back_in_the_order_of_the_input() -> None:
    selector = tiny_selector().eval()
    logits, values = score_pools(selector, POOLS, 2, "cpu")
    assert logits.shape == (4, 3) and values.shape == (4,)
    for row, one in enumerate(POOLS):
        with torch.no_grad():
            alone = selector(collate([one]))
        torch.testing.assert_close(logits[row], alone.logits[0], atol=1e-5, rtol=0)
        torch.testing.assert_close(values[row], alone.values[0], atol=1e-5, rtol=0)


def test_the_batch_size_does_not_change_the_scores() -> None:
    selector = tiny_selector()
    one, _ = score_pools(selector, POOLS, 1, "cpu")
    all_at_once, _ = score_pools(selector, POOLS, 100, "cpu")
    torch.testing.assert_close(one, all_at_once, atol=1e-5, rtol=0)


def test_the_longest_prompt_goes_first() -> None:
    assert longest_first(POOLS) == [3, 1, 2, 0]


def test_dropout_is_off_while_scoring_and_on_again_after() -> None:
    selector = tiny_selector().train()
    first, _ = score_pools(selector, POOLS, 4, "cpu")
    second, _ = score_pools(selector, POOLS, 4, "cpu")
    assert torch.equal(first, second)
    assert selector.training and selector.backbone.training


def test_scores_are_constants_that_training_may_use() -> None:
    selector = tiny_selector()
    logits, _ = score_pools(selector, POOLS, 4, "cpu")
    assert not logits.requires_grad
    weight = torch.ones(3, requires_grad=True)
    (weight * logits).sum().backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None


def test_no_pools_give_no_scores() -> None:
    logits, values = score_pools(tiny_selector(), [], 4, "cpu")
    assert len(logits) == 0 and len(values) == 0


def test_pools_of_different_size_are_refused_by_name() -> None:
    with pytest.raises(UserError, match="odd: 2 candidates where short has 3"):
        score_pools(tiny_selector(), [POOLS[0], pool("odd", 5, count=2)], 4, "cpu")


# ------------------------------------------------------------------------------ the stage


def reward_row(number: int) -> dict[str, Any]:
    kinds = ["plausible", "corrupted", "gold", "plausible"]
    return {
        "id": f"q{number}",
        "prompt": f"revenue was {number} and cost was {number + 3}",
        "candidates": [
            {
                "text": f'{{"program": ["add({number}, {k})"], "answer": "{number + k}"}}',
                "kind": kind,
                "edit": kind,
                "reward": {"gold": 1.0, "plausible": 0.2, "corrupted": 0.0}[kind],
                "correct": kind == "gold",
            }
            for k, kind in enumerate(kinds)
        ],
    }


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project folder with params.yaml, rewards, a tiny base and an SFT selector of seed 0."""
    folder = tmp_path_factory.mktemp("project")
    rows = [reward_row(number) for number in range(6)]
    params = YAML(typ="safe").load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    params["evaluate"]["bootstrap"] = 50
    params["models"]["pocket"].update(max_prompt_tokens=100, max_candidate_tokens=60)
    with (folder / "params.yaml").open("w", encoding="utf-8") as file:
        YAML().dump(params, file)
    write_jsonl(folder / "data/rewards/val.jsonl", rows[:2])
    write_jsonl(folder / "data/rewards/test.jsonl", rows[2:])
    texts = [text for row in rows for text in (row["prompt"], row["candidates"][0]["text"])]
    tokenizer = train_tokenizer(texts, 512, 160)
    base, weights = folder / "models/base", folder / "weights"
    base.mkdir(parents=True)
    weights.mkdir()
    model = build_model(llama_config(len(tokenizer), 16, 1, 2, 32, 160), 0)
    save_pocket(weights, model, tokenizer)
    write_base(base, "path", str(weights), None)
    torch.manual_seed(0)
    selector = Selector(load_reader(base, "float32"))
    save_selector(folder / "models/sft_selector/0", selector, read_base(base), {})
    return folder


def test_pools_of_several_sizes_are_scored_in_their_order(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    model = load_params().selected_model
    selector, _ = load_selector(Path("models/sft_selector/0"), Path("models/base"))
    pools = [reward_row(number) for number in range(5)]
    for one, count in zip(pools, (3, 1, 4, 1, 3), strict=True):
        one["candidates"] = one["candidates"][:count]
    together = score_rows(selector, pools, model)
    assert [len(logits) for logits in together] == [3, 1, 4, 1, 3]
    for logits, one in zip(together, pools, strict=True):
        assert logits == pytest.approx(score_rows(selector, [one], model)[0], abs=1e-5)


def evaluate(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / "stages/evaluate.py", *arguments],
        cwd=project,
        env={"PYTHONPATH": str(ROOT / "src"), "PATH": "", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_stage_keeps_every_choice_and_few_metrics(project: Path) -> None:
    result = evaluate(project, "sft", "0")
    assert result.returncode == 0, result.stderr
    output = project / "data/evaluate/sft-0"
    lines = (output / "predictions.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["id"] for row in rows] == ["q0", "q1", "q2", "q3", "q4", "q5"]
    metrics = json.loads((project / "metrics/evaluate/sft-0.json").read_text())
    test = [row for row in rows if row["split"] == "test"]
    assert metrics["test"]["accuracy"] == sum(row["correct"] for row in test) / 4
    summary = json.loads((output / "summary.json").read_text())
    assert set(summary["test"]["intervals"]["reward"]) == {"0.8", "0.95"}
    assert set(summary["test"]["kinds"]) == {"gold", "plausible", "corrupted"}
    manifest = json.loads((output / "manifest.json").read_text())
    assert {"policy", "seed", "prompt", "evaluator", "inputs"} <= manifest.keys()

    before = {path: path.read_bytes() for path in output.iterdir()}
    assert evaluate(project, "sft", "0").returncode == 0
    assert {path: path.read_bytes() for path in output.iterdir()} == before


@pytest.mark.parametrize(
    ("policy", "seed", "message"),
    [
        ("sarsa", "0", "policy 'sarsa': expected one of base, sft, ppo"),
        ("sft", "first", "seed 'first'"),
        ("ppo", "0", "models/rl_selector/ppo-0"),
    ],
)
def test_a_wrong_argument_is_named(
    project: Path, monkeypatch: pytest.MonkeyPatch, policy: str, seed: str, message: str
) -> None:
    monkeypatch.chdir(project)
    with pytest.raises(UserError, match=message):
        main(load_params(), policy, seed)


def test_a_model_of_other_code_is_refused(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(project, tmp_path, dirs_exist_ok=True)
    made_by = {"code": {"src/posttrain/selector/methods/sft.py": "0" * 64}}
    write_json(tmp_path / "models/sft_selector/0/manifest.json", made_by)
    monkeypatch.chdir(tmp_path)
    message = (
        "^models/sft_selector/0 was made by another src/posttrain/selector/methods/sft.py; run dvc"
    )
    with pytest.raises(UserError, match=message):
        main(load_params(), "sft", "0")


def test_a_question_too_long_for_the_model_is_named_not_cut(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models").symlink_to(project / "models")
    long = reward_row(7) | {"prompt": "revenue " * 200}
    write_jsonl(tmp_path / "data/rewards/val.jsonl", [long])
    write_jsonl(tmp_path / "data/rewards/test.jsonl", [long])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="the first is q7: prompt"):
        main(load_params(project / "params.yaml"), "sft", "0")
