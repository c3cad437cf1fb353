"""Small training runs and a failing stage, which `test_launch` starts on two processes and also runs on one.

accelerate launch --config_file launch/two-cpus.yaml tests/launched.py trainings | adapters FOLDER
accelerate launch --config_file launch/two-cpus.yaml tests/launched.py one-fails | all-fail FOLDER
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

from posttrain.core import cost, stage
from posttrain.core.errors import UserError


class Result(NamedTuple):
    weights: dict[str, Any]
    told: Any  # curves, or completions


def trainings(adapters: bool = False) -> dict[str, Callable[[Path], Result]]:
    """The training runs by name, as functions of a folder for checkpoints; those that can be killed are.

    adapters: train adapters on a frozen model loaded from a folder as in the stages, which a launcher may shard.
    """
    import test_train as selector
    import torch
    import toys

    from posttrain.core.loop import trainable_state
    from posttrain.core.processes import count, is_main, wait
    from posttrain.models.architecture import recompute_activations
    from posttrain.models.load import load_causal_lm
    from posttrain.models.lora import add_lora
    from posttrain.models.tokens import tokenize_prompts
    from posttrain.rollouts import sampling

    def ready(model: Any, folder: Path) -> Any:
        if not adapters:
            return model
        if is_main():
            model.save_pretrained(folder / "base")
        wait()
        frozen = load_causal_lm(folder / "base")
        torch.manual_seed(1)
        return add_lora(frozen, 4, 8, 0.0, "auto", "CAUSAL_LM")

    def killed_once(run: Callable[..., Any], die_at: int) -> Any:
        """The result of the run; with several processes, it is killed and resumed."""
        if count() > 1:
            try:
                run(die_at=die_at)
            except toys.Killed:
                wait()  # the main process may still be writing the last checkpoint
                return run()
            raise AssertionError("it went on")
        return run()

    def of_selector(method: str, folder: Path, **changes: Any) -> Result:
        def run(die_at: int | None = None) -> Any:
            chooser = selector.new_selector()
            chooser.backbone = ready(chooser.backbone, folder)
            return selector.run(
                method, folder, selector=chooser.train(), batch_size=3, die_at=die_at, **changes
            )

        trained, history = killed_once(run, 6)
        return Result(trainable_state(trained), [history.train, history.val])

    def of_trl(
        method: str, folder: Path, lora: bool = False, recompute: bool = False, **changes: Any
    ) -> Result:
        def run(die_at: int | None = None) -> Any:
            model = ready(toys.colour_llama(lora and not adapters), folder)
            if recompute:
                recompute_activations(model)
            return model, toys.train_on_colours(method, folder, model, die_at=die_at, **changes)

        model, history = killed_once(run, 3)
        return Result(trainable_state(model), [history.train, history.val])

    def of_ppo(folder: Path) -> Result:
        def run(die_at: int | None = None) -> Any:
            model = ready(toys.token_model(), folder)
            return toys.train_on_tokens(folder, model=model, batch_size=5, die_at=die_at)

        model, history = killed_once(run, 4)
        return Result(trainable_state(model), [history.train, history.val])

    def sampled(folder: Path) -> Result:
        texts = [example["prompts"]["direct"] for example in toys.COLOUR_QUESTIONS[:7]]
        prompts = tokenize_prompts(texts, toys.COLOUR_TOKENIZER)
        model, told = ready(toys.colour_llama(), folder).eval(), []
        for shared in (True, False):
            with patch.object(sampling, "can_share", return_value=shared):
                groups = sampling.sample(
                    model,
                    toys.COLOUR_TOKENIZER,
                    prompts,
                    temperatures=[1.0] * 3,
                    max_new_tokens=8,
                    top_p=0.9,
                    seed=5,
                    batch_size=6,
                )
            told.append([[completion.ids for completion in group] for group in groups])
        return Result({}, told)

    return {
        "selector sft": lambda folder: of_selector("sft", folder),
        "selector ppo": lambda folder: of_selector("ppo", folder, minibatches=2, inner_epochs=2),
        "sft": lambda folder: of_trl("sft", folder, batch_size=6),  # the last batch has 4 rows
        "sft_plus": lambda folder: of_trl("sft_plus", folder, batch_size=3),  # uneven shares
        "dpo": lambda folder: of_trl("dpo", folder),
        "grpo": lambda folder: of_trl("grpo", folder, lora=True, inner_epochs=2),
        "rloo": lambda folder: of_trl("rloo", folder, recompute=adapters),
        "ppo": of_ppo,
        "sample": sampled,
    }


def run_trainings(what: str, folder: Path) -> None:
    """The main process saves all results, the names of the files that the other one wrote, and for each loaded model the
    number of weights in its layers and the number of these on this process.
    """
    written: list[str] = []

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        writes = (
            event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
        )
        if (writes or event in ("os.rename", "os.remove")) and str(folder) in str(arguments[0]):
            written.append(Path(os.fspath(arguments[0])).name)

    sys.addaudithook(note)
    os.umask(0o000 if stage.RANK else 0o022)  # marks what torch writes past Python
    import torch
    from safetensors.torch import save_file

    from posttrain.core import processes
    from posttrain.models import load
    from posttrain.rollouts import sampling
    from posttrain.rollouts.vllm import fingerprint

    held: list[list[int]] = []
    shard = load.shard

    def watched(model: Any, *others: Any) -> None:
        weights = [p for layer in model.base_model.layers for p in layer.parameters()]
        shard(model, *others)
        parts = [p for layer in model.base_model.layers for p in layer.parameters()]
        own = sum(part.to_local().numel() for part in parts)
        held.append([sum(weight.numel() for weight in weights), own])

    load.shard = watched
    decode = sampling.decode_shared

    def without_gradients(*arguments: Any) -> Any:
        assert not torch.is_grad_enabled(), "the cache would keep the activations of every step"
        return decode(*arguments)

    sampling.decode_shared = without_gradients
    known = trainings(adapters=what == "adapters")
    for name in known:
        result = known[name](folder / name)
        ends = processes.collect([fingerprint(result.weights) + json.dumps(result.told)])
        assert len(set(ends)) == 1, f"{name}: the processes do not end with the same"
        if processes.is_main():
            save_file(result.weights, folder / f"{name}.safetensors")
            (folder / f"{name}.json").write_text(json.dumps(result.told))
    by_process = processes.collect([written])
    if processes.is_main():
        files = [path for path in folder.rglob("*") if path.is_file()]
        marked = [path.name for path in files if path.stat().st_mode & 0o022]
        (folder / "written.json").write_text(json.dumps(by_process[1] + marked))
        (folder / "held.json").write_text(json.dumps(held))


def of_the_main_process(params: Any, what: str, folder: str) -> None:
    with (Path(folder) / "unshared").open("a") as file:
        file.write("ran\n")


def failing(params: Any, what: str, folder: str) -> None:
    print("working")
    if what == "all-fail" or stage.RANK == 1:
        raise UserError("the disk of process 1 is full")
    time.sleep(300)  # it waits for the other one


if __name__ == "__main__":
    # For `pretrain`, as pytest does it.
    sys.path.append(str(Path(__file__).resolve().parent.parent))
    if sys.argv[1] in ("trainings", "adapters"):
        run_trainings(sys.argv[1], Path(sys.argv[2]))
    else:
        stage.GRACE = 1
        cost.TIMES = Path(sys.argv[2]) / "times.jsonl"
        stage.check = lambda *_: (
            None
        )  # this is no stage of the pipeline, so nothing is noted of its code
        stage.run(of_the_main_process)
        stage.run(failing, shared=True)
