"""Train the selector by one RL method, from the SFT selector of the same seed.

python stages/rl_selector.py METHOD SEED        METHOD: ppo | grpo | rloo | dpo | exact
"""

from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import cast, get_args

from posttrain.core.errors import UserError
from posttrain.core.manifest import build_manifest
from posttrain.core.params import Method, Params
from posttrain.core.stage import read_seed, run
from posttrain.selector.data import with_reference
from posttrain.selector.run import (
    BASE,
    REWARDS,
    load_data,
    load_policy,
    model_directory,
    train_and_save,
)
from posttrain.selector.train import Algorithm, Schedule, steps_of_batches
from posttrain.tasks import get_task


def main(params: Params, method: str, seed_text: str) -> None:
    if method not in get_args(Method):
        raise UserError(f"method {method!r}: expected one of {', '.join(get_args(Method))}")
    algorithm = cast(Algorithm, import_module(f"posttrain.selector.methods.{method}"))
    seed, model = read_seed(seed_text), params.selected_model
    config = params.rl.selector.of(method)
    manifest = build_manifest(
        "rl_selector",
        params.sections(f"rl.selector.{method}", "model"),
        [BASE, model_directory("sft", seed), REWARDS / "train.jsonl", REWARDS / "val.jsonl"],
        method=method,
        seed=seed,
        prompt=get_task(params.selected_dataset.task).prompt_hash(),
    )
    data, val, _ = load_data(model, config.evaluation_questions)
    # Dropout stays off: the ratio of new to old policy must come from the update alone.
    selector = load_policy("sft", seed, model, trainable=True)
    batches = steps_of_batches(data.pools, config.prompts_per_step, config.steps, seed)
    data = with_reference(data, selector, chain.from_iterable(batches), model.batch_size)
    name = f"{method}-{seed}"
    train_and_save(
        f"rl_selector {name}",
        selector,
        algorithm,
        config,
        Schedule(batches, config.inner_epochs, config.minibatches),
        data,
        val,
        model=model,
        seed=seed,
        manifest=manifest,
        output=model_directory(method, seed),
        curves=Path("plots/rl_selector") / name,
    )


if __name__ == "__main__":
    run(main, shared=True)
