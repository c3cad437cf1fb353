"""Tokens per second and memory of all trainings and of decoding, each beside TRL or transformers on the same card.

    python benchmarks/gpu.py [--small] [--lora 64] [--rows 16] [--prompt 600] [--answer 40] [--minutes 8] [--out FILE]

One process on one GPU, with a Llama of SmolLM2-135M's shape (30 layers, width 576, 49,152 tokens) and random weights in
bfloat16, adapters of rank `--lora` (0: all weights are trained, in float32), and random prompts of half to all of
`--prompt` tokens. `--small`, or a machine without a GPU, takes two layers of width 32 and short texts.

    own         the method of this project with the settings of params.yaml, but these rows, and 4 answers to a prompt
    beside it   TRL's trainer with its own defaults on as many of the same rows, or `model.generate`

A row of the table: tokens (of prompts and answers, each once per answer, without padding) per second of an optimizer
step, all that lies between two steps included, the median; the peak of the GPU's memory in GiB. For decoding: written
tokens per second, and milliseconds per step. Below the table: the loss and the log-probabilities of the model in
bfloat16 against those of the same weights in float32. Parts that would begin after `--minutes` are left out, and told.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from datasets import Dataset
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    LlamaConfig,
    PreTrainedTokenizerFast,
    TrainerCallback,
)
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from posttrain.core import loop
from posttrain.core.loop import device
from posttrain.core.methods import load_method, settings_of
from posttrain.core.params import load_params
from posttrain.generator import trl as trainers
from posttrain.generator.data import IGNORED
from posttrain.generator.run import Run
from posttrain.models.lora import add_lora
from posttrain.rollouts.rewards import RewardFunction
from posttrain.rollouts.sampling import sample
from posttrain.rollouts.writer import Generator
from posttrain.selector.batch import TokenizedPool
from posttrain.selector.model import Selector
from posttrain.selector.train import Pools, Schedule
from posttrain.selector.train import Run as SelectorRun
from posttrain.selector.train import train as train_selector
from posttrain.tasks import Score, Task

ROOT = Path(__file__).resolve().parent.parent
END, SAMPLES, CANDIDATES = 2, 4, 8
STEPS = 6  # optimizer steps of a training, the first of which does not count


@dataclass(frozen=True)
class Setting:
    """Sizes of the model and of the texts, in tokens; rows: of an optimizer step."""

    layers: int
    width: int
    vocabulary: int
    lora: int
    rows: int
    prompt: int
    answer: int
    in_flight: Sequence[int] = (1, 64, 512)

    @property
    def dtype(self) -> torch.dtype:
        """Frozen weights are in bfloat16 on a GPU; those that are trained, in float32."""
        return torch.bfloat16 if self.lora and device().type == "cuda" else torch.float32

    def model(self, dtype: torch.dtype | None = None) -> Generator:
        """Random weights, with which a text seldom ends before its limit."""
        heads = max(1, self.width // 64)
        config = LlamaConfig(
            vocab_size=self.vocabulary,
            hidden_size=self.width,
            intermediate_size=self.width * 8 // 3 // 8 * 8,
            num_hidden_layers=self.layers,
            num_attention_heads=heads,
            num_key_value_heads=max(1, heads // 3),
            head_dim=64 if self.width >= 64 else 16,
            max_position_embeddings=4096,
            tie_word_embeddings=True,
            bos_token_id=1,
            eos_token_id=END,
            pad_token_id=0,
        )
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
        model = model.to(device(), dtype or self.dtype).eval()
        if self.lora:
            model = add_lora(model, self.lora, 2 * self.lora, 0.0, "auto", "CAUSAL_LM").eval()
        return model

    def ids(self, count: int, low: int, high: int, seed: int) -> list[list[int]]:
        rng = random.Random(seed)
        return [
            [rng.randrange(3, self.vocabulary) for _ in range(rng.randint(low, high))]
            for _ in range(count)
        ]

    def prompts(self, count: int) -> list[list[int]]:
        return self.ids(count, max(1, self.prompt // 2), self.prompt, 0)

    def answers(self, count: int, seed: int = 1) -> list[list[int]]:
        return self.ids(count, self.answer, self.answer, seed)

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """One word per id, as `words` writes them."""
        names = {word: index for index, word in enumerate(words(range(self.vocabulary)).split())}
        tokenizer = Tokenizer(WordLevel(names, unk_token="w0"))
        tokenizer.pre_tokenizer = WhitespaceSplit()
        return PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, bos_token="w1", eos_token=f"w{END}", pad_token="w0"
        )


@dataclass
class Stopwatch(TrainerCallback):  # type: ignore[misc]
    """The time after each optimizer step, once the device has finished it."""

    times: list[float] = field(default_factory=list)

    def report(self, done: int, total: int, shown: object) -> None:
        self.times.append(now())

    def on_step_end(self, *arguments: Any, **others: Any) -> None:
        self.times.append(now())

    @property
    def seconds(self) -> float:
        """Of a step: the median, without the first."""
        return statistics.median(later - earlier for earlier, later in pairwise(self.times[1:]))


@dataclass(frozen=True)
class Figure:
    """Tokens per second, seconds per step, and GiB of the GPU (None on a CPU)."""

    tokens: float
    seconds: float
    memory: float | None


def now() -> float:
    """The time in seconds, after the device has finished its work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def words(ids: Iterable[int]) -> str:
    return " ".join(f"w{index}" for index in ids)


