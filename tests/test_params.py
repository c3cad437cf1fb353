"""params.yaml is checked before a stage does anything, and a mistake is named in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from workspace import ROOT

from posttrain.core.errors import UserError
from posttrain.core.params import check_params, load_params

TEXT = (ROOT / "params.yaml").read_text()


def changed(key: str, value: Any) -> dict[str, Any]:
    """The project's params.yaml with one key set."""
    values: dict[str, Any] = YAML(typ="safe").load(TEXT)
    section = values
    *path, last = key.split(".")
    for part in path:
        section = section[part]
    section[last] = value
    return values


def refusal(values: Any) -> str:
    with pytest.raises(UserError) as caught:
        check_params(values)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_the_projects_own_file_is_valid() -> None:
    params = load_params(ROOT / "params.yaml")
    assert params.selected_model is params.models[params.model]
    assert params.selected_dataset is params.datasets[params.dataset]


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("rl.selector.ppo.clip_rnage", 0.1, "rl.selector.ppo.clip_rnage: unknown parameter; did you mean 'clip_range'?"),
        ("sed", 1, "sed: unknown parameter"),
        ("models.pocket.batchsize", 4, "models.pocket.batchsize: unknown parameter; did you mean 'batch_size'?"),
        ("models.llama-3-8b.lora.rank", 4, "models.llama-3-8b.lora.rank: unknown parameter"),
        ("sft.selector.learning_rate", "2e-5", "sft.selector.learning_rate: '2e-5' is text, not a number; write it without quotes"),
        ("sft.selector.epochs", "3", "sft.selector.epochs: '3' is text, not a number"),
        ("sft.selector.epochs", 0, "sft.selector.epochs: Input should be greater than or equal to 1 (found 0)"),
        ("sft.selector.epochs", 1.5, "sft.selector.epochs: "),
        ("sft.selector.learning_rate", float("nan"), "sft.selector.learning_rate: "),
        ("sft.selector.learning_rate", float("inf"), "sft.selector.learning_rate: "),
        ("sft.selector.learning_rate", None, "sft.selector.learning_rate: "),
        ("sft.selector.learning_rate", True, "sft.selector.learning_rate: "),
        ("model", "llama-3.2-1bb", "model: 'llama-3.2-1bb' is not one of models; did you mean 'llama-3.2-1b'?"),
        ("dataset", "finka", "dataset: 'finka' is not one of datasets; did you mean 'finqa'?"),
        ("rl.selector.methods", ["ppo", "grop"], "rl.selector.methods.1: 'grop' is not one of 'ppo', 'grpo', 'rloo', 'dpo' or 'exact'; did you mean 'grpo'?"),
        ("rl.selector.methods", ["ppo", "ppo"], "rl.selector.methods: an entry is listed twice"),
        ("rl.generator.methods", ["ppo", "ppo"], "rl.generator.methods: an entry is listed twice"),
        ("sample.variants", ["direct", "direct"], "sample.variants: an entry is listed twice"),
        ("rl.selector.methods", [], "rl.selector.methods: "),
        ("compare.policies", ["ppo"], "compare: policies must contain sft"),
        ("seeds", [0, 0], "seeds: an entry is listed twice"),
        ("seeds", [-1], "seeds.0: "),
        ("candidates.corruption_rate", 1.5, "candidates.corruption_rate: "),
        ("candidates.noise", [0.2, 0.1], "candidates: noise must be [smallest, largest]"),
        ("candidates.count", 1, "candidates.count: "),
        ("models.llama-3-8b.dtype", "fp16", "models.llama-3-8b.dtype: 'fp16' is not one of 'float32', 'bfloat16' or 'float16'"),
        ("models.llama-3-8b.quantization", "2bit", "models.llama-3-8b.quantization: '2bit' is not one of '8bit' or '4bit'"),
        ("models.pocket.quantization", "4bit", "models.pocket: quantization is 4bit, so lora must be set: only adapters can train"),
        ("models.llama-3-8b.revision", None, "models.llama-3-8b: source is hub, so revision must pin a commit"),
        ("datasets.finqa.source", "path", "datasets.finqa.path: source is path, so path must name a folder"),
        ("datasets.finqa.task", "finka", "datasets.finqa.task: not one of the tasks finqa, gsm8k; did you mean 'finqa'?"),
        ("datasets.gsm8k.vall", 5, "datasets.gsm8k.vall: unknown parameter; did you mean 'val'?"),
        ("datasets.finqa.commit", "main", "datasets.finqa.commit: "),
        ("prepare.context", "retreived", "prepare.context: 'retreived' is not one of 'full', 'retrieved' or 'gold'; did you mean 'retrieved'?"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_naming_key_and_problem(key: str, value: Any, expected: str) -> None:
    assert refusal(changed(key, value)).startswith(f"params.yaml: {expected}")


def test_weights_that_are_all_zero_are_refused() -> None:
    nothing = dict.fromkeys(("exact_match", "numeric_close", "program_valid", "format_valid"), 0.0)
    assert "at least one weight must be positive" in refusal(changed("rewards.weights", nothing))


def test_a_compared_policy_must_be_trained() -> None:
    message = refusal(changed("rl.selector.methods", ["ppo"]))
    assert message == "params.yaml: compare.policies: dpo is not in rl.selector.methods"


@pytest.mark.parametrize("section", ["sft", "models", "seeds", "launch", "evaluate"])
def test_a_missing_section_is_named(section: str) -> None:
    values = YAML(typ="safe").load(TEXT)
    del values[section]
    assert refusal(values) == f"params.yaml: {section}: missing"


def test_an_exponent_without_a_point_is_the_number_that_dvc_takes_it_for(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    lines = TEXT.splitlines()
    start = lines.index("  selector:", lines.index("sft:"))
    index = next(i for i in range(start, len(lines)) if lines[i].startswith("    learning_rate:"))
    lines[index] = "    learning_rate: 2e-5"
    path.write_text("\n".join(lines))
    assert load_params(path).sft.selector.learning_rate == 2e-5


@pytest.mark.parametrize("text", ["", "- 1", "just text"])
def test_a_file_without_sections_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(UserError, match="expected sections"):
        load_params(tmp_path / "params.yaml")


def test_broken_yaml_and_a_missing_file_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("a: [1, 2")
    for name, problem in (("params.yaml", "not valid YAML"), ("none.yaml", "cannot read")):
        with pytest.raises(UserError, match=problem) as caught:
            load_params(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_the_operand_form_is_the_models_unless_prepare_sets_it() -> None:
    assert check_params(changed("model", "pocket")).operands == "cells"
    assert check_params(changed("model", "llama-3-8b")).operands == "literal"
    assert check_params(changed("prepare.operands", "literal")).operands == "literal"
