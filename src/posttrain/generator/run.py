"""Training the generator and answering with it: reading questions, scoring answers, loading and saving policies."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from posttrain.core import loop, processes
from posttrain.core.checkpoint import forget, work_folder
from posttrain.core.curves import Progress, write_curves
from posttrain.core.errors import UserError
from posttrain.core.files import atomic_directory, read_jsonl, write_jsonl
from posttrain.core.loop import VALIDATION, choose, device
from posttrain.core.manifest import build_manifest, digest, write_model_manifest
from posttrain.core.methods import settings_of
from posttrain.core.not_trained import NothingToTrain, write_not_trained
from posttrain.core.params import FINE_TUNED, UNTRAINED, Params, Variant
from posttrain.generator.data import DEMONSTRATIONS, Data, Row, of_parts
from posttrain.measures.answers import greedy_metrics
from posttrain.measures.episodes import episode_columns
from posttrain.measures.named import means
from posttrain.models.architecture import recompute_activations
from posttrain.models.load import BASE, load_tokenizer, read_base
from posttrain.models.precision import compute_in
from posttrain.models.tokens import tokenize_prompts
from posttrain.rollouts.engines import sampler
from posttrain.rollouts.episode import Episode, completion_episode
from posttrain.rollouts.play import Policy, play
from posttrain.rollouts.record import score_completion, score_episode
from posttrain.rollouts.rewards import RewardFunction
from posttrain.rollouts.sampling import BatchSize, Completion, Sampler, greedy
from posttrain.rollouts.writer import Generator, load_generator, save_generator
from posttrain.tasks import Example, Task, get_task, is_question

EXAMPLES = Path("data/examples")
CURVES = Path("plots/curves/generator")
SHOWN = 5  # validation answers kept beside the model

Record = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Run(loop.Run):
    """A training of the generator.

    data: the rows that a method trains on. reward: of completions, given the index of their question in the examples.
    sample: samples completions of at most `max_new_tokens` tokens, `in_flight` at a time. batch_size: rows per pass.
    accumulation: passes per optimizer step of SFT. deterministic: see `loop.choose_kernels`. task, params: needed where the
    task is an environment.
    """

    tokenizer: PreTrainedTokenizerBase
    data: Data
    reward: RewardFunction
    sample: Sampler
    in_flight: BatchSize
    max_new_tokens: int
    batch_size: int
    accumulation: int = 1
    deterministic: bool = False
    task: Task | None = None
    params: Params | None = None

    @property
    def plays(self) -> bool:
        """Whether the task is an environment."""
        return self.task is not None and self.task.open is not None

    def play(
        self,
        model: Generator,
        asked: Sequence[Row],
        samples: int,
        temperature: float,
        seed: int,
        step: int,
        turns: int | None = None,
    ) -> list[Episode]:
        """`samples` episodes of each of the questions `asked`, rows of `Data.prompts`; in a task of one turn, of one turn.

        The random numbers derive from (seed, step). turns: the most of an episode, if that is fewer than its row says.
        """
        if self.task is None or self.params is None or not self.plays:
            return self._answer(model, asked, samples, temperature, seed, step)
        examples = [self.data.examples[row["example"]] for row in asked]
        starts = [(example, sample) for example in examples for sample in range(samples)]
        player = Policy(
            model,
            self.tokenizer,
            self.sample,
            self.params,
            temperature=temperature,
            seed=seed,
            step=step + 1,
        )
        return play(player, self.task, self.params, starts, turns=turns)

    def _answer(
        self,
        model: Generator,
        asked: Sequence[Row],
        samples: int,
        temperature: float,
        seed: int,
        step: int,
    ) -> list[Episode]:
        prompts = tokenize_prompts([row["prompt"] for row in asked], self.tokenizer)
        groups = self.sample(
            model,
            self.tokenizer,
            prompts,
            temperatures=[temperature] * samples,
            max_new_tokens=self.max_new_tokens,
            top_p=1.0,
            seed=random.Random(f"{seed}/{step}").getrandbits(32),
            batch_size=self.in_flight,
        )
        texts = [completion.text for group in groups for completion in group]
        examples = [row["example"] for row in asked for _ in range(samples)]
        rewards = iter(self.reward.rewards(texts, examples))
        return [
            completion_episode(
                prompt,
                completion.ids,
                next(rewards),
                id=str(row["example"]),
                sample=sample,
                text=completion.text,
                finished=completion.finished,
            )
            for row, prompt, group in zip(asked, prompts, groups, strict=True)
            for sample, completion in enumerate(group)
        ]


def model_directory(policy: str, seed: int) -> Path:
    """The folder of a policy's generator."""
    return Path("models/generator") / policy / str(seed)