def measured(run: Callable[[], tuple[float, float]]) -> Figure:
    """run: returns tokens and seconds of a step."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    tokens, seconds = run()
    peak = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else None
    return Figure(tokens / seconds, seconds, peak)


# ------------------------------------------------------------------------------ the generator


class Rows:
    """What the methods train on: `SAMPLES` answers to each of as many prompts as make `rows` of a step, for `STEPS`."""

    def __init__(self, setting: Setting) -> None:
        self.asked = max(1, setting.rows // SAMPLES)  # prompts of a step of RL
        self.prompts = setting.prompts(setting.rows * STEPS)
        self.chosen = setting.answers(len(self.prompts))
        self.rejected = setting.answers(len(self.prompts), 2)
        self.examples = [{"id": str(row), "target": ""} for row in range(len(self.prompts))]

    def gold_answers(self) -> list[dict[str, Any]]:
        return [
            {"input_ids": [*prompt, *answer], "labels": [IGNORED] * len(prompt) + answer}
            for prompt, answer in zip(self.prompts, self.chosen, strict=True)
        ]

    def questions(self, which: str = "all") -> list[dict[str, Any]]:
        rows = enumerate(self.prompts[: self.asked * STEPS])
        return [{"prompt": words(prompt), "example": row} for row, prompt in rows]

    def pairs(self, part: str = "train") -> list[dict[str, Any]]:
        rows = zip(self.prompts, self.chosen, self.rejected, strict=True)
        found = [{"prompt_ids": p, "chosen_ids": c, "rejected_ids": r} for p, c, r in rows]
        return found[: len(found) // 2] if part == "train" else []

    def reward(self) -> RewardFunction:
        """The share of words with an odd number."""

        def score(text: str, example: Mapping[str, Any]) -> Score:
            numbers = [int(word[1:]) % 2 for word in text.split() if word[1:].isdigit()]
            return Score(False, {"share": sum(numbers) / max(1, len(numbers))}, "scored")

        task = Task(examples=lambda *_: [], prompt=lambda *_: "", score=score)
        return RewardFunction(task, self.examples, {"share": 1.0})


def tokens_of(setting: Setting, rows: int) -> float:
    """Of a step with this many rows, in the mean."""
    lengths = [len(prompt) for prompt in setting.prompts(setting.rows * STEPS)]
    return rows * (statistics.mean(lengths) + setting.answer)


def own(setting: Setting, method: str) -> tuple[float, float]:
    """A training of the generator as this project runs it."""
    rows, watch = Rows(setting), Stopwatch()
    module: Any = load_method("generator", method)
    settings = settings_of(load_params(ROOT / "params.yaml"), "generator", method, module)
    changes = {
        "epochs": 1,
        "steps": STEPS,
        "prompts": "all",
        "prompts_per_step": rows.asked,
        "pairs_per_step": setting.rows // 2,
        "samples": SAMPLES,
        "inner_epochs": 1,
        "evaluations": 1,
        "learning_rate": 1e-9,
    }
    known = {name: value for name, value in changes.items() if hasattr(settings, name)}
    with tempfile.TemporaryDirectory() as work:
        run = Run(
            model=setting.model(),
            seed=0,
            work=Path(work),
            evaluate=lambda model: {"reward": 0.0, "execution_accuracy": 0.0},
            report=watch.report,
            tokenizer=setting.tokenizer(),
            data=SimpleNamespace(  # type: ignore[arg-type]
                gold_answers=rows.gold_answers, prompts=rows.questions, pairs=rows.pairs
            ),
            reward=rows.reward(),
            sample=sample,
            in_flight=max(setting.in_flight),
            max_new_tokens=setting.answer,
            batch_size=setting.rows,
        )
        module.train(run, settings.model_copy(update=known))
    return tokens_of(setting, setting.rows), watch.seconds


def trl(setting: Setting, method: str) -> tuple[float, float]:
    """The same training by TRL's trainer with its own defaults, adapters from outside as they are here."""
    rows, watch = Rows(setting), Stopwatch()
    with tempfile.TemporaryDirectory() as work:
        common: dict[str, Any] = {
            "output_dir": work,
            "max_steps": STEPS,
            "report_to": "none",
            "save_strategy": "no",
        }
        common |= {"per_device_train_batch_size": setting.rows, "disable_tqdm": True}
        common |= {"bf16": device().type == "cuda", "use_cpu": device().type == "cpu"}
        given = {"processing_class": setting.tokenizer(), "callbacks": [watch]}
        trainer: Any
        if method == "sft":
            gold = [
                {"input_ids": row["input_ids"], "completion_mask": [x >= 0 for x in row["labels"]]}
                for row in rows.gold_answers()
            ]
            trainer = SFTTrainer(
                setting.model(), args=SFTConfig(**common), train_dataset=Dataset.from_list(gold),
                **given,
            )  # fmt: skip
        elif method == "dpo":
            common["per_device_train_batch_size"] = setting.rows // 2
            texts = [
                {"prompt": words(p), "chosen": f" {words(c)}", "rejected": f" {words(r)}"}
                for p, c, r in zip(rows.prompts, rows.chosen, rows.rejected, strict=True)
            ]
            trainer = DPOTrainer(
                setting.model(), args=DPOConfig(**common), train_dataset=Dataset.from_list(texts),
                **given,
            )  # fmt: skip
        else:
            common |= {"num_generations": SAMPLES, "max_completion_length": setting.answer}
            trainer = GRPOTrainer(
                setting.model(), lambda completions, **_: [float(len(c)) for c in completions],
                args=GRPOConfig(**common), train_dataset=Dataset.from_list(rows.questions()),
                **given,
            )  # fmt: skip
        trainer.train()
    return tokens_of(setting, setting.rows), watch.seconds


