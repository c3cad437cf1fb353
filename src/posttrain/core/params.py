"""Typed schema of params.yaml: what may be set, and to what."""

from __future__ import annotations

from functools import reduce
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, Field, model_validator

from posttrain.core.errors import UserError
from posttrain.core.schema import (
    Fraction,
    NonNegative,
    Positive,
    Rate,
    Section,
    Seed,
    check,
    nearest,
    read_yaml,
)

Method = Literal["ppo", "grpo", "rloo", "dpo", "exact"]
GeneratorMethod = Literal["ppo", "grpo", "rloo", "dpo"]
Variant = Literal["direct", "reflective", "deliberative"]
Prompts = Literal["all", "mixed"]
Policy = Literal["base", "sft", Method]
GENERATOR_METHODS: tuple[GeneratorMethod, ...] = get_args(GeneratorMethod)
POLICIES: tuple[Policy, ...] = get_args(Policy)


def _known_task(name: str) -> str:
    # The folders are listed and not imported: a stage that asks no task must not depend on all of them.
    known = sorted(path.parent.name for path in Path(__file__).parents[1].glob("tasks/*/task.py"))
    if name not in known:
        raise ValueError(f"not one of the tasks {', '.join(known)}{nearest(name, known)}")
    return name


TaskName = Annotated[str, AfterValidator(_known_task)]


class GeneratedDataset(Section):
    task: TaskName
    source: Literal["generated"]
    seed: Seed
    train: Positive
    val: Positive
    test: Positive
    options: Annotated[dict[str, Any], Field(default_factory=dict)]


class StoredDataset(Section):
    """A data set kept elsewhere: downloaded at a pinned commit, or read from `path` if set.

    Where it has no validation split, `val` rows of train become one, drawn by `seed`. `options` are
    the task's own, which it checks (`posttrain.tasks.read_options`).
    """

    task: TaskName
    source: Literal["hub", "path"]
    path: str | None
    repository: str
    commit: Annotated[str, Field(pattern="^[0-9a-f]{40}$")]
    blobs: dict[str, Annotated[str, Field(pattern="^[0-9a-f]{40}$")]]
    val: Positive | None = None
    seed: Seed = 0
    options: Annotated[dict[str, Any], Field(default_factory=dict)]

    @model_validator(mode="after")
    def _path_is_named(self) -> StoredDataset:
        if self.source == "path" and self.path is None:
            raise ValueError("source is path, so path must name a folder")
        return self


Dataset = Annotated[GeneratedDataset | StoredDataset, Field(discriminator="source")]


class Lora(Section):
    r: Positive
    alpha: Rate
    dropout: Annotated[float, Field(ge=0, lt=1)]
    targets: Literal["auto"] | list[str]


class Model(Section):
    source: Literal["hub", "path"]
    name: str
    revision: str | None
    dtype: Literal["float32", "bfloat16", "float16"]
    operands: Literal["cells", "literal"]
    lora: Lora | None
    max_prompt_tokens: Positive
    max_candidate_tokens: Positive
    batch_size: Positive
    accumulation: Positive
    gradient_checkpointing: bool = False
    quantization: Literal["8bit", "4bit"] | None = None

    @model_validator(mode="after")
    def _pinned(self) -> Model:
        if self.source == "hub" and self.revision is None:
            raise ValueError("source is hub, so revision must pin a commit")
        return self

    @model_validator(mode="after")
    def _quantized_weights_are_frozen(self) -> Model:
        if self.quantization is not None and self.lora is None:
            raise ValueError(
                f"quantization is {self.quantization}, so lora must be set: only adapters can train"
            )
        return self


class Prepare(Section):
    context: Literal["full", "retrieved", "gold"]
    top_n: Positive
    operands: Literal["auto", "cells", "literal"]


class Candidates(Section):
    seed: Seed
    count: Annotated[int, Field(ge=2, le=64)]
    corruption_rate: Fraction
    oversample: Annotated[int, Field(ge=1, le=8)]
    noise: Annotated[list[Rate], Field(min_length=2, max_length=2)]

    @model_validator(mode="after")
    def _noise_is_a_range(self) -> Candidates:
        if self.noise[0] > self.noise[1]:
            raise ValueError("noise must be [smallest, largest]")
        return self


