"""The same stages on local Llama, GPT-2 and Qwen3 checkpoints, switched by `model` alone.

All commands of dvc.yaml run in DVC's order, but in this process: with `dvc repro` each would import torch again, which
takes most of a tiny model's time.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import math
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from dvc.repo import Repo
from dvc.repo.reproduce import plan_repro
from dvc.stage import Stage
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen3Config,
)
from workspace import ROOT, copy_project, set_params

from posttrain.core.manifest import MANIFEST
from posttrain.core.params import FAMILIES, FINE_TUNED, UNTRAINED, load_params
from posttrain.generator.data import IGNORED, prompt_completion_rows
from posttrain.models.load import load_config
from posttrain.models.lora import TARGETS
from posttrain.models.tokens import pad
from posttrain.tasks import get_task
from posttrain.tasks.finqa.examples import make_example
from posttrain.tasks.finqa.sample import generate
from posttrain.tasks.rendering import render

SEED = 0
SIZES: dict[str, Any] = {"train": 8, "val": 4, "test": 4}
CONTEXT = "gold"  # the shortest prompts
METHODS = {family: load_params(ROOT / "params.yaml").family(family).methods for family in FAMILIES}
POLICIES = {family: [UNTRAINED, FINE_TUNED, *METHODS[family]] for family in FAMILIES}
CHANGES = {
    "seeds": [0],
    **{f"datasets.sample.{split}": size for split, size in SIZES.items()},
    "datasets.sample.seed": SEED,
    "examples.context": CONTEXT,
    "pools.count": 4,
    "pools.oversample": 1,
    **{f"{family}.methods": METHODS[family] for family in FAMILIES},
    **{f"{family}.policies": POLICIES[family] for family in FAMILIES},
    **{f"{family}.common.steps": 2 for family in FAMILIES},
    **{f"{family}.common.evaluations": 1 for family in FAMILIES},
    **{f"{family}.common.evaluation_questions": 4 for family in FAMILIES},
    **{f"{family}.sft.epochs": 1 for family in FAMILIES},
    "selector.sft.evaluations": 1,
    "selector.common.prompts_per_step": 8,
    "generator.common.prompts": "all",
    "generator.common.prompts_per_step": 4,
    # With two samples, a prompt's rewards are often equal, and GRPO learns nothing from them.
    "generator.common.samples": 4,
    "generator.dpo.pairs_per_step": 4,
    "generator.sample.questions": SIZES["train"],
    "evaluate.generator.samples": 2,
    "evaluate.bootstrap": 20,
    "compare.bootstrap": 20,
}

LLAMA_SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "max_position_embeddings": 4096,
}
GPT2_SIZES = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 4096}
LORA = {"r": 4, "alpha": 8, "dropout": 0.05, "targets": "auto"}
ANSWER_TOKENS = 64


class Checkpoint(NamedTuple):
    config: Callable[..., PreTrainedConfig]
    operands: str
    lora: dict[str, Any] | None


CHECKPOINTS = {
    "llama": Checkpoint(partial(LlamaConfig, **LLAMA_SIZES), "cells", None),
    "gpt2": Checkpoint(partial(GPT2Config, **GPT2_SIZES), "literal", LORA),
    "qwen3": Checkpoint(partial(Qwen3Config, **LLAMA_SIZES), "cells", LORA),
}


def finqa_examples(operands: str) -> list[dict[str, Any]]:
    """The training questions of this module's pipeline."""
    task = get_task("finqa")
    rows = generate(SEED, SIZES)["train"]
    return [render(task, make_example(row, CONTEXT, 8, operands), (), 0.01) for row in rows]