def load_policy(params: Params, policy: str, seed: int, trainable: bool = False) -> Generator:
    """The generator of a policy; an untrained one that is `trainable` gets the adapter of the model's entry."""
    entry = params.selected_model
    torch.manual_seed(seed)
    model, _ = load_generator(
        model_directory(policy, seed),
        BASE,
        entry.dtype,
        device(),
        trainable,
        entry.quantization,
        lora=entry.lora if trainable else None,
    )
    compute_in(model, entry)
    return model


def read_examples(split: str) -> list[Example]:
    """The questions of a split."""
    return [*read_jsonl(EXAMPLES / f"{split}.jsonl")]


class Answers:
    """Answers questions with a generator, and scores the answers: records as in `rollouts.record`.

    In an environment an answer is an episode. policy: its name in their records.
    """

    def __init__(
        self, params: Params, tokenizer: PreTrainedTokenizerBase | None = None, policy: str = ""
    ) -> None:
        self.params, self.policy = params, policy
        self.task = get_task(*params.tasks)
        self.tokenizer = tokenizer or load_tokenizer(BASE)
        self.sampler = sampler(params.sampling.engine)
        self.max_new_tokens = params.selected_model.max_candidate_tokens

    @property
    def inputs(self) -> list[Path]:
        """What a stage reads for its task beside the examples."""
        return [DEMONSTRATIONS] if self.task.open is not None else []

    def played(self, examples: Sequence[Example]) -> set[str]:
        """The ids of those that are episodes of many turns."""
        if self.task.open is None:
            return set()
        return {example["id"] for example in examples if not is_question(example)}

    def prompts(self, examples: Sequence[Example], variant: Variant = "direct") -> list[list[int]]:
        """Token ids of the questions' prompts; `UserError` if one is longer than the model's entry allows."""
        prompts = self._tokenize(examples, variant)
        limit = self.params.selected_model.max_prompt_tokens
        over = [place for place, prompt in enumerate(prompts) if len(prompt) > limit]
        if over:
            raise UserError(
                f"{len(over)} of {len(prompts)} prompts exceed max_prompt_tokens={limit}, the first is "
                f"{examples[over[0]]['id']} with {len(prompts[over[0]])} tokens; raise the limit or, where "
                "the task has pages, shorten them (examples.context, examples.top_n)"
            )
        return prompts

    def fitting(self, examples: Sequence[Example], variants: Sequence[Variant]) -> list[Example]:
        """The questions whose prompts are no longer than the model's entry allows, in any variant."""
        limit = self.params.selected_model.max_prompt_tokens
        tokenized = (self._tokenize(examples, variant) for variant in variants)
        return [
            example
            for example, *prompts in zip(examples, *tokenized, strict=True)
            if max(map(len, prompts)) <= limit
        ]

    def _tokenize(self, examples: Sequence[Example], variant: Variant) -> list[list[int]]:
        return tokenize_prompts([row["prompts"][variant] for row in examples], self.tokenizer)

    def greedy(self, model: Generator, examples: Sequence[Example]) -> list[Record]:
        """The greedy answer to each question."""
        if self.task.open is not None:
            groups = self._play(model, examples, [0.0], 1.0, 0)
            return [record for (record,) in groups]
        completions = greedy(
            model,
            self.tokenizer,
            self.prompts(examples),
            max_new_tokens=self.max_new_tokens,
            batch_size=self.params.sampling.batch_size,
            sample=self.sampler,
        )
        groups = self._score(examples, [[each] for each in completions], [0.0], "direct")
        return [record for (record,) in groups]

    def _play(
        self,
        model: Generator,
        examples: Sequence[Example],
        temperatures: Sequence[float],
        top_p: float,
        seed: int,
    ) -> list[list[Record]]:
        """An episode of each example at each of the temperatures."""
        groups: list[list[Record]] = [[{}] * len(temperatures) for _ in examples]
        for temperature in dict.fromkeys(temperatures):
            player = Policy(
                model,
                self.tokenizer,
                self.sampler,
                self.params,
                temperature=temperature,
                top_p=top_p,
                seed=seed,
            )
            places = [place for place, each in enumerate(temperatures) if each == temperature]
            starts = [(example, place) for example in examples for place in places]
            episodes = iter(play(player, self.task, self.params, starts))
            for group in groups:
                for index, place in enumerate(places):
                    group[place] = score_episode(next(episodes), policy=self.policy, index=index)
        return groups

    def sample(
        self,
        model: Generator,
        examples: Sequence[Example],
        *,
        temperatures: Sequence[float],
        top_p: float,
        seed: int,
        variant: Variant = "direct",
    ) -> list[list[Record]]:
        """An answer to each question at each of the temperatures; `index` counts those at the same temperature."""
        if self.task.open is not None:
            return self._play(model, examples, temperatures, top_p, seed)
        groups = self.sampler(
            model,
            self.tokenizer,
            self.prompts(examples, variant),
            temperatures=temperatures,
            max_new_tokens=self.max_new_tokens,
            top_p=top_p,
            seed=seed,
            batch_size=self.params.sampling.batch_size,
        )
        return self._score(examples, groups, temperatures, variant)

    def _score(
        self,
        examples: Sequence[Example],
        groups: Sequence[Sequence[Completion]],
        temperatures: Sequence[float],
        variant: Variant,
    ) -> list[list[Record]]:
        indices = [temperatures[:place].count(each) for place, each in enumerate(temperatures)]
        texts = [completion.text for group in groups for completion in group]
        asked = [example for example, group in zip(examples, groups, strict=True) for _ in group]
        verdicts = iter(self.task.scores(texts, asked))
        return [
            [
                score_completion(
                    self.task,
                    example,
                    completion.text,
                    self.params.reward.weights,
                    variant=variant,
                    index=index,
                    tokens=len(completion.ids),
                    finished=completion.finished,
                    verdict=next(verdicts),
                )
                for index, completion in zip(indices, group, strict=True)
            ]
            for example, group in zip(examples, groups, strict=True)
        ]


