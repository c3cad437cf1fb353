"""The selector: a backbone that reads the prompt once, a score per candidate, and a value of the
pool.

    h_k    = mean hidden state of the tokens of candidate k after the prompt      (d,)
    logit  = w2 . tanh(W1 h_k + b1) + b2            the policy is softmax over the K logits
    value  = v2 . tanh(V1 mean_k h_k + c1) + c2     the PPO baseline, one number per pool

Decoders read the prompt once: its keys and values are cached, and all K candidates follow it in one
packed row without pads between them, under a block mask that lets a token see the real prompt tokens and
the earlier tokens of its own candidate. Positions continue from the row's own prompt length. The
logits and gradients equal those of encoding each prompt + candidate alone (up to rounding); the
cache is not copied per candidate.

Pairs are encoded apart (`encode_separately`) where the prefix cannot be shared: encoders such as
BERT, whose prompt states depend on the candidate; architectures not in `SHARED_PREFIX`;
sliding-window attention shorter than the pair; training with gradient checkpointing, which switches
the cache off.

Left out: tensor parallelism; pools of different K in one batch.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import DynamicCache, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)

from posttrain.errors import UserError
from posttrain.files import atomic_directory, read_json, write_json
from posttrain.models.architecture import SHARED_PREFIX, hidden_size, sliding_window
from posttrain.models.load import Dtype, describe_base, load_backbone, max_positions, read_base
from posttrain.models.lora import save_adapter
from posttrain.selector.batch import PoolBatch


@dataclass(frozen=True, slots=True)
class SelectorOutput:
    """Scores of a batch: logits (B, K) and values (B,), both float32."""

    logits: torch.Tensor
    values: torch.Tensor


class ScoringHead(nn.Module):
    """Two-layer MLP d -> d -> 1 in float32, whatever the backbone's dtype."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.inner = nn.Linear(hidden_size, hidden_size)
        self.outer = nn.Linear(hidden_size, 1)
        nn.init.normal_(self.outer.weight, std=hidden_size**-0.5)
        nn.init.zeros_(self.outer.bias)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """(..., d) to (...)."""
        scores: torch.Tensor = self.outer(torch.tanh(self.inner(states.float()))).squeeze(-1)
        return scores


