"""With `prompt: chat`, prompts and answers are what the model's own template makes of them, in every place that reads them.

The templates are those that TRL keeps of published models, and a few for one property each.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import trl
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    LlamaConfig,
    PreTrainedTokenizerFast,
)

from posttrain import export
from posttrain.core.errors import UserError
from posttrain.core.params import Model
from posttrain.generator.data import PairText, pair_rows, prompt_completion_rows
from posttrain.generator.trl import Rollouts
from posttrain.models import chat
from posttrain.models.check import check_model
from posttrain.models.load import load_tokenizer, read_base, read_saved, write_base
from posttrain.models.tokens import (
    check_fit,
    decode_answer,
    special_ids,
    tokenize_answers,
    tokenize_observations,
    tokenize_prompts,
)
from posttrain.rollouts import writer
from posttrain.rollouts.sampling import complete, end_tokens, greedy
from posttrain.selector import model as selector
from posttrain.selector.batch import PoolText, tokenize_pools
from posttrain.selector.predict import score_pools
from posttrain.selector.scorer import Scorer

PUBLISHED = Path(trl.__file__).parent / "chat_templates"
USABLE = ["cohere", "gemma3", "llama3_2", "phi3", "qwen2_5", "qwen3", "qwen3_5_think"]
ZEPHYR = (  # of TinyLlama, without its BOS
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + eos_token + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
THINKS = (  # always: its prompt begins a thought
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{% if m['role'] == 'assistant' %}{{ '<think>\n\n</think>\n\n' }}{% endif %}{{ m['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n' }}{% endif %}"
)
SPECIAL = [
    *("<|endoftext|>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|begin_of_text|>", "<|eot_id|>"),
    *("<|start_header_id|>", "<|end_header_id|>", "<bos>", "<start_of_turn>", "<end_of_turn>", "<|user|>", "<|end|>"),
    *("<|assistant|>", "<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>", "<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>"),
    *("<BOS_TOKEN>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>"),
]  # fmt: skip
ENDS = {
    "cohere": "<|END_OF_TURN_TOKEN|>",
    "gemma3": "<end_of_turn>",
    "llama3_2": "<|eot_id|>",
    "phi3": "<|end|>",
}
STARTS = {
    "cohere": "<BOS_TOKEN>",
    "gemma3": "<bos>",
    "llama3_2": "<|begin_of_text|>",
    "zephyr": "<s>",
}
PROMPT, ANSWER = "1 | B 2009\n2 sales | 7\nquestion: sales?\nanswer:", '{"program": ["add(B2, 1)"]}'
SPLIT = (  # of Qwen and Llama 3: line breaks are one piece whatever follows them
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def template_of(name: str) -> str:
    made = {"zephyr": ZEPHYR, "thinks": THINKS}.get(name)
    return made or (PUBLISHED / f"{name}.jinja").read_text(encoding="utf-8")


def tokenizer_of(name: str) -> PreTrainedTokenizerFast:
    """A BPE over bytes with the template, as it is stored: plain until `use_template`."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=360,
        special_tokens=SPECIAL,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([PROMPT, ANSWER, "assistant\n\n"] * 3, trainer)
    tokenizer.add_tokens([AddedToken(each, normalized=False) for each in chat.THOUGHT])
    start = STARTS.get(name)
    if start is not None:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{start} $A", special_tokens=[(start, tokenizer.token_to_id(start))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=start,
        eos_token={"zephyr": "</s>", "phi3": "<|endoftext|>"}.get(
            name, ENDS.get(name, "<|im_end|>")
        ),
        pad_token="<|endoftext|>",
        chat_template=template_of(name),
    )


def chatting(name: str) -> PreTrainedTokenizerFast:
    tokenizer = tokenizer_of(name)
    chat.use_template(tokenizer, name, special_ids(tokenizer).start)
    return tokenizer


def whole(tokenizer: Any, *texts: str, **asked: Any) -> list[int]:
    """What transformers gives for a conversation."""
    roles = ("user", "assistant")
    turns = [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)]
    ids: list[int] = tokenizer.apply_chat_template(turns, return_dict=False, **asked)
    return ids


