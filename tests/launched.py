"""What `test_launch` starts on two processes, and runs itself as one: small trainings, and a stage that goes wrong.

accelerate launch --config_file launch/two-cpus.yaml tests/launched.py trainings FOLDER [NAME ...]
accelerate launch --config_file launch/two-cpus.yaml tests/launched.py one-fails | all-fail FOLDER
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from posttrain import stage
from posttrain.errors import UserError


class Result(NamedTuple):
    weights: dict[str, Any]
    told: Any  # curves, or completions


def trainings() -> dict[str, Callable[[Path], Result]]:
    """Each by name, from a folder for its checkpoints to its result; those that can be killed are."""
    import test_generator_ppo as ppo
    import test_generator_trl as trl
    import test_train as selector

    from posttrain.generator.sampling import sample
    from posttrain.models.tokens import tokenize_prompts
    from posttrain.processes import count, wait
    from posttrain.training import trainable_state

    def killed_once(run: Callable[..., Any], killed: type[Exception], die_at: int) -> Any:
        """The run; of several processes one that is killed and resumed."""
        if count() > 1:
            try:
                run(die_at=die_at)
            except killed:
                wait()  # the main process may still be writing the last checkpoint
                return run()
            raise AssertionError("it went on")
        return run()

    def of_selector(method: str, folder: Path, **changes: Any) -> Result:
        def run(die_at: int | None = None) -> Any:
            return selector.run(method, folder, batch_size=4, die_at=die_at, **changes)

        trained, history = killed_once(run, selector.Killed, 6)
        return Result(trainable_state(trained), [history.train, history.val])

    def of_trl(method: str, folder: Path, lora: bool = False, **changes: Any) -> Result:
        def run(die_at: int | None = None) -> Any:
            model = trl.llama(lora)
            return model, trl.run(method, folder, model, die_at=die_at, **changes)

        model, history = killed_once(run, trl.Killed, 3)
        return Result(trainable_state(model), [history.train, history.val])

    def of_ppo(folder: Path) -> Result:
        def run(die_at: int | None = None) -> Any:
            return ppo.run(folder, die_at=die_at)

        model, history = killed_once(run, ppo.Killed, 4)
        return Result(trainable_state(model), [history.train, history.val])

    def drawn(folder: Path) -> Result:
        prompts = tokenize_prompts(
            [trl.TASK.render_prompt(example) for example in trl.EXAMPLES[:7]], trl.TOKENIZER
        )
        groups = sample(
            trl.llama(),
            trl.TOKENIZER,
            prompts,
            count=3,
            max_new_tokens=8,
            temperature=1.0,
            top_p=0.9,
            seed=5,
            batch_size=6,
        )
        return Result({}, [[completion.ids for completion in group] for group in groups])

    return {
        "selector sft": lambda folder: of_selector("sft", folder),
        "selector ppo": lambda folder: of_selector("ppo", folder, minibatches=2, inner_epochs=2),
        "sft": lambda folder: of_trl("sft", folder, batch_size=6),  # the last batch has 4 rows
        "dpo": lambda folder: of_trl("dpo", folder),
        "grpo": lambda folder: of_trl("grpo", folder, lora=True, inner_epochs=2),
        "rloo": lambda folder: of_trl("rloo", folder),
        "ppo": of_ppo,
        "sample": drawn,
    }


def run_trainings(folder: Path, names: Sequence[str]) -> None:
    """The main process keeps all results, and the names of the files that the other one wrote."""
    written: list[str] = []

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        writes = (
            event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
        )
        if (writes or event in ("os.rename", "os.remove")) and str(folder) in str(arguments[0]):
            written.append(Path(os.fspath(arguments[0])).name)

    sys.addaudithook(note)
    os.umask(0o000 if stage.RANK else 0o022)  # marks what torch writes past Python
    from safetensors.torch import save_file

    from posttrain import processes
    from posttrain.generator.vllm import fingerprint

    known = trainings()
    for name in names or known:
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


def of_the_main_process(params: Any, what: str, folder: str) -> None:
    with (Path(folder) / "unshared").open("a") as file:
        file.write("ran\n")


def failing(params: Any, what: str, folder: str) -> None:
    print("working")
    if what == "all-fail" or stage.RANK == 1:
        raise UserError("the disk of process 1 is full")
    time.sleep(300)  # it waits for the other one


if __name__ == "__main__":
    if sys.argv[1] == "trainings":
        run_trainings(Path(sys.argv[2]), sys.argv[3:])
    else:
        stage.GRACE = 1
        stage.TIMES = Path(sys.argv[2]) / "times.jsonl"
        stage.run(of_the_main_process)
        stage.run(failing, shared=True)
