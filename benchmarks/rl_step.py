"""Cost of one RL step per question: writing the answer against selecting it.

    python benchmarks/rl_step.py [--model DIR] [--questions 8] [--samples 4] [--passes 1] [--rounds 3] [--threads 1]

Four policies train in turn in one process, on the same generated questions, with the same model and batch size:

    generator   GRPO (TRL's trainer as this project runs it) and PPO write `samples` answers to each question
    selector    GRPO and PPO score the K candidates of each question and sample `samples` of them

A step has two parts. The rollout samples the actions, by decoding or by one scoring pass. The update is the rest; for the
generator it includes the rewards and the log-probabilities of the old and the reference policy, which the selector has
from its rollout and from before training. Not measured are validation, checkpoints, and the selector's pools, which are
made once for all runs. The learning rate is close to 0, so all steps have the same policy. A round is one run of each
policy; medians are over all steps of a round except the first (warm-up) and the last.
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

from posttrain.core import loop
from posttrain.core.loop import History, device
from posttrain.core.methods import load_method, settings_of
from posttrain.core.params import Params, load_params
from posttrain.generator import run as generator
from posttrain.generator.data import Data
from posttrain.models.load import load_causal_lm, load_tokenizer
from posttrain.pools.make import make_pools as make_candidate_pools
from posttrain.rollouts.rewards import RewardFunction
from posttrain.rollouts.sampling import sample
from posttrain.selector.data import make_pools
from posttrain.selector.model import Selector, load_reader
from posttrain.selector.train import Pools, Run, Schedule, train
from posttrain.tasks import Example, get_task
from posttrain.tasks.finqa.examples import make_example
from posttrain.tasks.finqa.sample import generate
from posttrain.tasks.rendering import render

ROOT = Path(__file__).resolve().parent.parent
TASK = get_task("finqa")
METHODS = ("grpo", "ppo")
STEPS = 4  # per round
PER_PAGE = 5  # more than the generated questions of any page
Result = TypeVar("Result")


@dataclass
class Stopwatch:
    """Seconds of the rollouts and of the steps; a step begins with its rollout and ends with its report."""

    rollouts: list[float] = field(default_factory=list)
    steps: list[float] = field(default_factory=list)
    began: float = 0.0

    def timed(self, rollout: Callable[..., Result]) -> Callable[..., Result]:
        """The rollout function, with its time recorded."""

        def run(*arguments: Any, **others: Any) -> Result:
            self.began = now()
            result = rollout(*arguments, **others)
            self.rollouts.append(now() - self.began)
            return result

        return run

    def report(self, *progress: Any) -> None:
        """End a step; does nothing before the first rollout."""
        if len(self.steps) < len(self.rollouts):
            self.steps.append(now() - self.began)

    def measured(self) -> list[tuple[float, float]]:
        """(rollout, update) in seconds of each step except the first and the last."""
        both = zip(self.rollouts, self.steps, strict=True)
        return [(rollout, step - rollout) for rollout, step in both][1:-1]


@dataclass(frozen=True)
class Algorithm:
    """A selector's method with a timed rollout."""

    rollout: Callable[..., Any]
    loss: Callable[..., Any]


@dataclass(frozen=True)
class Setting:
    """The settings that all four runs share; `pools` are those of `examples`, in the same order."""

    params: Params
    model: Path
    examples: Sequence[Example]
    pools: Pools
    samples: int
    passes: int

    def of(self, family: str, method: str) -> Any:
        """A method's settings in params.yaml, for one round on these questions."""
        defaults = settings_of(self.params, family, method, load_method(family, method))
        changes = {
            "steps": STEPS,
            "prompts_per_step": len(self.examples),
            "samples": self.samples,
            "inner_epochs": self.passes,
            "learning_rate": 1e-9,
            "evaluations": 1,
            "prompts": "all",
            "target_kl": None,  # the selector's PPO then makes all passes
        }
        known = {name: value for name, value in changes.items() if hasattr(defaults, name)}
        return defaults.model_copy(update=known)


def now() -> float:
    """The time in seconds, after the device has finished its work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def make_setting(params: Params, model: Path, questions: int, samples: int, passes: int) -> Setting:
    """Generated questions about different pages, and their pools."""
    rows = generate(0, {"train": questions * PER_PAGE, "val": 1, "test": 1})["train"]
    shown, tolerance = params.examples, params.reward.tolerance
    examples = [
        render(TASK, make_example(row, shown.context, shown.top_n, params.operands), (), tolerance)
        for row in rows
    ]
    asked = examples[::PER_PAGE]
    made = make_candidate_pools(TASK, params, {"train": examples, "asked": asked})
    pools = {split: list(rows) for split, rows in made}["asked"]
    tokenised, _ = make_pools(pools, load_tokenizer(model), params.selected_model, training=False)
    return Setting(params, model, asked, tokenised, samples, passes)


def train_generator(setting: Setting, method: str, watch: Stopwatch) -> History:
    """One training run of the generator."""
    params, entry = setting.params, setting.params.selected_model
    tokenizer = load_tokenizer(setting.model)
    with tempfile.TemporaryDirectory() as work:
        run = generator.Run(
            model=load_causal_lm(setting.model, dtype=entry.dtype, device=device()),
            seed=0,
            work=Path(work),
            evaluate=lambda model: {"reward": 0.0},
            report=watch.report,
            tokenizer=tokenizer,
            data=Data(setting.examples, tokenizer, entry, Path(work), Path(work)),
            reward=RewardFunction(TASK, setting.examples, params.reward.weights),
            sample=watch.timed(sample),
            in_flight=params.sampling.batch_size,
            max_new_tokens=entry.max_candidate_tokens,
            batch_size=entry.batch_size,
        )
        history: History = load_method("generator", method).train(
            run, setting.of("generator", method)
        )
    return history


def train_selector(setting: Setting, method: str, watch: Stopwatch) -> History:
    """One training run of the selector."""
    entry, pools = setting.params.selected_model, setting.pools
    module, config = load_method("selector", method), setting.of("selector", method)
    selector = Selector(load_reader(setting.model, entry.dtype)).to(device()).eval()
    with tempfile.TemporaryDirectory() as work:
        run = Run(
            model=selector,
            seed=0,
            work=Path(work),
            evaluate=lambda selector: {"reward": 0.0},
            report=watch.report,
            data=pools,
            batch_size=entry.batch_size,
        )
        return train(
            run,
            Algorithm(watch.timed(module.rollout), module.loss),
            config,
            Schedule([range(len(pools))] * STEPS, config.inner_epochs, config.minibatches),
        )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, default=ROOT / "pretrain" / "pocket")
    parser.add_argument("--questions", type=int, default=8, help="per step")
    parser.add_argument("--samples", type=int, default=4, help="answers written or selected")
    parser.add_argument("--passes", type=int, default=1, help="over each rollout batch")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.use_deterministic_algorithms(True, warn_only=torch.cuda.is_available())
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    loop.SAVES = 1  # the checkpoint of the last step, which is not written
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