# ------------------------------------------------------------------------------ the selector


def select(setting: Setting, method: str) -> tuple[float, float]:
    """A training of the selector, of `rows / SAMPLES` questions a step with eight candidates each."""
    asked, watch = max(1, setting.rows // SAMPLES), Stopwatch()
    prompts = setting.prompts(asked * STEPS)
    pools = [
        TokenizedPool(str(row), prompt, setting.answers(CANDIDATES, row))
        for row, prompt in enumerate(prompts)
    ]
    uniform = torch.full((len(pools), CANDIDATES), 1 / CANDIDATES).log()
    rewards = torch.eye(CANDIDATES)[torch.arange(len(pools)) % CANDIDATES]
    module: Any = load_method("selector", method)
    settings = settings_of(load_params(ROOT / "params.yaml"), "selector", method, module)
    known = {"learning_rate": 1e-9, "evaluations": 1, "steps": STEPS}
    known = {name: value for name, value in known.items() if hasattr(settings, name)}
    batches = [range(start, start + asked) for start in range(0, len(pools), asked)]
    with tempfile.TemporaryDirectory() as work:
        run = SelectorRun(
            model=Selector(setting.model()).to(device()).eval(),
            seed=0,
            work=Path(work),
            evaluate=lambda selector: {"reward": 0.0},
            report=watch.report,
            data=Pools(pools, rewards, uniform),
            batch_size=asked,
        )
        train_selector(run, module, settings.model_copy(update=known), Schedule(batches))
    tokens = sum(pool.length for pool in pools) / STEPS
    return tokens, watch.seconds


# ------------------------------------------------------------------------------ decoding


def write(setting: Setting, in_flight: int) -> tuple[float, float]:
    """Seconds of one step of `sample`, the reading of the prompts included."""
    model, tokenizer, prompts = setting.model(), setting.tokenizer(), setting.prompts(in_flight)

    def once(tokens: int) -> float:
        began = now()
        sample(
            model, tokenizer, prompts, temperatures=[1.0], max_new_tokens=tokens, top_p=1.0,
            seed=0, batch_size=in_flight,
        )  # fmt: skip
        return now() - began

    once(2)
    return in_flight, once(setting.answer) / setting.answer


def generate(setting: Setting, in_flight: int) -> tuple[float, float]:
    """The same by `model.generate`, on prompts padded on the left."""
    model, prompts = setting.model(), setting.prompts(in_flight)
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(p)) + p for p in prompts], device=device())

    def once(tokens: int) -> float:
        config = GenerationConfig(
            max_new_tokens=tokens, min_new_tokens=tokens, do_sample=True, top_k=0,
            eos_token_id=END, pad_token_id=0,
        )  # fmt: skip
        began = now()
        with torch.inference_mode():
            model.generate(input_ids=ids, attention_mask=(ids > 0).long(), generation_config=config)
        return now() - began

    once(2)
    return in_flight, once(setting.answer) / setting.answer


