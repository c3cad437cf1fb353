"""Rows of data/rewards as tensors for training and evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from posttrain.errors import UserError
from posttrain.params import Model
from posttrain.selector.batch import PoolText, tokenize_pools
from posttrain.selector.train import Pools

Row = Mapping[str, Any]


def make_pools(
    rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, model: Model, training: bool
) -> tuple[Pools, list[str]]:
    """Tokenised pools with their rewards, and the ids dropped because they exceed the model's lengths.

    Only training rows may be dropped; elsewhere an overlong row is a `UserError`. The reference policy is uniform
    until `with_reference` sets it.
    """
    texts = [
        PoolText(row["id"], row["prompt"], [made["shown"] for made in row["candidates"]])
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
        raise UserError(f"no example fits {model.max_prompt_tokens} prompt tokens")
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


def with_reference(pools: Pools, log_policy: Tensor) -> Pools:
    """The same pools with the log-policy that KL and DPO refer to."""
    if log_policy.shape != pools.rewards.shape:
        raise UserError(
            f"the SFT policy covers {tuple(log_policy.shape)} candidates, the pools have "
            f"{tuple(pools.rewards.shape)}; run dvc repro"
        )
    return Pools(pools.pools, pools.rewards, log_policy)


def save_reference(path: Path, log_policy: Tensor) -> None:
    """Keep the SFT policy on the training pools, (N, K) log-probabilities."""
    save_file({"log_policy": log_policy.contiguous()}, path)


def load_reference(path: Path) -> Tensor:
    """What `save_reference` kept; `UserError` when it is missing."""
    if not path.exists():
        raise UserError(f"{path}: missing; run stage sft_selector first")
    return load_file(path)["log_policy"]
