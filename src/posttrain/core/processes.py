"""The processes of one run: one under `python`, several under `accelerate launch`.

All of them run the same code on the same data with the same seeds. What is costly is dealt out by `share`, and its
results are put together by `total`, `total_stats` or `collect`, so that all go on with the same numbers; only the main
process writes files. By accelerate's PartialState; with one process nothing here changes anything.

A launcher may ask that the frozen weights be sharded over the processes (`posttrain.models.sharding`). A pass of one is
then a pass of all, and `share` and `all_agree` keep them in step.

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

# A layer that is not given up behind its forward pass would stay whole until a backward pass; the model's entry in
# params.yaml says whether activations are computed again.
FSDP_SETTINGS = {
    "FSDP_VERSION": "2",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_OFFLOAD_PARAMS": "false",
    "FSDP_ACTIVATION_CHECKPOINTING": "false",
}


@cache
def sharded() -> bool:
    """Whether the launcher asked by `distributed_type: FSDP` that frozen weights be shared out; `UserError` where we cannot.

    Its environment is cleared: accelerate and transformers would shard what is trained as well, while here everything
    but the frozen weights stays as it is without sharding.
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
    """This process among the others, which it joins at the first call: on its own GPU, or on CPUs."""
    sharded()
    return PartialState(cpu=not torch.cuda.is_available())


def count() -> int:
    """How many processes there are."""
    return int(state().num_processes)


def index() -> int:
    """The number of this process, 0 of the main one."""
    return int(state().process_index)


def is_main() -> bool:
    """Whether this is the process that writes files and shows progress."""
    return index() == 0


def wait() -> None:
    """Go on when all processes have come here."""
    state().wait_for_everyone()


def batches(order: Sequence[Item], batch_size: int) -> list[list[Item]]:
    """`order` cut into batches: those of a single process, or smaller ones where it would have fewer batches than there
    are processes.
    """
    size = max(1, min(batch_size, -(-len(order) // count())))
    return [list(order[start : start + size]) for start in range(0, len(order), size)]


def share(items: Sequence[Item]) -> list[tuple[Item, bool]]:
    """This process's part of what is dealt out to the processes in turn, each with whether it counts.

    Where weights are sharded all processes must make as many passes, so one that got fewer repeats one that does not
    count: nothing is to be kept of it, but its forward and backward passes are to be made.
    """
    own = [(item, True) for item in items[index() :: count()]]
    missing = -(-len(items) // count()) - len(own)
    if sharded() and missing:
        own.append((items[0], False))
    return own


def all_agree(own: bool) -> bool:
    """Whether all processes say so; without sharding each one goes its own way."""
    if not sharded() or count() == 1:
        return own
    return bool(total(torch.tensor(float(own))) == count())


def total(own: Tensor) -> Tensor:
    """The sum over the processes, each of which has a tensor of this shape."""
    if count() == 1:
        return own
    summed: Tensor = reduce(own.to(state().device), reduction="sum")
    return summed.to(own.device)


def collect(own: list[Item]) -> list[Item]:
    """The lists of all processes behind one another."""
    gathered: list[Item] = gather_object(own)
    return gathered


def total_stats(own: Mapping[str, float]) -> dict[str, float]:
    """Sums by name over the processes; one that had nothing to do has no names."""
    totals: dict[str, float] = {}
    for stats in collect([own]):
        for name, value in stats.items():
            totals[name] = totals.get(name, 0.0) + value
    return totals


def total_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace each gradient by its sum over the processes; one that no process has stays None."""
    if count() == 1:
        return
    known = list(parameters)
    having = total(torch.tensor([float(p.grad is not None) for p in known]))
    for parameter, owners in zip(known, having.tolist(), strict=True):
        if owners:
            own = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            parameter.grad = total(own)
