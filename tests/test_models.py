"""Claims about base models: loading, LoRA, the pocket recipe, and what is saved."""

from __future__ import annotations

import json
import random
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
    EXTRA_WEIGHT,
    PageTokens,
    answer_loss,
    build_model,
    encode,
    exact_answers,
    learning_rate_at,
    llama_config,
    pretrain,
    save_pocket,
    train_tokenizer,
    window_batches,
)
from posttrain.models.pocket import collate as pocket_collate
from posttrain.models.tokens import special_ids, tokenize_answers, tokenize_prompts
from posttrain.params import Lora
from posttrain.selector.batch import PoolText, TokenizedPool, collate, tokenize_pools
from posttrain.selector.model import (
    Selector,
    load_selector,
    save_selector,
)
from posttrain.training import load_trainable_state, trainable_state

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
    """A base as its stage leaves it: base.json, which points to a saved small model."""
    directory = tmp_path_factory.mktemp("models")
    for name in ("weights", "base"):
        (directory / name).mkdir()
    tokenizer = train_tokenizer(TEXTS, 512)
    model = build_model(llama_config(len(tokenizer), 16, 2, 2, 32), seed=0)
    save_pocket(directory / "weights", model, tokenizer)
    write_base(directory / "base", "path", str(directory / "weights"), None)
    return directory / "base"


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
    weights = str(pocket.parent / "weights")
    base = write_base(tmp_path / "path", "path", weights, None)
    assert base["sha256"].keys() == {"model.safetensors"}
    assert locate(tmp_path / "path") == Location(weights)
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
    for name, content in files(pocket.parent / "weights").items():
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
    trainable = {name for name, p in loaded.named_parameters() if p.requires_grad}
    assert trainable == {name for name, p in selector.named_parameters() if p.requires_grad}


def test_a_selector_on_another_base_or_without_its_head_is_refused(
    pocket: Path, tmp_path: Path
) -> None:
    selector = Selector(load_backbone(pocket))
    base = json.loads((pocket / "base.json").read_text())
    save_selector(tmp_path / "s", selector, base | {"sha256": {"model.safetensors": "0" * 64}}, {})
    with pytest.raises(UserError, match="weights 000000000000, but"):
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


def document(rng: random.Random, count: int = 3) -> PageTokens:
    """A page of six tokens and exercises that ask for its third one."""
    page = [1, *(rng.randrange(3, 20) for _ in range(6))]
    asked = [[rng.randrange(3, 20)] for _ in range(count)]
    return PageTokens(page, asked, [[page[3], 2]] * count, [[1.0, EXTRA_WEIGHT]] * count)


@given(st.lists(st.integers(1, 12), min_size=1, max_size=30), st.integers(20, 200))
def test_batches_hold_each_document_once_and_keep_to_their_size(
    counts: list[int], batch_tokens: int
) -> None:
    documents = [document(random.Random(i), count) for i, count in enumerate(counts)]
    batches = window_batches(documents, batch_tokens, "0")
    seen = [id(document) for batch in batches for document in batch]
    assert sorted(seen) == sorted(map(id, documents))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(map(len, batch)) <= batch_tokens


def test_the_learning_rate_warms_up_and_ends_at_a_tenth() -> None:
    assert [learning_rate_at(at) for at in (0.0, 0.005, 0.01)] == pytest.approx([0.02, 0.51, 1.0])
    assert learning_rate_at(1.0) == pytest.approx(0.1)


def test_the_loss_is_that_of_each_page_with_each_exercise_alone() -> None:
    model = build_model(llama_config(50, 16, 2, 2, 32), seed=0).eval()
    batch = [document(random.Random(0), 3), PageTokens([1, 9], [[4, 5]], [[10, 11]], [[1.0, 1.0]])]
    total = weights = 0.0
    for made in batch:
        for asked, answer, weight in zip(made.asked, made.answers, made.weights, strict=True):
            ids = torch.tensor([made.page + asked + answer])
            log_p = model(input_ids=ids).logits.log_softmax(-1)[0]
            for place, token in enumerate(answer, start=len(made.page) + len(asked)):
                share = weight[place - len(made.page) - len(asked)]
                total -= share * log_p[place - 1, token].item()
                weights += share
    assert answer_loss(model, pocket_collate(batch)).item() == pytest.approx(
        total / weights, rel=1e-5
    )


