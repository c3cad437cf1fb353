"""Frozen weights spread over the processes, by PyTorch's FSDP2 (`fully_shard`; Zhao et al., VLDB 2023).

Each process keeps its part of the weights of every layer. A layer is gathered before its forward and its backward pass,
and released afterwards. Only frozen weights are sharded, which with LoRA is nearly all of them. Adapters, heads and the
optimizer's state are whole on each process, so gradients, the best weights, checkpoints and the reference policy are
the same as without sharding.

The processes gather each layer jointly, so all must make the same number of passes (`processes.share`,
`processes.all_agree`). Every process reads the whole model into main memory before it moves its part to the GPU.

Left out: sharding of trained weights, and of embeddings and the language-model head, which may be one tensor;
offloading to the CPU.
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
    """Freeze a newly loaded model on the CPU and move each process's part of the layers to its device.

    Weights outside the layers stay whole, and so do those added afterwards, such as adapters.
    """
    model.requires_grad_(False)
    body = model.base_model
    layers = [module for module in body.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        raise UserError(
            f"launch: {type(model).__name__} has no layers that could be sharded; use launch/gpus.yaml"
        )
    mesh = init_device_mesh(processes.state().device.type, (processes.count(),))
    for layer in reversed(layers):  # nested layers first
        fully_shard(layer, mesh=mesh, reshard_after_forward=True)
    # With the body as their root, layers are gathered ahead of time.
    rest = {p for p in body.parameters() if not isinstance(p, DTensor)}
    fully_shard(body, mesh=mesh, ignored_params=rest)


def check_trainable(model: nn.Module, what: str) -> None:
    """`UserError` if weights are sharded and the model has no adapter. what: name of the model in the message."""
    if processes.sharded() and not hasattr(model, "peft_config"):
        raise UserError(
            f"launch: FSDP shards frozen weights, but {what} trains all of them; set lora in its entry of models, "
            "or use accelerate launch --config_file launch/gpus.yaml"
        )


def distribute(model: nn.Module) -> DistributedDataParallel:
    """Wrap a model with sharded weights so that the gradients of its trained weights are averaged over the processes.

    This is accelerate's wrapper, which accelerate refuses to put around sharded weights on GPUs.
    """
    names = [name for name, p in model.named_parameters() if isinstance(p, DTensor)]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, names)  # type: ignore[no-untyped-call]
    device = processes.state().device
    return DistributedDataParallel(
        model,
        device_ids=[device] if device.type == "cuda" else None,
        # The same as in `common_arguments` of generator/trl.py, which says why.
        broadcast_buffers=False,
        find_unused_parameters=False,
    )
