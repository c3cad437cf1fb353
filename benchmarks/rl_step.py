"""What one step of reinforcement learning costs a question: writing the answer against selecting it.

    python benchmarks/rl_step.py [--model DIR] [--questions 8] [--samples 4] [--passes 1] [--rounds 3] [--threads 1]

Four policies train on the same generated questions, with the same model and batch size, in one process and in turn:

    generator   GRPO (TRL's trainer as this project runs it) and PPO write `samples` answers to each question
    selector    GRPO and PPO score the K candidates of each question and draw `samples` of them

A step has two parts. The rollout draws the actions: decoding, or one scoring pass. The update is all the rest, so for
the generator also the rewards and the log-probabilities of the old and the reference policy, which the selector has
from its rollout and from before the training. Left out of both are validation and checkpoints, of the selector also
making the pools, once for all trainings. The learning rate is next to nothing, so every step writes answers of the same
policy. A round is one training of each; medians are over the rounds' steps but the first (warm-up) and the last.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch

from posttrain.core.checkpoint import Checkpoint, CheckpointFile
from posttrain.core.params import Optimization, Params, load_params
from posttrain.core.training import History, device
from posttrain.generator.data import prompt_rows
from posttrain.generator.methods import grpo, ppo
from posttrain.models.load import load_causal_lm, load_tokenizer
from posttrain.models.tokens import tokenize_prompts
from posttrain.pools.make import pool_maker
from posttrain.pools.rewards import reward_pool
from posttrain.rollouts.rewards import RewardFunction
from posttrain.rollouts.sampling import sample
from posttrain.selector.data import make_pools
from posttrain.selector.methods import grpo as selector_grpo
from posttrain.selector.methods import ppo as selector_ppo
from posttrain.selector.model import Selector, load_reader
from posttrain.selector.train import Pools, Schedule, train
from posttrain.tasks import Example, get_task
from posttrain.tasks.finqa.prepare import prepare_row
from posttrain.tasks.finqa.sample import generate

ROOT = Path(__file__).resolve().parent.parent
TASK = get_task("finqa")
METHODS = ("grpo", "ppo")
STEPS = 4  # per round
PER_PAGE = 5  # more than the generated questions of any page
Result = TypeVar("Result")


@dataclass
class Stopwatch:
    """Seconds of the rollouts and of the steps, which begin with the rollout and end with the report."""

    rollouts: list[float] = field(default_factory=list)
    steps: list[float] = field(default_factory=list)
    began: float = 0.0

    def timed(self, rollout: Callable[..., Result]) -> Callable[..., Result]:
        """The same function, on the clock."""

        def run(*arguments: Any, **others: Any) -> Result:
            self.began = now()
            result = rollout(*arguments, **others)
            self.rollouts.append(now() - self.began)
            return result

        return run

    def report(self, *progress: Any) -> None:
        """Ends a step; a report before the first one ends none."""
        if len(self.steps) < len(self.rollouts):
            self.steps.append(now() - self.began)

    def measured(self) -> list[tuple[float, float]]:
        """(rollout, update) of each step but the first and the last, in seconds."""
        both = zip(self.rollouts, self.steps, strict=True)
        return [(rollout, step - rollout) for rollout, step in both][1:-1]


@dataclass(frozen=True)
class Algorithm:
    """A selector's method with a rollout on the clock."""

    rollout: Callable[..., Any]
    loss: Callable[..., Any]


class Unsaved(CheckpointFile):
    """No checkpoint."""

    def __init__(self) -> None: ...

    def save(self, *state: Any) -> None: ...

    def load(self) -> Checkpoint | None:
        return None


@dataclass(frozen=True)
class Setting:
    """What all four trainings share; `pools` are of the `examples`, in their order."""

    params: Params
    model: Path
    examples: Sequence[Example]
    pools: Pools
    samples: int
    passes: int

    def config(self, defaults: Optimization) -> Any:
        """A method's section of params.yaml, for one round on these questions."""
        changes = {
            "steps": STEPS,
            "prompts_per_step": len(self.examples),
            "samples": self.samples,
            "inner_epochs": self.passes,
            "learning_rate": 1e-9,
            "evaluations": 1,
            "value_warmup_steps": 0,  # the generator's PPO: its policy is trained from the first step
            "target_kl": None,  # the selector's PPO: no pass is left out
        }
        known = {name: value for name, value in changes.items() if hasattr(defaults, name)}
        return defaults.model_copy(update=known)


