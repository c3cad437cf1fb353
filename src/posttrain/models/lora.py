"""Low-rank adapters (Hu et al. 2021) through PEFT: W x + (alpha / r) B A x, with A and B trained and W frozen.

`targets: auto` means the projections listed below for the architecture (of attention and MLP in decoders: adapting all
of them learns more per parameter than attention alone), or else PEFT's default.

Left out: DoRA, adapters on embeddings.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
from safetensors.torch import save
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from posttrain.core.errors import UserError
from posttrain.core.files import atomic_write, write_json

_LLAMA = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
_BERT = ["query", "key", "value"]

# In GPT-2 both attention and MLP name their output projection c_proj.
TARGETS: dict[str, list[str]] = {
    "gemma": _LLAMA,
    "gemma2": _LLAMA,
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "olmo2": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "smollm3": _LLAMA,
    "phi3": ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"],
    "gpt2": ["c_attn", "c_proj"],
    "gpt_neox": ["query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"],
    "bert": _BERT,
    "roberta": _BERT,
    "xlm-roberta": _BERT,
}


def lora_targets(config: PreTrainedConfig) -> list[str]:
    """Names of the modules that `targets: auto` adapts; `UserError` for an unknown architecture."""
    model_type = config.model_type
    known = TARGETS.get(model_type) or TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING.get(
        model_type
    )
    if not known:
        raise UserError(
            f"lora.targets: auto does not know architecture {model_type!r}; "
            "name the modules, or use [all-linear] for every linear layer"
        )
    return list(known)


def make_lora_config(
    model: PreTrainedModel,
    r: int,
    alpha: float,
    dropout: float,
    targets: Literal["auto"] | Sequence[str],
    task_type: str | None = None,
) -> LoraConfig:
    """PEFT's configuration for this model. `task_type` is "CAUSAL_LM" for a generator."""
    chosen = lora_targets(model.config) if targets == "auto" else list(targets)
    matched = [m for name, m in model.named_modules() if name.rsplit(".", 1)[-1] in chosen]
    everything = chosen == ["all-linear"]
    if not matched and not everything:
        raise UserError(f"lora.targets: {model.config.model_type} has no module named {chosen}")
    return LoraConfig(
        r=r,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules="all-linear" if everything else chosen,
        # GPT-2 stores its weights as (in, out).
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in matched),
        task_type=task_type,
    )


def add_lora(
    model: PreTrainedModel,
    r: int,
    alpha: float,
    dropout: float,
    targets: Literal["auto"] | Sequence[str],
    task_type: str | None = None,
) -> PeftModel:
    """Freeze `model` and insert trainable adapters, which at first change no output."""
    config = make_lora_config(model, r, alpha, dropout, targets, task_type)
    return get_peft_model(model, config)


def save_adapter(directory: Path, model: PeftModel, base: str, revision: str | None) -> None:
    """Write adapter_model.safetensors and adapter_config.json, with the same bytes for the same weights.

    PEFT's own `save_pretrained` also writes a model card, the base's path on this machine, and module names in the order
    of a hash set. `PeftModel.from_pretrained` reads either format.
    """
    tensors = {
        k: v.detach().cpu().contiguous() for k, v in get_peft_model_state_dict(model).items()
    }
    with atomic_write(directory / "adapter_model.safetensors", "wb") as file:
        file.write(save(tensors, metadata={"format": "pt"}))
    config = model.peft_config["default"].to_dict()
    config |= {"base_model_name_or_path": base, "revision": revision, "inference_mode": True}
    write_json(directory / "adapter_config.json", _plain(config))


def _plain(value: Any) -> Any:
    """The value as JSON, with sets as sorted lists."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return getattr(value, "value", value)
