"""Frozen weights spread over the processes, by PyTorch's FSDP2 (`fully_shard`; Zhao et al., VLDB 2023).

Each process keeps its part of the weights of every layer; a layer is put together before it computes, in the forward
and the backward pass, and given up behind it. Only what is frozen is shared out, which with LoRA is nearly everything.
Adapters, heads and the optimizer's state are whole on each process, so gradients, the best weights, checkpoints and the
reference policy are what they are without sharding.

The processes gather a layer together, so all make as many passes (`processes.share`, `processes.all_agree`).

Left out: trained weights; embeddings and the language-model head, which may be one tensor; offloading to the CPU.
Every process reads the whole model into the machine's memory before it keeps its part on the GPU.
"""

from __future__ import annotations

from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from posttrain.core import processes
from posttrain.core.errors import UserError


def shard(model: PreTrainedModel) -> None:
    """Freeze a model that was just loaded, on the CPU, and leave each process its part of the layers, on its own device.

    What is outside of the layers stays where it is, and what is added to them afterwards, such as adapters, is not sharded.
    """
    model.requires_grad_(False)
    body = model.base_model
    layers = [module for module in body.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        raise UserError(
            f"launch: {type(model).__name__} has no layers that could be sharded; use launch/gpus.yaml"
        )
    mesh = init_device_mesh(processes.state().device.type, (processes.count(),))
    for layer in reversed(layers):  # those inside of others first
        fully_shard(layer, mesh=mesh, reshard_after_forward=True)
    # As the root of the layers the body has them gathered ahead of time.
    rest = {p for p in body.parameters() if not isinstance(p, DTensor)}
    fully_shard(body, mesh=mesh, ignored_params=rest)


def check_trainable(model: nn.Module, what: str) -> None:
    """`UserError` when weights are sharded and `what`, which is to be trained, has no adapter."""
    if processes.sharded() and not hasattr(model, "peft_config"):
        raise UserError(
            f"launch: FSDP shards frozen weights, but {what} trains all of them; give its entry in models a lora, "
            "or use accelerate launch --config_file launch/gpus.yaml"
        )


def distribute(model: nn.Module) -> DistributedDataParallel:
    """A model with sharded weights as accelerate would wrap it, if it did not refuse them on GPUs: gradients of what is
    trained are averaged over the processes, and the shards left alone.
    """
    names = [name for name, p in model.named_parameters() if isinstance(p, DTensor)]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, names)  # type: ignore[no-untyped-call]
    device = processes.state().device
    return DistributedDataParallel(
        model,
        device_ids=[device] if device.type == "cuda" else None,
        # As `common_arguments` of the trainers says, and why.
        broadcast_buffers=False,
        find_unused_parameters=False,
    )