def now() -> float:
    """Seconds, when the device has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def make_setting(params: Params, model: Path, questions: int, samples: int, passes: int) -> Setting:
    """Generated questions, each of another page, and their pools."""
    rows = generate(0, {"train": questions * PER_PAGE, "val": 1, "test": 1})["train"]
    shown = params.prepare
    examples = [prepare_row(row, shown.context, shown.top_n, params.operands) for row in rows]
    make = pool_maker(TASK, params, examples)
    asked = examples[::PER_PAGE]
    candidates = [
        [{"text": made.text, "kind": made.kind, "edit": made.edit} for made in make(example)]
        for example in asked
    ]
    pools = [
        reward_pool(TASK, example, pool, params.rewards)
        for example, pool in zip(asked, candidates, strict=True)
    ]
    tokenised, _ = make_pools(pools, load_tokenizer(model), params.selected_model, training=False)
    return Setting(params, model, asked, tokenised, samples, passes)


def train_generator(setting: Setting, method: str, watch: Stopwatch) -> History:
    """One round of the generator."""
    params, entry = setting.params, setting.params.selected_model
    tokenizer = load_tokenizer(setting.model)
    rows, _ = prompt_rows(setting.examples, TASK, tokenizer, entry.max_prompt_tokens)
    reward = RewardFunction(
        TASK, setting.examples, params.rewards.tolerance, params.rewards.weights.model_dump()
    )
    common: dict[str, Any] = {
        "batch_size": entry.batch_size,
        "sample": watch.timed(sample),
        "seed": 0,
        "evaluate": lambda model: {"reward": 0.0},
        "report": watch.report,
    }
    model = load_causal_lm(setting.model, dtype=entry.dtype, device=device())
    config = setting.config(params.rl.generator.of(method))
    if method == "ppo":
        return ppo.train(
            model,
            tokenizer,
            tokenize_prompts([row["prompt"] for row in rows], tokenizer),
            reward.rewards,
            config,
            max_new_tokens=entry.max_candidate_tokens,
            generation_batch_size=params.generation.batch_size,
            checkpoint=Unsaved(),
            **common,
        )
    with tempfile.TemporaryDirectory() as work:
        return grpo.train(
            model,
            tokenizer,
            rows,
            reward,
            config,
            max_completion_tokens=entry.max_candidate_tokens,
            in_flight=params.generation.batch_size,
            work=Path(work),
            **common,
        )


def train_selector(setting: Setting, method: str, watch: Stopwatch) -> History:
    """One round of the selector."""
    entry, pools = setting.params.selected_model, setting.pools
    module = {"grpo": selector_grpo, "ppo": selector_ppo}[method]
    config = setting.config(setting.params.rl.selector.of(method))
    return train(
        Selector(load_reader(setting.model, entry.dtype)).to(device()).eval(),
        Algorithm(watch.timed(module.rollout), module.loss),
        config,
        Schedule([range(len(pools))] * STEPS, config.inner_epochs, config.minibatches),
        pools,
        Pools(pools.pools[:1], pools.rewards[:1], pools.reference[:1]),
        batch_size=entry.batch_size,
        seed=0,
        checkpoint=Unsaved(),
        report=watch.report,
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, default=ROOT / "pretrain" / "pocket")
    parser.add_argument("--questions", type=int, default=8, help="per step")
    parser.add_argument("--samples", type=int, default=4, help="answers written or drawn")
    parser.add_argument("--passes", type=int, default=1, help="over each rollout batch")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.use_deterministic_algorithms(True, warn_only=torch.cuda.is_available())
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    params = load_params(ROOT / "params.yaml")
    setting = make_setting(
        params, options.model, options.questions, options.samples, options.passes
    )
    kinds = {"generator": train_generator, "selector": train_selector}
    seconds: dict[tuple[str, str], list[tuple[float, float]]] = {}
    written: list[float] = []
    for _ in range(options.rounds):
        for method in METHODS:
            for kind, train_one in kinds.items():
                watch = Stopwatch()
                history = train_one(setting, method, watch)
                seconds.setdefault((kind, method), []).extend(watch.measured())
                written += [row.get("completion_tokens", 0.0) for row in history.train]

    pools = setting.pools.pools
    prompts = [len(pool.prompt_ids) for pool in pools]
    candidates = [len(ids) for pool in pools for ids in pool.candidate_ids]
    prompt, answer = statistics.mean(prompts), statistics.mean(filter(None, written))
    candidate, count = statistics.mean(candidates), len(candidates) // len(pools)
    print(
        f"torch {torch.__version__}, {platform.machine()}, {device().type}, {options.threads} thread(s), "
        f"{options.model}"
    )
    print(
        f"{options.questions} questions per step, in passes of {params.selected_model.batch_size} questions or answers; "
        f"prompts {min(prompts)}-{max(prompts)} tokens (mean {prompt:.0f})"
    )
    print(
        f"generator: {options.samples} answers of {answer:.0f} tokens, {prompt + options.samples * answer:.0f} with the "
        f"prompt; selector: {count} candidates of {candidate:.0f} tokens, {prompt + count * candidate:.0f} with the "
        f"prompt; {options.passes} pass(es) over each rollout batch"
    )
    print(f"{'ms per question':<20}{'rollout':>9}{'update':>9}{'step':>9}")
    for method in METHODS:
        steps = []
        for kind in kinds:
            parts = [(*both, sum(both)) for both in seconds[kind, method]]
            medians = [statistics.median(part) for part in zip(*parts, strict=True)]
            row = [f"{median / options.questions * 1e3:9.1f}" for median in medians]
            print(f"{f'{kind} {method}':<20}{''.join(row)}")
            steps.append(medians)
        ratios = [f"{mine / other:8.1f}x" for mine, other in zip(*steps, strict=True)]
        print(f"{'ratio':<20}{''.join(ratios)}")


if __name__ == "__main__":
    main()
