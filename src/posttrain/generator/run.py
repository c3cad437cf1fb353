"""What the stages of the generator share: questions, answers with their records, validation, saving."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from posttrain.core import processes
from posttrain.core.checkpoint import ROOT, claim, release
from posttrain.core.curves import write_curves
from posttrain.core.errors import UserError
from posttrain.core.files import atomic_directory, read_jsonl, write_jsonl
from posttrain.core.manifest import write_manifest
from posttrain.core.params import Params, Variant
from posttrain.core.training import VALIDATION, History, choose, device
from posttrain.measures.answers import greedy_metrics
from posttrain.models.load import load_tokenizer, read_base
from posttrain.models.tokens import tokenize_prompts
from posttrain.rollouts.engines import sampler
from posttrain.rollouts.record import score_completion
from posttrain.rollouts.sampling import greedy
from posttrain.rollouts.writer import Generator, load_generator, new_generator, save_generator
from posttrain.tasks import Example, get_task

BASE = Path("models/base")
EXAMPLES = Path("data/prepare")
SHOWN = 5  # validation answers that are kept as samples

Record = dict[str, Any]


def model_directory(policy: str, seed: int) -> Path:
    """Where the training stages put the generator."""
    if policy == "sft":
        return Path("models/sft_generator") / str(seed)
    return Path("models/rl_generator") / f"{policy}-{seed}"


def load_policy(params: Params, policy: str, seed: int, trainable: bool = False) -> Generator:
    """The generator of a policy; `base` is the base model itself."""
    entry = params.selected_model
    if policy == "base":
        model = new_generator(BASE, entry.dtype, None, device(), entry.quantization).eval()
        return model.requires_grad_(False)
    model, _ = load_generator(
        model_directory(policy, seed), BASE, entry.dtype, device(), trainable, entry.quantization
    )
    return model


def read_examples(split: str) -> list[Example]:
    """The prepared questions of a split."""
    return [*read_jsonl(EXAMPLES / f"{split}.jsonl")]


class Answers:
    """Draws answers of a generator and scores them: the records of `evaluation.generation`."""

    def __init__(self, params: Params, tokenizer: PreTrainedTokenizerBase | None = None) -> None:
        self.params = params
        self.task = get_task(params.selected_dataset.task)
        self.tokenizer = tokenizer or load_tokenizer(BASE)
        self.sample = sampler(params.generation.engine)
        self.max_new_tokens = params.selected_model.max_candidate_tokens

    def prompts(self, examples: Sequence[Example], variant: Variant = "direct") -> list[list[int]]:
        """Token ids of the questions' prompts; `UserError` for one that is longer than the model's entry allows."""
        prompts = self._tokenize(examples, variant)
        limit = self.params.selected_model.max_prompt_tokens
        over = [place for place, prompt in enumerate(prompts) if len(prompt) > limit]
        if over:
            raise UserError(
                f"{len(over)} of {len(prompts)} prompts exceed max_prompt_tokens={limit}, the first is "
                f"{examples[over[0]]['id']} with {len(prompts[over[0]])} tokens; raise the limit or, where "
                "the task has pages, shorten them (prepare.context, prepare.top_n)"
            )
        return prompts

    def fitting(self, examples: Sequence[Example], variants: Sequence[Variant]) -> list[Example]:
        """The questions whose prompts the model's entry allows under every variant."""
        limit = self.params.selected_model.max_prompt_tokens
        tokenized = (self._tokenize(examples, variant) for variant in variants)
        return [
            example
            for example, *prompts in zip(examples, *tokenized, strict=True)
            if max(map(len, prompts)) <= limit
        ]

    def _tokenize(self, examples: Sequence[Example], variant: Variant) -> list[list[int]]:
        texts = [self.task.render_prompt(example, variant) for example in examples]
        return tokenize_prompts(texts, self.tokenizer)

    def best(self, model: Generator, examples: Sequence[Example]) -> list[Record]:
        """The greedy answer to each question."""
        drawn = greedy(
            model,
            self.tokenizer,
            self.prompts(examples),
            max_new_tokens=self.max_new_tokens,
            batch_size=self.params.generation.batch_size,
            sample=self.sample,
        )
        return self._score(examples, [[completion] for completion in drawn], "direct")

    def drawn(
        self,
        model: Generator,
        examples: Sequence[Example],
        *,
        count: int,
        temperature: float,
        top_p: float,
        seed: int,
        variant: Variant = "direct",
    ) -> list[Record]:
        """`count` sampled answers to each question."""
        groups = self.sample(
            model,
            self.tokenizer,
            self.prompts(examples, variant),
            count=count,
            max_new_tokens=self.max_new_tokens,
            temperature=temperature,
            top_p=top_p,
            seed=seed,
            batch_size=self.params.generation.batch_size,
        )
        return self._score(examples, groups, variant)

    def _score(
        self, examples: Sequence[Example], groups: Sequence[Sequence[Any]], variant: Variant
    ) -> list[Record]:
        rewards = self.params.rewards
        return [
            score_completion(
                self.task,
                example,
                completion.text,
                rewards.tolerance,
                rewards.weights.model_dump(),
                variant=variant,
                index=index,
                tokens=len(completion.ids),
                finished=completion.finished,
            )
            for example, group in zip(examples, groups, strict=True)
            for index, completion in enumerate(group)
        ]


def validation(
    answers: Answers, count: int
) -> tuple[Callable[[Any], dict[str, float]], list[Example]]:
    """A function that measures a model's greedy answers to `count` validation questions, and these questions.

    It prints one of the answers, so that whoever waits sees what is being learned.
    """
    examples = choose(read_examples("val"), count, VALIDATION)

    def evaluate(model: Any) -> dict[str, float]:
        records = answers.best(model, examples)
        tqdm.write(f"{examples[0]['question']}\n  {records[0]['text'][:200]}")
        metrics = greedy_metrics(records)
        kept = ("reward", "execution_accuracy", "program_accuracy", "format_valid", "tokens")
        return {name: float(metrics[name]) for name in kept}

    return evaluate, examples


def save(
    answers: Answers,
    model: Generator,
    history: History,
    examples: Sequence[Example],
    *,
    best_by: str,
    output: Path,
    curves: Path,
    manifest: Mapping[str, Any],
    meta: Mapping[str, Any] | None = None,
) -> None:
    """Put the generator, its manifest and some validation answers in `output`, its curves in `curves`."""
    shown = examples[:SHOWN]
    records = answers.best(model, shown)
    if not processes.is_main():
        return
    best = max(history.val[1:], key=lambda row: (row[best_by], row["step"]))
    told = {"best_step": best["step"], f"val_{best_by}": best[best_by], **(meta or {})}
    samples = [
        {"question": example["question"], "gold": answers.task.render_target(example), **record}
        for example, record in zip(shown, records, strict=True)
    ]
    with atomic_directory(output) as temporary:
        save_generator(temporary, model, read_base(BASE), told)
        write_jsonl(temporary / "samples.jsonl", samples)
        write_manifest(temporary, manifest)
    write_curves(curves, {"train": history.train, "val": history.val})


def scratch(digest: str) -> Path:
    """The folder of a run's checkpoints, outside DVC's outputs, for this process alone."""
    claim(digest)
    return ROOT / digest


def forget(work: Path) -> None:
    """Remove a run's checkpoints, once its result is in place."""
    if processes.is_main():
        shutil.rmtree(work, ignore_errors=True)
        release(work.name)
