"""Claims about sampling: sharing the prefill changes the cost of completions and nothing else."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from peft import PeftModel
from pretrain.model import train_tokenizer
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    GPT2Config,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from posttrain.core.errors import UserError
from posttrain.core.params import Lora
from posttrain.models.architecture import SHARED_PREFIX
from posttrain.models.load import load_causal_lm, write_base
from posttrain.models.lora import add_lora
from posttrain.models.tokens import tokenize_answers, tokenize_prompts
from posttrain.rollouts import sampling
from posttrain.rollouts.engines import sampler
from posttrain.rollouts.sampling import (
    Completion,
    affordable,
    can_share,
    complete,
    decode_apart,
    decode_shared,
    draw_uniforms,
    end_tokens,
    greedy,
    sample,
)
from posttrain.rollouts.writer import Generator, load_generator, save_untrained

END = 2
PROMPTS = [[5, 6, 7, 8, 9], [11], [12, 13, 14]]
SMALL: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": END,
}


def tiny_config(model_type: str, **changes: Any) -> PreTrainedConfig:
    if model_type == "gpt2":
        return GPT2Config(
            vocab_size=300, n_embd=32, n_layer=2, n_head=4, n_positions=64,
            bos_token_id=1, eos_token_id=END,
        )  # fmt: skip
    return CONFIG_MAPPING[model_type](**SMALL | changes)


def tiny_model(model_type: str, lora: bool = False, **changes: Any) -> Generator:
    """A random model whose distributions are far from uniform."""
    torch.manual_seed(0)
    config = tiny_config(model_type, **changes)
    model = AutoModelForCausalLM.from_config(config)
    for parameter in model.parameters():
        if parameter.dim() == 2:
            torch.nn.init.normal_(parameter, std=0.2)
    if lora:
        model = add_lora(model, 4, 8, 0.1, "auto", "CAUSAL_LM")
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return train_tokenizer(["revenue 2019 | 5829 | 5735", "what is the change in percent?"], 300)


def draw(
    model: Generator, tokenizer: PreTrainedTokenizerBase, **changes: Any
) -> list[list[Completion]]:
    options: dict[str, Any] = {
        "temperatures": [1.0] * 4, "max_new_tokens": 12, "top_p": 1.0, "seed": 0,
        "batch_size": 12,
    }  # fmt: skip
    return sample(model, tokenizer, PROMPTS, **options | changes)


# ------------------------------------------------------------------------------------------- logits


@pytest.mark.parametrize("model_type", sorted(SHARED_PREFIX))
@pytest.mark.parametrize(("lora", "tokens"), [(False, 4096), (True, 4096), (False, 8)])
def test_logits_at_each_step_equal_those_of_prompt_and_completion_alone(
    model_type: str, lora: bool, tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the prompts are read in several passes."""
    monkeypatch.setattr(sampling, "PREFILL_TOKENS", {"cpu": tokens})
    model = tiny_model(model_type, lora)
    count, steps = 3, 6
    forced = torch.randint(3, 300, (len(PROMPTS), count, steps))
    seen: list[torch.Tensor] = []

    def choose(logits: torch.Tensor, rows: torch.Tensor, step: int) -> torch.Tensor:
        seen.append(logits)
        return forced[:, :, step]

    with torch.inference_mode():
        drawn = decode_shared(model, PROMPTS, count, steps, [END], choose)
        assert torch.equal(drawn, forced)
        for row, prompt in enumerate(PROMPTS):
            for index in range(count):
                alone = torch.tensor([prompt + forced[row, index].tolist()])
                expected = model(input_ids=alone).logits[0, len(prompt) - 1 : -1]
                found = torch.stack([logits[row, index] for logits in seen])
                assert expected.std() > 0.05  # Cohere divides its logits by 16
                assert torch.allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("model_type", ["gpt2", "llama", "qwen2", "qwen3", "opt"])
