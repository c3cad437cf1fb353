"""The generator: a base model with its language-model head, trained whole or through LoRA.

    pi(y | x) = prod_t softmax(logits(x, y_<t))[y_t]       y ends with EOS, or at the length limit

`save_generator` writes only the weights that training changed: the adapter with LoRA, else all of them.

Left out: adapters on the embeddings.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from posttrain.core.files import atomic_directory, write_json
from posttrain.core.params import Lora
from posttrain.models.architecture import check_writer
from posttrain.models.load import (
    Dtype,
    Quantization,
    load_causal_lm,
    load_config,
    load_saved,
)
from posttrain.models.lora import save_adapter

Generator: TypeAlias = "PreTrainedModel | PeftModel"
GENERATOR_FILE = "generator.json"


def save_generator(
    directory: Path, model: Generator, base: Mapping[str, Any], meta: Mapping[str, Any]
) -> None:
    """Write a folder that `load_generator` reads; the same weights give the same bytes.

    generator.json   `base` (the content of base.json), `weights` (adapter or whole), and `meta` (any JSON object)
    adapter/         the LoRA adapter, in PEFT's format; or
    model/           the whole model, when every weight was trained
    """
    with atomic_directory(directory) as temporary:
        if isinstance(model, PeftModel):
            (temporary / "adapter").mkdir()
            save_adapter(temporary / "adapter", model, base["name_or_path"], base["revision"])
        else:
            model.save_pretrained(temporary / "model")
        weights = "adapter" if isinstance(model, PeftModel) else "whole"
        content = {"base": dict(base), "weights": weights, "meta": dict(meta)}
        write_json(temporary / GENERATOR_FILE, content)


def save_untrained(directory: Path, base: Mapping[str, Any]) -> None:
    """Write the folder of the untrained generator, which is the base itself."""
    with atomic_directory(directory) as temporary:
        content = {"base": dict(base), "weights": "base", "meta": {}}
        write_json(temporary / GENERATOR_FILE, content)


def load_generator(
    directory: Path,
    base_directory: Path,
    dtype: Dtype = "float32",
    device: torch.device | str = "cpu",
    trainable: bool = False,
    quantization: Quantization | None = None,
    lora: Lora | None = None,
) -> tuple[Generator, dict[str, Any]]:
    """The generator in `directory` on the base in `base_directory`, in evaluation mode, and its `meta`.

    trainable: leaves the adapter (or every weight) ready for more training. lora: the adapter that an untrained
    generator gets, initialised from the global random state. `UserError` if a file is missing or broken, the base writes
    no text, or the generator was trained on another base.
    """
    check_writer(load_config(base_directory))
    model, meta = load_saved(
        directory / GENERATOR_FILE,
        base_directory,
        load_causal_lm,
        "model",
        dtype=dtype,
        quantization=quantization,
        trainable=trainable,
        lora=lora,
        task_type="CAUSAL_LM",
    )
    if not trainable:
        model.requires_grad_(False)
    return model.to(device).eval(), meta
