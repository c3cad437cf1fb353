"""What the two policies must know of an architecture."""

from __future__ import annotations

from transformers import PreTrainedConfig

# Architectures for which the tests compare the shared prefix with separate encoding.
SHARED_PREFIX = frozenset(
    {"gemma", "gpt2", "gpt_neox", "llama", "mistral", "olmo2", "phi3", "qwen2", "qwen3", "smollm3"}
)


def hidden_size(config: PreTrainedConfig) -> int:
    """Width of the hidden states (GPT-2's `n_embd` reads through transformers' attribute map)."""
    return int(config.hidden_size)


def sliding_window(config: PreTrainedConfig) -> int | None:
    """Width of sliding-window attention, None where every layer sees everything."""
    window = getattr(config, "sliding_window", None)
    if window is None or getattr(config, "use_sliding_window", True) is False:
        return None
    return int(window)
