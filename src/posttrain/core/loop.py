"""The training loop of the policies that we train ourselves: schedule, validation, best weights, resuming.

    history = train(run, {"model": model, "value": value}, optimizer, settings, steps, take_step)

`take_step(step)` takes the optimizer steps of one rollout batch. All randomness of a step must derive from (seed, step),
so that a run resumed from a checkpoint repeats what an uninterrupted one would have done. TRL's trainers have their own
loops and share `Run`, `Best` and `evenly` (`generator/trl.py`).
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from posttrain.core import processes
from posttrain.core.checkpoint import CheckpointFile
from posttrain.core.errors import DivergedError, UserError
from posttrain.core.settings import Optimization

Stats = dict[str, float]
Item = TypeVar("Item")
VALIDATION = "validation"  # seed of the sample of questions that every run validates on
DIGITS = 6  # of a validation's results
SAVES = 10  # checkpoints of a run; the last one is its result


@dataclass
class History:
    """The curves of a run: one row per step, and one per validation (step 0 is the start).

    best_by: the key of a validation that decides which weights are kept. plateau: whether the last `patience` validations
    were no better than the best before them; None for a training without patience. meta: single figures of the whole run.
    """

    train: list[Stats] = field(default_factory=list)
    val: list[Stats] = field(default_factory=list)
    best_by: str = "reward"
    plateau: bool | None = None
    meta: Stats = field(default_factory=dict)

    @property
    def best(self) -> Stats:
        """The validation of the weights that were kept."""
        return max(self.val[1:], key=lambda row: (row[self.best_by], row["step"]))

    @property
    def ending(self) -> dict[str, int | bool | None]:
        """Where the training ended: `steps` taken, `best_step` of the weights that were kept, and `plateau`."""
        return {
            "steps": int(self.train[-1]["step"]),
            "best_step": int(self.best["step"]),
            "plateau": self.plateau,
        }


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training run: the model, its seed, its work folder, and its two callbacks.

    work: folder of this run alone, outside DVC's outputs; its creator removes it once the result is in place.
    evaluate: measures the model on validation questions. report: gets (steps done, all steps, latest statistics).
    """

    model: Any
    seed: int
    work: Path
    evaluate: Callable[[Any], Mapping[str, float]]
    report: Callable[[int, int, Stats], None]


class Best:
    """Validates a model and keeps its best trainable weights; of ties, the latest.

    by: the key of `evaluate`'s result that decides. patience: see `plateau`.
    """

    def __init__(
        self,
        model: nn.Module,
        evaluate: Callable[[Any], Mapping[str, float]],
        by: str,
        patience: int | None = None,
    ) -> None:
        self.model = model
        self.evaluate = evaluate
        self.by = by
        self.patience = patience
        self.val: list[Stats] = []
        self.weights: dict[str, Tensor] = {}

    def validate(self, step: int) -> None:
        """Add a row to `val`. Restores the random state afterwards, so sampling in `evaluate` does not affect training."""
        devices = [torch.cuda.current_device()] if device().type == "cuda" else []
        with evaluating(self.model), torch.random.fork_rng(devices=devices), at_step(step):
            # Equal means differ in their last bits.
            result = {name: round(x, DIGITS) for name, x in self.evaluate(self.model).items()}
        if self.by not in result:
            raise UserError(f"the validation has no {self.by!r}, only {sorted(result)}")
        if step:
            check_finite({f"val_{name}": value for name, value in result.items()}, step)
        self.val.append({"step": float(step), **result})
        # The start is on the curve, but it is no result of the training.
        trained = [row[self.by] for row in self.val if row["step"] > 0]
        if trained and trained[-1] >= max(trained):
            self.weights = trainable_state(self.model)

    @property
    def plateau(self) -> bool | None:
        """Whether the last `patience` validations were not better than the best before them; None without patience."""
        if self.patience is None:
            return None
        trained = [row[self.by] for row in self.val if row["step"] > 0]
        since = len(trained) - trained.index(max(trained)) - 1 if trained else 0
        return since >= self.patience

    def put_back(self) -> None:
        """Give the model its best weights."""
        load_trainable_state(self.model, self.weights)


