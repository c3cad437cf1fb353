"""Claims about the selector: sharing the prefix changes its cost and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from toys import random_pools, tiny_config, write_model
from transformers import AutoModel, AutoModelForCausalLM, BertConfig, LlamaConfig
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from posttrain.core.errors import UserError
from posttrain.core.loop import evaluating
from posttrain.core.params import Lora
from posttrain.models.architecture import SHARED_PREFIX, is_causal, recompute_activations
from posttrain.models.load import load_config, read_base
from posttrain.models.tokens import length_buckets
from posttrain.selector.batch import PoolBatch, TokenizedPool, collate
from posttrain.selector.model import (
    FIRST_LIKELIHOOD_WEIGHT,
    Encoding,
    Selector,
    load_selector,
    save_untrained,
)
from posttrain.selector.run import by_likelihood


def tiny_selector(model_type: str, lora: bool = False) -> Selector:
    torch.manual_seed(0)
    kind = AutoModel if model_type == "bert" else AutoModelForCausalLM
    backbone = kind.from_config(tiny_config(model_type))
    if lora:
        targets = {"gpt2": ["c_attn"]}.get(model_type, ["q_proj", "v_proj"])
        fan = model_type == "gpt2"
        config = LoraConfig(
            r=4, target_modules=targets, fan_in_fan_out=fan, init_lora_weights=False
        )
        backbone = get_peft_model(backbone, config)
    selector = Selector(backbone).eval()
    torch.nn.init.normal_(selector.score.outer.weight)  # a new one ignores the pooled states
    return selector


def alike_pools() -> list[TokenizedPool]:
    """Candidates that share a beginning, repeat or continue another, or have the same tokens after another beginning."""
    candidates = [[6], [6, 7], [6, 7, 8, 9], [6, 7, 9], [6, 7], [10, 7, 8]]
    return [TokenizedPool("a", [3, 4, 5], candidates), TokenizedPool("b", [3], candidates[::-1])]


def alone(selector: Selector, pools: list[TokenizedPool]) -> Encoding:
    """The plainest encoding: each prompt + candidate in a forward pass of its own without padding, and likelihoods from the
    model's own logits.
    """
    pooled, likelihood = [], []
    for pool in pools:
        start = len(pool.prompt_ids)
        for ids in pool.candidate_ids:
            pair = torch.tensor([pool.prompt_ids + ids])
            output = selector.backbone(input_ids=pair, output_hidden_states=True)
            pooled.append(output.hidden_states[-1][0, start:].mean(dim=0))
            if selector.causal:
                before = output.logits[0, start - 1 : -1].log_softmax(dim=-1)
                likelihood.append(before.gather(1, pair[0, start:, None]).sum())
    shape = (len(pools), len(pools[0].candidate_ids))
    return Encoding(
        torch.stack(pooled).view(*shape, -1),
        torch.stack(likelihood).view(shape) if likelihood else None,
    )


def difference(one: Encoding, two: Encoding) -> float:
    """The largest difference between pooled states or likelihoods."""
    gaps = [(one.pooled - two.pooled).abs().max()]
    assert (one.likelihood is None) == (two.likelihood is None)
    if one.likelihood is not None and two.likelihood is not None:
        gaps.append((one.likelihood - two.likelihood).abs().max())
    return float(max(gaps).detach())


def gradients(selector: Selector, encoding: Encoding) -> dict[str, torch.Tensor]:
    selector.zero_grad()
    output = selector.output(encoding)
    log_policy = output.logits.log_softmax(dim=1)
    weights = torch.linspace(-1, 1, log_policy.numel()).view_as(log_policy)
    loss = (weights * log_policy).sum()
    loss.backward()
    return {name: p.grad.clone() for name, p in selector.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("model_type", ["llama", "gpt2"])
def test_a_language_model_scores_by_its_likelihood_alone(model_type: str, lora: bool) -> None:
    trained, pools = tiny_selector(model_type, lora), random_pools()
    with torch.no_grad():
        logits = by_likelihood(trained.backbone)(collate(pools)).logits
        expected = alone(trained, pools).likelihood
    assert expected is not None
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("model_type", ["llama", "gpt2"])
@pytest.mark.parametrize("pools", [random_pools(), alike_pools()], ids=["unlike", "alike"])
def test_shared_prefix_gives_the_logits_and_gradients_of_each_pair_alone(
    model_type: str, lora: bool, pools: list[TokenizedPool]
) -> None:
    selector = tiny_selector(model_type, lora)
    batch = collate(pools)
    encoded, expected = selector.encode_shared(batch), alone(selector, pools)
    assert difference(encoded, expected) < 1e-4
    assert (selector.output(encoded).logits - selector.output(expected).logits).abs().max() < 1e-4
    got, wanted = gradients(selector, encoded), gradients(selector, expected)
    trainable = {name for name, p in selector.named_parameters() if p.requires_grad}
    assert got.keys() == wanted.keys()
    # AutoModel's BERT pooler and the like have no gradient; here every trainable tensor must have
    # one.
    assert got.keys() == trainable
    for name in wanted:
        assert torch.allclose(got[name], wanted[name], atol=1e-4), name


@pytest.mark.parametrize("model_type", sorted(SHARED_PREFIX))
def test_every_architecture_listed_as_shareable_equals_separate_encoding(model_type: str) -> None:
    selector = tiny_selector(model_type)
    assert selector.share_prefix
    for pools in (random_pools(seed=1), alike_pools()):
        with torch.no_grad():
            assert difference(selector.encode_shared(collate(pools)), alone(selector, pools)) < 1e-4


def test_what_candidates_begin_with_is_read_once() -> None:
    selector, pool = tiny_selector("llama"), alike_pools()[0]
    read: list[list[int]] = []
    embedding = selector.backbone.get_input_embeddings()
    embedding.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0][0].tolist()))
    with torch.no_grad():
        selector(collate([pool]))
    assert read == [[3, 4, 5], [5, 6, 7, 8, 9, 9, 10, 7, 8]]


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "bert"])
def test_padding_in_the_batch_does_not_change_separate_encoding(model_type: str) -> None:
    selector, pools = tiny_selector(model_type), random_pools(seed=2)
    with torch.no_grad():
        assert difference(selector.encode_separately(collate(pools)), alone(selector, pools)) < 1e-4


def test_encoders_encode_pairs_apart() -> None:
    selector, batch = tiny_selector("bert"), collate(random_pools())
    assert not selector.share_prefix
    with torch.no_grad():
        one, two = selector.encode(batch), selector.encode_separately(batch)
    assert one.likelihood is None and torch.equal(one.pooled, two.pooled)


def test_prompt_length_at_the_end_of_the_position_table_still_works() -> None:
    selector = tiny_selector("gpt2")
    pool = TokenizedPool("a", list(range(3, 43)) + [5] * 20, [[3, 4, 5], [6]])
    short = TokenizedPool("b", [3], [[3] * 6, [6]])
    with torch.no_grad():
        got = selector.encode_shared(collate([pool, short]))
        assert difference(got, alone(selector, [pool, short])) < 1e-4


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"), ["some text of 2009"])


LORA = Lora(r=4, alpha=8.0, dropout=0.0, targets="auto")


@pytest.mark.parametrize("lora", [None, LORA])
def test_an_untrained_selector_chooses_what_the_language_model_would_rather_write(
    lora: Lora | None, base: Path, tmp_path: Path
) -> None:
    """Also when loaded for training; a new adapter changes nothing."""
    save_untrained(tmp_path / "0", load_config(base), read_base(base), seed=0)
    selector, _ = load_selector(tmp_path / "0", base, trainable=True, lora=lora)
    pools = random_pools(count=20, seed=3)
    with torch.no_grad():
        logits, likelihood = selector(collate(pools)).logits, alone(selector, pools).likelihood
    assert likelihood is not None
    torch.testing.assert_close(logits, FIRST_LIKELIHOOD_WEIGHT * likelihood, atol=1e-4, rtol=1e-4)
    assert torch.equal(logits.argmax(dim=1), likelihood.argmax(dim=1))
    trainable = {name for name, p in selector.named_parameters() if p.requires_grad}
    assert {"likelihood_weight", "score.inner.weight", "score.outer.bias"} <= trainable
    ofmodel = {name for name in trainable if name.startswith("backbone.")}
    assert ofmodel and all("lora_" in name for name in ofmodel) is (lora is not None)


def test_an_untrained_selector_without_training_has_no_adapter_and_nothing_to_train(
    base: Path, tmp_path: Path
) -> None:
    save_untrained(tmp_path / "0", load_config(base), read_base(base), seed=0)
    selector, meta = load_selector(tmp_path / "0", base)
    assert meta == {"seed": 0}
    assert not [name for name, p in selector.named_parameters() if p.requires_grad]
    assert not [name for name, _ in selector.named_parameters() if "lora_" in name]


def test_an_untrained_selectors_head_is_that_of_its_seed(base: Path, tmp_path: Path) -> None:
    """Whatever the random state at loading."""
    heads = []
    for number, seed in enumerate((0, 1, 0)):
        torch.manual_seed(number)
        folder = tmp_path / str(number)
        save_untrained(folder, load_config(base), read_base(base), seed)
        assert {path.name for path in folder.iterdir()} == {"head.safetensors", "selector.json"}
        torch.manual_seed(number + 5)
        heads.append(load_selector(folder, base)[0].score.inner.weight)
    assert torch.equal(heads[0], heads[2]) and not torch.equal(heads[0], heads[1])


def test_an_untrained_encoder_scores_by_its_head_as_it_has_no_likelihood(
    base: Path, tmp_path: Path
) -> None:
    for name, config in (("bert", tiny_config("bert")), ("llama", load_config(base))):
        save_untrained(tmp_path / name, config, read_base(base), seed=0)
        head = load_file(tmp_path / name / "head.safetensors")
        assert bool(head["score.outer.weight"].any()) is (name == "bert")


def test_an_answer_does_not_see_the_other_candidates() -> None:
    selector = tiny_selector("llama")
    first = TokenizedPool("a", [3, 4, 5], [[6, 7], [8, 9, 10]])
    second = TokenizedPool("a", [3, 4, 5], [[6, 7], [20, 21, 22]])
    with torch.no_grad():
        one, two = selector(collate([first])).logits, selector(collate([second])).logits
    assert abs(one[0, 0] - two[0, 0]) < 1e-6
    assert abs(one[0, 1] - two[0, 1]) > 1e-6


def test_permuting_the_candidates_permutes_the_logits_and_keeps_the_pool_s_state() -> None:
    selector, pool = tiny_selector("llama"), random_pools(count=1)[0]
    turned = TokenizedPool(pool.id, pool.prompt_ids, pool.candidate_ids[::-1])
    with torch.no_grad():
        one, two = selector(collate([pool])), selector(collate([turned]))
    assert torch.allclose(one.logits, two.logits.flip(1), atol=1e-6)
    assert torch.allclose(one.states, two.states, atol=1e-6)


def test_logits_and_states_are_float32_with_a_bfloat16_backbone() -> None:
    selector = tiny_selector("llama")
    selector.backbone.to(torch.bfloat16)
    output = selector(collate(random_pools()))
    assert output.logits.shape == (3, 4) and output.logits.dtype == torch.float32
    assert output.states.shape == (3, 16) and output.states.dtype == torch.float32


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("model_type", ["llama", "gpt2"])
def test_recomputed_activations_change_no_gradient(model_type: str, training: bool) -> None:
    """Also in evaluation mode, in which RL trains; each layer runs again in the backward pass."""
    selector, batch = tiny_selector(model_type).train(training), collate(random_pools())
    kept = selector(batch).logits
    kept[:, 0].sum().backward()
    expected = {n: p.grad.clone() for n, p in selector.named_parameters() if p.grad is not None}
    selector.zero_grad()
    recompute_activations(selector.backbone)
    layers = [m for m in selector.modules() if isinstance(m, GradientCheckpointingLayer)]
    passes: list[bool] = []
    # Recomputing ends with the last tensor that is needed, so inside a layer's last module.
    next(layers[0].children()).register_forward_hook(lambda *_: passes.append(True))
    logits = selector(batch).logits
    assert len(passes) == 1
    logits[:, 0].sum().backward()
    assert len(passes) == 2
    assert torch.allclose(logits, kept, atol=1e-4)
    for name, parameter in selector.named_parameters():
        if name in expected:
            assert torch.allclose(parameter.grad, expected[name], atol=1e-4), name


def test_scoring_goes_on_sharing_the_prompt_when_training_recomputes() -> None:
    selector = tiny_selector("llama")
    recompute_activations(selector.backbone)
    batch = collate(random_pools())
    assert not selector._can_share(batch)
    with evaluating(selector):
        assert selector._can_share(batch)
    assert not selector._can_share(batch)


def test_sliding_window_shorter_than_the_pair_falls_back_to_separate_encoding() -> None:
    config = tiny_config("mistral", sliding_window=6)
    torch.manual_seed(0)
    selector = Selector(AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")).eval()
    pools = random_pools()
    with torch.no_grad():
        assert difference(selector.encode(collate(pools)), alone(selector, pools)) < 1e-4


def test_encoder_decoders_are_refused_in_one_line() -> None:
    with pytest.raises(UserError, match="encoder-decoder"):
        is_causal(CONFIG_MAPPING["t5"]())
    assert is_causal(LlamaConfig()) and not is_causal(BertConfig())


def test_collate_pads_on_the_right_and_masks_the_pads() -> None:
    batch = collate(
        [TokenizedPool("a", [5], [[6], [7, 8]]), TokenizedPool("b", [5, 6], [[9], [9]])]
    )
    assert batch.prompt_ids.tolist() == [[5, 0], [5, 6]]
    assert batch.prompt_mask.tolist() == [[True, False], [True, True]]
    assert batch.candidate_ids.tolist() == [[[6, 0], [7, 8]], [[9, 0], [9, 0]]]
    assert batch.candidate_mask.sum().item() == 5
    assert isinstance(batch.to("cpu"), PoolBatch) and len(batch) == 2


def test_pools_of_different_size_in_one_batch_are_refused() -> None:
    with pytest.raises(UserError, match="b: 1 candidates where a has 2"):
        collate([TokenizedPool("a", [5], [[6], [7]]), TokenizedPool("b", [5], [[9]])])


@given(
    st.lists(st.integers(1, 900), max_size=200),
    st.integers(1, 9),
    st.integers(0, 5),
    st.integers(0, 3),
)
def test_buckets_hold_every_index_once_and_repeat_for_the_same_seed(
    lengths: list[int], batch_size: int, seed: int, epoch: int
) -> None:
    batches = length_buckets(lengths, batch_size, seed, epoch)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    assert all(1 <= len(batch) <= batch_size for batch in batches)
    assert batches == length_buckets(lengths, batch_size, seed, epoch)


def test_buckets_pad_less_than_random_batches_and_differ_between_epochs() -> None:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(10, 1000, (400,), generator=generator).tolist()

    def padded(batches: list[list[int]]) -> int:
        return sum(max(lengths[i] for i in batch) * len(batch) for batch in batches)

    order = torch.randperm(400, generator=generator).tolist()
    at_random = [order[i : i + 8] for i in range(0, 400, 8)]
    assert padded(length_buckets(lengths, 8, seed=0)) < 0.75 * padded(at_random)
    assert length_buckets(lengths, 8, seed=0, epoch=0) != length_buckets(
        lengths, 8, seed=0, epoch=1
    )


def test_buckets_keep_pools_of_different_size_apart() -> None:
    sizes = [8, 4] * 10
    for batch in length_buckets([5] * 20, 4, seed=0, sizes=sizes):
        assert len({sizes[i] for i in batch}) == 1
