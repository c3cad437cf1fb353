"""Claims about base models: loading, LoRA, the pocket recipe, and what is saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModel, BertConfig, GPT2Config, LlamaConfig, PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from posttrain.checkpoint import CheckpointFile
from posttrain.errors import UserError
from posttrain.models import inspect
from posttrain.models.load import (
    Location,
    check_lengths,
    load_backbone,
    load_causal_lm,
    load_config,
    load_tokenizer,
    locate,
    write_base,
)
from posttrain.models.lora import add_lora, lora_targets
from posttrain.models.pocket import (
    Document,
    build_model,
    language_model_loss,
    learning_rate_at,
    llama_config,
    plan_batches,
    pretrain,
    save_pocket,
    train_tokenizer,
)
from posttrain.params import Lora
from posttrain.selector.batch import (
    PoolText,
    TokenizedPool,
    collate,
    special_ids,
    tokenize_answers,
    tokenize_pools,
    tokenize_prompts,
)
from posttrain.selector.model import (
    Selector,
    load_selector,
    load_trainable_state,
    save_selector,
    trainable_state,
)

PAGE = "1 | B 2009 | C 2008\n3 net revenue | 5829 | 5735\nquestion: what was it in 2009?\nanswer:"
ANSWER = '{"program": ["subtract(B3, C12)", "divide(#0, const_100)"], "answer": "0.94"}'
TEXTS = [PAGE, ANSWER] * 5
BATCH = collate([TokenizedPool("a", [3, 4, 5], [[6], [7, 8]]), TokenizedPool("b", [3], [[9], [8]])])


def tiny(model_type: str) -> PreTrainedConfig:
    if model_type == "gpt2":
        return GPT2Config(vocab_size=50, n_embd=16, n_layer=2, n_head=2, n_positions=64)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    if model_type == "bert":
        return BertConfig(vocab_size=50, num_attention_heads=2, **sizes)
    return CONFIG_MAPPING[model_type](
        vocab_size=50, num_attention_heads=2, num_key_value_heads=1, head_dim=8, **sizes
    )


@pytest.fixture(scope="module")
def pocket(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved pocket model as stage `base` leaves it."""
    directory = tmp_path_factory.mktemp("models") / "base"
    directory.mkdir()
    tokenizer = train_tokenizer(TEXTS, 512)
    model = build_model(llama_config(len(tokenizer), 16, 2, 2, 32), seed=0)
    save_pocket(directory, model, tokenizer)
    write_base(directory, "pocket", None, None)
    return directory


def files(directory: Path) -> dict[str, bytes]:
    found = sorted(path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in found}


# ------------------------------------------------------------------------------------------ loading


def test_a_pocket_base_loads_as_backbone_language_model_and_tokenizer(pocket: Path) -> None:
    backbone, model = load_backbone(pocket), load_causal_lm(pocket, dtype="bfloat16")
    assert backbone.config.model_type == "llama" and not backbone.training
    assert model.dtype == torch.bfloat16
    assert load_tokenizer(pocket).pad_token == "<pad>"


def test_a_base_that_points_to_a_folder_or_the_hub_is_followed(
    pocket: Path, tmp_path: Path
) -> None:
    for name in ("path", "hub"):
        (tmp_path / name).mkdir()
    base = write_base(tmp_path / "path", "path", str(pocket), None)
    assert base["sha256"].keys() == {"model.safetensors"}
    assert locate(tmp_path / "path") == Location(str(pocket))
    write_base(tmp_path / "hub", "hub", "owner/model", "0123abc")
    assert locate(tmp_path / "hub") == Location("owner/model", "0123abc")


@pytest.mark.parametrize("name", ["./nothing", "/no/such/folder", "a/b/c"])
def test_a_missing_folder_is_named_in_one_line(name: str) -> None:
    with pytest.raises(UserError, match=f"{name}: no such folder"):
        load_config(name)


def test_a_folder_without_a_model_and_one_with_broken_weights_are_named(
    pocket: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="holds neither"):
        load_backbone(tmp_path)
    broken = tmp_path / "broken"
    broken.mkdir()
    for name, content in files(pocket).items():
        (broken / name).write_bytes(content[:100] if name == "model.safetensors" else content)
    with pytest.raises(UserError, match="broken cannot be loaded"):
        load_backbone(broken)


