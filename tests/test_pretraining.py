"""Claims about the small base model: its tokenizer, its initialisation, the pretraining loop."""

from __future__ import annotations

import importlib.util
import random
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pretrain.model import build_model, llama_config, train_tokenizer
from pretrain.pages import (
    EARLY_WEIGHT,
    EXTRA_WEIGHT,
    ROW,
    PageTokens,
    collate,
    encode,
    exact_answers,
    page_losses,
)
from pretrain.pretraining import learning_rate_at, pretrain, window_batches
from workspace import ROOT

from posttrain.core.checkpoint import CheckpointFile
from posttrain.core.errors import UserError
from posttrain.core.files import read_json, sha256_file
from posttrain.models.tokens import special_ids, tokenize_answers, tokenize_prompts
from posttrain.tasks.finqa.fetch import fetch_generated

PAGE = "1 | B 2009 | C 2008\n3 net revenue | 5829 | 5735\nquestion: what was it in 2009?\nanswer:"
ANSWER = '{"program": ["subtract(B3, C12)", "divide(#0, const_100)"], "answer": "0.94"}'
TEXTS = [PAGE, ANSWER] * 5


def files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


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
    lines = [-1, -1, *[page[1]] * 5]
    answers, weights = [[page[3], 2]] * count, [[1.0, EXTRA_WEIGHT]] * count
    return PageTokens(page, lines, asked, answers, weights, [False] * count)


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


PLAIN = PageTokens([1, 9], [-1, -1], [[4, 5]], [[10, 11]], [[1.0, 1.0]], [False])
EARLY = PageTokens([1, 9, 6], [-1] * 3, [[4], [5]], [[10], [12]], [[1.0], [1.0]], [True, False])


def test_the_losses_are_those_of_each_page_with_each_exercise_alone() -> None:
    model = build_model(llama_config(50, 16, 4, 2, 32), seed=0).eval()

    def log_p(ids: list[int], layers: int) -> torch.Tensor:
        states = model(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states
        # The last of them is normed already.
        state = states[layers] if layers == 4 else model.model.norm(states[layers])
        return model.lm_head(state)[0].log_softmax(-1)

    # More exercises than fit a row, pages of other lengths, one with an answer to be known early.
    batch = [document(random.Random(0), ROW), PLAIN, EARLY]
    total = weights = 0.0
    lines, early = [], []
    for made in batch:
        half = log_p(made.page, 2)
        lines += [-half[at, line].item() for at, line in enumerate(made.lines) if line >= 0]
        for index, (asked, answer) in enumerate(zip(made.asked, made.answers, strict=True)):
            ids = made.page + asked + answer
            last, late = log_p(ids, 4), log_p(ids, 3)
            for place, token in enumerate(answer, start=len(made.page) + len(asked)):
                share = made.weights[index][place - len(made.page) - len(asked)]
                total -= share * last[place - 1, token].item()
                weights += share
                early += [-late[place - 1, token].item()] if made.early[index] else []
    losses = page_losses(model, collate(batch))
    assert losses.answers.item() == pytest.approx(total / weights, rel=1e-5)
    assert losses.lines.item() == pytest.approx(sum(lines) / len(lines), rel=1e-5)
    assert losses.early.item() == pytest.approx(sum(early) / len(early), rel=1e-5)
    expected = losses.answers + EARLY_WEIGHT * (losses.lines + losses.early)
    assert losses.total().item() == pytest.approx(expected.item())


def test_without_numbered_lines_and_early_answers_their_losses_are_zero() -> None:
    model = build_model(llama_config(50, 16, 2, 2, 32), seed=0)
    losses = page_losses(model, collate([PLAIN]))
    losses.total().backward()
    assert losses.lines.item() == losses.early.item() == 0
    assert model.model.norm.weight.grad.isfinite().all()


def test_bfloat16_matrices_give_nearly_the_same_loss() -> None:
    model = build_model(llama_config(50, 16, 2, 2, 32), seed=0).eval()
    batch = collate([document(random.Random(0))])
    exact = page_losses(model, batch).total().item()
    model.set_attn_implementation("float32_sdpa")
    rounded = page_losses(model, batch, bfloat16=True).total().item()
    assert rounded == pytest.approx(exact, rel=0.02)


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
    assert made.early == [False, True]


def test_each_token_of_a_numbered_line_or_a_named_phrase_has_its_number() -> None:
    tokenizer = _tokenizer()
    page = "some text [T4 net] 5 [T12 was] 3\n2 net revenue | 7\n12 costs\nend"
    made = encode(tokenizer, page, [("\nlook up: it", "\nB2", 3, "")])
    words = tokenizer.batch_decode([[token] for token in made.page])
    lines = ["" if line < 0 else tokenizer.decode([line]) for line in made.lines]
    told = list(zip(words, lines, strict=True))
    named, second, start = words.index("4"), words.index("12"), words.index("\n") + 1
    assert [line for _, line in told[: named + 1]] == [""] * (named + 1)
    assert {line for _, line in told[named + 1 : second]} == {"4"}
    assert told[second] == ("12", "") and told[second + 1][1] == "12"
    end = words.index("12", start)
    assert told[start] == ("2", "") and {line for _, line in told[start + 1 : end]} == {"2"}
    assert told[end] == ("12", "") and told[end + 1][1] == "12"
    assert told[-1][1] == ""


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


def recipe(project: Path, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    """Run pretrain/pocket.py in `project` on generated pages at a small scale; changes: to its settings."""
    spec = importlib.util.spec_from_file_location("recipe", ROOT / "pretrain/pocket.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    fetch_generated(project / "pages", 0, {"train": 30, "val": 1, "test": 1})
    chosen = yaml.safe_load((ROOT / "pretrain/params.yaml").read_text())
    chosen |= {"pages": "pages", **changes}
    chosen["pocket"] |= {
        "vocabulary": 600, "hidden_size": 16, "layers": 2, "heads": 2, "head_size": 8,
        "intermediate_size": 16, "tokens": 3000, "batch_tokens": 1500,
    }  # fmt: skip
    (project / "pretrain").mkdir(exist_ok=True)
    (project / "pretrain/params.yaml").write_text(yaml.safe_dump(chosen))
    monkeypatch.chdir(project)
    monkeypatch.setattr(sys, "argv", ["pretrain/pocket.py"])
    monkeypatch.setattr(module, "TOKENIZER_DOCUMENTS", 5)
    monkeypatch.setattr(module, "MEASURED_DOCUMENTS", 4)
    module.main()


def test_the_recipe_makes_a_model_with_its_card_and_figures_and_goes_on_from_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe(tmp_path, monkeypatch)
    first = files(tmp_path / "pretrain/pocket")
    figures = read_json(tmp_path / "pretrain/metrics.json")
    assert 0 <= figures["look_up.6x3"] <= 1 and b"| look_up.6x3 |" in first["README.md"]
    assert not list(tmp_path.glob(".checkpoints/*"))
    (tmp_path / "pretrain/pocket").rename(tmp_path / "start")
    recipe(tmp_path, monkeypatch, start="start")
    second = files(tmp_path / "pretrain/pocket")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert second[name] == first[name]
    assert second["model.safetensors"] != first["model.safetensors"]
    origin = read_json(tmp_path / "pretrain/pocket/manifest.json")["start"]
    assert origin == sha256_file(tmp_path / "start/model.safetensors")


def test_a_start_of_other_sizes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="its sizes are not those of"):
        recipe(tmp_path, monkeypatch, start=str(ROOT / "pretrain/pocket"))
