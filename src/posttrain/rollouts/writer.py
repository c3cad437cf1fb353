"""The generator: a base model with its language-model head, trained whole or through LoRA.

    pi(y | x) = prod_t softmax(logits(x, y_<t))[y_t]       y ends with EOS, or at the length limit

`save_generator` writes only what training changed: the adapter with LoRA, else every weight. Left
out: adapters on the embeddings.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import torch
from peft import PeftModel
from safetensors import SafetensorError
from transformers import PreTrainedModel

from posttrain.core.errors import UserError
from posttrain.core.files import atomic_directory, read_json, write_json
from posttrain.core.params import Lora
from posttrain.models.load import Dtype, Quantization, describe_base, load_causal_lm, read_base
from posttrain.models.lora import add_lora, save_adapter

Generator: TypeAlias = "PreTrainedModel | PeftModel"
GENERATOR_FILE = "generator.json"


def new_generator(
    base_directory: Path,
    dtype: Dtype,
    lora: Lora | None,
    device: torch.device | str = "cpu",
    quantization: Quantization | None = None,
) -> Generator:
    """The base in `base_directory`, ready for training: every weight, or a new adapter.

    The adapter is drawn from the global random state, so the caller seeds it.
    """
    model = load_causal_lm(base_directory, dtype=dtype, device=device, quantization=quantization)
    if lora is None:
        return model
    return add_lora(model, lora.r, lora.alpha, lora.dropout, lora.targets, "CAUSAL_LM")


def save_generator(
    directory: Path, model: Generator, base: Mapping[str, Any], meta: Mapping[str, Any]
) -> None:
    """Write a folder that `load_generator` reads; the same weights give the same bytes.

    generator.json   `base` (the content of base.json), whether LoRA is used, and `meta` (any JSON)
    adapter/         the LoRA adapter, in PEFT's format; or
    model/           the whole model, when every weight was trained
    """
    lora = isinstance(model, PeftModel)
    with atomic_directory(directory) as temporary:
        if isinstance(model, PeftModel):
            (temporary / "adapter").mkdir()
            save_adapter(temporary / "adapter", model, base["name_or_path"], base["revision"])
        else:
            model.save_pretrained(temporary / "model")
        content = {"base": dict(base), "lora": lora, "meta": dict(meta)}
        write_json(temporary / GENERATOR_FILE, content)


def load_generator(
    directory: Path,
    base_directory: Path,
    dtype: Dtype = "float32",
    device: torch.device | str = "cpu",
    trainable: bool = False,
    quantization: Quantization | None = None,
) -> tuple[Generator, dict[str, Any]]:
    """The generator in `directory` on the base in `base_directory`, in evaluation mode, and its
    `meta`.

    `trainable` leaves the adapter (or every weight) ready for more training. `UserError` when a
    file is missing or broken, or the generator was trained on another base.
    """
    saved = read_json(directory / GENERATOR_FILE)
    base = read_base(base_directory)
    if saved["base"] != base:
        raise UserError(
            f"{directory}: trained on {describe_base(saved['base'])}, "
            f"but {base_directory} holds {describe_base(base)}"
        )
    model: Generator
    try:
        if saved["lora"]:
            bare = load_causal_lm(base_directory, dtype=dtype, quantization=quantization)
            model = PeftModel.from_pretrained(bare, directory / "adapter", is_trainable=trainable)
        else:
            model = load_causal_lm(directory / "model", dtype=dtype)
    except (OSError, SafetensorError, ValueError) as error:
        raise UserError(f"{directory}: cannot load the generator: {error}") from error
    if not trainable:
        model.requires_grad_(False)
    return model.to(device).eval(), saved["meta"]
