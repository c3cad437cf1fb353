"""Faults during training cost no result: an edit, a full disk, a second process, a broken checkpoint.

Stage selector_sft of a tiny model, in this process. Kills are in test_pipeline, and at any moment in soak.py; disks
that fill while TRL writes a checkpoint in test_generator_trl; mistakes before the work in test_bad_input.
"""

from __future__ import annotations

import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import toys
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from stages.selector_sft import main
from toys import pool_row, write_project
from workspace import set_params

from posttrain.core import code
from posttrain.core.errors import UserError
from posttrain.core.files import read_json, write_json, write_jsonl
from posttrain.core.params import load_params
from posttrain.selector import model as selector_model
from posttrain.selector import run as selector_run

OUTPUT = Path("models/selector/sft/0")
DATA = Path("data/pools/train.jsonl")
STEPS = 10

Train = Callable[..., list[int]]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [pool_row(number) for number in range(44)]
    splits = {"train": rows[: 4 * STEPS], "val": rows[4 * STEPS :]}
    return write_project(tmp_path_factory.mktemp("inputs"), splits)


@pytest.fixture
def train(inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Train:
    """Run the stage in a project of its own; returns the reported steps."""
    shutil.copytree(inputs, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)

    def run(after: int = -1, do: Callable[[], None] = lambda: None) -> list[int]:
        """do: called after that step."""
        steps: list[int] = []

        class Progress:
            def __init__(self, name: str, tracking: str) -> None: ...

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
    return toys.contents(OUTPUT)


@pytest.fixture
def whole(train: Train) -> dict[str, bytes]:
    """The result of an undisturbed run, which remains as the previous output."""
    assert train() == [*range(STEPS + 1)]
    assert not list(Path(".checkpoints").iterdir())
    return contents()


def test_params_edited_while_a_training_runs_are_named_and_its_result_not_kept(
    train: Train, whole: dict[str, bytes]
) -> None:
    """After the edit is undone, training resumes from its last checkpoint."""
    before = Path("params.yaml").read_bytes()
    (OUTPUT / "previous").touch()
    with pytest.raises(UserError, match=r"^params\.yaml: selector\.sft was changed while this ran"):
        train(after=5, do=lambda: set_params(Path(), {"selector.sft.learning_rate": 0.5}))
    assert (OUTPUT / "previous").exists()
    Path("params.yaml").write_bytes(before)
    assert train() == [STEPS - 1, STEPS]
    assert contents() == whole


def test_data_edited_while_a_training_runs_is_named(train: Train, whole: dict[str, bytes]) -> None:
    with pytest.raises(UserError, match=f"^{DATA} was changed while this ran"):
        train(after=5, do=lambda: write_jsonl(DATA, [pool_row(number) for number in range(9)]))
    assert contents() == whole


def test_code_edited_while_a_training_runs_is_named(train: Train, whole: dict[str, bytes]) -> None:
    """Here the stored digest is changed, because the code is running this test."""
    file, noted = "src/posttrain/selector/train.py", code.CODE / "selector_sft"

    def edit() -> None:
        for path in (noted, code.CODE / code.RAW):
            write_json(path, read_json(path) | {file: "0" * 64})

    with pytest.raises(
        UserError, match=f"^{file} has changed since stage code hashed it for selector_sft"
    ):
        train(after=5, do=edit)
    assert contents() == whole


def test_a_training_that_diverges_writes_no_model(train: Train, whole: dict[str, bytes]) -> None:
    set_params(Path(), {"selector.sft.learning_rate": 1e30})
    with pytest.raises(
        UserError, match=r"^step \d+: \S+ is \S+, so the training has diverged; low"
    ):
        train()
    assert contents() == whole
    shutil.rmtree(OUTPUT)
    with pytest.raises(UserError):
        train()
    assert not OUTPUT.exists()
    set_params(Path(), {"selector.sft.learning_rate": 0.001})
    assert train() == [*range(STEPS + 1)]
    assert contents().keys() == whole.keys()


def test_a_disk_full_at_a_checkpoint_costs_only_that_checkpoint(
    train: Train, whole: dict[str, bytes]
) -> None:
    """A limit on file size makes a write fail like a full disk."""
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
            UserError, match=r"^cannot write models/selector/sft/.*: .*No space left on device"
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
    (checkpoint,) = Path(".checkpoints").glob("*/*.safetensors")
    checkpoint.write_bytes(checkpoint.read_bytes()[:-50])
    assert train() == [*range(STEPS + 1)]
    assert contents() == whole
