"""Whether a model can be used as its entry in params.yaml says, asked before any work.

Stage `base`, which DVC runs before the data stages, and `models.inspect` ask. Answers come from the configuration, the
tokenizer and the model built without memory for its weights:

    the hub answers, or the model is in its cache; the configuration can be read
    a decoder or an encoder of text, which transformers can build
    max_prompt_tokens + max_candidate_tokens fit its positions
    each LoRA target names layers that can be adapted
    gradient_checkpointing is known to the architecture
    the tokenizer has an end of text, which the model knows, and for `prompt: chat` a template that can be used

Left out: the weights, and what the machine has (a GPU, packages); both are seen when they are loaded.
"""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoModel, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from posttrain.core.errors import UserError
from posttrain.core.params import Model
from posttrain.models import hub
from posttrain.models.architecture import hidden_size, is_causal
from posttrain.models.load import (
    UNLOADABLE,
    check_lengths,
    first_line,
    load_config,
    load_tokenizer,
    place,
)
from posttrain.models.lora import add_lora
from posttrain.models.tokens import special_ids


def check_model(entry: Model, converted: Path | None = None) -> PreTrainedConfig:
    """The model's configuration; `UserError` if the model cannot be used as the entry says.

    converted: the folder with the model of an entry that names a GGUF file.
    """
    name, revision = place(entry) if converted is None else (converted, None)
    cached_only = converted is None and entry.source == "hub" and hub.check(str(name), revision)
    config = load_config(name, revision, cached_only)
    check_entry(config, entry)
    tokenizer = load_tokenizer(name, revision, cached_only, entry.prompt)
    specials = special_ids(tokenizer)
    if not specials.end:
        raise UserError(f"{entry.name}: its tokenizer has no EOS token, so no answer could end")
    outside = [id for id in (*specials.start, *specials.end) if id >= config.vocab_size]
    if outside:
        raise UserError(
            f"{entry.name}: its tokenizer has a special token {outside[0]}, "
            f"its model only {config.vocab_size} tokens; they are not of one model"
        )
    return config


def check_entry(config: PreTrainedConfig, entry: Model) -> None:
    """`UserError` if a model of this configuration cannot be used as the entry says."""
    model = skeleton(config)
    check_lengths(config, entry.max_prompt_tokens, entry.max_candidate_tokens)
    if entry.gradient_checkpointing and not model.supports_gradient_checkpointing:
        raise UserError(
            f"gradient_checkpointing: {config.model_type} does not know it; set it to false"
        )
    if entry.lora is not None:
        with torch.device("meta"):
            add_lora(model, **entry.lora.model_dump())


def skeleton(config: PreTrainedConfig) -> PreTrainedModel:
    """The model with its language-model head, or an encoder without one, on torch's meta device, which holds no weights."""
    kind = AutoModelForCausalLM if is_causal(config) else AutoModel
    try:
        with torch.device("meta"):
            model: PreTrainedModel = kind.from_config(config)
    except UNLOADABLE as error:
        raise UserError(f"{config.model_type} cannot be built: {first_line(error)}") from error
    if kind is AutoModelForCausalLM:
        head = model.get_output_embeddings()
        if head is None or model.base_model is model:
            raise UserError(
                f"{config.model_type} cannot be used: transformers does not part its language-model head from the rest"
            )
        if head.weight.shape[-1] != hidden_size(config):
            raise UserError(
                f"{config.model_type} cannot be used: its head reads states {head.weight.shape[-1]} wide, "
                f"while its hidden_size is {hidden_size(config)}"
            )
    return model
