"""What every training loop of ours shares: curves, the best weights, the schedule, an optimizer that can be saved,
the questions that are drawn from a split."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor, nn

from posttrain.core import processes
from posttrain.core.errors import UserError

Stats = dict[str, float]
Item = TypeVar("Item")
VALIDATION = "validation"  # seed of the questions that every training validates on


@dataclass
class History:
    """Curves: one row per step, and one per validation (step 0 is the start)."""

    train: list[Stats] = field(default_factory=list)
    val: list[Stats] = field(default_factory=list)


def choose(items: Sequence[Item], count: int, seed: str) -> list[Item]:
    """`count` of the items, or all if there are fewer, drawn by `seed`, in their own order."""
    picked = random.Random(seed).sample(range(len(items)), min(count, len(items)))
    return [items[index] for index in sorted(picked)]


def device() -> torch.device:
    """The GPU of this process if there is one."""
    own: torch.device = processes.state().device
    return own if own.type == "cuda" else torch.device("cpu")


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside the block; every module's own mode again behind it."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def trainable_state(model: nn.Module) -> dict[str, Tensor]:
    """Copies of all trainable tensors by name, on the CPU: what a checkpoint or the best model so
    far must keep.
    """
    return {
        name: parameter.detach().to("cpu", copy=True).contiguous()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


def load_trainable_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Put `trainable_state` back; `UserError` when it belongs to another model."""
    own = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if own.keys() != state.keys():
        odd = sorted(own.keys() ^ state.keys())[0]
        raise UserError(f"the saved state is of another model: {odd} is in one of the two only")
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(state[name])


def rate_share(progress: float, warmup: float) -> float:
    """Share of the peak learning rate: linear warm-up, then cosine from 1 to 0.1; progress in [0, 1)."""
    if progress < warmup:
        return 0.1 + 0.9 * progress / warmup
    position = (progress - warmup) / max(1e-9, 1 - warmup)
    return 0.1 + 0.45 * (1 + math.cos(math.pi * position))


def below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    start = f"{prefix}/"
    return {name.removeprefix(start): t for name, t in tensors.items() if name.startswith(start)}


def optimizer_tensors(
    optimizer: torch.optim.Optimizer, parameters: dict[str, torch.nn.Parameter]
) -> dict[str, Tensor]:
    return {
        f"optimizer/{name}/{key}": tensor
        for name, parameter in parameters.items()
        for key, tensor in optimizer.state[parameter].items()
    }


def restore_optimizer(
    optimizer: torch.optim.Optimizer,
    parameters: dict[str, torch.nn.Parameter],
    tensors: dict[str, Tensor],
) -> None:
    for key, tensor in below(tensors, "optimizer").items():
        name, _, entry = key.rpartition("/")
        parameter = parameters[name]
        optimizer.state[parameter][entry] = tensor if entry == "step" else tensor.to(parameter)