# ------------------------------------------------------------------------------ table


@torch.inference_mode()
def precision(setting: Setting) -> dict[str, float]:
    """Of the same weights in bfloat16 and in float32, on random text: both losses, and how far log-probabilities differ."""
    ids = torch.tensor(setting.ids(4, setting.prompt, setting.prompt, 3), device=device())
    exact = setting.model(torch.float32)
    rounded = setting.model(torch.bfloat16)
    found = {}
    for name, model in (("float32", exact), ("bfloat16", rounded)):
        logits = model(input_ids=ids, use_cache=False).logits[:, :-1].float()
        found[name] = logits.log_softmax(-1).gather(2, ids[:, 1:, None])
    difference = (found["float32"] - found["bfloat16"]).abs()
    return {
        "loss in float32": -float(found["float32"].mean()),
        "loss in bfloat16": -float(found["bfloat16"].mean()),
        "log-probability of a token, mean difference": float(difference.mean()),
        "log-probability of a token, largest difference": float(difference.max()),
    }


def parts(setting: Setting) -> dict[str, tuple[Callable[[], tuple[float, float]] | None, ...]]:
    """By name, the project's own and what stands beside it."""
    found: dict[str, tuple[Callable[[], tuple[float, float]] | None, ...]] = {}
    for number in setting.in_flight:
        found[f"decoding, {number} in flight"] = (
            partial(write, setting, number),
            partial(generate, setting, number),
        )
    for method in ("sft", "grpo", "dpo"):
        found[f"generator {method}"] = partial(own, setting, method), partial(trl, setting, method)
    found["generator ppo"] = partial(own, setting, "ppo"), None
    for method in ("sft", "grpo"):
        found[f"selector {method}"] = partial(select, setting, method), None
    return found


def row(name: str, figures: Sequence[Figure | None]) -> str:
    """A line of the table: tokens/s, ms per step and GiB of both, and how many times as fast the first is."""
    cells = [name]
    for figure in figures:
        if figure is None:
            cells += ["–"] * 3
        else:
            memory = "–" if figure.memory is None else f"{figure.memory:.1f}"
            cells += [f"{figure.tokens:,.0f}", f"{1e3 * figure.seconds:.1f}", memory]
    mine, other = figures
    cells.append(f"{mine.tokens / other.tokens:.1f}x" if mine and other else "–")
    return f"| {' | '.join(cells)} |"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table, line by line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--small", action="store_true", default=not torch.cuda.is_available())
    parser.add_argument("--lora", type=int, default=64, help="rank; 0 trains all weights")
    parser.add_argument("--rows", type=int, default=16, help="of an optimizer step")
    parser.add_argument("--prompt", type=int, default=600, help="most tokens of a prompt")
    parser.add_argument("--answer", type=int, default=40, help="tokens of an answer")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--out", type=Path, help="a JSON file for the figures")
    options = parser.parse_args(arguments)
    warnings.filterwarnings("ignore")
    # Only the last checkpoint, which is not written: TRL's trainers write none here, either.
    trainers.SAVES = loop.SAVES = 1  # type: ignore[attr-defined]
    setting = Setting(30, 576, 49152, options.lora, options.rows, options.prompt, options.answer)
    if options.small:
        setting = Setting(2, 32, 128, min(options.lora, 4), 8, 12, 6, (1, 4))
    began, told = time.monotonic(), dict[str, Any]()
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    print(f"{name}, torch {torch.__version__}, {setting}", flush=True)
    heads = ["", "tokens/s", "ms", "GiB", "beside: tokens/s", "ms", "GiB", "times as fast"]
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}", flush=True)
    for part, runs in parts(setting).items():
        if time.monotonic() - began > 60 * options.minutes:
            print(f"{part}: not measured, the time is up", flush=True)
            continue
        figures = [None if run is None else measured(run) for run in runs]
        told[part] = [figure and vars(figure) for figure in figures]
        print(row(part, figures), flush=True)
    for what, value in precision(setting).items():
        told[what] = value
        print(f"{what}: {value:.4g}")
    print(f"{time.monotonic() - began:.0f} s")
    if options.out:
        options.out.write_text(json.dumps({"device": name} | told, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
