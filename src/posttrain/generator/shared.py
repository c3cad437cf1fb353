"""Reading a prompt once for all its completions, in training as `rollouts.sampling` does in decoding.

    row of a pass   the prompt without its last token; then, for each completion, the prompt's last token and its own,
                    except the last. A token sees the prompt and the earlier tokens of its own completion

Several prompts with their completions are rows of one pass. Logits and gradients equal those of prompt + completion
alone, up to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from trl.trainer.utils import FusedCausalLMOutput

from posttrain.models.tokens import pad
from posttrain.rollouts.sampling import can_share

IGNORED = -100  # label of a position that TRL does not score


class Group(NamedTuple):
    """Rows one below the other that begin with the same prompt, which ends before column `stop`."""

    rows: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Trees:
    """What a model reads of groups of rows: (G, T) each, padded on the right."""

    ids: Tensor
    positions: Tensor
    own: Tensor  # bool, True for the tokens of completions
    source: Tensor  # of each token the place among all ids (B L)
    allowed: Tensor  # bool (G, T, T), True where a token sees another

    def inputs(self, dtype: torch.dtype) -> dict[str, Any]:
        """Arguments of a model whose weights have this dtype."""
        mask = torch.zeros(self.allowed.shape, dtype=dtype, device=self.ids.device)
        mask.masked_fill_(~self.allowed, torch.finfo(dtype).min)
        return {
            "input_ids": self.ids,
            "position_ids": self.positions,
            "attention_mask": mask[:, None],
        }


def reads_once(model: Any, length: int) -> bool:
    """Whether the model can share prompts, with at most `length` tokens of prompt and completion."""
    return can_share(model.config, length)


def grow(ids: Tensor, groups: Sequence[Group], stops: Sequence[int]) -> Trees:
    """The trees of rows `ids` (B, L), each of which is read up to the column before its `stop`."""
    sources, positions, branches = list[list[int]](), list[list[int]](), list[list[int]]()
    first, width = 0, ids.shape[1]
    for rows, start, stop in groups:
        trunk = stop - start - 1
        source = [first * width + start + place for place in range(trunk)]
        position, branch = [*range(trunk)], [0] * trunk
        for row in range(first, first + rows):
            length = stops[row] - (stop - 1)
            source += range(row * width + stop - 1, row * width + stops[row])
            position += range(trunk, trunk + length)
            branch += [row - first + 1] * length
        sources.append(source)
        positions.append(position)
        branches.append(branch)
        first += rows
    places, real = (each.to(ids.device) for each in pad(sources))
    part = pad(branches, -1)[0].to(ids.device)
    same = (part[:, None, :] == part[:, :, None]) | (part[:, None, :] == 0)
    read = ids.flatten()[places].masked_fill(~real, 0)
    return Trees(read, pad(positions)[0].to(ids.device), part > 0, places, same.tril())


def scores(model: Any, ids: Tensor, written: Tensor, groups: Sequence[Group]) -> dict[str, Tensor]:
    """TRL's fused head on the written tokens of rows, by its names (`log_probs`, `entropy`, ...): (B, L) each, else 0.

    ids, written: (B, L), and which of them are completions; these begin where the prompt of their group stops.
    """
    counts = written.sum(dim=1).tolist()
    prompts = [group.stop for group in groups for _ in range(group.rows)]
    stops = [stop + count - 1 for stop, count in zip(prompts, counts, strict=True)]
    trees = grow(ids, groups, stops)
    labels = torch.full_like(trees.ids, IGNORED).masked_scatter(trees.own, ids[written])
    output: FusedCausalLMOutput = model(
        **trees.inputs(next(model.parameters()).dtype), shift_labels=labels, fused_lm_head=True
    )
    return {
        name: values.new_zeros(written.shape).masked_scatter(written, values[trees.own])
        for name in ("log_probs", "entropy", "mean_logits", "is_top1")
        if (values := getattr(output, name)) is not None
    }
