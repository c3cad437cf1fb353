"""Reading a prompt once for all its completions, in training as `rollouts.sampling` does in decoding.

    pass 1   the prompt without its last token; its keys and values are kept, with their gradients
    pass 2   one row without pads: for each completion, the prompt's last token and then its own, except the last.
             A token sees the prompt and the earlier tokens of its own completion

Logits and gradients equal those of prompt + completion alone, up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from trl.trainer.utils import FusedCausalLMOutput

from posttrain.core import processes
from posttrain.models.architecture import recomputes
from posttrain.rollouts.sampling import can_share


def reads_once(model: Any, length: int) -> bool:
    """Whether the model can share prompts now, with at most `length` tokens of prompt and completion.

    It cannot with sharded weights, nor with recomputed activations, which keep no keys and values.
    """
    return not processes.sharded() and not recomputes(model) and can_share(model.config, length)


def read(
    call: Callable[..., Any],
    prompt: Tensor,
    completions: Tensor,
    written: Tensor,
    dtype: torch.dtype,
    **arguments: Any,
) -> Any:
    """The model's output of pass 2: one row of the n positions before the written tokens, completion after completion.

    call: the model, whose weights have this dtype. prompt: (P,). completions, written: (B, C), ids padded on the right,
    and which of them are no pads. arguments: passed on to the model in pass 2.
    """
    cache = DynamicCache()
    if len(prompt) > 1:
        before = prompt[None, :-1]
        call(input_ids=before, past_key_values=cache, use_cache=True, logits_to_keep=1)
    last = prompt[-1:].expand(len(completions), 1)
    row, place = written.nonzero(as_tuple=True)
    own = (row[:, None] == row) & (place[:, None] >= place)
    allowed = torch.cat([own.new_ones(len(row), len(prompt) - 1), own], dim=1)
    mask = torch.zeros(allowed.shape, dtype=dtype, device=prompt.device)
    return call(
        input_ids=torch.cat([last, completions[:, :-1]], dim=1)[written][None],
        attention_mask=mask.masked_fill(~allowed, torch.finfo(dtype).min)[None, None],
        position_ids=(len(prompt) - 1 + place)[None],
        past_key_values=cache,
        **arguments,
    )


def scores(model: Any, prompt: Tensor, completions: Tensor, written: Tensor) -> dict[str, Tensor]:
    """TRL's fused head on the completions' tokens, by its names (`log_probs`, `entropy`, ...): (B, C) each, 0 on pads."""
    output: FusedCausalLMOutput = read(
        model,
        prompt,
        completions,
        written,
        next(model.parameters()).dtype,
        shift_labels=completions[written][None],
        fused_lm_head=True,
    )
    return {
        name: values.new_zeros(written.shape).masked_scatter(written, values)
        for name in ("log_probs", "entropy", "mean_logits", "is_top1")
        if (values := getattr(output, name)) is not None
    }