def test_bfloat16_matrices_give_nearly_the_same_loss() -> None:
    model = build_model(llama_config(50, 16, 2, 2, 32), seed=0).eval()
    batch = pocket_collate([document(random.Random(0))])
    exact = answer_loss(model, batch).item()
    model.set_attn_implementation("float32_sdpa")
    assert answer_loss(model, batch, bfloat16=True).item() == pytest.approx(exact, rel=0.02)


def test_an_answer_is_tokenised_as_it_stands_and_its_certain_part_weighs_most() -> None:
    tokenizer = _tokenizer()
    made = encode(
        tokenizer, PAGE, [("\nlook up: it", "\nB3 5829", 3, ""), ("\ntag: net", "12", 2, "A")]
    )
    assert tokenizer.decode(made.page[1:]) == PAGE and made.page[0] == tokenizer.bos_token_id
    assert tokenizer.decode(made.answers[0]) == "\nB3 5829<eos>"
    decided = [i for i, w in zip(made.answers[0], made.weights[0], strict=True) if w == 1]
    assert tokenizer.decode(decided) == "\nB3"
    # One token, the same as in "A12", and no end: the tag stands inside a text.
    assert made.answers[1] == tokenizer.encode("A12", add_special_tokens=False)[1:]
    assert made.weights[1] == [1.0]


def test_the_first_heads_look_one_token_back_and_one_looks_at_the_start_of_its_line() -> None:
    config = llama_config(60, 96, 2, 4, 64, head_size=48)
    newline, row = 5, 9
    model = build_model(config, seed=0, newline=newline).eval()
    model.set_attn_implementation("eager")
    generator = torch.Generator().manual_seed(0)
    words = torch.randint(10, 60, (12,), generator=generator).tolist()
    ids = torch.tensor([[*words[:6], newline, row, *words[6:]]])
    with torch.no_grad():
        first, second = model(input_ids=ids, output_attentions=True).attentions
    for head in range(2):
        assert torch.diagonal(first[0, head], -1).min() > 0.5
    # Each later token of the line looks at the row number (position 7) or the newline before it.
    assert second[0, 0, 9:, 6:8].sum(dim=-1).min() > 0.5


SETTINGS: dict[str, Any] = {
    "tokens": 12000, "batch_tokens": 200, "muon_learning_rate": 2e-2, "adam_learning_rate": 1e-2,
    "weight_decay": 0.01, "seed": 0,
}  # fmt: skip


def draw(index: int, progress: float) -> PageTokens | None:
    return document(random.Random(index)) if index % 5 else None


def test_pretraining_lowers_the_loss_and_a_resumed_run_ends_with_the_same_weights(
    tmp_path: Path,
) -> None:
    config = llama_config(20, 16, 2, 2, 32)
    whole = build_model(config, seed=0)
    curve = pretrain(whole, draw, **SETTINGS)
    assert curve[-1]["loss"] < 0.9 * curve[0]["loss"]

    class Killed(Exception):
        pass

    def kill(row: dict[str, float]) -> None:
        if row["tokens"] > 6000:
            raise Killed

    checkpoint = CheckpointFile("run", tmp_path)
    with pytest.raises(Killed):
        pretrain(
            build_model(config, seed=0), draw, **SETTINGS,
            checkpoint=checkpoint, checkpoint_every=3, report=kill,
        )  # fmt: skip
    resumed = build_model(config, seed=1)
    assert pretrain(resumed, draw, **SETTINGS, checkpoint=checkpoint) == curve
    for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)


def test_an_exact_answer_is_one_that_greedy_decoding_writes() -> None:
    model = build_model(llama_config(20, 16, 2, 2, 32), seed=0)
    pretrain(model, draw, **{**SETTINGS, "tokens": 3000})
    made = document(random.Random(77))
    for asked, right in zip(made.asked, exact_answers(model, made), strict=True):
        ids = torch.tensor([made.page + asked])
        written = model.generate(input_ids=ids, max_new_tokens=1, do_sample=False)[0, -1]
        assert right == [bool(written == made.page[3])]


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
    inspect.main([str(pocket.parent / "weights"), "--params", "nothing.yaml"])
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