@pytest.mark.parametrize("name", [*USABLE, "zephyr"])
def test_prompt_and_answer_are_the_ids_of_the_whole_conversation(name: str) -> None:
    tokenizer = chatting(name)
    (prompt,), (answer,) = (
        tokenize_prompts([PROMPT], tokenizer),
        tokenize_answers([ANSWER], tokenizer),
    )
    own = tokenizer_of(name)  # as stored
    asked = {"date_string": "26 Jul 2024", "enable_thinking": False}
    start = [own.bos_token_id] if name == "zephyr" else []
    assert prompt == start + whole(own, PROMPT, add_generation_prompt=True, **asked)
    both = start + whole(own, PROMPT, ANSWER, **asked)
    assert both[: len(prompt) + len(answer)] == prompt + answer
    assert tokenizer.decode(both[len(prompt) + len(answer) :]).strip() in ("", "<|endoftext|>")
    end = "</s>" if name == "zephyr" else ENDS.get(name, "<|im_end|>")
    assert special_ids(tokenizer).end == answer[-1:] == [tokenizer.convert_tokens_to_ids(end)]
    assert decode_answer(answer[:-1], tokenizer) == ANSWER
    if name in STARTS:
        assert prompt[0] == tokenizer.bos_token_id and prompt.count(prompt[0]) == 1
    # The user's next turn follows a sampled answer with its end.
    (reply,) = tokenize_observations(["no"], tokenizer)
    text = tokenizer.decode(whole(tokenizer, PROMPT, ANSWER, "no", add_generation_prompt=True))
    assert text.endswith(ANSWER + end + tokenizer.decode(reply))


@pytest.mark.parametrize("name", [*USABLE, "zephyr", "thinks"])
def test_any_text_is_tokenised_as_the_template_would_and_has_no_special_tokens(name: str) -> None:
    tokenizer = chatting(name)
    own = chat.turns(tokenizer)
    assert own is not None
    strange = [f"a {token} b{token}" for token in (*SPECIAL, "<think>")]
    texts = ["x", " x\n", "\n\n", "", "é 1\n\n2", *strange]
    sanitized = [
        whole(tokenizer, text, add_generation_prompt=True, sanitize_control_tokens=True)
        for text in texts
    ]
    prompts = tokenize_prompts(texts, tokenizer)
    assert prompts == sanitized
    special = {id for id, token in tokenizer.added_tokens_decoder.items() if token.special}
    framed = [id for id in tokenize_prompts(["x"], tokenizer)[0] if id in special]
    for ids in prompts:
        assert [id for id in ids if id in special] == framed
    for text, ids in zip(texts, tokenize_answers(texts, tokenizer), strict=True):
        assert [id for id in ids if id in special] == [own.end]
        if "think" not in text:
            assert decode_answer(ids[:-1], tokenizer).strip() == text.strip()


def test_thoughts_are_no_answer() -> None:
    for name, written, answer in (
        ("qwen3", "<think>\n2 + 2\n</think>\n\n4", "4"),
        ("qwen3", "<think>\n2 + 2", ""),
        ("qwen3", "4", "4"),
        ("qwen3", "so </think> 4", "so </think> 4"),
        ("thinks", "2 + 2\n</think>\n\n4", "4"),
        ("thinks", "2 + 2", ""),
    ):
        tokenizer = chatting(name)
        ids = tokenizer.encode(written, add_special_tokens=False)
        assert decode_answer(ids, tokenizer) == answer
    (ids,) = tokenize_answers(["4"], tokenizer)
    assert (
        tokenizer.decode(ids) == "\n</think>\n\n4<|im_end|>"
        and decode_answer(ids[:-1], tokenizer) == "4"
    )