class RewardWeights(Section):
    exact_match: NonNegative
    numeric_close: NonNegative
    program_valid: NonNegative
    format_valid: NonNegative

    @model_validator(mode="after")
    def _some_weight(self) -> RewardWeights:
        if sum(self.model_dump().values()) <= 0:
            raise ValueError("at least one weight must be positive")
        return self


class Rewards(Section):
    tolerance: NonNegative
    weights: RewardWeights


class Optimization(Section):
    """What every training sets."""

    learning_rate: Rate
    warmup: Fraction
    weight_decay: NonNegative
    max_grad_norm: Rate
    evaluations: Positive
    evaluation_questions: Positive


class SelectorSFT(Optimization):
    epochs: Positive


class SelectorRL(Optimization):
    """What every reinforcement-learning method of the selector sets."""

    steps: Positive
    prompts_per_step: Positive
    inner_epochs: Positive
    minibatches: Positive

    @model_validator(mode="after")
    def _minibatches_have_prompts(self) -> SelectorRL:
        if self.minibatches > self.prompts_per_step:
            raise ValueError("minibatches must not exceed prompts_per_step")
        return self


class KLPenalised(SelectorRL):
    kl_coef: NonNegative
    entropy_coef: NonNegative


class PPO(KLPenalised):
    samples: Positive
    clip_range: Rate
    value_coef: NonNegative
    value_clip_range: Rate
    target_kl: Rate | None


class GRPO(KLPenalised):
    samples: Annotated[int, Field(ge=2)]
    clip_range: Rate


class RLOO(KLPenalised):
    samples: Annotated[int, Field(ge=2)]


class DPO(SelectorRL):
    samples: Positive
    beta: Rate


class Exact(KLPenalised):
    pass


class SelectorMethods(Section):
    methods: Annotated[list[Method], Field(min_length=1)]
    ppo: PPO
    grpo: GRPO
    rloo: RLOO
    dpo: DPO
    exact: Exact

    def of(self, method: str) -> SelectorRL:
        """The section of one method."""
        section: SelectorRL = getattr(self, method)
        return section


class GeneratorSFT(Optimization):
    epochs: Positive


class GeneratorRL(Optimization):
    """What every reinforcement-learning method of the generator sets."""

    steps: Positive


class OnPolicy(GeneratorRL):
    """What the methods that sample while they train set."""

    prompts: Prompts
    prompts_per_step: Positive
    samples: Annotated[int, Field(ge=2)]
    inner_epochs: Positive
    temperature: Rate
    kl_coef: NonNegative


class GeneratorPPO(OnPolicy):
    clip_range: Rate
    value_clip_range: Rate
    value_learning_rate: Rate
    value_warmup_steps: Annotated[int, Field(ge=0)]
    gamma: Fraction
    gae_lambda: Fraction


class GeneratorGRPO(OnPolicy):
    clip_range: Rate


class GeneratorRLOO(OnPolicy):
    clip_range: Rate


class GeneratorDPO(GeneratorRL):
    pairs_per_step: Positive
    beta: Rate


class GeneratorMethods(Section):
    methods: Annotated[list[GeneratorMethod], Field(min_length=1)]
    ppo: GeneratorPPO
    grpo: GeneratorGRPO
    rloo: GeneratorRLOO
    dpo: GeneratorDPO

    def of(self, method: str) -> GeneratorRL:
        """The section of one method."""
        section: GeneratorRL = getattr(self, method)
        return section


class SFT(Section):
    selector: SelectorSFT
    generator: GeneratorSFT


class Generation(Section):
    """How completions are drawn."""

    engine: Literal["transformers", "vllm"]
    batch_size: Positive


class Sample(Section):
    questions: Positive
    count: Annotated[int, Field(ge=2, le=64)]
    temperature: Rate
    top_p: Annotated[float, Field(gt=0, le=1)]
    variants: Annotated[list[Variant], Field(min_length=1)]


