"""What is float32 and what bfloat16 in training, and that logits are never all there at once. On the CPU, which has both."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from toys import (
    PARAMS,
    TOKEN_PROMPTS,
    colour_llama,
    random_pools,
    tiny_config,
    token_model,
    train_on_colours,
    train_on_tokens,
)
from transformers import AutoModelForCausalLM

from posttrain.generator.batches import collate, forward
from posttrain.generator.methods.dpo import pair_log_probs
from posttrain.models import head
from posttrain.models.lora import add_lora
from posttrain.models.precision import autocasts, compute_in
from posttrain.rollouts.episode import completion_episode
from posttrain.selector.batch import collate as collate_pools
from posttrain.selector.model import Selector

ENTRY = PARAMS.models["pocket"]
ROWS = [completion_episode(prompt, [3, 7, 4, 1], 0.0).rows[0] for prompt in TOKEN_PROMPTS[:3]]

# Of RL, and of SFT.
ONE_STEP: list[dict[str, int]] = [{"evaluations": 1, "steps": 1}, {"evaluations": 1, "epochs": 1}]


def mixed(model: Any) -> Any:
    """The model, computing in bfloat16 as it would on a GPU."""
    compute_in(model, ENTRY.model_copy(update={"compute_dtype": "bfloat16"}))
    return model


def halved(model: Any) -> Any:
    """Adapters on weights in bfloat16."""
    return add_lora(model.to(torch.bfloat16), 4, 8.0, 0.0, "auto", "CAUSAL_LM")


def test_a_float32_model_on_a_cpu_computes_in_float32_unless_its_entry_says_otherwise() -> None:
    model = token_model()
    compute_in(model, ENTRY)
    assert not autocasts(model) and autocasts(mixed(model))
    lora = PARAMS.models["llama-3-8b"]
    adapted = halved(token_model())
    compute_in(adapted.get_base_model(), lora)
    assert not autocasts(adapted)


def test_weights_gradients_and_log_probs_are_float32_and_products_bfloat16() -> None:
    model, batch = mixed(token_model()), collate(ROWS)
    products = []
    for layer in model.model.layers:
        layer.mlp.up_proj.register_forward_hook(lambda *args: products.append(args[-1].dtype))
    found = forward(model, batch).log_probs(batch.tokens)
    found.sum().backward()  # type: ignore[no-untyped-call]
    assert set(products) == {torch.bfloat16} and found.dtype == torch.float32
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in model.parameters())
    exact = forward(token_model(), batch).log_probs(batch.tokens)
    assert 0 < float((found - exact).detach().abs().max()) < 0.05


def test_a_copy_computes_alike_with_its_own_weights() -> None:
    """TRL's reference is such a copy, and the penalty on the KL to it would be 0 if it were the policy."""
    model, batch = mixed(token_model()), collate(ROWS)
    reference = copy.deepcopy(model)
    assert autocasts(reference)
    with torch.no_grad():
        before = forward(reference, batch).log_probs(batch.tokens)
        for parameter in model.parameters():
            parameter.mul_(1.2)
        assert torch.equal(forward(reference, batch).log_probs(batch.tokens), before)
        assert not torch.allclose(forward(model, batch).log_probs(batch.tokens), before)


@pytest.mark.parametrize("method", ["sft", "grpo", "dpo"])
def test_trls_trainers_step_on_float32_weights(method: str, tmp_path: Path) -> None:
    model = mixed(colour_llama())
    before = [p.detach().clone() for p in model.parameters()]
    train_on_colours(method, tmp_path, model, **ONE_STEP[method == "sft"], learning_rate=1e-4)
    moved = sum(int((p != old).sum()) for p, old in zip(model.parameters(), before, strict=True))
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert moved > 0.9 * sum(old.numel() for old in before[1:])  # not all tokens are read


@pytest.mark.parametrize("method", ["ppo", "grpo", "sft"])
def test_adapters_are_float32_on_bfloat16_weights(method: str, tmp_path: Path) -> None:
    if method == "ppo":
        model, _ = train_on_tokens(tmp_path, model=halved(token_model()), steps=1, evaluations=1)
    else:
        model = halved(colour_llama())
        train_on_colours(method, tmp_path, model, **ONE_STEP[method == "sft"])
    kinds = {(p.requires_grad, p.dtype) for p in model.parameters()}
    assert kinds == {(True, torch.float32), (False, torch.bfloat16)}


@pytest.mark.parametrize("make", [mixed, halved])
def test_the_selectors_scores_are_float32(make: Any) -> None:
    torch.manual_seed(0)
    language_model = AutoModelForCausalLM.from_config(tiny_config()).eval()
    pools = collate_pools(random_pools())
    exact = Selector(copy.deepcopy(language_model)).eval()(pools).logits
    selector = Selector(make(language_model)).eval()
    encoded = selector.encode(pools)
    assert encoded.likelihood is not None
    assert encoded.likelihood.dtype == encoded.pooled.dtype == torch.float32
    logits = selector.output(encoded).logits
    logits.logsumexp(dim=1).sum().backward()  # type: ignore[no-untyped-call]
    trained = [p for p in selector.parameters() if p.requires_grad]
    assert {p.dtype for p in trained} == {torch.float32}
    assert float((logits - exact).detach().abs().max()) < 0.05


# ------------------------------------------------------------------------------- chunks of logits


class Largest(TorchFunctionMode):
    """The largest number of elements that a tensor with the vocabulary as its last dimension has."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.vocabulary, self.found = vocabulary, 0

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = function(*args, **kwargs or {})
        if isinstance(result, torch.Tensor) and result.shape[-1:] == (self.vocabulary,):
            self.found = max(self.found, result.numel() // self.vocabulary)
        return result


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "gemma2"])
def test_in_chunks_are_the_same_log_probs_entropies_and_gradients(
    model_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes: Any = {"final_logit_softcapping": 0.5} if model_type == "gemma2" else {}
    batch, results = collate(ROWS), []
    for chunk in (head.CHUNK, 3 * 23):
        monkeypatch.setattr(head, "CHUNK", chunk)
        model = token_model(model_type, vocab_size=23, **changes)
        with Largest(23) as largest:
            log_probs, entropies = forward(model, batch).with_entropies(batch.tokens, 0.7)
            (log_probs.sum() + entropies.square().sum()).backward()  # type: ignore[no-untyped-call]
        gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        results.append((log_probs.detach(), entropies.detach(), gradients, largest.found))
    (*whole, rows), (*parts, few) = results
    assert rows == len(batch.tokens) == 12 and few == 3
    torch.testing.assert_close(parts, whole, atol=1e-4, rtol=1e-4)


def test_the_selector_and_the_held_out_pairs_keep_to_the_chunk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = tiny_config()
    monkeypatch.setattr(head, "CHUNK", 5 * config.vocab_size)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    with Largest(config.vocab_size) as largest:
        Selector(model)(collate_pools(random_pools()))
        rows = [{"prompt_ids": [3, 4], "chosen_ids": [5] * 4, "rejected_ids": [6] * 7}] * 2
        found = pair_log_probs(model, rows, 4)
    assert largest.found == 5
    with torch.no_grad():
        logits = model(torch.tensor([[3, 4, *[6] * 7]])).logits[0, 1:-1]
    expected = float(logits.log_softmax(dim=-1)[:, 6].sum())
    assert found.rejected.tolist() == pytest.approx([expected] * 2, rel=1e-4)