def write_checkpoint(
    folder: Path,
    name: str,
    examples: list[dict[str, Any]],
    answer_tokens: int = ANSWER_TOKENS,
) -> dict[str, Any]:
    """Save a tiny model with the tokenizer of pocket, taught the examples; its entry of `models`."""
    checkpoint = CHECKPOINTS[name]
    tokenizer = AutoTokenizer.from_pretrained(ROOT / "pretrain/pocket")
    torch.manual_seed(0)
    config = checkpoint.config(
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    model = AutoModelForCausalLM.from_config(config)
    rows = prompt_completion_rows(examples, tokenizer, 1024, answer_tokens)[0]
    teach(model, rows)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return {
        "source": "path",
        "name": str(folder),
        "revision": None,
        "dtype": "float32",
        "operands": checkpoint.operands,
        "lora": checkpoint.lora,
        "max_prompt_tokens": 1024,
        "max_candidate_tokens": answer_tokens,
        "batch_size": 8,
        "accumulation": 1,
    }


def teach(model: PreTrainedModel, rows: list[dict[str, Any]]) -> None:
    """Train on gold answers until some samples are correct: random answers give neither preference pairs nor rewards."""
    ids, mask = pad([row["input_ids"] for row in rows])
    labels = pad([row["labels"] for row in rows], IGNORED)[0][:, 1:]
    answer = labels != IGNORED  # scores of 4,096 words at these places only
    model.eval()  # GPT-2 has dropout
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(600):
        hidden = model.base_model(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        scores = model.get_output_embeddings()(hidden[:, :-1][answer])
        loss = torch.nn.functional.cross_entropy(scores, labels[answer])
        if loss < 0.05:
            return
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    raise AssertionError(f"nothing learned: loss {loss:.3f}")


def stages_of(project: Path) -> list[Stage]:
    """The stages of dvc.yaml, templates resolved, in the order of `dvc repro`."""
    with Repo(str(project)) as repo:
        return [stage for stage in plan_repro(repo.index.graph) if stage.path_in_repo == "dvc.yaml"]


def run_stage(stage: Stage) -> None:
    """Run a stage's `cmd` in the current folder and process."""
    python, script, *arguments = stage.cmd.split()
    assert python == "python"
    spec = importlib.util.spec_from_file_location(f"stage_{Path(script).stem}", script)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main(load_params(), *arguments)


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project with the three checkpoints among its models."""
    folder = tmp_path_factory.mktemp("checkpoints")
    models = {
        f"models.{name}": write_checkpoint(folder / name, name, finqa_examples(made.operands))
        for name, made in CHECKPOINTS.items()
    }
    return copy_project(tmp_path_factory.mktemp("origin"), CHANGES | models)


@pytest.fixture(scope="module")
def stages(origin: Path) -> list[Stage]:
    return stages_of(origin)


class Run(NamedTuple):
    """A project whose pipeline has run."""

    project: Path
    architecture: str

    def trained(self, family: str) -> dict[str, Path]:
        """Folders of the trained selectors, or generators, by policy."""
        folders = (self.project / "models" / family).glob("*/0")
        return {path.parent.name: path for path in folders if path.parent.name != UNTRAINED}


@pytest.fixture(scope="module", params=CHECKPOINTS)
def done(
    request: pytest.FixtureRequest,
    origin: Path,
    stages: list[Stage],
    tmp_path_factory: pytest.TempPathFactory,
) -> Run:
    project = tmp_path_factory.mktemp(request.param) / "project"
    shutil.copytree(origin, project)
    set_params(project, {"model": request.param})
    with contextlib.chdir(project):
        for stage in stages:
            run_stage(stage)
    return Run(project, request.param)


def weights(model: Path) -> Path:
    """The file of the trained weights, apart from a selector's heads."""
    (file,) = model.glob("*/*model.safetensors")
    return file


def test_the_parameter_model_alone_was_changed(done: Run, origin: Path) -> None:
    before, after = (
        (path / "params.yaml").read_text().splitlines() for path in (origin, done.project)
    )
    (line,) = (new for old, new in zip(before, after, strict=True) if old != new)
    assert line.split("#")[0].strip() == f"model: {done.architecture}"


def test_every_stage_makes_its_outputs_and_every_policy_has_a_manifest(
    done: Run, stages: list[Stage]
) -> None:
    outputs = [out.def_path for stage in stages for out in stage.outs]
    for family, policies in POLICIES.items():
        outputs += [f"models/{family}/{policy}/0/{MANIFEST}" for policy in policies]
    assert [name for name in outputs if not (done.project / name).exists()] == []


@pytest.mark.parametrize("family", FAMILIES)
def test_the_comparison_has_finite_numbers_for_every_policy(done: Run, family: str) -> None:
    compared = json.loads((done.project / f"metrics/compare/{family}.json").read_text())
    assert compared.keys() == {*POLICIES[family]}
    assert all(math.isfinite(x) for leaves in compared.values() for x in leaves.values())


@pytest.mark.parametrize("family", FAMILIES)
def test_every_training_leaves_weights_of_its_own(done: Run, family: str) -> None:
    models = done.trained(family)
    assert models.keys() == {FINE_TUNED, *METHODS[family]}
    assert len({weights(folder).read_bytes() for folder in models.values()}) == len(models)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_untrained_policy_holds_no_weights_of_the_base(done: Run, family: str) -> None:
    folder = done.project / "models" / family / UNTRAINED / "0"
    head = {"head.safetensors"} if family == "selector" else set()
    assert {path.name for path in folder.rglob("*")} == {f"{family}.json", MANIFEST, *head}


@pytest.mark.parametrize("family", FAMILIES)
def test_trained_weights_are_of_the_architecture(done: Run, family: str) -> None:
    architecture = done.architecture
    assert load_config(done.project / "models/base").model_type == architecture
    for folder in done.trained(family).values():
        file = weights(folder)
        if CHECKPOINTS[architecture].lora is None:
            assert load_config(file.parent).model_type == architecture
            continue
        assert file.name == "adapter_model.safetensors"
        tensors = load_file(file)
        assert {name.split(".")[-3] for name in tensors} == {*TARGETS[architecture]}
        # B starts at zero.
        assert all(tensor.any() for name, tensor in tensors.items() if ".lora_B." in name)
        # GPT-2 alone has Conv1D, whose weights are (in, out).
        adapter = json.loads((file.parent / "adapter_config.json").read_text())
        assert adapter["fan_in_fan_out"] == (architecture == "gpt2")