def test_every_end_that_the_model_names_ends_an_answer_and_the_turns_own_is_taught() -> None:
    tokenizer = chatting("phi3")
    end, text, other = (
        tokenizer.convert_tokens_to_ids(t) for t in ("<|end|>", "<|endoftext|>", "</s>")
    )
    for named, expected in ((None, []), (end, []), ([other, end], [other])):
        model: Any = SimpleNamespace(generation_config=GenerationConfig(eos_token_id=named))
        assert end_tokens(model, tokenizer) == [end, text, *expected]
    ids = [*tokenizer.encode("4", add_special_tokens=False), other, 7]
    assert complete(ids, [end, text, other], tokenizer).text == "4"


def test_the_day_is_always_the_same() -> None:
    tokenizer = chatting("llama3_2")
    assert "Today Date: 26 Jul 2024\n" in tokenizer.decode(tokenize_prompts(["x"], tokenizer)[0])
    tokenizer.chat_template = chat.PREFACE + "{{ strftime_now('%A, %d %B %Y %H:%M') }}"
    assert tokenizer.apply_chat_template([{}], tokenize=False) == "Friday, 26 July 2024 00:00"


# --------------------------------------------------------------------------- a model of the pipeline


def write_model(folder: Path, tokenizer: PreTrainedTokenizerFast) -> Path:
    torch.manual_seed(0)
    sizes = {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    config = LlamaConfig(
        vocab_size=len(tokenizer), **sizes, max_position_embeddings=512, initializer_range=0.3,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def entry_of(folder: Path, **changes: Any) -> Model:
    entry = {
        "source": "path", "name": str(folder), "revision": None, "dtype": "float32", "operands": "literal",
        "prompt": "chat", "lora": None, "max_prompt_tokens": 200, "max_candidate_tokens": 100, "batch_size": 2,
        "accumulation": 1,
    }  # fmt: skip
    return Model.model_validate(entry | changes)


REFUSED: dict[str, tuple[str | None, str]] = {
    "none": (None, "tokenizer has no chat template"),
    "raises": ("{{ raise_exception('no user here') }}", "chat template fails for one question: no user here"),
    "broken": ("{% for %}", "chat template fails for one question: "),
    "deepseek_r1_distill": ("", "chat template has a generation prompt that is no beginning of the whole conversation"),
    "gptoss": ("", "chat template leaves special tokens before an answer to the model"),
    "glm4moe": ("", "chat template ends an answer with no token of its own"),
    "smolvlm": ("", "chat template does not show the text of a turn as it is"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_template_cannot_do_is_told_before_any_work(name: str, tmp_path: Path) -> None:
    template, reason = REFUSED[name]
    tokenizer = tokenizer_of("qwen3")
    tokenizer.chat_template = template_of(name) if template == "" else template
    if name == "gptoss":
        tokenizer.add_special_tokens({"additional_special_tokens": ["<|channel|>", "<|message|>"]})
    folder = write_model(tmp_path, tokenizer)
    with pytest.raises(UserError) as caught:
        check_model(entry_of(folder))
    assert str(caught.value).startswith(f"{folder}: prompt: chat cannot be used, as its {reason}")
    assert str(caught.value).endswith("; set prompt: plain") and "\n" not in str(caught.value)
    check_model(entry_of(folder, prompt="plain"))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with models/base of a model that chats, as stage `base` makes it."""
    monkeypatch.chdir(tmp_path)
    folder = write_model(tmp_path / "small", tokenizer_of("qwen3"))
    check_model(entry_of(folder))
    Path("models/base").mkdir(parents=True)
    write_base(Path("models/base"), "path", "small", None, "chat")
    return tmp_path


def test_every_part_reads_the_same_ids(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer = load_tokenizer("models/base")
    (prompt,), (answer,) = (
        tokenize_prompts([PROMPT], tokenizer),
        tokenize_answers([ANSWER], tokenizer),
    )
    assert tokenizer.decode(prompt).endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    (pool,), _ = tokenize_pools([PoolText("a", PROMPT, [ANSWER, "b"])], tokenizer, 200, 100)
    assert (pool.prompt_ids, pool.candidate_ids[0]) == (prompt, answer)
    example = {"id": "a", "prompts": {"direct": PROMPT}, "target": ANSWER}
    (row,), _ = prompt_completion_rows([example], tokenizer, 200, 100)
    assert row["input_ids"] == prompt + answer and row["labels"][len(prompt) :] == answer
    (pair,), _ = pair_rows([PairText("a", PROMPT, ANSWER, "b")], tokenizer, 200, 100)
    assert (pair["prompt_ids"], pair["chosen_ids"]) == (prompt, answer)
    trainer: Any = SimpleNamespace(processing_class=tokenizer)
    assert Rollouts._tokenize_prompts(trainer, [PROMPT])[0] == [prompt]
    check_fit("val", [("a", PROMPT, ANSWER)], tokenizer, len(prompt), len(answer))
    with pytest.raises(
        UserError, match=f"the first is a: prompt {len(prompt)}, answer {len(answer)} tokens"
    ):
        check_fit("val", [("a", PROMPT, ANSWER)], tokenizer, len(prompt) - 1, len(answer))
    plain = load_tokenizer("small")
    assert tokenize_prompts([PROMPT], plain)[0] == plain.encode(PROMPT)


def test_a_policy_trained_on_chats_is_no_policy_of_the_plain_base(project: Path) -> None:
    base, folder = Path("models/base"), Path("models/generator/base/0")
    writer.save_untrained(folder, read_base(base))
    read_saved(folder / writer.GENERATOR_FILE, base)
    write_base(base, "path", "small", None)
    with pytest.raises(
        UserError, match="trained with prompt: chat, but models/base holds prompt: plain; run dvc"
    ):
        read_saved(folder / writer.GENERATOR_FILE, base)


def policy_of(family: Any, directory: Path) -> export.Policy:
    model = {**entry_of(Path("small")).model_dump(), "quantization": None}
    return export.Policy(directory, family, "sft", 0, {"params": {"model": model}})


def test_an_exported_generator_is_asked_by_the_models_own_template(project: Path) -> None:
    base, directory, folder = Path("models/base"), Path("models/generator/base/0"), project / "out"
    writer.save_untrained(directory, read_base(base))
    export.write_generator(policy_of("generator", directory), base, folder)
    own, tokenizer = writer.load_generator(directory, base)[0], load_tokenizer(base)
    prompts = tokenize_prompts([PROMPT, "a <|im_end|>"], tokenizer)
    exported = AutoTokenizer.from_pretrained(folder)
    for text, ids in zip([PROMPT, "a <|im_end|>"], prompts, strict=True):
        assert (
            whole(exported, text, add_generation_prompt=True, sanitize_control_tokens=True) == ids
        )
    (expected, _) = greedy(own, tokenizer, prompts, max_new_tokens=8, batch_size=2)
    assert export.greedy_answer(folder, PROMPT, 8) == expected.text.strip()
    settings = json.loads((folder / "generation_config.json").read_text(encoding="utf-8"))
    assert settings["eos_token_id"] == tokenizer.convert_tokens_to_ids("<|im_end|>")
    # An exported policy is a base like any other.
    again = load_tokenizer(folder, prompt="chat")
    assert tokenize_prompts([PROMPT], again) == prompts[:1]


def test_an_exported_selector_scores_as_the_pipelines_own(project: Path) -> None:
    base, directory, folder = Path("models/base"), Path("models/selector/base/0"), project / "out"
    config = check_model(entry_of(Path("small")))
    selector.save_untrained(directory, config, read_base(base), 0)
    export.write_selector(policy_of("selector", directory), base, folder)
    own, _ = selector.load_selector(directory, base)
    candidates = [ANSWER, "b ", "<|im_end|>", "so </think>"]
    pools, _ = tokenize_pools([PoolText("a", PROMPT, candidates)], load_tokenizer(base), 200, 100)
    expected, _ = score_pools(own, pools, 1, "cpu")
    assert torch.allclose(torch.tensor(Scorer(folder)(PROMPT, candidates)), expected[0], atol=1e-4)
