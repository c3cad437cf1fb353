"""Score pools with a selector, without gradients and dropout.

Pools are sorted by length, longest first, and cut into batches, so that there is little padding and a batch that does not
fit in memory fails at once. Results are on the CPU, in the order of the input. Several processes share the batches, and
each gets all scores.

Left out: pools of different K in one call.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from posttrain.core import processes
from posttrain.core.errors import UserError
from posttrain.core.loop import evaluating
from posttrain.models.architecture import hidden_size
from posttrain.selector.batch import TokenizedPool, collate
from posttrain.selector.model import Selector


def score_pools(
    selector: Selector,
    pools: Sequence[TokenizedPool],
    batch_size: int,
    device: torch.device | str,
) -> tuple[Tensor, Tensor]:
    """Logits (N, K) and states (N, d) of N pools, float32, in the order of the input.

    batch_size: pools per forward pass; it affects the scores by rounding only. Raises `UserError` if pools differ in K.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be positive, got {batch_size}")
    count = len(pools[0].candidate_ids) if pools else 0
    for pool in pools:
        if len(pool.candidate_ids) != count:
            raise UserError(
                f"{pool.id}: {len(pool.candidate_ids)} candidates where {pools[0].id} has {count}"
            )
    logits = torch.zeros(len(pools), count)
    states = torch.zeros(len(pools), hidden_size(selector.config))
    # Not inference_mode: tensors that a forward pass caches in the model must stay usable in training.
    with evaluating(selector), torch.no_grad():
        for rows, counts in processes.share(processes.batches(longest_first(pools), batch_size)):
            output = selector(collate([pools[row] for row in rows]).to(device))
            if counts:
                logits[rows] = output.logits.float().cpu()
                states[rows] = output.states.float().cpu()
    return processes.total(logits), processes.total(states)


def longest_first(pools: Sequence[TokenizedPool]) -> list[int]:
    """Indices of the pools by length of the prompt, then of the whole pool, longest first; ties in the given order."""
    return sorted(
        range(len(pools)),
        key=lambda row: (-len(pools[row].prompt_ids), -pools[row].length),
    )