@pytest.mark.parametrize("lora", [False, True])
def test_greedy_equals_generate(
    model_type: str, lora: bool, tokenizer: PreTrainedTokenizerBase
) -> None:
    model = tiny_model(model_type, lora)
    completions = greedy(model, tokenizer, PROMPTS, max_new_tokens=10, batch_size=3)
    for prompt, completion in zip(PROMPTS, completions, strict=True):
        expected = model.generate(
            input_ids=torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt)).long(),
            max_new_tokens=10, do_sample=False, eos_token_id=END, pad_token_id=0,
        )  # fmt: skip
        assert completion.ids == expected[0, len(prompt) :].tolist()


@pytest.mark.parametrize("model_type", ["gpt2", "llama"])
def test_copies_of_the_prompt_give_the_same_completions(
    model_type: str, tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model(model_type)
    shared = draw(model, tokenizer)
    monkeypatch.setattr(sampling, "can_share", lambda config, length: False)
    monkeypatch.setattr(sampling, "decode_shared", None)
    assert draw(model, tokenizer) == shared


def test_a_sliding_window_is_shared_only_when_nothing_leaves_it() -> None:
    config = tiny_config("mistral", sliding_window=20)
    assert can_share(config, 20) and not can_share(config, 21)
    assert not can_share(tiny_config("opt"), 5)


def test_completions_longer_than_the_sliding_window_equal_generate(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    model = tiny_model("mistral", sliding_window=6)
    (completion,) = greedy(model, tokenizer, PROMPTS[:1], max_new_tokens=12, batch_size=1)
    ids = torch.tensor(PROMPTS[:1])
    for token in completion.ids:
        with torch.inference_mode():
            assert model(input_ids=ids, use_cache=False).logits[0, -1].argmax() == token
        ids = torch.cat([ids, torch.tensor([[token]])], dim=1)


# ------------------------------------------------------------------------------------- independence


@pytest.mark.parametrize("model_type", ["gpt2", "llama"])
def test_completions_do_not_depend_on_the_batch_size(
    model_type: str, tokenizer: PreTrainedTokenizerBase
) -> None:
    model = tiny_model(model_type)
    ending(model, 4.0)
    groups = draw(model, tokenizer, max_new_tokens=40)
    lengths = [max(len(each.ids) for each in group) for group in groups]
    # All completions of one prompt end before those of the others, so rows leave the batch.
    assert min(lengths) < max(lengths)
    for batch_size in (1, 4, 8, 64):
        assert draw(model, tokenizer, max_new_tokens=40, batch_size=batch_size) == groups


def test_completions_in_flight_take_half_of_the_free_memory_by_hand(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    """Keys and values of 2 layers of 2 heads of 8 in float32 are 256 bytes a token."""
    model = tiny_model("llama")
    each = (12 + 5) * 256 + 4 * (12 + 5) * 4 + 20 * 300
    assert affordable(model, 20, 4, 12, 2 * 10 * each) == 10
    assert affordable(model, 20, 4, 12, 2 * 10 * each - 2) == 9
    assert affordable(model, 20, 4, 12, 1) == 1
    assert draw(model, tokenizer, batch_size="auto") == draw(model, tokenizer)


def test_completions_depend_on_the_seed_and_not_on_the_global_random_state(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    model = tiny_model("llama")
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = draw(model, tokenizer)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert draw(model, tokenizer) == first
    assert draw(model, tokenizer, seed=1) != first


def test_two_prompts_and_two_completions_have_their_own_random_numbers() -> None:
    uniforms = draw_uniforms(0, [0, 1, 0], 2, 5)
    assert uniforms.shape == (3, 2, 5) and torch.equal(uniforms[0], uniforms[2])
    assert len(set(uniforms[:2].flatten().tolist())) == 20


def test_the_models_modes_are_restored_and_sampling_is_in_evaluation_mode(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    model = tiny_model("llama", lora=True)
    expected = draw(model, tokenizer)
    model.train()
    next(iter(model.modules())).training = False
    before = [module.training for module in model.modules()]
    assert draw(model, tokenizer) == expected  # dropout 0.1 would change them
    assert [module.training for module in model.modules()] == before and any(before)


# ------------------------------------------------------------------------------------- distribution


class Fixed(torch.nn.Module):
    """A language model whose next-token distribution never changes."""

    def __init__(self, probabilities: list[float]) -> None:
        super().__init__()
        self.logits = torch.nn.Parameter(torch.tensor(probabilities).log())
        self.config = SimpleNamespace(model_type="llama", max_position_embeddings=64)
        self.generation_config = GenerationConfig()

    def forward(self, input_ids: torch.Tensor, **_: Any) -> Any:
        return SimpleNamespace(logits=self.logits.expand(*input_ids.shape, -1))


@pytest.mark.parametrize(
    ("temperature", "top_p", "expected"),
    [
        (1.0, 1.0, [0.5, 0.0, 0.1, 0.4]),
        (0.5, 1.0, [25 / 42, 0.0, 1 / 42, 16 / 42]),  # squares
        (1.0, 0.85, [5 / 9, 0.0, 0.0, 4 / 9]),  # 0.5 + 0.4 cover 0.85
        (0.0, 1.0, [1.0, 0.0, 0.0, 0.0]),
    ],
)
def test_tokens_are_drawn_from_the_tempered_truncated_distribution(
    temperature: float, top_p: float, expected: list[float], tokenizer: PreTrainedTokenizerBase
) -> None:
    model: Any = Fixed([0.5, 0.0, 0.1, 0.4])
    groups = sample(
        model, tokenizer, [[1]] * 50, temperatures=[temperature] * 20, max_new_tokens=4,
        top_p=top_p, seed=0, batch_size=1000,
    )  # fmt: skip
    first = torch.tensor([each.ids[0] for group in groups for each in group])
    shares = torch.bincount(first, minlength=4) / len(first)
    assert torch.allclose(shares, torch.tensor(expected), atol=0.05)  # 3 standard errors
    assert all(shares[i] == 0 for i in range(4) if expected[i] == 0)


@pytest.mark.parametrize("shared", [True, False])
def test_the_greedy_completion_and_samples_can_be_drawn_together(
    shared: bool, tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "can_share", lambda *_: shared)
    model = tiny_model("llama")
    together = draw(model, tokenizer, temperatures=[1.0, 0.0, 1.0, 1.0], batch_size=8)
    assert [group[1] for group in together] == greedy(
        model, tokenizer, PROMPTS, max_new_tokens=12, batch_size=2
    )
    alone = draw(model, tokenizer, temperatures=[1.0] * 3)
    assert [[group[0], *group[2:]] for group in together] == alone


def test_each_completion_has_its_own_temperature(tokenizer: PreTrainedTokenizerBase) -> None:
    model: Any = Fixed([0.5, 0.0, 0.1, 0.4])
    groups = sample(
        model, tokenizer, [[1]] * 1000, temperatures=[0.5, 1.0], max_new_tokens=1, top_p=1.0,
        seed=0, batch_size=1000,
    )  # fmt: skip
    for column, expected in enumerate([[25 / 42, 0.0, 1 / 42, 16 / 42], [0.5, 0.0, 0.1, 0.4]]):
        first = torch.tensor([group[column].ids[0] for group in groups])
        shares = torch.bincount(first, minlength=4) / len(first)
        assert torch.allclose(shares, torch.tensor(expected), atol=0.05)


def test_the_smallest_random_number_does_not_draw_an_impossible_token(
    tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        sampling, "draw_uniforms", lambda *_: torch.zeros(3, 4, 12, dtype=torch.float64)
    )
    model: Any = Fixed([0.0, 0.5, 0.0, 0.5])
    assert {i for group in draw(model, tokenizer) for each in group for i in each.ids} == {1}


def test_a_diverged_model_is_an_error(tokenizer: PreTrainedTokenizerBase) -> None:
    model: Any = Fixed([0.5, 0.5])
    model.logits.data[0] = torch.nan
    for temperature in (0.0, 1.0):
        with pytest.raises(UserError, match="not finite"):
            draw(model, tokenizer, temperatures=[temperature])


# ------------------------------------------------------------------------------------- completions


def ending(model: Any, bias: float) -> None:
    """Make EOS more likely at every step."""
    values = torch.zeros(300)
    values[END] = bias
    model.lm_head.bias = torch.nn.Parameter(values)


def test_a_completion_keeps_eos_in_its_ids_and_not_in_its_text(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    (ids,) = tokenize_answers(["change 5829"], tokenizer)
    assert ids[-1] == END
    behind = [*ids, 7, END]
    assert complete(behind, [END], tokenizer) == Completion(ids, "change 5829", True)
    assert complete(ids[:-1], [END], tokenizer) == Completion(ids[:-1], "change 5829", False)


def test_only_the_leading_separator_is_taken_off(tokenizer: PreTrainedTokenizerBase) -> None:
    (ids,) = tokenize_answers([" \n a\n"], tokenizer)
    assert complete(ids, [END], tokenizer).text == " \n a\n"
    (bare,) = tokenize_prompts(["a"], tokenizer)
    assert complete(bare[1:], [END], tokenizer).text == "a"


def test_finished_means_that_eos_was_written(tokenizer: PreTrainedTokenizerBase) -> None:
    model = tiny_model("llama")
    ending(model, 4.0)
    flat = [each for group in draw(model, tokenizer, max_new_tokens=8) for each in group]
    assert {each.finished for each in flat} == {True, False}
    for each in flat:
        assert each.finished == (each.ids[-1] == END) and END not in each.ids[:-1]
        assert each.finished or len(each.ids) == 8


@pytest.mark.parametrize("decode", [decode_shared, decode_apart])
def test_all_completions_may_end_at_once(decode: Any) -> None:
    model = tiny_model("llama")
    drawn = decode(model, PROMPTS, 2, 9, [END], lambda logits, rows, step: torch.full((3, 2), END))
    assert drawn.shape == (3, 2, 9) and bool((drawn == END).all())


@pytest.mark.parametrize("decode", [decode_shared, decode_apart])
def test_nothing_is_written_behind_the_end(decode: Any) -> None:
    def choose(logits: torch.Tensor, rows: torch.Tensor, step: int) -> torch.Tensor:
        chosen = torch.full((len(rows), 2), 7)
        chosen[:, 0] = END if step == 1 else 7
        return chosen

    drawn = decode(tiny_model("llama"), PROMPTS, 2, 4, [END], choose)
    assert drawn.tolist() == [[[7, END, END, END], [7, 7, 7, 7]]] * 3


OWN_SETTINGS = {
    "do_sample": True,
    "temperature": 0.3,
    "top_k": 2,
    "top_p": 0.2,
    "typical_p": 0.5,
    "repetition_penalty": 3.0,
    "no_repeat_ngram_size": 1,
    "suppress_tokens": list(range(3, 200)),
    "begin_suppress_tokens": list(range(200, 290)),
    "bad_words_ids": [[number] for number in range(100, 150)],
    "forced_bos_token_id": 295,
    "forced_eos_token_id": END,
    "min_length": 30,
    "min_new_tokens": 9,
    "max_length": 5,
    "max_new_tokens": 1,
    "num_beams": 3,
    "sequence_bias": [[[7], 90.0]],
    "stop_strings": ["a"],
    "exponential_decay_length_penalty": [1, 9.0],
    "guidance_scale": 2.0,
    "watermarking_config": {"bias": 9.0},
    "cache_implementation": "static",
}


@pytest.mark.parametrize("model_type", ["llama", "opt", "gpt_neo"])
def test_a_models_own_generation_settings_change_nothing(
    model_type: str, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    """GPT-Neo has no SDPA and is read with eager attention; only Llama shares prompts."""
    own = {"attention_types": [[["global"], 2]]} if model_type == "gpt_neo" else {}
    model: Any = tiny_model(model_type, **own, word_embed_proj_dim=32)
    model.save_pretrained(tmp_path)
    expected = draw(load_causal_lm(tmp_path), tokenizer)
    settings = {"bos_token_id": 1, "eos_token_id": END, "pad_token_id": 0, **OWN_SETTINGS}
    (tmp_path / "generation_config.json").write_text(json.dumps(settings), encoding="utf-8")
    loaded = load_causal_lm(tmp_path)
    assert draw(loaded, tokenizer) == expected
    loaded.save_pretrained(tmp_path / "saved")
    saved = json.loads((tmp_path / "saved/generation_config.json").read_text(encoding="utf-8"))
    assert saved.keys() & OWN_SETTINGS.keys() == set() and saved["eos_token_id"] == END


@pytest.mark.parametrize("model_type", ["llama", "opt"])
def test_every_end_of_a_chat_model_ends_a_completion(
    model_type: str, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Of the model's own list, those for which the tokenizer has a special token: 8 is a word."""
    turn = copy.deepcopy(tokenizer)
    turn.add_special_tokens({"additional_special_tokens": ["<turn>"]})
    other = turn.convert_tokens_to_ids("<turn>")
    model = tiny_model(model_type, vocab_size=other + 1, word_embed_proj_dim=32)
    model.generation_config.eos_token_id = [8, other, END]
    assert end_tokens(model, turn) == [END, other] and end_tokens(model, tokenizer) == [END]
    bias = torch.zeros(other + 1)
    bias[[other, END]] = 4.0
    model.lm_head.bias = torch.nn.Parameter(bias)
    flat = [each for group in draw(model, turn, max_new_tokens=30) for each in group]
    assert {each.ids[-1] for each in flat} == {END, other} and all(each.finished for each in flat)
    assert not any({END, other} & {*each.ids[:-1]} or "<turn>" in each.text for each in flat)


def test_no_prompts_give_no_completions(tokenizer: PreTrainedTokenizerBase) -> None:
    assert greedy(tiny_model("llama"), tokenizer, [], max_new_tokens=3, batch_size=2) == []


def test_too_long_and_empty_prompts_are_named(tokenizer: PreTrainedTokenizerBase) -> None:
    model = tiny_model("gpt2")
    assert greedy(model, tokenizer, [[5] * 60], max_new_tokens=4, batch_size=1)[0].ids
    with pytest.raises(UserError, match="prompt 1 has 61 tokens, with 4 new ones more than the 64"):
        greedy(model, tokenizer, [[5], [5] * 61], max_new_tokens=4, batch_size=1)
    with pytest.raises(UserError, match="prompt 0 is empty"):
        greedy(model, tokenizer, [[]], max_new_tokens=4, batch_size=1)


# ---------------------------------------------------------------------------------------------- vLLM


class FakeLLM:
    """Reads the given folder like vLLM, and decodes greedily."""

    started: ClassVar[list[dict[str, Any]]] = []
    requests: ClassVar[list[Any]] = []

    def __init__(self, **options: Any) -> None:
        FakeLLM.started.append(options)
        self.options = options

    def generate(
        self,
        prompts: list[dict[str, Any]],
        parameters: list[Any],
        lora_request: Any,
        use_tqdm: bool,
    ) -> list[Any]:
        FakeLLM.requests.append(lora_request)
        model = AutoModelForCausalLM.from_pretrained(self.options["model"])
        if lora_request is not None:
            assert self.options["enable_lora"]
            model = PeftModel.from_pretrained(model, lora_request.path)
        model.eval()
        outputs = []
        for prompt, each in zip(prompts, parameters, strict=True):
            ids = torch.tensor([prompt["prompt_token_ids"]])
            assert ids.shape[1] + each.max_tokens <= self.options["max_model_len"]
            assert each.n == 1 or each.temperature > 0
            assert each.ignore_eos
            drawn = model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=each.max_tokens,
                do_sample=False, eos_token_id=each.stop_token_ids, pad_token_id=0,
            )  # fmt: skip
            completion = SimpleNamespace(token_ids=tuple(drawn[0, ids.shape[1] :].tolist()))
            outputs.append(SimpleNamespace(outputs=[completion] * each.n))
        return outputs


@pytest.fixture
def fake_vllm(monkeypatch: pytest.MonkeyPatch) -> type[FakeLLM]:
    root, lora, request = (ModuleType(name) for name in ("vllm", "vllm.lora", "vllm.lora.request"))
    vars(root).update(LLM=FakeLLM, SamplingParams=lambda **options: SimpleNamespace(**options))
    vars(request)["LoRARequest"] = lambda name, number, path: SimpleNamespace(
        name=name, number=number, path=path
    )
    for module in (root, lora, request):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(FakeLLM, "started", [])
    monkeypatch.setattr(FakeLLM, "requests", [])
    return FakeLLM


def base_folder(directory: Path, tokenizer: PreTrainedTokenizerBase) -> Path:
    """A folder as written by stage `base`, which points to a model beside it; and `untrained`."""
    model = tiny_model("llama")
    assert isinstance(model, PreTrainedModel)
    model.save_pretrained(directory / "model")
    tokenizer.save_pretrained(directory / "model")
    (directory / "base").mkdir()
    base = write_base(directory / "base", "path", str(directory / "model"), None)
    save_untrained(directory / "untrained", base)
    return directory / "base"


def test_without_vllm_the_engine_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(UserError, match=r"pip install 'vllm>=0\.22'") as caught:
        sampler("vllm")
    assert "\n" not in str(caught.value)
    assert sampler("transformers") is sample


def test_vllm_gets_the_current_adapter_and_agrees_with_transformers(
    fake_vllm: type[FakeLLM], tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    base = base_folder(tmp_path, tokenizer)
    lora = Lora(r=4, alpha=8, dropout=0.0, targets="auto")
    model, _ = load_generator(tmp_path / "untrained", base, trainable=True, lora=lora)
    engine = sampler("vllm")
    options = {"max_new_tokens": 6, "batch_size": 4}
    start = greedy(model, tokenizer, PROMPTS, **options, sample=engine)
    again = greedy(model, tokenizer, PROMPTS, **options, sample=engine)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    moved = greedy(model, tokenizer, PROMPTS, **options, sample=engine)
    assert start == again != moved
    assert moved == greedy(model, tokenizer, PROMPTS, **options)
    assert [request.number for request in fake_vllm.requests] == [1, 1, 2]
    (started,) = fake_vllm.started
    assert started["model"] == str(tmp_path / "model") and started["max_lora_rank"] == 8
    assert started["trust_remote_code"] is False and started["dtype"] == "float32"


def test_vllm_starts_anew_when_the_whole_model_has_changed_or_sequences_grow(
    fake_vllm: type[FakeLLM], tokenizer: PreTrainedTokenizerBase
) -> None:
    model = tiny_model("llama")
    engine = sampler("vllm")
    for tokens, starts in ((6, 1), (5, 1), (7, 2)):
        found = greedy(
            model, tokenizer, PROMPTS, max_new_tokens=tokens, batch_size=4, sample=engine
        )
        assert found == greedy(model, tokenizer, PROMPTS, max_new_tokens=tokens, batch_size=4)
        assert len(fake_vllm.started) == starts
    torch.nn.init.normal_(next(model.parameters()), std=0.5)
    found = greedy(model, tokenizer, PROMPTS, max_new_tokens=7, batch_size=4, sample=engine)
    assert found == greedy(model, tokenizer, PROMPTS, max_new_tokens=7, batch_size=4)
    assert len(fake_vllm.started) == 3 and fake_vllm.requests == [None] * 4


def test_vllm_draws_count_completions_of_each_prompt(
    fake_vllm: type[FakeLLM], tokenizer: PreTrainedTokenizerBase
) -> None:
    model, engine = tiny_model("llama"), sampler("vllm")
    for temperature in (0.0, 1.0):
        groups = engine(
            model, tokenizer, PROMPTS, temperatures=[temperature] * 3, max_new_tokens=5,
            top_p=0.9, seed=0, batch_size=8,
        )  # fmt: skip
        assert [len(group) for group in groups] == [3, 3, 3]
    mixed = engine(
        model, tokenizer, PROMPTS, temperatures=[0.0, 1.0, 0.0, 1.0], max_new_tokens=5,
        top_p=0.9, seed=0, batch_size=8,
    )  # fmt: skip
    assert [len(group) for group in mixed] == [4, 4, 4]
    assert [group[0] for group in mixed] == greedy(
        model, tokenizer, PROMPTS, max_new_tokens=5, batch_size=8
    )
    empty = greedy(model, tokenizer, [], max_new_tokens=5, batch_size=8, sample=engine)
    assert empty == []
