"""Properties of architectures that the policies depend on, and gradient checkpointing for any of them."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import PreTrainedConfig
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
)

from posttrain.core.errors import UserError

# Architectures for which the tests compare the shared prefix with separate encoding.
SHARED_PREFIX = frozenset(
    {
        *(
            "cohere",
            "cohere2",
            "gemma",
            "gemma2",
            "gemma3_text",
            "gpt2",
            "gpt_neox",
            "granite",
            "llama",
        ),
        *("mistral", "olmo2", "phi3", "qwen2", "qwen3", "smollm3"),
    }
)
# Listed by transformers among the causal language models, though their tokens attend to later ones.
LOOK_AHEAD = frozenset({"bert-generation", "cpmant", "xlnet"})
# Decoders that take the pads before a prompt for text, so that a completion would depend on its batch.
READ_PADS = frozenset({"reformer", "rwkv", "trocr", "whisper", "xlstm"})


def is_causal(config: PreTrainedConfig) -> bool:
    """True for decoders (Llama, GPT-2), False for encoders (BERT); `UserError` for the rest."""
    kind = config.model_type
    if config.is_encoder_decoder or kind in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES:
        raise UserError(f"{kind} is an encoder-decoder; a decoder or an encoder is needed")
    if config.get_text_config() is not config:
        raise UserError(f"{kind} reads more than text; a model of text alone is needed")
    masked = kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES
    sees_all = (masked or kind in LOOK_AHEAD) and not getattr(config, "is_decoder", False)
    sees_all |= getattr(config, "use_bidirectional_attention", None) is True  # EmbeddingGemma
    if kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and not sees_all:
        return True
    if masked:
        return False
    raise UserError(f"{kind} is neither a causal nor a masked language model")


def check_writer(config: PreTrainedConfig) -> None:
    """`UserError` for a model that can choose an answer, but cannot write one."""
    if not is_causal(config):
        raise UserError(
            f"{config.model_type} is an encoder, which writes no text; run the selector alone "
            "(dvc repro compare@selector), or choose a decoder"
        )
    if config.model_type in READ_PADS:
        raise UserError(
            f"{config.model_type} takes pads for text, so its completions would depend on their batch; "
            "run the selector alone (dvc repro compare@selector), or choose another decoder"
        )


def hidden_size(config: PreTrainedConfig) -> int:
    """Width of the hidden states (`n_embd` in GPT-2, through transformers' attribute map)."""
    return int(config.hidden_size)


def sliding_window(config: PreTrainedConfig) -> int | None:
    """Width of sliding-window attention; None if every layer attends to everything."""
    window = getattr(config, "sliding_window", None)
    if window is None or getattr(config, "use_sliding_window", True) is False:
        return None
    return int(window)


def recompute_activations(model: Any) -> None:
    """Turn on gradient checkpointing in a transformers or PEFT model, also for evaluation mode, in which RL trains.

    A layer then keeps only its inputs and computes its activations again in the backward pass.
    """
    model.activation_checkpointing_enable({"use_reentrant": False})
    _recompute_in_any_mode(model)


def disable_dropout(model: nn.Module) -> None:
    """Switch to evaluation mode, but keep gradient checkpointing where it is on."""
    model.eval()
    _recompute_in_any_mode(model)


def recomputes(model: nn.Module) -> bool:
    """Whether a forward pass in the model's present mode drops activations, and with them a cache."""
    return any(module.training for module in _recomputing_layers(model))


def _recompute_in_any_mode(model: nn.Module) -> None:
    # A layer checks its own mode, and the dropouts inside it theirs, so these stay off.
    for module in _recomputing_layers(model):
        module.training = True


def _recomputing_layers(model: nn.Module) -> list[nn.Module]:
    return [
        module
        for module in model.modules()
        if isinstance(module, GradientCheckpointingLayer) and module.gradient_checkpointing
    ]
