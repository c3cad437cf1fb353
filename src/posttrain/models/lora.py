"""Low-rank adapters (Hu et al. 2021) through PEFT: W x + (alpha / r) B A x, with A and B trained and W frozen.

`targets: auto` means the projections listed below for the architecture (of attention and MLP in decoders: adapting all
of them learns more per parameter than attention alone), or else PEFT's default.

An adapter is cheap in arithmetic, and yet PEFT's layer takes three times as long as a plain one in a small model, most of it
in Python and in launching operations. `merged` adds the adapters to the weights while nothing is trained.

Left out: DoRA; adapters on embeddings and on the language-model head; naming the experts of a mixture, which are one
tensor (`all-linear` adapts them).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from peft.tuners.lora.layer import Linear
from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
from safetensors.torch import save
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from posttrain.core.errors import UserError
from posttrain.core.files import atomic_write, write_json
from posttrain.core.params import ALL_LINEAR
from posttrain.core.schema import nearest

_LLAMA = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
_BERT = ["query", "key", "value"]

# In GPT-2 both attention and MLP name their output projection c_proj.
TARGETS: dict[str, list[str]] = {
    "cohere": _LLAMA,
    "cohere2": _LLAMA,
    "gemma": _LLAMA,
    "gemma2": _LLAMA,
    "gemma3_text": _LLAMA,
    "granite": _LLAMA,
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


def auto_targets(config: PreTrainedConfig) -> list[str] | None:
    """Names of the modules that `targets: auto` adapts; None for an architecture that it does not know."""
    known = TARGETS.get(config.model_type)
    return known or TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING.get(config.model_type)


def lora_targets(config: PreTrainedConfig) -> list[str]:
    """Like `auto_targets`, but `UserError` for an unknown architecture."""
    known = auto_targets(config)
    if not known:
        raise UserError(
            f"lora.targets: auto does not know architecture {config.model_type!r}; "
            f"name the modules, or use [{ALL_LINEAR}] for every linear layer"
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
    """PEFT's configuration for this model. `task_type` is "CAUSAL_LM" for a generator.

    `UserError` for a target that names no linear layer, or the language-model head.
    """
    chosen = lora_targets(model.config) if targets == "auto" else list(targets)
    everything = chosen == [ALL_LINEAR]
    matched = _linear(model).values() if everything else _targeted(model, chosen)
    return LoraConfig(
        r=r,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=ALL_LINEAR if everything else chosen,
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
    try:
        return get_peft_model(model, config)
    except ValueError as error:  # such as layers whose adapter the model's own kernels would skip
        raise UserError(f"lora: {str(error).strip().splitlines()[0]}") from error


@contextmanager
def merged(model: nn.Module) -> Iterator[None]:
    """Layers without adapters inside the block, with W + (alpha / r) B A as their weights; afterwards all is as it was.

    For use without gradients, in evaluation mode. The weights themselves are put aside and not changed, so no rounding
    stays; it takes the memory of the merged weights besides. Layers that are not plain (`_adapter`) keep their adapters.
    """
    places = [
        (parent, name, layer)
        for parent in model.modules()
        for name, layer in parent.named_children()
        if isinstance(layer, Linear) and not layer.training and _adapter(layer)
    ]
    weights = {layer: layer.get_base_layer().weight for _, _, layer in places}
    try:
        for layer in weights:
            layer.get_base_layer().weight = nn.Parameter(_sum(layer), requires_grad=False)
        for parent, name, layer in places:
            setattr(parent, name, layer.get_base_layer())
        yield
    finally:
        for parent, name, layer in places:
            setattr(parent, name, layer)
        for layer, weight in weights.items():
            layer.get_base_layer().weight = weight


def _adapter(layer: Linear) -> str | None:
    """The name of the only adapter of a plain layer: of W x + (alpha / r) B A x, W not quantized; None of another."""
    base, names = layer.base_layer, layer.active_adapters
    name: str = names[0]
    plain = (
        len(names) == 1
        and type(base) in (nn.Linear, Conv1D)
        and type(base.weight) is nn.Parameter
        and base.weight.is_floating_point()
        and name in layer.scaling
        and name not in layer.lora_variant
        and not layer.lora_bias[name]
        and not layer.merged
        and not layer.disable_adapters
    )
    return name if plain else None


@torch.no_grad()
def _sum(layer: Linear) -> Tensor:
    """The weights of a layer with its adapter, rounded once to their own precision."""
    (name,), weight = layer.active_adapters, layer.get_base_layer().weight
    delta = layer.lora_B[name].weight.float() @ layer.lora_A[name].weight.float()
    delta = delta.T if layer.fan_in_fan_out else delta
    return torch.add(weight.float(), delta, alpha=layer.scaling[name]).to(weight.dtype)


def _linear(model: PreTrainedModel) -> dict[str, nn.Module]:
    """The layers that can get an adapter, by name: all linear ones but the language-model head."""
    head = model.get_output_embeddings()
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and module is not head
    }


def _targeted(model: PreTrainedModel, targets: Sequence[str]) -> list[nn.Module]:
    """The layers whose names are, or end with, one of the targets."""
    linear, kind = _linear(model), model.config.model_type
    leaves = sorted({name.rsplit(".", 1)[-1] for name in linear})
    found = []
    for target in targets:
        named = [(n, m) for n, m in model.named_modules() if f".{n}".endswith(f".{target}")]
        if not named:
            tensor = any(f".{n}".endswith(f".{target}") for n, _ in model.named_parameters())
            what = "a tensor in no layer of its own" if tensor else "no module"
            raise UserError(
                f"lora.targets: {target!r} names {what} of {kind}{nearest(target, leaves)}; "
                f"its linear layers are {', '.join(leaves)}"
            )
        for name, module in named:
            if name not in linear:
                head = module is model.get_output_embeddings()
                what = (
                    "the language-model head"
                    if head
                    else f"a layer of kind {type(module).__name__}"
                )
                raise UserError(
                    f"lora.targets: {target!r} names {what} of {kind}, which gets no adapter; "
                    f"its linear layers are {', '.join(leaves)}"
                )
            found.append(module)
    return found


def save_adapter(directory: Path, model: PeftModel, base: str, revision: str | None) -> None:
    """Write adapter_model.safetensors and adapter_config.json, with the same bytes for the same weights.

    PEFT's own `save_pretrained` also writes a model card, the base's path on this machine, and module names in the order
    of a hash set. `PeftModel.from_pretrained` reads either format.
    """
    # No vocabulary grows here. Asked to find that out, PEFT looks for the base on the hub.
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    tensors = {k: v.detach().cpu().contiguous() for k, v in state.items()}
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
