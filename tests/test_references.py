"""Every pass of selector and generator gives the logits and gradients of the plain model, whatever its architecture.

Tiny random models of the architectures of presets and of those that scale or cap their logits. The reference is the
model's own output for prompt + answer alone, without cache, padding or sharing.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from trl.trainer.utils import add_fused_lm_head

from posttrain.generator import shared
from posttrain.generator.batches import collate as collate_rows
from posttrain.generator.batches import forward
from posttrain.generator.shared import Group
from posttrain.models.lora import add_lora
from posttrain.rollouts.episode import Row
from posttrain.rollouts.sampling import can_share, greedy
from posttrain.selector.batch import TokenizedPool, collate
from posttrain.selector.model import Encoding
from posttrain.selector.run import by_likelihood

VOCABULARY, LENGTH = 64, 6
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LLAMA = {**SIZES, "num_key_value_heads": 2, "head_dim": 8}
GEMMA = {
    **LLAMA,
    "query_pre_attn_scalar": 16,
    "layer_types": ["sliding_attention", "full_attention"],
}
GEMMA_2 = {**GEMMA, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 1.5}
GRANITE = {
    "embedding_multiplier": 3.0,
    "attention_multiplier": 0.2,
    "residual_multiplier": 0.5,
    "logits_scaling": 4.0,
}
DROPOUT = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", LLAMA),
    "qwen3": ("qwen3", LLAMA),
    "granite": ("granite", {**LLAMA, **GRANITE}),
    "cohere": ("cohere", {**LLAMA, "logit_scale": 0.25, "use_qk_norm": True}),
    "cohere2": ("cohere2", {**LLAMA, "logit_scale": 0.25}),
    "gemma2": ("gemma2", {**GEMMA_2, "sliding_window": 64}),
    "gemma2, short window": ("gemma2", {**GEMMA_2, "sliding_window": 5}),
    "gemma3": ("gemma3_text", {**GEMMA, "sliding_window": 64, "final_logit_softcapping": 1.5}),
    "gemma3, short window": ("gemma3_text", {**GEMMA, "sliding_window": 5}),
    "smollm3": ("smollm3", {**LLAMA, "no_rope_layers": [1, 0]}),
    "phi3": ("phi3", {**SIZES, "num_key_value_heads": 2}),
    "gpt_neox": ("gpt_neox", SIZES),
    "gpt2": ("gpt2", {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, **DROPOUT}),
}  # fmt: skip
PROMPTS = [[3, 4, 5, 6, 7, 8], [9, 10, 3]]
ANSWERS = [[[11, 12, 2], [11, 13, 14, 15, 2]], [[11, 12, 12, 2], [16, 2]]]
WORDS = Tokenizer(WordLevel({str(number): number for number in range(VOCABULARY)}, unk_token="0"))
TOKENIZER = PreTrainedTokenizerFast(tokenizer_object=WORDS, eos_token="2")
POOLS = collate([TokenizedPool(str(p), p, a) for p, a in zip(PROMPTS, ANSWERS, strict=True)])


def model_of(name: str, lora: bool) -> Any:
    kind, sizes = MODELS[name]
    torch.manual_seed(0)
    model: Any = AutoModelForCausalLM.from_config(CONFIG_MAPPING[kind](**sizes)).eval()
    for parameter in model.parameters():
        if parameter.dim() == 2:
            torch.nn.init.normal_(parameter, std=0.2)
    if lora:
        model = add_lora(model, 2, 4.0, 0.0, "auto", "CAUSAL_LM").eval()
        for part, parameter in model.named_parameters():
            if "lora_B" in part:
                torch.nn.init.normal_(parameter, std=0.2)
    return model


def plain(model: Any, prompt: list[int], answer: list[int]) -> tuple[Tensor, Tensor]:
    """The model's logits before each token of an answer, and the last hidden states of its tokens."""
    output = model(torch.tensor([prompt + answer]), output_hidden_states=True, use_cache=False)
    place = len(prompt)
    return output.logits[0, place - 1 : -1], output.hidden_states[-1][0, place:]


