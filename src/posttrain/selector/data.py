"""Rows of data/pools as tensors for training and evaluation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from posttrain.core.errors import UserError
from posttrain.core.loop import device
from posttrain.core.params import Model
from posttrain.selector.batch import PoolText, tokenize_pools
from posttrain.selector.model import Selector
from posttrain.selector.policy import log_softmax
from posttrain.selector.predict import score_pools
from posttrain.selector.train import Pools

Row = Mapping[str, Any]


def make_pools(
    rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, model: Model, training: bool
) -> tuple[Pools, list[str]]:
    """Tokenised pools with their rewards, and the ids of rows dropped because they exceed the model's lengths.

    Only training rows are dropped; elsewhere a row that is too long is a `UserError`. The reference policy is uniform
    until `with_reference` sets it.
    """
    texts = [
        PoolText(row["id"], row["prompt"], [made["text"] for made in row["candidates"]])
        for row in rows
    ]
    pools, dropped = tokenize_pools(
        texts,
        tokenizer,
        model.max_prompt_tokens,
        model.max_candidate_tokens,
        overlong="drop" if training else "error",
    )
    if not pools:
        raise UserError(
            f"none of the {len(rows)} training pools fits max_prompt_tokens={model.max_prompt_tokens} and "
            f"max_candidate_tokens={model.max_candidate_tokens}; raise the limits or, where the task has pages, "
            "shorten them (examples.context, examples.top_n)"
        )
    left_out = set(dropped)
    rewards = torch.tensor(
        [
            [made["reward"] for made in row["candidates"]]
            for row in rows
            if row["id"] not in left_out
        ],
        dtype=torch.float32,
    )
    uniform = torch.full_like(rewards, -float(torch.tensor(rewards.shape[1]).log()))
    return Pools(pools, rewards, uniform), dropped


def with_reference(pools: Pools, selector: Selector, rows: Iterable[int], batch_size: int) -> Pools:
    """The pools with the selector's own log-policy as the reference of KL and DPO, on the questions `rows`.

    Train on these questions only: the reference of the others stays uniform.
    """
    wanted = sorted(set(rows))
    logits, _ = score_pools(selector, [pools.pools[row] for row in wanted], batch_size, device())
    reference = pools.reference.clone()
    reference[wanted] = log_softmax(logits)
    return Pools(pools.pools, pools.rewards, reference)
