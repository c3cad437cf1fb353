"""Estimated GPU memory and time of each hub model of params.yaml, without weights and network.

    python benchmarks/presets.py

Memory is the estimate of `posttrain.models.description` for a training step of the selector, at the lengths and batch size
of the model's entry: as it is; with gradient_checkpointing; and with that and either 4-bit weights, or frozen weights
sharded over 8 GPUs (per GPU); then that of a pass of DPO, the generator's largest, with the entry as it is. Time is

    tokens * (forward + backward) / RATE        forward = 2 N + 4 L h c FLOPs per token with c tokens before it (on
                                                average half of the sequence), backward twice that, or once with LoRA,
                                                whose frozen weights need no gradient
    + written tokens * weights / BANDWIDTH      decoding reads all weights for one token of all completions

for FinQA with the numbers of questions, steps and passes in params.yaml, on one GPU of the assumed RATE and BANDWIDTH,
without validation, loading and idle time. The shapes below are those published with the models.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import GPT2Config, LlamaConfig, PreTrainedConfig, Qwen3Config

from posttrain.core.methods import load_method, settings_of
from posttrain.core.params import FAMILIES, Model, Params, load_params
from posttrain.models.description import (
    Parameters,
    count_parameters,
    estimate_generator,
    estimate_memory,
)
from posttrain.models.load import DTYPES

ROOT = Path(__file__).resolve().parent.parent
RATE = 120e12  # FLOPs per second: 40 % of an A100's peak in bfloat16
BANDWIDTH = 1.2e12  # bytes per second: 60 % of an A100's
QUESTIONS = 6251  # FinQA's training split
GPUS = 8  # with sharded weights
PROMPT = 1000  # tokens of a typical question
ANSWER = 50  # tokens of an answer, of which the selector reads K

LLAMA_3 = {"vocab_size": 128256, "max_position_embeddings": 131072, "num_key_value_heads": 8}
LLAMA_3_1B = LlamaConfig(
    **LLAMA_3,
    hidden_size=2048,
    intermediate_size=8192,
    num_hidden_layers=16,
    num_attention_heads=32,
    tie_word_embeddings=True,
)
CONFIGS: dict[str, PreTrainedConfig] = {
    "dialogpt-medium": GPT2Config(n_embd=1024, n_layer=24, n_head=16),
    "tinyllama-1-1b": LlamaConfig(
        vocab_size=32000,
        hidden_size=2048,
        intermediate_size=5632,
        num_hidden_layers=22,
        num_attention_heads=32,
        num_key_value_heads=4,
        max_position_embeddings=2048,
    ),
    "llama-3-2-1b": LLAMA_3_1B,
    "llama-3-2-1b-ultrafast": LLAMA_3_1B,
    "llama-3-2-3b": LlamaConfig(
        **LLAMA_3,
        hidden_size=3072,
        intermediate_size=8192,
        num_hidden_layers=28,
        num_attention_heads=24,
        tie_word_embeddings=True,
    ),
    "llama-3-8b": LlamaConfig(
        **LLAMA_3 | {"max_position_embeddings": 8192},
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
    ),
    "qwen3-0-6b": Qwen3Config(
        vocab_size=151936,
        hidden_size=1024,
        intermediate_size=3072,
        num_hidden_layers=28,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=128,
        max_position_embeddings=40960,
        tie_word_embeddings=True,
    ),
}


def gibibytes(
    config: PreTrainedConfig,
    counts: Parameters,
    entry: Model,
    candidates: int,
    processes: int = 1,
    **options: Any,
) -> str:
    """GiB of a training step with these options; a dash if the entry does not allow them."""
    if (options.get("quantization") or processes > 1) and entry.lora is None:
        return "–"
    changed = entry.model_copy(update=options)
    memory = estimate_memory(config, counts, changed, candidates, processes)
    return f"{memory.total / 2**30:.1f}"


def forward(config: PreTrainedConfig, counts: Parameters, prompt: int, answers: int) -> float:
    """FLOPs of reading a prompt once, followed by this number of answers of ANSWER tokens."""
    width, layers = int(config.hidden_size), int(config.num_hidden_layers)
    weights = 2 * counts.backbone * (prompt + answers * ANSWER)
    seen = prompt * prompt / 2 + answers * ANSWER * (prompt + ANSWER / 2)
    return weights + 4 * layers * width * seen


def settings(params: Params, family: str, method: str) -> Any:
    """The settings of a method in params.yaml."""
    return settings_of(params, family, method, load_method(family, method))


def hours(key: str, entry: Model, params: Params) -> Mapping[str, float]:
    """Hours of each training run with the settings of params.yaml."""
    config = CONFIGS[key]
    counts = count_parameters(config, entry.lora)
    step = 3 if entry.lora is None else 2  # forward and backward, in units of forward
    choosing = forward(config, counts, PROMPT, params.pools.count) / RATE
    epochs = {family: settings(params, family, "sft").epochs for family in FAMILIES}
    ppo = settings(params, "selector", "ppo")
    written = forward(config, counts, PROMPT, 1) / RATE
    grpo = settings(params, "generator", "grpo")
    group = forward(config, counts, PROMPT, grpo.samples) / RATE
    decoding = ANSWER * counts.backbone * DTYPES[entry.dtype].itemsize / BANDWIDTH
    # Three forward passes: sampling, the old policy and the reference; then the training passes.
    grpo_step = grpo.prompts_per_step * group * (3 + step * grpo.inner_epochs) + decoding
    seconds = {
        "SFT selector": epochs["selector"] * QUESTIONS * choosing * step,
        "PPO selector": ppo.steps * ppo.prompts_per_step * choosing * (2 + step * ppo.inner_epochs),
        "SFT generator": epochs["generator"] * QUESTIONS * written * step,
        "GRPO generator": grpo.steps * grpo_step,
    }
    return {name: value / 3600 for name, value in seconds.items()}


def duration(value: float) -> str:
    """Hours in a readable unit."""
    if value >= 1:
        return f"{value:.1f} h"
    return f"{60 * value:.0f} min" if 60 * value >= 1 else f"{3600 * value:.0f} s"


def table(params: Params) -> str:
    """Markdown table with a row per model."""
    names = ["SFT selector", "PPO selector", "SFT generator", "GRPO generator"]
    head = [
        "model",
        "parameters",
        "trained",
        "GiB",
        "checkpointing",
        "and 4 bits",
        "or FSDP2",
        "DPO generator",
        *names,
    ]
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    for key, config in CONFIGS.items():
        entry = params.models[key]
        counts = count_parameters(config, entry.lora)
        k = params.pools.count
        recompute = {"gradient_checkpointing": True}
        times = hours(key, entry, params)
        cells = [
            key,
            f"{counts.backbone / 1e6:,.0f} M",
            f"{counts.trainable / 1e6:,.1f} M",
            gibibytes(config, counts, entry, k),
            gibibytes(config, counts, entry, k, **recompute),
            gibibytes(config, counts, entry, k, **recompute, quantization="4bit"),
            gibibytes(config, counts, entry, k, GPUS, **recompute),
            f"{estimate_generator(config, counts, entry).total / 2**30:.1f}",
            *(duration(times[name]) for name in names),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(load_params(ROOT / "params.yaml")))