class Selector(nn.Module):
    """Backbone with a scoring head and a value head; see the module's docstring.

    `backbone` is a model from `AutoModel`, or a `PeftModel` around one. `share_prefix=False` always
    encodes pairs apart.
    """

    def __init__(self, backbone: nn.Module, share_prefix: bool = True) -> None:
        super().__init__()
        self.backbone = backbone
        config = backbone.config
        assert isinstance(config, PreTrainedConfig)
        self.config = config
        self.causal = is_causal(config)
        self.share_prefix = share_prefix and self.causal and config.model_type in SHARED_PREFIX
        self.score = ScoringHead(hidden_size(config))
        self.value = ScoringHead(hidden_size(config))

    def forward(self, batch: PoolBatch) -> SelectorOutput:
        """Score every candidate of every pool."""
        pooled = self.encode(batch)
        return SelectorOutput(self.score(pooled), self.value(pooled.float().mean(dim=1)))

    def encode(self, batch: PoolBatch) -> torch.Tensor:
        """Mean hidden state of each candidate's tokens, (B, K, d) float32."""
        if self._can_share(batch):
            return self.encode_shared(batch)
        return self.encode_separately(batch)

    def encode_shared(self, batch: PoolBatch) -> torch.Tensor:
        """(B, K, d) with the prompt read once; only for causal backbones."""
        k = batch.candidate_ids.shape[1]
        # The prompt needs no mask: pads are on its right, and the candidates are kept from seeing
        # them below.
        prefix = self.backbone(
            input_ids=batch.prompt_ids, past_key_values=DynamicCache(), use_cache=True
        )
        packed = _pack(batch.candidate_mask)
        ids = batch.candidate_ids.flatten(1).gather(1, packed.source)
        positions = batch.prompt_mask.sum(dim=1)[:, None] + packed.offset
        output = self.backbone(
            input_ids=ids,
            attention_mask=self._block_mask(batch.prompt_mask, packed),
            position_ids=self._within_table(positions),
            past_key_values=prefix.past_key_values,
            use_cache=True,
        )
        return _mean(output.last_hidden_state, packed.membership(k))

    def encode_separately(self, batch: PoolBatch) -> torch.Tensor:
        """(B, K, d) with each prompt + candidate as a sequence of its own: the reference, and the
        way of encoders.
        """
        b, k, _ = batch.candidate_ids.shape
        prompt_ids = batch.prompt_ids[:, None].expand(-1, k, -1)
        prompt_mask = batch.prompt_mask[:, None].expand(-1, k, -1)
        gapped_ids = torch.cat([prompt_ids, batch.candidate_ids], dim=-1).flatten(0, 1)
        gapped_mask = torch.cat([prompt_mask, batch.candidate_mask], dim=-1).flatten(0, 1)
        lengths = gapped_mask.sum(dim=1)
        width = int(lengths.max())
        mask = torch.arange(width, device=lengths.device) < lengths[:, None]
        ids = torch.zeros_like(mask, dtype=torch.long)
        # Both masks hold as many real tokens per row, so this closes the gap between prompt and
        # candidate.
        ids[mask] = gapped_ids[gapped_mask]
        inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": mask.long()}
        if self.causal:
            inputs["use_cache"] = False
        states = self.backbone(**inputs).last_hidden_state
        starts = batch.prompt_mask.sum(dim=1).repeat_interleave(k)
        own = mask & (torch.arange(width, device=lengths.device) >= starts[:, None])
        return _mean(states, own[:, None]).view(b, k, -1)

    def _can_share(self, batch: PoolBatch) -> bool:
        if not self.share_prefix:
            return False
        if self.training and checkpoints_activations(self.backbone):
            warnings.warn(
                "gradient checkpointing switches the cache off: candidates are encoded apart",
                stacklevel=2,
            )
            return False
        window = sliding_window(self.config)
        return window is None or batch.prompt_ids.shape[1] + batch.candidate_ids.shape[2] <= window

    def _block_mask(self, prompt_mask: torch.Tensor, packed: _Packed) -> torch.Tensor:
        """Additive mask (B, 1, S, P + S): real prompt tokens, and earlier tokens of the same
        candidate.
        """
        same = packed.candidate[:, :, None] == packed.candidate[:, None, :]
        own = same & (packed.offset[:, :, None] >= packed.offset[:, None, :])
        prompt = prompt_mask[:, None].expand(-1, own.shape[1], -1)
        allowed = torch.cat([prompt, own], dim=-1)[:, None]
        dtype = next(self.backbone.parameters()).dtype
        lowest = torch.finfo(dtype).min
        mask = torch.zeros(allowed.shape, dtype=dtype, device=allowed.device)
        return mask.masked_fill(~allowed, lowest)

    def _within_table(self, positions: torch.Tensor) -> torch.Tensor:
        """Keep the positions of pads inside the table of position embeddings; real ones are checked
        at loading.
        """
        limit = max_positions(self.config)
        return positions if limit is None else positions.clamp(max=limit - 1)


def is_causal(config: PreTrainedConfig) -> bool:
    """True for decoders (Llama, GPT-2), False for encoders (BERT), `UserError` for the rest."""
    if config.is_encoder_decoder:
        raise UserError(
            f"{config.model_type} is an encoder-decoder; the selector needs a decoder or an encoder"
        )
    if config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        return bool(getattr(config, "is_decoder", False))
    if config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        return True
    raise UserError(f"{config.model_type} is neither a causal nor a masked language model")


def checkpoints_activations(backbone: nn.Module) -> bool:
    """Whether the backbone recomputes activations in the backward pass."""
    return any(getattr(module, "gradient_checkpointing", False) for module in backbone.modules())


