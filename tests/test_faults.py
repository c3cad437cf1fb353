"""What goes wrong while a stage trains costs no result: an edit, a full disk, a second process, a broken checkpoint.

Stage sft_selector of a tiny model, in this process. Kills are in test_pipeline, and at any moment in soak.py; disks
that fill while TRL writes a checkpoint in test_generator_trl; mistakes before the work in test_bad_input.
"""

from __future__ import annotations

import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock, Timeout
from pretrain.model import build_model, llama_config, save_pocket, train_tokenizer
from ruamel.yaml import YAML
from safetensors import SafetensorError
from stages.sft_selector import main
from workspace import ROOT, set_params

from posttrain.core.errors import UserError
from posttrain.core.files import write_jsonl
from posttrain.core.params import load_params
from posttrain.models.load import write_base
from posttrain.selector import model as selector_model
from posttrain.selector import run as selector_run

OUTPUT = Path("models/sft_selector/0")
STEPS = 10

Train = Callable[..., list[int]]


def row(number: int) -> dict[str, Any]:
    return {
        "id": f"q{number}",
        "prompt": f"revenue was {number} and cost was {number + 3}",
        "candidates": [
            {"text": f"add({number}, {k})", "kind": "plausible", "reward": float(k == number % 3)}
            for k in range(3)
        ],
    }


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    rows = [row(number) for number in range(44)]
    params = YAML(typ="safe").load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    params["models"]["pocket"].update(max_prompt_tokens=100, max_candidate_tokens=60)
    with (folder / "params.yaml").open("w", encoding="utf-8") as file:
        YAML().dump(params, file)
    write_jsonl(folder / "data/rewards/train.jsonl", rows[: 4 * STEPS])
    write_jsonl(folder / "data/rewards/val.jsonl", rows[4 * STEPS :])
    tokenizer = train_tokenizer([rows[0]["prompt"], rows[0]["candidates"][0]["text"]], 512, 160)
    (folder / "models/base").mkdir(parents=True)
    (folder / "weights").mkdir()
    save_pocket(
        folder / "weights",
        build_model(llama_config(len(tokenizer), 16, 1, 2, 32, 160), 0),
        tokenizer,
    )
    write_base(folder / "models/base", "path", str(folder / "weights"), None)
    return folder


@pytest.fixture
def train(inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Train:
    """Runs the stage in a project of its own; returns the steps that were reported."""
    shutil.copytree(inputs, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)

    def run(after: int = -1, do: Callable[[], None] = lambda: None) -> list[int]:
        """do: what happens after that step."""
        steps: list[int] = []

        class Progress:
            def __init__(self, name: str) -> None: ...

            def __call__(self, done: int, total: int, shown: Any) -> None:
                steps.append(done)
                if done == after:
                    do()

            def close(self) -> None: ...

        monkeypatch.setattr(selector_run, "Progress", Progress)
        main(load_params(), "0")
        return steps

    return run


def contents() -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(OUTPUT.rglob("*")) if path.is_file()}


@pytest.fixture
def whole(train: Train) -> dict[str, bytes]:
    """What an undisturbed run makes; it lies there as the previous output."""
    assert train() == [*range(STEPS + 1)]
    assert not list(Path(".checkpoints").iterdir())
    return contents()


def test_params_edited_while_a_training_runs_are_named_and_its_result_not_kept(
    train: Train, whole: dict[str, bytes]
) -> None:
    """Undone, the training goes on from its last checkpoint."""
    before = Path("params.yaml").read_bytes()
    (OUTPUT / "previous").touch()
    with pytest.raises(UserError, match=r"^params\.yaml: sft\.selector was changed while this ran"):
        train(after=5, do=lambda: set_params(Path(), {"sft.selector.learning_rate": 0.5}))
    assert (OUTPUT / "previous").exists()
    Path("params.yaml").write_bytes(before)
    assert train() == [STEPS - 1, STEPS]
    assert contents() == whole


def test_data_edited_while_a_training_runs_is_named(train: Train, whole: dict[str, bytes]) -> None:
    data = Path("data/rewards/train.jsonl")
    with pytest.raises(UserError, match=f"^{data} was changed while this ran"):
        train(after=5, do=lambda: write_jsonl(data, [row(number) for number in range(9)]))
    assert contents() == whole


def test_a_disk_full_at_a_checkpoint_costs_only_that_checkpoint(
    train: Train, whole: dict[str, bytes]
) -> None:
    """A limit on the size of files fails a write as a full disk does."""
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(UserError, match=r"^cannot write \.checkpoints/.*: File too large$"):
            train(
                after=5,
                do=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, unlimited[1])),
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert contents() == whole
    assert train() == [*range(5, STEPS + 1)]
    assert contents() == whole


def test_a_disk_full_at_the_model_leaves_the_previous_one(
    train: Train, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any) -> None:
        raise SafetensorError("Error while serializing: No space left on device (os error 28)")

    (OUTPUT / "previous").touch()
    with monkeypatch.context() as patched:
        patched.setattr(selector_model, "save_file", full)
        with pytest.raises(
            UserError, match=r"^cannot write models/sft_selector/.*: .*No space left on device"
        ):
            train()
    assert (OUTPUT / "previous").exists()
    assert [path.name for path in OUTPUT.parent.iterdir()] == ["0"]
    assert train() == [STEPS - 1, STEPS]
    assert contents() == whole


def test_a_training_is_held_against_a_second_process(train: Train, whole: dict[str, bytes]) -> None:
    def second() -> None:
        (lock,) = Path(".checkpoints").glob("*.lock")
        with pytest.raises(Timeout):
            FileLock(lock, blocking=False).acquire()

    assert train(after=5, do=second) == [*range(STEPS + 1)]


def test_a_training_whose_checkpoint_is_cut_starts_over(
    train: Train, whole: dict[str, bytes]
) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(after=5, do=stop)
    (checkpoint,) = Path(".checkpoints").glob("*.safetensors")
    checkpoint.write_bytes(checkpoint.read_bytes()[:-50])
    assert train() == [*range(STEPS + 1)]
    assert contents() == whole
