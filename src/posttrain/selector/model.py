"""The selector: a language model that reads the prompt once and gives a score per candidate.

    h_k    = mean hidden state of the tokens of candidate k after the prompt      (d,)
    l_k    = log p(candidate k | prompt), the sum over its tokens, by the language-model head
    logit  = a l_k + w2 . tanh(W1 h_k + b1) + b2    the policy is softmax over the K logits

Training starts from a = 0.1 and w2 = 0: an untrained selector prefers the candidate that the language model is most
likely to write, at a temperature of 10, because likelihoods of whole answers are overconfident on pages unlike those of
pretraining (the small model on real FinQA: a cross-entropy of 12 nats at a = 1, of 2.3 at a = 0.1). Encoders have no
l_k; their w2 starts random.

Decoders read the prompt once. Its keys and values are cached, and the K candidates follow it in one row as a tree, in
which shared beginnings of candidates are read once too. The root is the prompt's last token, so the pass over the prompt
only has to provide keys and values, and its last hidden states need no gradient. A token attends to the prompt and to
its own path in the tree; its position continues from the prompt's length. Logits and gradients equal those of encoding
each prompt + candidate separately, up to rounding (dropout, however, uses one mask for the tokens that candidates
share). The cache is not copied per candidate.

Each prompt + candidate is encoded separately (`encode_separately`) where the prefix cannot be shared: for encoders such
as BERT, whose prompt states depend on the candidate; for architectures not in `SHARED_PREFIX`; for sliding-window
attention shorter than prompt and candidate; in training with gradient checkpointing, which disables the cache, or with
sharded weights.

Left out: tensor parallelism; pools of different K in one batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import DynamicCache, PreTrainedConfig, PreTrainedModel

from posttrain.core import processes
from posttrain.core.errors import UserError
from posttrain.core.files import atomic_directory, write_json
from posttrain.core.params import Lora
from posttrain.models import head
from posttrain.models.architecture import (
    SHARED_PREFIX,
    hidden_size,
    is_causal,
    recomputes,
    sliding_window,
)
from posttrain.models.load import (
    Dtype,
    Quantization,
    load_backbone,
    load_causal_lm,
    load_config,
    load_saved,
    max_positions,
)
from posttrain.models.lora import save_adapter
from posttrain.selector.batch import PoolBatch

SELECTOR_FILE = "selector.json"
FIRST_LIKELIHOOD_WEIGHT = 0.1


@dataclass(frozen=True, slots=True)
class Encoding:
    """The encoded candidates of a batch, in float32.

    pooled: mean hidden state of each candidate, (B, K, d). likelihood: its log-probability after the prompt, (B, K); None
    without a language-model head.
    """

    pooled: torch.Tensor
    likelihood: torch.Tensor | None


@dataclass(frozen=True, slots=True)
class SelectorOutput:
    """Logits (B, K) of a batch and the states (B, d) of its pools, means over the candidates, detached; both float32."""

    logits: torch.Tensor
    states: torch.Tensor


@dataclass(frozen=True, slots=True)
class ValuedOutput(SelectorOutput):
    """With the values (B,) that PPO's critic gives the pools, float32."""

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
    """Language model with a scoring head, as described in the module's docstring.

    backbone: a model from `AutoModelForCausalLM`, or without likelihoods from `AutoModel`; or a `PeftModel` around one.
    share_prefix: False to always encode each prompt + candidate separately.
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
        self.likelihood_weight = nn.Parameter(torch.tensor(FIRST_LIKELIHOOD_WEIGHT))
        if self.language_model.get_output_embeddings() is not None:
            nn.init.zeros_(self.score.outer.weight)

    @property
    def language_model(self) -> PreTrainedModel:
        """The backbone without PEFT's wrapper, but with the adapters inside its layers."""
        wrapped = self.backbone
        model = wrapped.get_base_model() if isinstance(wrapped, PeftModel) else wrapped
        assert isinstance(model, PreTrainedModel)
        return model

    def forward(self, batch: PoolBatch) -> SelectorOutput:
        """Score every candidate of every pool."""
        return self.output(self.encode(batch))

    def output(self, encoding: Encoding) -> SelectorOutput:
        """Logits and states of an encoded batch."""
        logits = self.score(encoding.pooled)
        if encoding.likelihood is not None:
            logits = logits + self.likelihood_weight * encoding.likelihood
        return SelectorOutput(logits, encoding.pooled.detach().mean(dim=1))

    def encode(self, batch: PoolBatch) -> Encoding:
        """Encode every candidate of every pool after its prompt, with a shared prefix where possible."""
        if self._can_share(batch):
            return self.encode_shared(batch)
        return self.encode_separately(batch)

    def encode_shared(self, batch: PoolBatch) -> Encoding:
        """Encode with each prompt read once; for causal backbones only."""
        read = self.language_model.base_model
        # The prompt needs no mask: its pads are on the right, and the tree's mask below excludes them.
        prefix = read(input_ids=batch.prompt_ids, past_key_values=DynamicCache(), use_cache=True)
        tree = _grow(batch)
        last = batch.prompt_mask.sum(dim=1, keepdim=True) - 1
        before_root = torch.arange(batch.prompt_ids.shape[1], device=last.device) < last
        own = tree.membership.any(dim=1)

        def parents(states: torch.Tensor) -> torch.Tensor:
            return states.gather(1, tree.parent[:, :, None].expand_as(states))[own]

        states, log_probs = self._read(
            parents,
            tree.ids[own],
            input_ids=tree.ids,
            attention_mask=self._additive_mask(before_root, tree.visible),
            position_ids=self._within_table(last + tree.depth),
            past_key_values=prefix.past_key_values,
            use_cache=True,
        )
        return Encoding(_mean(states, tree.membership), _sum(log_probs, own, tree.membership))

    def encode_separately(self, batch: PoolBatch) -> Encoding:
        """Encode each prompt + candidate as a sequence of its own; also the reference for tests of `encode_shared`."""
        b, k, _ = batch.candidate_ids.shape
        prompt_ids = batch.prompt_ids[:, None].expand(-1, k, -1)
        prompt_mask = batch.prompt_mask[:, None].expand(-1, k, -1)
        gapped_ids = torch.cat([prompt_ids, batch.candidate_ids], dim=-1).flatten(0, 1)
        gapped_mask = torch.cat([prompt_mask, batch.candidate_mask], dim=-1).flatten(0, 1)
        lengths = gapped_mask.sum(dim=1)
        width = int(lengths.max())
        mask = torch.arange(width, device=lengths.device) < lengths[:, None]
        ids = torch.zeros_like(mask, dtype=torch.long)
        # Both masks have the same number of real tokens per row, so this closes the gap between prompt and candidate.
        ids[mask] = gapped_ids[gapped_mask]
        inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": mask.long()}
        if self.causal:
            inputs["use_cache"] = False
        starts = batch.prompt_mask.sum(dim=1).repeat_interleave(k)
        own = mask & (torch.arange(width, device=lengths.device) >= starts[:, None])
        states, log_probs = self._read(
            lambda states: states[:, :-1][own[:, 1:]], ids[:, 1:][own[:, 1:]], **inputs
        )
        likelihood = _sum(log_probs, own, own[:, None])
        return Encoding(
            _mean(states, own[:, None]).view(b, k, -1),
            None if likelihood is None else likelihood.view(b, k),
        )

    def _read(
        self, before: Callable[[torch.Tensor], torch.Tensor], tokens: torch.Tensor, **inputs: Any
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The last hidden states (B, S, d) of `inputs`, and the log-probabilities (n,) of n tokens, in float32.

        before: from the states, those (n, d) that predict the tokens. The log-probabilities are None without a
        language-model head.
        """
        model = self.language_model
        if model.get_output_embeddings() is None:
            return model.base_model(**inputs).last_hidden_state, None
        states, scores = head.read(model, lambda: model(**inputs), before)
        return states, scores.log_probs(tokens)

    def _can_share(self, batch: PoolBatch) -> bool:
        if not self.share_prefix:
            return False
        if recomputes(self.backbone):
            return False
        window = sliding_window(self.config)
        if processes.sharded() and (torch.is_grad_enabled() or window is not None):
            # The backward pass would go through the prompt's layers after their release. And where the window's size
            # decides, processes would make different numbers of passes.
            return False
        return window is None or batch.prompt_ids.shape[1] + batch.candidate_ids.shape[2] <= window

    def _additive_mask(self, prompt: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
        """Additive attention mask (B, 1, S, P + S) from the visible tokens of prompt (B, P) and tree (B, S, S)."""
        prompt = prompt[:, None].expand(-1, visible.shape[1], -1)
        allowed = torch.cat([prompt, visible], dim=-1)[:, None]
        dtype = next(self.backbone.parameters()).dtype
        lowest = torch.finfo(dtype).min
        mask = torch.zeros(allowed.shape, dtype=dtype, device=allowed.device)
        return mask.masked_fill(~allowed, lowest)

    def _within_table(self, positions: torch.Tensor) -> torch.Tensor:
        """Keep positions of pads inside the table of position embeddings; those of real tokens fit by `check_lengths`."""
        limit = max_positions(self.config)
        return positions if limit is None else positions.clamp(max=limit - 1)


def load_reader(
    model: Path, dtype: Dtype, quantization: Quantization | None = None
) -> PreTrainedModel:
    """The backbone of a selector: a decoder with its language-model head, or an encoder without one."""
    load = load_causal_lm if is_causal(load_config(model)) else load_backbone
    return load(model, dtype=dtype, quantization=quantization)


@dataclass(frozen=True, slots=True)
class _Tree:
    """The candidates of each pool as a tree of at most S tokens, whose root is the prompt's last token.

    ids, depth, parent: (B, S). visible: for each token, the path to it including itself, (B, S, S). membership: the tokens
    of each candidate, without the root, (B, K, S). Pads are at the end of a row and on no path.
    """

    ids: torch.Tensor
    depth: torch.Tensor
    parent: torch.Tensor
    visible: torch.Tensor
    membership: torch.Tensor


def _grow(batch: PoolBatch) -> _Tree:
    count = batch.candidate_ids.shape[1]
    rows = torch.arange(len(batch), device=batch.prompt_ids.device)[:, None]
    root = batch.prompt_ids.gather(1, batch.prompt_mask.sum(dim=1, keepdim=True) - 1)
    ids = torch.cat([root[:, None].expand(-1, count, -1), batch.candidate_ids], dim=2)
    real = nn.functional.pad(batch.candidate_mask, (1, 0), value=True)
    # (B, K, K, 1 + C): whether two candidates are equal up to and including a token.
    equal = (ids[:, :, None] == ids[:, None]) & real[:, :, None] & real[:, None]
    same = equal.byte().cumprod(dim=3).bool()
    # Of the candidates that share a token, the first adds it to the tree.
    owner = same.byte().argmax(dim=2)
    kept = (real & (owner == torch.arange(count, device=ids.device)[:, None])).flatten(1)
    source = (~kept).byte().argsort(dim=1, stable=True)[:, : int(kept.sum(dim=1).max())]
    candidate, depth = source // ids.shape[2], source % ids.shape[2]
    path = same.flatten(2).gather(2, source[:, None].expand(-1, count, -1))
    path &= kept.gather(1, source)[:, None]
    visible = path[rows, candidate] & (depth[:, None] <= depth[:, :, None])
    parent = (visible & (depth[:, None] == depth[:, :, None] - 1)).byte().argmax(dim=2)
    return _Tree(
        ids=ids.flatten(1).gather(1, source),
        depth=depth,
        parent=parent,
        visible=visible,
        membership=path & (depth > 0)[:, None],
    )


def _mean(states: torch.Tensor, membership: torch.Tensor) -> torch.Tensor:
    """Mean over each candidate's tokens: (B, S, d) and (B, K, S) to (B, K, d) in float32.

    A new model learns from the mean many times faster than from the last token's state, which at first is the same
    end-of-sequence embedding for every candidate.
    """
    weights = membership / membership.sum(dim=-1, keepdim=True)
    return torch.bmm(weights.float(), states.float())


def _sum(
    log_probs: torch.Tensor | None, own: torch.Tensor, membership: torch.Tensor
) -> torch.Tensor | None:
    """Log-probability of each candidate, (B, K), from those of the tokens at `own` (B, S) and (B, K, S)."""
    if log_probs is None:
        return None
    of_token = log_probs.new_zeros(own.shape)
    of_token[own] = log_probs
    return torch.bmm(membership.float(), of_token[:, :, None]).squeeze(-1)


def save_selector(
    directory: Path, selector: Selector, base: Mapping[str, Any], meta: Mapping[str, Any]
) -> None:
    """Write a folder for `load_selector`; the same weights give the same bytes.

    selector.json      `base` (the content of base.json), `weights` (adapter or whole), and `meta` (any JSON object)
    head.safetensors   scoring head and likelihood weight
    adapter/           the LoRA adapter in PEFT's format, or
    backbone/          the whole backbone, if all weights are trained
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
            name: tensor.detach().cpu().contiguous()
            for name, tensor in selector.state_dict().items()
            if not name.startswith("backbone.")
        }
        _write_head(
            temporary, head, "adapter" if isinstance(backbone, PeftModel) else "whole", base, meta
        )


