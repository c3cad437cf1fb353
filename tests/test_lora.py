"""Claims about adapters: merged weights change the cost and nothing else."""

from __future__ import annotations

import copy

import pytest
import torch
from peft import PeftModel
from peft.tuners.lora.layer import Linear
from torch import Tensor, nn
from toys import tiny_config
from transformers import AutoModelForCausalLM

from posttrain.models.lora import add_lora, merged

IDS = torch.arange(3, 33).view(2, 15)


def adapted(model_type: str = "llama", dropout: float = 0.0) -> PeftModel:
    """A tiny model whose adapters change its output."""
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_config(tiny_config(model_type))
    model = add_lora(base, 4, 8, dropout, "auto", "CAUSAL_LM")
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.2)
    return model


def pass_of(model: PeftModel) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits, and the gradients of a loss."""
    torch.manual_seed(1)  # of the dropout
    logits = model(input_ids=IDS).logits
    logits.float().pow(2).mean().backward()
    grads = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return logits.detach(), grads


@pytest.mark.parametrize("model_type", ["llama", "gpt2"])
def test_merged_equals_unmerged_and_leaves_no_trace(model_type: str) -> None:
    """Also where a pass fails, and in the training afterwards."""
    model = adapted(model_type, dropout=0.3).eval()
    untouched = copy.deepcopy(model)
    names, tensors = [*model.state_dict()], {**dict(model.named_parameters())}
    with torch.inference_mode():
        expected = model(input_ids=IDS).logits
        with pytest.raises(RuntimeError, match="midway"), merged(model), merged(model):
            found = model(input_ids=IDS).logits
            assert not any(isinstance(module, Linear) for module in model.modules())
            raise RuntimeError("midway")
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert [*model.state_dict()] == names
    for name, parameter in model.named_parameters():
        assert parameter is tensors[name] and torch.equal(parameter, untouched.get_parameter(name))
    (logits, grads), (same, wanted) = pass_of(model.train()), pass_of(untouched.train())
    assert torch.equal(logits, same)
    assert grads and all(torch.equal(grads[name], each) for name, each in wanted.items())


def test_what_cannot_be_merged_keeps_its_adapter() -> None:
    """A subclass of a linear layer, such as a quantized one."""

    class Quantized(nn.Linear): ...

    model = adapted().eval()
    layer = next(module for module in model.modules() if isinstance(module, Linear))
    layer.base_layer.__class__ = Quantized
    with merged(model):
        assert [m for m in model.modules() if isinstance(m, Linear)] == [layer]