class PairQuality(Section):
    """Weights of a right answer's quality, by which right answers are ranked among themselves.

    Those of parts that a task's score does not offer count for nothing.
    """

    program_valid: NonNegative
    format_valid: NonNegative
    steps_used: NonNegative
    no_repetition: NonNegative
    brevity: NonNegative


class Preferences(Section):
    pairs_per_question: Positive
    quality: PairQuality
    minimal_margin: NonNegative
    held_out: Annotated[float, Field(gt=0, lt=1)]


class RL(Section):
    selector: SelectorMethods
    generator: GeneratorMethods


class EvaluateGenerator(Section):
    """Greedy decoding of every question, and `samples` draws per test question for pass@k."""

    samples: Annotated[int, Field(ge=1, le=64)]
    temperature: Rate
    top_p: Annotated[float, Field(gt=0, le=1)]


class Evaluate(Section):
    intervals: Annotated[
        list[Annotated[float, Field(gt=0, lt=1)]], Field(min_length=1, max_length=4)
    ]
    bootstrap: Positive
    generator: EvaluateGenerator


class Compare(Section):
    policies: Annotated[list[Policy], Field(min_length=1)]
    bootstrap: Positive

    @model_validator(mode="after")
    def _baseline_is_there(self) -> Compare:
        if "sft" not in self.policies:
            raise ValueError("policies must contain sft, which the others are measured against")
        return self


class Report(Section):
    questions: Positive


class Params(Section):
    """params.yaml, whole; `selected_dataset` and `selected_model` are the presets of this run."""

    dataset: str
    model: str
    seeds: Annotated[list[Seed], Field(min_length=1)]
    launch: str
    datasets: dict[str, Dataset]
    models: dict[str, Model]
    prepare: Prepare
    candidates: Candidates
    rewards: Rewards
    sft: SFT
    generation: Generation
    sample: Sample
    preferences: Preferences
    rl: RL
    evaluate: Evaluate
    compare: Compare
    report: Report

    @property
    def selected_dataset(self) -> GeneratedDataset | StoredDataset:
        return self.datasets[self.dataset]

    @property
    def selected_model(self) -> Model:
        return self.models[self.model]

    def sections(self, *names: str) -> dict[str, Any]:
        """Plain values of sections by their names in params.yaml; `model` is the chosen entry of `models`."""
        found: dict[str, Any] = {
            name: reduce(getattr, name.split("."), self) for name in names if name != "model"
        }
        if "model" in names:
            found["model"] = self.selected_model
        return {name: found[name].model_dump() for name in names}

    @property
    def operands(self) -> Literal["cells", "literal"]:
        """How programs name numbers in this run."""
        if self.prepare.operands == "auto":
            return self.selected_model.operands
        return self.prepare.operands


def load_params(path: str | Path = "params.yaml") -> Params:
    """Read and check params.yaml; `UserError` names the first wrong key and the nearest valid."""
    return check_params(read_yaml(path), str(path))


def check_params(values: Any, source: str = "params.yaml") -> Params:
    """Check a parsed params.yaml; `UserError` names the first wrong key and the nearest valid."""
    params = check(Params, values, source)
    for key, value, known in (
        ("dataset", params.dataset, params.datasets),
        ("model", params.model, params.models),
    ):
        if value not in known:
            raise UserError(
                f"{source}: {key}: {value!r} is not one of {key}s{nearest(value, known)}"
            )
    for key, names in (
        ("seeds", params.seeds),
        ("rl.selector.methods", params.rl.selector.methods),
        ("rl.generator.methods", params.rl.generator.methods),
        ("sample.variants", params.sample.variants),
        ("compare.policies", params.compare.policies),
    ):
        if len(set(names)) < len(names):
            raise UserError(f"{source}: {key}: an entry is listed twice")
    missing = set(params.compare.policies) - {"base", "sft", *params.rl.selector.methods}
    if missing:
        raise UserError(
            f"{source}: compare.policies: {sorted(missing)[0]} is not in rl.selector.methods"
        )
    return params
