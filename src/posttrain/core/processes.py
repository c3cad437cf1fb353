"""The processes of one run: one under `python`, several under `accelerate launch`.

All run the same code on the same data with the same seeds. `share` divides the costly work among them, and `total`,
`total_stats` or `collect` combine the results, so that all continue with the same numbers. Only the main process writes
files. Built on accelerate's PartialState; with one process nothing here has an effect.

The launcher may ask for the frozen weights to be sharded over the processes (`posttrain.models.sharding`). All must then
make the same number of passes, and `share` and `all_agree` keep them in step.

Left out: DeepSpeed, tensor parallelism.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import gather_object, reduce
from torch import Tensor, nn

from posttrain.core.errors import UserError

Item = TypeVar("Item")

# Without resharding after its forward pass a layer would stay whole until a backward pass. Activation checkpointing is
# set by the model's entry in params.yaml.
FSDP_SETTINGS = {
    "FSDP_VERSION": "2",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_OFFLOAD_PARAMS": "false",
    "FSDP_ACTIVATION_CHECKPOINTING": "false",
}


@cache
def sharded() -> bool:
    """Whether the launcher asks for frozen weights to be sharded (`distributed_type: FSDP`).

    Raises `UserError` for settings that are not supported. Clears the launcher's environment variable: accelerate and
    transformers would shard trained weights too, while here everything but the frozen weights stays whole.
    """
    if os.environ.get("ACCELERATE_USE_DEEPSPEED", "").lower() == "true":
        raise UserError(
            "launch: DeepSpeed is not supported; use accelerate launch --config_file launch/gpus-fsdp2.yaml"
        )
    if os.environ.pop("ACCELERATE_USE_FSDP", "").lower() != "true":
        return False
    for setting, wanted in FSDP_SETTINGS.items():
        found = os.environ.get(setting, wanted).lower()
        if found != wanted:
            raise UserError(f"launch: {setting.lower()} must be {wanted}, is {found}")
    return True


def state() -> PartialState:
    """Accelerate's state of this process. The first call joins the other processes, on this one's GPU or on CPUs."""
    sharded()
    return PartialState(cpu=not torch.cuda.is_available())


def count() -> int:
    """The number of processes."""
    return int(state().num_processes)


def index() -> int:
    """The index of this process; 0 is the main one."""
    return int(state().process_index)


def is_main() -> bool:
    """Whether this is the process that writes files and shows progress."""
    return index() == 0


def wait() -> None:
    """Wait until all processes have reached this call."""
    state().wait_for_everyone()


def batches(order: Sequence[Item], batch_size: int) -> list[list[Item]]:
    """Cut `order` into batches of `batch_size`, or smaller ones if there would be fewer batches than processes."""
    size = max(1, min(batch_size, -(-len(order) // count())))
    return [list(order[start : start + size]) for start in range(0, len(order), size)]


def share(items: Sequence[Item]) -> list[tuple[Item, bool]]:
    """This process's share of the items, which are dealt out in turn, each with whether it counts.

    With sharded weights all processes must make the same number of passes, so a process with one item fewer gets another
    that does not count: run its forward and backward passes, but discard the results.
    """
    own = [(item, True) for item in items[index() :: count()]]
    missing = -(-len(items) // count()) - len(own)
    if sharded() and missing:
        own.append((items[0], False))
    return own


def all_agree(own: bool) -> bool:
    """Whether `own` is true on all processes; without sharding, `own`."""
    if not sharded() or count() == 1:
        return own
    return bool(total(torch.tensor(float(own))) == count())


def total(own: Tensor) -> Tensor:
    """The sum over the processes of their tensors, which have the same shape."""
    if count() == 1:
        return own
    summed: Tensor = reduce(own.to(state().device), reduction="sum")
    return summed.to(own.device)


def collect(own: list[Item]) -> list[Item]:
    """The concatenated lists of all processes."""
    gathered: list[Item] = gather_object(own)
    return gathered


def total_stats(own: Mapping[str, float]) -> dict[str, float]:
    """Sums by name over the processes; a process without work has no names."""
    totals: dict[str, float] = {}
    for stats in collect([own]):
        for name, value in stats.items():
            totals[name] = totals.get(name, 0.0) + value
    return totals


def total_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace each gradient by its sum over the processes; a gradient that no process has stays None."""
    if count() == 1:
        return
    known = list(parameters)
    having = total(torch.tensor([float(p.grad is not None) for p in known]))
    for parameter, owners in zip(known, having.tolist(), strict=True):
        if owners:
            own = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            parameter.grad = total(own)
