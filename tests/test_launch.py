"""The same training on two processes: `accelerate launch` with the files of launch/, on CPUs."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from benchmarks import presets
from launched import trainings
from safetensors.torch import load_file
from toys import settings
from workspace import ROOT
from workspace import run as run_command

from posttrain.core import processes
from posttrain.core.errors import UserError
from posttrain.core.params import load_params
from posttrain.generator import trl
from posttrain.models.load import load_causal_lm

NAMES = ["selector sft", "selector ppo", "sft", "sft_plus", "dpo", "grpo", "rloo", "ppo", "sample"]
CONFIGS = sorted((ROOT / "launch").glob("*.yaml"))


def launch(*arguments: str, config: str = "launch/two-cpus.yaml") -> Any:
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", config]
    return run_command(ROOT, *command, "tests/launched.py", *arguments)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the results of two processes."""
    folder = tmp_path_factory.mktemp("two")
    done = launch("trainings", str(folder))
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return folder


def on_two_cpus(folder: Path, **changes: Any) -> str:
    """The launch file for sharding over GPUs, changed for two processes on CPUs."""
    config = yaml.safe_load((ROOT / "launch/gpus-fsdp2.yaml").read_text())
    config |= {"num_processes": 2, "gpu_ids": "-1,-1"}
    config["fsdp_config"] |= changes
    path = folder / "fsdp2.yaml"
    path.write_text(yaml.safe_dump(config))
    return str(path)


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the results of two processes that shard the frozen weights."""
    folder = tmp_path_factory.mktemp("sharded")
    done = launch("adapters", str(folder), config=on_two_cpus(folder))
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return folder


@pytest.fixture(autouse=True)
def keep_torch_s_settings() -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled()
    yield
    torch.use_deterministic_algorithms(before)


def numbers(told: Any) -> list[float]:
    if isinstance(told, dict):
        return [number for key in sorted(told) for number in numbers(told[key])]
    if isinstance(told, list):
        return [number for part in told for number in numbers(part)]
    return [float(told)]


@pytest.mark.parametrize("name", NAMES)
def test_two_processes_train_what_one_does(name: str, two: Path, tmp_path: Path) -> None:
    """Equal curves and weights up to the order of sums, although the run of two was killed and resumed."""
    assert_equal(two, name, trainings()[name](tmp_path))


@pytest.mark.parametrize("name", NAMES)
def test_two_processes_that_share_out_the_weights_train_what_one_does(
    name: str, sharded: Path, tmp_path: Path
) -> None:
    assert_equal(sharded, name, trainings(adapters=True)[name](tmp_path))


def test_a_process_holds_its_part_of_the_frozen_weights(sharded: Path) -> None:
    held = json.loads((sharded / "held.json").read_text())
    assert len(held) > len(NAMES), "those that were killed have loaded their model twice"
    assert all(2 * own == whole > 0 for whole, own in held)


def assert_equal(folder: Path, name: str, one: Any) -> None:
    told = json.loads((folder / f"{name}.json").read_text())
    assert numbers(told) == pytest.approx(numbers(one.told), rel=1e-3, abs=1e-4)
    weights = load_file(folder / f"{name}.safetensors")
    assert weights.keys() == one.weights.keys()
    for key, tensor in one.weights.items():
        # Adding a constant to all scores does not change the policy, so this weight's gradient is rounding.
        if key != "score.outer.bias":
            assert torch.allclose(weights[key], tensor, atol=1e-3), key


def test_all_trainings_are_compared() -> None:
    assert list(trainings()) == NAMES


def test_the_second_process_writes_its_own_random_state_alone(two: Path) -> None:
    """TRL's checkpoints hold one for each process."""
    written = json.loads((two / "written.json").read_text())
    assert set(written) == {"rng_state_1.pth"}


@pytest.mark.parametrize("what", ["one-fails", "all-fail"])
def test_a_mistake_on_any_process_ends_all_with_one_line(what: str, tmp_path: Path) -> None:
    done = launch(what, str(tmp_path))
    assert done.returncode != 0
    told = [line for line in done.stderr.splitlines() if "the disk of process 1 is full" in line]
    assert told == ["launched: the disk of process 1 is full"]
    assert done.stdout.splitlines().count("working") == 1
    assert (tmp_path / "unshared").read_text() == "ran\n", "a stage that is not shared runs once"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_accelerate_reads_the_configuration(path: Path) -> None:
    """Its own reader refuses unknown keys."""
    config = load_config_from_file(str(path))
    assert config.mixed_precision == "no", "dtype in params.yaml says in what a model computes"
    parser = launch_command_parser()
    arguments, _, _ = _validate_launch_command(
        parser.parse_args(["--config_file", str(path), "stages/selector_sft.py", "0"])
    )
    assert arguments.num_processes == config.num_processes
    assert (arguments.multi_gpu or arguments.use_fsdp) == (config.num_processes > 1)