def save_untrained(
    directory: Path, config: PreTrainedConfig, base: Mapping[str, Any], seed: int
) -> None:
    """Write the folder of an untrained selector: the base model with a head initialised from the seed."""
    torch.manual_seed(seed)
    head = nn.Module()
    head.score = ScoringHead(hidden_size(config))
    head.likelihood_weight = nn.Parameter(torch.tensor(FIRST_LIKELIHOOD_WEIGHT))
    if is_causal(config):
        nn.init.zeros_(head.score.outer.weight)
    with atomic_directory(directory) as temporary:
        _write_head(temporary, head.state_dict(), "base", base, {"seed": seed})


def _write_head(
    directory: Path,
    head: Mapping[str, torch.Tensor],
    weights: str,
    base: Mapping[str, Any],
    meta: Mapping[str, Any],
) -> None:
    save_file(dict(head), directory / "head.safetensors")
    content = {"base": dict(base), "weights": weights, "meta": dict(meta)}
    write_json(directory / SELECTOR_FILE, content)


def load_selector(
    directory: Path,
    base_directory: Path,
    dtype: Dtype = "float32",
    device: torch.device | str = "cpu",
    trainable: bool = False,
    quantization: Quantization | None = None,
    lora: Lora | None = None,
) -> tuple[Selector, dict[str, Any]]:
    """The selector in `directory` on the base in `base_directory`, in evaluation mode, and its `meta`.

    trainable: whether the adapter (or the backbone) and the head can be trained further. lora: new adapter of an
    untrained selector, initialised from the global random state. Raises `UserError` if a file is missing or broken, or if
    the selector was trained on another base.
    """
    backbone, meta = load_saved(
        directory / SELECTOR_FILE,
        base_directory,
        load_reader,
        "backbone",
        dtype=dtype,
        quantization=quantization,
        trainable=trainable,
        lora=lora,
    )
    selector = Selector(backbone)
    try:
        head = load_file(directory / "head.safetensors")
    except (OSError, SafetensorError) as error:
        raise UserError(f"{directory}: cannot load the selector: {error}") from error
    missing, unexpected = selector.load_state_dict(head, strict=False)
    odd = [name for name in missing if not name.startswith("backbone.")] + list(unexpected)
    if odd:
        raise UserError(f"{directory / 'head.safetensors'}: {odd[0]} does not fit the scoring head")
    if not trainable:
        selector.requires_grad_(False)
    return selector.to(device).eval(), meta