def test_an_unreachable_hub_is_one_line_that_names_model_and_revision(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="owner/model at revision abc cannot be reached") as caught:
        load_config("owner/model", "abc")
    assert "\n" not in str(caught.value) and "HF_HOME" in str(caught.value)


def test_lengths_beyond_the_positions_are_refused() -> None:
    check_lengths(tiny("gpt2"), 40, 24)
    with pytest.raises(UserError, match="lower max_prompt_tokens to 39"):
        check_lengths(tiny("gpt2"), 40, 25)


# --------------------------------------------------------------------------------------------- LoRA


@pytest.mark.parametrize(
    ("model_type", "target"),
    [("llama", "down_proj"), ("qwen3", "q_proj"), ("gpt2", "c_attn"), ("bert", "query")],
)
def test_auto_targets_exist_and_only_the_adapters_train(model_type: str, target: str) -> None:
    model = AutoModel.from_config(tiny(model_type))
    assert target in lora_targets(model.config)
    adapted = add_lora(model, r=2, alpha=4, dropout=0.0, targets="auto")
    trainable = [name for name, p in adapted.named_parameters() if p.requires_grad]
    assert trainable and all("lora_" in name for name in trainable)
    assert {t for t in lora_targets(model.config) if any(f".{t}." in n for n in trainable)} == set(
        lora_targets(model.config)
    )


def test_an_adapter_starts_as_the_identity() -> None:
    model = AutoModel.from_config(tiny("gpt2")).eval()
    ids = torch.tensor([[3, 4, 5]])
    before = model(input_ids=ids).last_hidden_state
    after = add_lora(model, 2, 4, 0.0, "auto").eval()(input_ids=ids).last_hidden_state
    assert torch.allclose(before, after, atol=1e-6)


def test_unknown_architectures_and_modules_are_named() -> None:
    config = LlamaConfig()
    config.model_type = "newthing"
    with pytest.raises(UserError, match=r"'newthing'.*all-linear"):
        lora_targets(config)
    with pytest.raises(UserError, match="llama has no module named"):
        add_lora(AutoModel.from_config(tiny("llama")), 2, 4, 0.0, ["c_attn"])


# ----------------------------------------------------------------------------------------- selector


@pytest.mark.parametrize("lora", [True, False])
def test_a_saved_selector_gives_the_same_logits_and_the_same_bytes(
    pocket: Path, tmp_path: Path, lora: bool
) -> None:
    torch.manual_seed(0)
    backbone: Any = load_backbone(pocket)
    if lora:
        backbone = add_lora(backbone, 2, 4, 0.0, "auto")
    selector = Selector(backbone).eval()
    with torch.no_grad():
        for parameter in selector.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    base = json.loads((pocket / "base.json").read_text())
    expected = selector(BATCH).logits
    save_selector(tmp_path / "one", selector, base, {"method": "sft"})
    loaded, meta = load_selector(tmp_path / "one", pocket, trainable=True)
    assert meta == {"method": "sft"}
    assert torch.equal(loaded(BATCH).logits, expected)
    save_selector(tmp_path / "two", loaded, base, {"method": "sft"})
    one = files(tmp_path / "one")
    assert one == files(tmp_path / "two")
    assert ("adapter/adapter_config.json" in one) == lora
    assert not any(str(pocket.parent).encode() in content for content in one.values())
    trainable = {name for name, p in loaded.named_parameters() if p.requires_grad}
    assert trainable == {name for name, p in selector.named_parameters() if p.requires_grad}


def test_a_selector_on_another_base_or_without_its_head_is_refused(
    pocket: Path, tmp_path: Path
) -> None:
    selector = Selector(load_backbone(pocket))
    base = json.loads((pocket / "base.json").read_text())
    save_selector(tmp_path / "s", selector, base | {"sha256": {"model.safetensors": "0" * 64}}, {})
    with pytest.raises(UserError, match="trained on pocket 000000000000, but"):
        load_selector(tmp_path / "s", pocket)
    save_selector(tmp_path / "t", selector, base, {})
    (tmp_path / "t" / "head.safetensors").write_bytes(b"short")
    with pytest.raises(UserError, match="cannot load the selector"):
        load_selector(tmp_path / "t", pocket)