def test_every_configuration_is_described() -> None:
    text = (ROOT / "docs/gpus.md").read_text()
    assert [path.name for path in CONFIGS if f"launch/{path.name}" not in text] == []


def test_the_table_of_the_docs_is_that_of_the_script() -> None:
    text = (ROOT / "docs/gpus.md").read_text()
    assert presets.table(load_params(ROOT / "params.yaml")) in text


@pytest.fixture
def three(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if three processes had been started, of which this is the last."""
    monkeypatch.setattr(processes, "count", lambda: 3)
    monkeypatch.setattr(processes, "index", lambda: 2)


@pytest.mark.usefixtures("three")
def test_work_is_dealt_out_in_turn_and_in_smaller_batches_when_there_is_little() -> None:
    assert processes.share(processes.batches(range(10), 2)) == [([4, 5], True)]
    assert processes.share(processes.batches(range(6), 4)) == [([4, 5], True)]
    assert processes.share(processes.batches(range(2), 4)) == []
    assert processes.share(processes.batches([], 4)) == []


@pytest.mark.usefixtures("three")
def test_a_step_that_cannot_be_shared_evenly_is_refused_by_name() -> None:
    assert trl.passes(12, 3, "pairs_per_step") == (2, 2)
    with pytest.raises(
        UserError, match=r"^pairs_per_step: 16 cannot be shared evenly by 3 processes"
    ):
        trl.passes(16, 4, "pairs_per_step")
    run: Any = SimpleNamespace(batch_size=4)
    chosen = settings("generator", "grpo", prompts_per_step=8)
    with pytest.raises(UserError, match=r"^prompts_per_step: 8 cannot be shared evenly by 3"):
        trl.rollout_arguments(run, chosen, questions=24)


def test_a_turn_that_does_not_count_keeps_the_processes_in_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(processes, "count", lambda: 3)
    monkeypatch.setattr(processes, "sharded", lambda: True)
    dealt = []
    for index in range(3):
        monkeypatch.setattr(processes, "index", lambda index=index: index)
        dealt.append(processes.share("abcd"))
    assert {len(own) for own in dealt} == {2}
    assert sorted(item for own in dealt for item, counts in own if counts) == list("abcd")
    assert processes.share("") == []


@pytest.fixture
def launcher(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Set the environment that a launcher gives to its processes."""

    def tell(**variables: str) -> None:
        processes.sharded.cache_clear()
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    yield tell
    processes.sharded.cache_clear()


def test_accelerate_is_not_told_of_the_sharding(launcher: Callable[..., None]) -> None:
    launcher(ACCELERATE_USE_FSDP="true", FSDP_VERSION="2")
    assert processes.sharded()
    assert "ACCELERATE_USE_FSDP" not in os.environ


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, "launch: DeepSpeed is not supported"),
        ({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "1"}, "fsdp_version must be 2, is 1"),
        (
            {"ACCELERATE_USE_FSDP": "true", "FSDP_OFFLOAD_PARAMS": "true"},
            "fsdp_offload_params must be false, is true",
        ),
        (
            {"ACCELERATE_USE_FSDP": "true", "FSDP_RESHARD_AFTER_FORWARD": "false"},
            "fsdp_reshard_after_forward must be true, is false",
        ),
    ],
)
def test_another_sharding_is_refused(
    told: dict[str, str], message: str, launcher: Callable[..., None]
) -> None:
    launcher(**told)
    with pytest.raises(UserError, match=message):
        processes.state()


def test_quantized_weights_cannot_be_sharded(launcher: Callable[..., None], tmp_path: Path) -> None:
    launcher(ACCELERATE_USE_FSDP="true", FSDP_VERSION="2")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(
        UserError, match=r"^launch: FSDP cannot shard weights of quantization: 4bit"
    ):
        load_causal_lm(tmp_path, quantization="4bit")


@pytest.mark.parametrize("name", ["selector sft", "dpo", "ppo"])
def test_what_trains_all_weights_cannot_be_sharded(
    name: str, launcher: Callable[..., None], tmp_path: Path
) -> None:
    launcher(ACCELERATE_USE_FSDP="true", FSDP_VERSION="2")
    with pytest.raises(
        UserError, match=r"^launch: FSDP shards frozen weights, but the .* set lora"
    ):
        trainings()[name](tmp_path)