def log_probs(logits: Tensor, answer: list[int]) -> Tensor:
    return logits.log_softmax(-1).gather(1, torch.tensor(answer)[:, None])[:, 0]


def gradients(model: Any, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def assert_same(found: Any, expected: Any) -> None:
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_a_selector_has_the_likelihoods_and_states_of_the_plain_model(
    name: str, lora: bool
) -> None:
    model = model_of(name, lora)
    selector = by_likelihood(model)
    torch.nn.init.normal_(selector.score.outer.weight)
    apart = [[plain(model, p, one) for one in a] for p, a in zip(PROMPTS, ANSWERS, strict=True)]
    expected = Encoding(
        torch.stack([torch.stack([states.mean(0) for _, states in row]) for row in apart]),
        torch.stack(
            [
                torch.stack([log_probs(logits, one).sum() for (logits, _), one in zip(*pair, strict=True)])
                for pair in zip(apart, ANSWERS, strict=True)
            ]
        ),
    )  # fmt: skip
    weights = torch.tensor([[1.0, -0.5], [0.25, 2.0]])
    wanted = gradients(selector, (selector.output(expected).logits * weights).sum())
    ways = [selector.encode_separately, selector.encode]
    assert selector._can_share(POOLS) == ("window" not in name)
    for encode in ways:
        encoded = encode(POOLS)
        assert_same(encoded.likelihood, expected.likelihood)
        assert_same(encoded.pooled, expected.pooled)
        got = gradients(selector, (selector.output(encoded).logits * weights).sum())
        assert got.keys() == wanted.keys()
        assert_same(got, wanted)


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_a_generator_has_the_logits_and_gradients_of_the_plain_model(name: str, lora: bool) -> None:
    """In PPO's passes, and in those of GRPO and RLOO, which score by TRL's own head."""
    model = model_of(name, lora)
    prompt, answers = PROMPTS[0], ANSWERS[0]
    expected = torch.cat([plain(model, prompt, one)[0] for one in answers])
    tokens = torch.tensor([token for one in answers for token in one])
    wanted = gradients(model, torch.nn.functional.cross_entropy(expected, tokens))
    batch = collate_rows(
        [Row.masked([*prompt, *one], [False] * len(prompt) + [True] * len(one)) for one in answers]
    )
    assert shared.reads_once(model, batch.ids.shape[1]) == ("window" not in name)
    alone = [Group(1, 0, len(prompt))] * len(answers)
    for each in (batch, replace(batch, groups=alone)):
        found = forward(model, each).logits
        assert_same(found, expected)
        assert_same(gradients(model, torch.nn.functional.cross_entropy(found, tokens)), wanted)
    scored = copy.deepcopy(model)
    add_fused_lm_head(scored.get_base_model() if lora else scored)
    if can_share(model.config, batch.ids.shape[1]):
        written = batch.before_action.roll(1, dims=1)
        found = shared.scores(scored, batch.ids, written, batch.groups)["log_probs"]
        assert_same(found[written], log_probs(expected, tokens.tolist()))


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_greedy_answers_are_those_of_the_plain_model(name: str, lora: bool) -> None:
    model = model_of(name, lora)
    found = greedy(model, TOKENIZER, PROMPTS, max_new_tokens=LENGTH, batch_size=2)
    for prompt, completion in zip(PROMPTS, found, strict=True):
        ids = list(prompt)
        for token in completion.ids:
            with torch.no_grad():
                logits = model(torch.tensor([ids]), use_cache=False).logits[0, -1]
            # Rounding may choose the other of two equal logits.
            assert logits[token] >= logits.max() - 1e-4
            ids.append(token)
        assert completion.finished or len(completion.ids) == LENGTH
