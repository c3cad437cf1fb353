"""A model's parameter counts, the memory that training needs, and an entry for params.yaml.

Only the configuration is read; the model is built without memory for its weights.

Estimate, in bytes, for one forward and backward pass over t tokens:

    weights      N * b                      N parameters of b bytes (float32 4, bfloat16 2). Linear layers except the
                                            head: b = 1.0 with quantization 8bit, 0.52 with 4bit; sharded over P
                                            processes, 1/P of them and four whole layers
    gradients    T * g                      T trainable parameters; g = 4 with LoRA, else b
    optimizer    T * 8                      AdamW's two float32 moments
    activations  L * t * b * (10 h + 5 f)   L layers of width h and MLP width f
               + 12 min(a V, C)             logits, softmax and gradient in float32, for a answer tokens and vocabulary V,
                                            in chunks of C (`models.head`)
    with gradient_checkpointing
    activations  (L h + 10 h + 5 f) * t * b + 12 min(a V, C)

10 h + 5 f bounds what autograd keeps per layer and token, as measured in float32 (Llama 10 h + 4 f, GPT-2 8 h + 5 f).
For the selector a = batch_size * K * max_candidate_tokens (0 for an encoder) and t = a + batch_size * max_prompt_tokens,
as it reads the prompt once. With gradient_checkpointing or sharded weights it reads the prompt with each candidate:
t = a + batch_size * K * max_prompt_tokens. Of the generator's passes those of DPO are the largest, where K = 2 for a pair;
in the others a row has one answer. Its RL also keeps a copy of what is trained, the reference, of T * 4 bytes.

Sampling needs, when no pass does, a cache of 2 L k b bytes per token of prompt and answer, with keys of width k over all
heads, for `sampling.batch_size` answers at the same time.

Left out: attention scores and dropout masks of encoders, fragmentation of memory, CUDA's context (about 0.5 GB).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig
from transformers.pytorch_utils import Conv1D

from posttrain.core.errors import UserError
from posttrain.core.overlay import ModelSettings
from posttrain.core.params import ALL_LINEAR, Lora, Model
from posttrain.models.architecture import is_causal
from posttrain.models.check import skeleton
from posttrain.models.head import CHUNK
from posttrain.models.load import DTYPES, Dtype, max_positions
from posttrain.models.lora import add_lora, auto_targets

ROUND = 128
ANSWER_TOKENS = 256
LEAST_PROMPT = 256
# Of the memory that `fit_memory` is given, the rest is for what the estimate leaves out.
USABLE = 0.9
# Bytes of a parameter and its share of the scales (Dettmers et al. 2023: 0.127 bits per parameter for 4 bits).
QUANTIZED_BYTES = {"8bit": 1.0, "4bit": 0.52}

# Learning rates of adapters; docs/adding-a-model.md has their sources.
SFT_RATE = {"learning_rate": 2e-4}
RL_RATE = {"learning_rate": 5e-5}
DPO_RATE = {"learning_rate": 5e-6}


@dataclass(frozen=True, slots=True)
class Parameters:
    """Parameter counts: the backbone, its linear layers (which quantization shrinks), LoRA (None without), the heads."""

    backbone: int
    linear: int
    adapters: int | None
    heads: int

    @property
    def trainable(self) -> int:
        return (self.backbone if self.adapters is None else self.adapters) + self.heads


@dataclass(frozen=True, slots=True)
class Memory:
    """Estimated bytes of one training step, by the formulas in the module's docstring."""

    weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.activations


def count_parameters(config: PreTrainedConfig, lora: Lora | None) -> Parameters:
    """Count the parameters of a model on torch's meta device, which holds no weights."""
    backbone = skeleton(config)
    with torch.device("meta"):
        total = sum(parameter.numel() for parameter in backbone.parameters())
        head = backbone.get_output_embeddings()
        linear = sum(
            module.weight.numel()
            for module in backbone.modules()
            if isinstance(module, nn.Linear | Conv1D) and module is not head
        )
        adapters = None
        if lora is not None:
            model = add_lora(backbone, lora.r, lora.alpha, lora.dropout, lora.targets)
            adapters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    width = int(config.hidden_size)
    return Parameters(total, linear, adapters, width * width + width + width + 1 + 1)