def test_trainable_state_brings_back_a_selector(pocket: Path) -> None:
    selector = Selector(add_lora(load_backbone(pocket), 2, 4, 0.0, "auto")).eval()
    before, state = selector(BATCH).logits, trainable_state(selector)
    with torch.no_grad():
        for parameter in selector.parameters():
            if parameter.requires_grad:
                parameter.add_(1.0)
    assert not torch.allclose(selector(BATCH).logits, before)
    load_trainable_state(selector, state)
    assert torch.equal(selector(BATCH).logits, before)
    with pytest.raises(UserError, match="another model"):
        load_trainable_state(selector, {"score.inner.bias": state["score.inner.bias"]})


def test_pools_are_tokenised_without_truncation(pocket: Path) -> None:
    tokenizer = load_tokenizer(pocket)
    rows = [PoolText("a", PAGE, [ANSWER, "{}"]), PoolText("b", PAGE * 9, ["{}", "[]"])]
    pools, dropped = tokenize_pools(rows, tokenizer, 10_000, 10_000)
    assert dropped == [] and [pool.id for pool in pools] == ["a", "b"]
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    assert pools[0].prompt_ids[0] == bos and pools[0].candidate_ids[0][-1] == eos
    assert tokenizer.decode(pools[0].prompt_ids[1:]) == PAGE
    assert tokenizer.decode(pools[0].candidate_ids[0][:-1]) == "\n" + ANSWER
    limit = len(pools[0].prompt_ids)
    with pytest.raises(UserError, match=r"1 of 2 pools exceed .* the first is b: prompt"):
        tokenize_pools(rows, tokenizer, limit, 10_000)
    kept, dropped = tokenize_pools(rows, tokenizer, limit, 10_000, overlong="drop")
    assert [pool.id for pool in kept] == ["a"] and dropped == ["b"]


# ------------------------------------------------------------------------------------- pocket model


@settings(deadline=None, max_examples=200)
@given(st.text(max_size=60))
def test_any_text_round_trips_through_the_tokenizer(text: str) -> None:
    tokenizer = _tokenizer()
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == text


_CACHE: list[Any] = []


def _tokenizer() -> Any:
    if not _CACHE:
        _CACHE.append(train_tokenizer(TEXTS, 512))
    return _CACHE[0]


def test_references_and_years_are_one_token_per_part_and_digits_are_apart() -> None:
    tokenizer = _tokenizer()

    def pieces(text: str) -> list[str]:
        return [
            tokenizer.decode([i]) for i in tokenizer(text, add_special_tokens=False)["input_ids"]
        ]

    assert pieces("subtract(B3, C12)") == ["subtract", "(", "B", "3", ",", " ", "C", "12", ")"]
    assert pieces("x\n12 net")[1:3] == ["\n", "12"]
    assert pieces(" 5735 in 2009")[:4] == [" 5", "7", "3", "5"]
    assert pieces(" 2009") == [" 2009"]
    assert special_ids(tokenizer).start == [1] and special_ids(tokenizer).end == [2]


def test_the_chat_template_gives_the_ids_of_the_pretraining_documents() -> None:
    tokenizer = _tokenizer()
    messages = [{"role": "user", "content": PAGE}, {"role": "assistant", "content": ANSWER}]
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    joined = tokenize_prompts([PAGE], tokenizer)[0] + tokenize_answers([ANSWER], tokenizer)[0]
    assert tokenizer(text, add_special_tokens=False)["input_ids"] == joined


def test_training_a_tokenizer_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        train_tokenizer(TEXTS, 512).save_pretrained(tmp_path / name)
    assert files(tmp_path / "one") == files(tmp_path / "two")