def train_and_save(params: Params, policy: str, seed: int, method: ModuleType) -> None:
    """Train the generator of a policy by a method, save it with its manifest, and write its curves.

    Where the method has `NothingToTrain` on, the reason is written in the place of both.
    """
    settings = settings_of(params, "generator", policy, method)
    model, answers = params.selected_model, Answers(params)
    start = UNTRAINED if policy == FINE_TUNED else FINE_TUNED
    data = Data(
        of_parts(read_examples("train"), settings.parts),
        answers.tokenizer,
        model,
        Path("data/generator_sample") / str(seed),
        Path("data/generator_pairs") / str(seed),
        params.episodes if answers.task.open is not None else None,
    )
    reads = [] if policy == FINE_TUNED else [data.samples, data.pairs_folder]
    reads += answers.inputs
    manifest = build_manifest(
        "generator_sft" if policy == FINE_TUNED else f"generator_rl/{policy}",
        params.sections("generator.common", f"generator.{policy}", "model", "sampling", "reward"),
        [
            BASE,
            model_directory(start, seed),
            EXAMPLES / "train.jsonl",
            EXAMPLES / "val.jsonl",
            *reads,
        ],
        policy=policy,
        seed=seed,
    )
    generator = load_policy(params, start, seed, trainable=True)
    if model.gradient_checkpointing:
        recompute_activations(generator)
    evaluate, examples = validation(answers, settings.evaluation_questions)
    work = work_folder(digest(manifest))
    progress = Progress(f"generator/{policy}/{seed}", params.tracking)
    torch.manual_seed(seed)
    run = Run(
        model=generator,
        seed=seed,
        work=work,
        evaluate=evaluate,
        report=progress,
        tokenizer=answers.tokenizer,
        data=data,
        reward=RewardFunction(answers.task, data.examples, params.reward.weights),
        sample=answers.sampler,
        in_flight=params.sampling.batch_size,
        max_new_tokens=answers.max_new_tokens,
        batch_size=model.batch_size,
        accumulation=model.accumulation,
        deterministic=model.deterministic,
        task=answers.task,
        params=params,
    )
    try:
        history = method.train(run, settings)
    except NothingToTrain as nothing:
        progress.close()
        if processes.is_main():
            print(f"generator/{policy}/{seed} is not trained: {nothing}")
            write_not_trained(model_directory(policy, seed), str(nothing), manifest)
            write_not_trained(CURVES / policy / str(seed), str(nothing))
            forget(work)
        return
    progress.close()
    shown = examples[:SHOWN]
    records = answers.greedy(generator, shown)
    if not processes.is_main():
        return
    best = history.best
    meta = {"best_step": best["step"], f"val_{history.best_by}": best[history.best_by]}
    with atomic_directory(model_directory(policy, seed)) as temporary:
        save_generator(temporary, generator, read_base(BASE), meta | history.meta)
        samples = [
            {"question": example["question"], "gold": example["target"], **record}
            for example, record in zip(shown, records, strict=True)
        ]
        write_jsonl(temporary / "samples.jsonl", samples)
        write_model_manifest(temporary, manifest)
    write_curves(CURVES / policy / str(seed), history)
    forget(work)


def validation(
    answers: Answers, count: int
) -> tuple[Callable[[Any], dict[str, float]], list[Example]]:
    """A function that measures a model's greedy answers to `count` validation questions, and those questions.

    It also prints one of the answers, to show what is being learned.
    """
    examples = choose(read_examples("val"), count, VALIDATION)
    played = answers.played(examples)

    def evaluate(model: Any) -> dict[str, float]:
        records = answers.greedy(model, examples)
        tqdm.write(f"{examples[0]['question']}\n  {records[0]['text'][:200]}")
        metrics = greedy_metrics(records)
        kept = ("reward", "execution_accuracy", "program_accuracy", "format_valid", "tokens")
        found = {name: float(metrics[name]) for name in kept}
        episodes = [record for record in records if record["id"] in played]
        return found | means(episode_columns(episodes)) if episodes else found

    return evaluate, examples