def train(
    run: Run,
    trained: Mapping[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    settings: Optimization,
    steps: int,
    take_step: Callable[[int], Stats],
    patience: int | None = None,
    state: Mapping[str, Tensor] = {},
) -> History:
    """Take `steps` steps, or the rest of them after a resume; `run.model` ends with the weights of its best reward.

    trained: by name, the modules whose trainable parameters `optimizer` updates and checkpoints hold. patience: the
    training ends earlier, at a plateau of that many validations (`Best.plateau`). state: tensors that `take_step` changes
    in place, which checkpoints hold too.
    """
    parameters = {
        f"{name}/{key}": parameter
        for name, module in trained.items()
        for key, parameter in module.named_parameters()
        if parameter.requires_grad
    }
    evaluate_at = evenly(steps, settings.evaluations)
    save_at = evenly(steps, SAVES) - {steps}
    checkpoint = CheckpointFile("loop", run.work)
    best, rows, done = Best(run.model, run.evaluate, "reward", patience), [], 0
    if (saved := checkpoint.load()) is not None:
        done, rows, best.val = saved.state["done"], saved.state["train"], saved.state["val"]
        best.weights = below(saved.tensors, "best")
        for name, module in trained.items():
            load_trainable_state(module, below(saved.tensors, name))
        _restore_optimizer(optimizer, parameters, saved.tensors)
        for name, tensor in below(saved.tensors, "state").items():
            state[name].copy_(tensor)
    else:
        best.validate(0)
    run.report(done, steps, _newest(rows, best.val))
    for step in range(done, steps):
        if best.plateau:
            break
        with at_step(step + 1):
            stats = take_step(step)
        check_finite(stats, step + 1)
        rows.append({"step": float(step + 1), **stats})
        if step + 1 in evaluate_at | save_at:
            for module in trained.values():
                check_weights(module, step + 1)
        if step + 1 in evaluate_at:
            best.validate(step + 1)
        if step + 1 in save_at and processes.is_main():
            tensors: dict[str, Tensor] = {**parameters}
            tensors |= {f"best/{name}": tensor for name, tensor in best.weights.items()}
            tensors |= _optimizer_tensors(optimizer, parameters)
            tensors |= {f"state/{name}": tensor for name, tensor in state.items()}
            checkpoint.save(tensors, {"done": step + 1, "train": rows, "val": best.val})
        run.report(step + 1, steps, _newest(rows, best.val))
    best.put_back()
    return History(rows, best.val, plateau=best.plateau)


def evenly(steps: int, count: int) -> set[int]:
    """`count` of the steps 1 to `steps`, evenly spaced and including the last; all if there are fewer."""
    return {max(1, round(steps * (i + 1) / count)) for i in range(count)}


def rate_share(progress: float, warmup: float) -> float:
    """Fraction of the peak learning rate: linear warm-up from 0.1, then a cosine from 1 to 0.1; progress in [0, 1)."""
    if progress < warmup:
        return 0.1 + 0.9 * progress / warmup
    position = (progress - warmup) / max(1e-9, 1 - warmup)
    return 0.1 + 0.45 * (1 + math.cos(math.pi * position))


def check_finite(stats: Mapping[str, float], step: int) -> None:
    """`UserError` for the first statistic that is not finite."""
    for name, value in stats.items():
        if not math.isfinite(value):
            raise UserError(
                f"step {step}: {name} is {value}, so the training has diverged; lower learning_rate"
            )


@contextmanager
def at_step(step: int) -> Iterator[None]:
    """Name the step (0: before training) in a `DivergedError` that is raised inside the block."""
    try:
        yield
    except DivergedError as error:
        if not step:
            raise
        raise UserError(
            f"step {step}: {error}, so the training has diverged; lower learning_rate"
        ) from error


def check_weights(model: nn.Module, step: int) -> None:
    """`UserError` for the first trained weight that is not finite: the last update shows in no statistic."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and not bool(torch.isfinite(parameter).all()):
            raise UserError(
                f"step {step}: {name} is not finite, so the training has diverged; lower learning_rate"
            )


def choose(items: Sequence[Item], count: int, seed: str) -> list[Item]:
    """A random sample of `count` items (all if there are fewer), in their original order."""
    picked = random.Random(seed).sample(range(len(items)), min(count, len(items)))
    return [items[index] for index in sorted(picked)]


def device() -> torch.device:
    """The GPU of this process if it has one, else the CPU."""
    own: torch.device = processes.state().device
    return own if own.type == "cuda" else torch.device("cpu")


def choose_kernels(deterministic: bool) -> None:
    """On a CPU, operations that give the same bits every time; on a GPU, where they take longer, only if asked for."""
    cuda = device().type == "cuda"
    torch.use_deterministic_algorithms(deterministic or not cuda, warn_only=cuda)
    # Filling new tensors with NaN, to show who reads them too early, takes a third of a small model's step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside the block; restores each module's mode afterwards."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def trainable_state(model: nn.Module) -> dict[str, Tensor]:
    """Copies on the CPU of all trainable tensors by name."""
    return {
        name: parameter.detach().to("cpu", copy=True).contiguous()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


def load_trainable_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Restore a `trainable_state`; `UserError` if it belongs to another model."""
    own = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if own.keys() != state.keys():
        odd = sorted(own.keys() ^ state.keys())[0]
        raise UserError(f"the saved state is of another model: only one of them has {odd}")
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(state[name])


def below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix/`, by the rest of their names."""
    start = f"{prefix}/"
    return {name.removeprefix(start): t for name, t in tensors.items() if name.startswith(start)}


def _newest(rows: Sequence[Stats], val: Sequence[Stats]) -> Stats:
    last = rows[-1] if rows else {}
    found = {key: value for key, value in last.items() if key != "step"}
    return found | validated(val)


def validated(val: Sequence[Stats]) -> Stats:
    """The latest validation, as statistics `val_...`."""
    return {f"val_{key}": value for key, value in val[-1].items() if key != "step"}


def _optimizer_tensors(
    optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter]
) -> dict[str, Tensor]:
    return {
        f"optimizer/{name}/{key}": tensor
        for name, parameter in parameters.items()
        for key, tensor in optimizer.state[parameter].items()
    }


def _restore_optimizer(
    optimizer: torch.optim.Optimizer,
    parameters: Mapping[str, nn.Parameter],
    tensors: Mapping[str, Tensor],
) -> None:
    for key, tensor in below(tensors, "optimizer").items():
        name, _, entry = key.rpartition("/")
        parameter = parameters[name]
        optimizer.state[parameter][entry] = tensor if entry == "step" else tensor.to(parameter)