@dataclass(frozen=True, slots=True)
class _Packed:
    """The candidates of each pool behind one another without pads between them, (B, S) each: where
    a token comes from in the flattened (K * C), its candidate (-1 for pads) and its place in it.
    """

    source: torch.Tensor
    candidate: torch.Tensor
    offset: torch.Tensor

    def membership(self, count: int) -> torch.Tensor:
        """(B, K, S), True where a token belongs to a candidate."""
        index = torch.arange(count, device=self.candidate.device)
        return self.candidate[:, None, :] == index[:, None]


def _pack(candidate_mask: torch.Tensor) -> _Packed:
    width = candidate_mask.shape[2]
    real = candidate_mask.flatten(1)
    longest = int(real.sum(dim=1).max())
    source = (~real).to(torch.uint8).argsort(dim=1, stable=True)[:, :longest]
    candidate = torch.where(real.gather(1, source), source // width, -1)
    return _Packed(source, candidate, source % width)


def _mean(states: torch.Tensor, membership: torch.Tensor) -> torch.Tensor:
    """Mean over each candidate's tokens: (B, S, d) and (B, K, S) to (B, K, d) in float32.

    A new model learns from this many times sooner than from the last token's state, which at first
    is the same end-of-sequence embedding for every candidate.
    """
    weights = membership / membership.sum(dim=-1, keepdim=True)
    return torch.bmm(weights.float(), states.float())


def save_selector(
    directory: Path, selector: Selector, base: Mapping[str, Any], meta: Mapping[str, Any]
) -> None:
    """Write a folder that `load_selector` reads; the same weights give the same bytes.

    selector.json      `base` (the content of base.json), whether LoRA is used, and `meta` (any JSON
    object) head.safetensors   scoring and value head adapter/           the LoRA adapter, in PEFT's
    format; or backbone/          the whole backbone, when every weight was trained
    """
    backbone = selector.backbone
    with atomic_directory(directory) as temporary:
        if isinstance(backbone, PeftModel):
            (temporary / "adapter").mkdir()
            save_adapter(temporary / "adapter", backbone, base["name_or_path"], base["revision"])
        else:
            assert isinstance(backbone, PreTrainedModel)
            backbone.save_pretrained(temporary / "backbone")
        head = {
            f"{part}.{name}": tensor.detach().cpu().contiguous()
            for part in ("score", "value")
            for name, tensor in getattr(selector, part).state_dict().items()
        }
        save_file(head, temporary / "head.safetensors")
        lora = isinstance(backbone, PeftModel)
        write_json(
            temporary / "selector.json", {"base": dict(base), "lora": lora, "meta": dict(meta)}
        )


def load_selector(
    directory: Path,
    base_directory: Path,
    dtype: Dtype = "float32",
    device: torch.device | str = "cpu",
    trainable: bool = False,
) -> tuple[Selector, dict[str, Any]]:
    """The selector in `directory` on the base in `base_directory`, in evaluation mode, and its
    `meta`.

    `trainable` leaves the adapter (or the backbone) and the heads ready for more training.
    `UserError` when a file is missing or broken, or the adapter belongs to another base.
    """
    saved = read_json(directory / "selector.json")
    base = read_base(base_directory)
    if saved["base"] != base:
        raise UserError(
            f"{directory}: trained on {describe_base(saved['base'])}, "
            f"but {base_directory} holds {describe_base(base)}"
        )
    try:
        if saved["lora"]:
            bare = load_backbone(base_directory, dtype=dtype)
            backbone = PeftModel.from_pretrained(
                bare, directory / "adapter", is_trainable=trainable
            )
        else:
            backbone = load_backbone(directory / "backbone", dtype=dtype)
        selector = Selector(backbone)
        head = load_file(directory / "head.safetensors")
    except (OSError, SafetensorError, ValueError) as error:
        raise UserError(f"{directory}: cannot load the selector: {error}") from error
    missing, unexpected = selector.load_state_dict(head, strict=False)
    odd = [name for name in missing if not name.startswith("backbone.")] + list(unexpected)
    if odd:
        raise UserError(
            f"{directory / 'head.safetensors'}: {odd[0]} does not fit the scoring heads"
        )
    if not trainable:
        selector.requires_grad_(False)
    return selector.to(device).eval(), saved["meta"]