def estimate_memory(
    config: PreTrainedConfig, counts: Parameters, entry: Model, candidates: int, processes: int = 1
) -> Memory:
    """Memory per process of one training step of the selector with this entry and K candidates; of the generator with K = 2.

    processes: the number that the frozen weights are sharded over (`models.sharding`).
    """
    size = DTYPES[entry.dtype].itemsize
    width, layers = int(config.hidden_size), int(config.num_hidden_layers)
    answers = entry.batch_size * candidates * entry.max_candidate_tokens
    logits = min(answers * int(config.vocab_size), CHUNK) * 4 * 3 if is_causal(config) else 0
    inside = 10 * width + 5 * intermediate_size(config)  # of one layer
    recomputed = entry.gradient_checkpointing
    apart = recomputed or processes > 1
    # Besides its own part: the current layer and the one gathered ahead, each both as received and as used
    # (benchmarks/sharding.py measures 3.7 layers).
    share = 1.0 if processes == 1 else min(1.0, 1 / processes + 4 / layers)
    prompts = entry.batch_size * entry.max_prompt_tokens * (candidates if apart else 1)
    kept = layers * width + inside if recomputed else layers * inside
    linear = size if entry.quantization is None else QUANTIZED_BYTES[entry.quantization]
    return Memory(
        weights=round((counts.backbone - counts.linear) * size + counts.linear * linear * share)
        + counts.heads * 4,
        gradients=counts.trainable * (4 if counts.adapters is not None else size),
        optimizer=counts.trainable * 8,
        activations=(prompts + answers) * size * kept + logits,
    )


def estimate_generator(
    config: PreTrainedConfig, counts: Parameters, entry: Model, processes: int = 1
) -> Memory:
    """Memory per process of a training step of DPO, the generator's largest, with the reference of RL."""
    memory = estimate_memory(config, counts, entry, 2, processes)
    return replace(memory, weights=memory.weights + 4 * (counts.trainable - counts.heads))