@given(
    st.lists(st.integers(1, 400), min_size=1, max_size=60),
    st.integers(50, 1000),
    st.integers(1, 20_000),
)
def test_a_plan_keeps_to_its_batch_size_and_sees_each_document_once_per_epoch(
    lengths: list[int], batch_tokens: int, tokens: int
) -> None:
    plan = plan_batches(lengths, batch_tokens, tokens, seed=0)
    for batch in plan:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= batch_tokens
    order = [index for batch in plan for index in batch]
    for start in range(0, len(order), len(lengths)):
        epoch = order[start : start + len(lengths)]
        assert len(set(epoch)) == len(epoch)
    seen = sum(lengths[index] for index in order)
    assert seen >= tokens and seen - sum(lengths[i] for i in plan[-1]) < tokens


def test_the_learning_rate_warms_up_and_ends_at_a_tenth() -> None:
    rates = [learning_rate_at(step, 100, 1.0) for step in range(100)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[-1] == pytest.approx(0.1, abs=1e-3)


def test_the_loss_is_the_weighted_mean_over_each_document_alone() -> None:
    model = build_model(llama_config(50, 16, 2, 2, 32), seed=0).eval()
    batch = [Document([1, 5, 6, 7], [8, 2]), Document([1, 9], [10, 11, 2])]
    total = weights = 0.0
    for document in batch:
        ids = torch.tensor([document.prompt_ids + document.answer_ids])
        log_p = model(input_ids=ids).logits.log_softmax(-1)[0]
        for position in range(1, len(document)):
            weight = 0.5 if position < len(document.prompt_ids) else 1.0
            total -= weight * log_p[position - 1, ids[0, position]].item()
            weights += weight
    assert language_model_loss(model, batch, 0.5).item() == pytest.approx(total / weights, rel=1e-5)


def documents() -> list[Document]:
    generator = torch.Generator().manual_seed(0)
    lists = [torch.randint(3, 20, (6,), generator=generator).tolist() for _ in range(20)]
    return [Document([1, *ids], [ids[2], 2]) for ids in lists]


SETTINGS: dict[str, Any] = {
    "tokens": 4000, "batch_tokens": 120, "learning_rate": 1e-2, "weight_decay": 0.1, "seed": 0,
}  # fmt: skip


def test_pretraining_lowers_the_loss_and_a_resumed_run_ends_with_the_same_weights(
    tmp_path: Path,
) -> None:
    config = llama_config(20, 16, 2, 2, 32)
    whole = build_model(config, seed=0)
    curve = pretrain(whole, documents(), **SETTINGS)
    assert curve[-1]["loss"] < 0.7 * curve[0]["loss"]

    class Killed(Exception):
        pass

    def kill(step: int, steps: int, row: dict[str, float]) -> None:
        if step == steps // 2:
            raise Killed

    checkpoint = CheckpointFile("run", tmp_path)
    with pytest.raises(Killed):
        pretrain(
            build_model(config, seed=0), documents(), **SETTINGS,
            checkpoint=checkpoint, checkpoint_every=4, report=kill,
        )  # fmt: skip
    resumed = build_model(config, seed=1)
    assert pretrain(resumed, documents(), **SETTINGS, checkpoint=checkpoint) == curve
    for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)


# ------------------------------------------------------------------------------------------ inspect


def test_counts_without_weights_equal_those_of_the_real_model() -> None:
    config = tiny("llama")
    model = AutoModel.from_config(config)
    counts = inspect.count_parameters(config, Lora(r=4, alpha=8.0, dropout=0.0, targets=["q_proj"]))
    assert counts.backbone == sum(p.numel() for p in model.parameters())
    # Per layer A is (4, 16) and B is (16, 4).
    assert counts.adapters == 2 * (4 * 16 + 16 * 4)
    assert counts.heads == sum(
        p.numel() for n, p in Selector(model).named_parameters() if not n.startswith("backbone.")
    )


def test_a_local_model_is_described_with_an_entry_that_the_schema_accepts(
    pocket: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inspect.main([str(pocket), "--params", "nothing.yaml"])
    text = capsys.readouterr().out
    assert "llama, 2 layers, width 16" in text and "targets: auto}" in text
    assert "source: path" in text and "max_prompt_tokens: 1792" in text


def test_a_misspelt_preset_gets_a_suggestion(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    params = Path(__file__).resolve().parent.parent / "params.yaml"
    with pytest.raises(SystemExit, match=r"llama-3\.2-1b"):
        inspect.main(["lama-3.2-1b", "--params", str(params)])
