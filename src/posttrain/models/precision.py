"""What a model computes in, where that is not the type of its weights.

    weights                  Adam's steps on      matrix products        the rest of a layer
    float32, all trained     float32              bfloat16 on a GPU      float32
    float32 and an adapter   float32 adapters     float32                float32
    bfloat16 and an adapter  float32 adapters     bfloat16               bfloat16

`compute_dtype` of the model's entry takes the first row to a CPU (bfloat16) or off a GPU (float32). Logits become float32
before they become log-probabilities. Weights in bfloat16 are not trained themselves: its eight bits swallow a step below
1/256 of a weight.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from posttrain.core.params import Model


def compute_in(model: Any, entry: Model) -> None:
    """Let matrix products of a language model or an encoder, and of its head, use the type that the entry asks for."""
    device = next(model.parameters()).device
    wanted = entry.compute_dtype
    if wanted == "auto":
        mixed = entry.lora is None and device.type == "cuda" and torch.cuda.is_bf16_supported()
    else:
        mixed = wanted == "bfloat16"
    if not mixed or entry.dtype != "float32":
        return
    # The parts, not the whole: the selector calls them apart, and TRL's fused head is no part of the model's own call.
    for part in (model.base_model, model.get_output_embeddings()):
        if part is not None:
            Autocast(device.type).register(part)


def autocasts(model: nn.Module) -> bool:
    """Whether `compute_in` has changed what the model computes in."""
    return any(
        isinstance(hook, Autocast)
        for module in model.modules()
        for hook in module._forward_pre_hooks.values()
    )


class Autocast:
    """Hooks that run a module under autocast to bfloat16; a copy of the module has them too."""

    def __init__(self, device_type: str) -> None:
        self.device_type = device_type
        self.inside: list[torch.autocast] = []

    def register(self, module: nn.Module) -> None:
        module.register_forward_pre_hook(self)
        module.register_forward_hook(self.leave, always_call=True)

    def __call__(self, module: nn.Module, arguments: object) -> None:
        self.inside.append(torch.autocast(self.device_type, torch.bfloat16))
        self.inside[-1].__enter__()  # type: ignore[no-untyped-call]

    def leave(self, module: nn.Module, arguments: object, output: object) -> None:
        self.inside.pop().__exit__(None, None, None)