def cache_bytes(config: PreTrainedConfig, entry: Model, in_flight: int) -> int:
    """Bytes of the keys and values of the longest prompts and answers, as many as are sampled at the same time."""
    heads = int(config.num_attention_heads)
    shared = int(getattr(config, "num_key_value_heads", None) or heads)
    width = int(getattr(config, "head_dim", None) or int(config.hidden_size) // heads)
    tokens = in_flight * (entry.max_prompt_tokens + entry.max_candidate_tokens)
    return (
        2 * int(config.num_hidden_layers) * shared * width * DTYPES[entry.dtype].itemsize * tokens
    )


def intermediate_size(config: PreTrainedConfig) -> int:
    """Width of the MLP; four times the hidden size if the config names none, as in GPT-2."""
    for name in ("intermediate_size", "n_inner", "ffn_dim"):
        value = getattr(config, name, None)
        if value is not None:
            return int(value)
    return 4 * int(config.hidden_size)


def propose_entry(config: PreTrainedConfig, source: Model, r: int, dtype: Dtype) -> Model:
    """A `models` entry for a model that has none, with lengths that fit its positions and small batches.

    source: an entry of which only what names the model is read.
    """
    known = auto_targets(config) is not None
    limit = max_positions(config) or 8192
    answer = min(ANSWER_TOKENS, limit // 4)
    prompt = min(4096, (limit - answer) // ROUND * ROUND or limit - answer)
    return Model(
        source=source.source,
        name=source.name,
        revision=(source.revision or "main") if source.source == "hub" else None,
        file=source.file,
        sha256=source.sha256,
        dtype=dtype,
        operands="literal",
        lora=Lora(
            r=r,
            alpha=float(2 * r),
            dropout=0.05 if known else 0.0,  # PEFT's adapters of a mixture's experts have none
            targets="auto" if known else [ALL_LINEAR],
        ),
        max_prompt_tokens=prompt,
        max_candidate_tokens=answer,
        batch_size=4,
        accumulation=4,
        settings=ModelSettings(
            selector={"common": RL_RATE, "sft": SFT_RATE, "sft_plus": SFT_RATE},
            generator={"common": RL_RATE, "sft": SFT_RATE, "sft_plus": SFT_RATE, "dpo": DPO_RATE},
        ),
    )


def fit_memory(config: PreTrainedConfig, entry: Model, candidates: int, gib: float) -> Model:
    """The entry with the largest of its lengths and batches whose training fits `gib` GiB; `UserError` if none does.

    In this order: fewer questions per pass (and more passes), gradient checkpointing, shorter prompts.
    """
    counts = count_parameters(config, entry.lora)
    for smaller in _smaller(entry):
        needed = estimate_memory(config, counts, smaller, candidates).total
        if is_causal(config):
            needed = max(needed, estimate_generator(config, counts, smaller).total)
        if needed <= USABLE * gib * 2**30:
            return smaller
    raise UserError(
        f"{entry.name}: does not fit {gib:g} GiB; one question of {smaller.max_prompt_tokens} + {candidates} x "
        f"{smaller.max_candidate_tokens} tokens needs {_gib(round(needed / USABLE))}; lower --rank or --candidates, "
        "or set quantization (docs/gpus.md)"
    )


def _smaller(entry: Model) -> Iterator[Model]:
    """The entry, and then ones that need ever less memory."""
    batch, prompt = entry.batch_size * entry.accumulation, entry.max_prompt_tokens
    while True:
        for recompute in sorted({entry.gradient_checkpointing, True}):
            size = entry.batch_size
            while size:
                yield entry.model_copy(
                    update={
                        "max_prompt_tokens": prompt,
                        "gradient_checkpointing": recompute,
                        "batch_size": size,
                        "accumulation": -(-batch // size),
                    }
                )
                size //= 2
        if prompt < 2 * LEAST_PROMPT:
            return
        prompt = prompt // 2 // ROUND * ROUND


def as_yaml(key: str, entry: Model) -> str:
    """The entry in the form of params.yaml, in which null is nothing after the colon."""

    def scalar(value: Any) -> str:
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, float):  # without an exponent, in which DVC leaves it
            return f"{Decimal(repr(value)):f}" if value % 1 else f"{value:g}"
        if isinstance(value, list):
            return f"[{', '.join(map(scalar, value))}]"
        return "" if value is None else str(value)

    def lines(name: str, value: Any, depth: int) -> list[str]:
        start = f"{'  ' * depth}{name}:"
        if not isinstance(value, dict):
            return [f"{start} {scalar(value)}".rstrip()]
        if depth > 1 and not any(isinstance(inner, dict) for inner in value.values()):
            pairs = ", ".join(f"{key}: {scalar(inner)}" for key, inner in value.items())
            return [f"{start} {{{pairs}}}"]
        return [start, *(line for item in value.items() for line in lines(*item, depth + 1))]

    return "\n".join(lines(key, entry.model_dump(exclude_defaults=True), 1))


def describe(
    config: PreTrainedConfig, title: str, key: str, entry: Model, candidates: int, in_flight: int
) -> str:
    """The report as text. in_flight: completions sampled at the same time."""
    counts = count_parameters(config, entry.lora)
    memory = estimate_memory(config, counts, entry, candidates)
    auto = auto_targets(config)
    targets = f"{', '.join(auto)} (auto)" if auto else "unknown to auto"
    heads = getattr(config, "num_attention_heads", None)
    inside = f"{heads} heads, " if isinstance(heads, int) else ""
    share = 100 * counts.trainable / (counts.backbone + counts.heads)
    trained = f"LoRA r={entry.lora.r}" if entry.lora else "every weight"
    several = "s" if entry.batch_size > 1 else ""
    positions = max_positions(config)
    return "\n".join(
        [
            f"{title}",
            f"  architecture     {config.model_type}, {config.num_hidden_layers} layers, "
            f"width {config.hidden_size}, {inside}vocabulary {config.vocab_size:,}",
            f"  positions        {f'{positions:,}' if positions else 'not limited by the config'}",
            f"  LoRA targets     {targets}",
            f"  parameters       {counts.backbone:,} backbone, {counts.heads:,} heads",
            f"  trainable        {counts.trainable:,} ({share:.2f} %) with {trained}",
            f"  training memory  {_gib(memory.total)} for {entry.batch_size} question{several} of "
            f"{entry.max_prompt_tokens} + {candidates} x {entry.max_candidate_tokens} tokens, "
            f"{entry.dtype}",
            f"    weights {_gib(memory.weights)}, gradients {_gib(memory.gradients)}, "
            f"optimizer {_gib(memory.optimizer)}, activations {_gib(memory.activations)}",
            *(_of_the_generator(config, counts, entry, in_flight) if is_causal(config) else []),
            "",
            "Entry for `models` in params.yaml:",
            as_yaml(key, entry),
        ]
    )


def _of_the_generator(
    config: PreTrainedConfig, counts: Parameters, entry: Model, in_flight: int
) -> list[str]:
    pairs = f"{entry.batch_size} pair{'s' if entry.batch_size > 1 else ''}"
    cache = _gib(cache_bytes(config, entry, in_flight))
    return [
        f"  generator        {_gib(estimate_generator(config, counts, entry).total)} for a pass of DPO over {pairs}; "
        f"in sampling, {cache} for {in_flight} answers at the same time",
    ]


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB" if size >= 2**27 else f"{size / 2**20:.1f} MiB"
