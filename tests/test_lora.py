"""Claims about adapters: a shorter way through PEFT's layers, and merged weights, change the cost and nothing else."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from peft import PeftModel
from peft.tuners.lora.layer import Linear
from torch import Tensor, nn
from toys import tiny_config
from transformers import AutoModelForCausalLM

from posttrain.models.lora import _Adapted, _Light, add_lora, merged

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


def in_two_precisions() -> PeftModel:
    """Adapters in float32 on weights in bfloat16."""
    model = adapted()
    for name, parameter in model.named_parameters():
        parameter.data = parameter.data if "lora" in name else parameter.data.bfloat16()
    return model


def as_in_peft(model: PeftModel) -> PeftModel:
    """A copy whose layers compute as PEFT's."""
    plain = copy.deepcopy(model)
    for module in plain.modules():
        if type(module) is _Light:
            module.__class__ = Linear
    return plain


def pass_of(model: PeftModel, **options: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits, and the gradients of a loss."""
    torch.manual_seed(1)  # of the dropout
    logits = model(input_ids=IDS, **options).logits
    logits.float().pow(2).mean().backward()
    grads = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return logits.detach(), grads


def check_equal(model: PeftModel, tolerance: float) -> None:
    (logits, grads), (expected, wanted) = pass_of(model), pass_of(as_in_peft(model))
    assert expected.std() > 0.05
    torch.testing.assert_close(logits, expected, atol=tolerance, rtol=tolerance)
    assert grads.keys() == wanted.keys() and all("lora" in name for name in grads)
    for name, gradient in grads.items():
        assert wanted[name].abs().max() > 0 and gradient.dtype == wanted[name].dtype
        scale = float(wanted[name].abs().max())
        torch.testing.assert_close(gradient, wanted[name], atol=tolerance * scale, rtol=tolerance)


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each layer that took the shorter way."""
    taken: list[int] = []
    apply = _Adapted.apply

    def counted(*arguments: Any) -> Any:
        taken.append(1)
        return apply(*arguments)  # type: ignore[no-untyped-call]

    monkeypatch.setattr(_Adapted, "apply", counted)
    return taken


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "phi3"])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_logits_and_gradients_equal_those_of_peft(
    model_type: str, dropout: float, passes: list[int]
) -> None:
    """GPT-2 has biases, and weights stored as (in, out); with dropout both draw the same masks."""
    model = adapted(model_type, dropout).train()
    check_equal(model, 2e-6)
    assert len(passes) == sum(isinstance(module, Linear) for module in model.modules())


def test_mixed_precision_is_as_exact_as_that_of_peft(passes: list[int]) -> None:
    """Float32 adapters on bfloat16 weights: the gradients are as far from those in float32 as PEFT's are."""
    model = in_two_precisions()
    _, exact = pass_of(copy.deepcopy(model).float())
    passes.clear()
    with torch.autocast("cpu", torch.bfloat16):
        (logits, own), (_, peft) = pass_of(model), pass_of(as_in_peft(model))
    assert passes and logits.dtype == torch.bfloat16

    def error(grads: dict[str, Tensor]) -> float:
        assert all(each.dtype == torch.float32 for each in grads.values())
        return float(sum((grads[name] - each).norm() / each.norm() for name, each in exact.items()))

    assert 0 < error(own) < 1.2 * error(peft)


def test_recomputed_activations_give_the_same_gradients() -> None:
    model = adapted()
    other = copy.deepcopy(model).train()
    other.gradient_checkpointing_enable({"use_reentrant": False})
    (_, grads), (_, wanted) = pass_of(other, use_cache=False), pass_of(model.train())
    assert all(torch.equal(grads[name], each) for name, each in wanted.items())


def test_layers_that_are_not_plain_compute_as_in_peft(passes: list[int]) -> None:
    in_two_precisions()(input_ids=IDS)
    two = adapted()
    two.add_adapter("other", two.peft_config["default"])
    two.base_model.set_adapter(["default", "other"])
    two(input_ids=IDS)
    without = adapted()
    with without.disable_adapter():
        without(input_ids=IDS)
    assert not passes


@pytest.mark.parametrize("model_type", ["llama", "gpt2"])
def test_merged_equals_unmerged_and_leaves_no_trace(model_type: str, passes: list[int]) -> None:
    """Also where a pass fails, and in the training afterwards."""
    model = adapted(model_type, dropout=0.3).eval()
    untouched = copy.deepcopy(model)
    names, tensors = [*model.state_dict()], {**dict(model.named_parameters())}
    with torch.inference_mode():
        expected = model(input_ids=IDS).logits
        passes.clear()
        with pytest.raises(RuntimeError, match="midway"), merged(model), merged(model):
            found = model(input_ids=IDS).logits
            assert not any(isinstance(module, Linear) for module in model.modules())
            raise RuntimeError("midway")
    assert not passes
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
