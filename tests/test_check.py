"""A model that cannot be used is refused before any work, in one line; any other serves selector and generator alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from toys import COLOUR_TOKENIZER
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer, PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from posttrain.core.errors import UserError
from posttrain.core.params import Lora, Model
from posttrain.models import inspect
from posttrain.models.architecture import check_writer, is_causal
from posttrain.models.check import check_model
from posttrain.models.load import read_base, write_base
from posttrain.models.tokens import check_fit
from posttrain.rollouts import writer
from posttrain.rollouts.sampling import sample
from posttrain.selector import model as selector
from posttrain.selector.batch import TokenizedPool, collate

LLAMA = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
}
GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
DECODERS: dict[str, dict[str, Any]] = {
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},
    "falcon": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4},
    "gemma2": LLAMA,
    "gpt_neo": {"hidden_size": 32, "num_layers": 2, "num_heads": 4,
                "attention_types": [[["global", "local"], 1]], "max_position_embeddings": 64},
    "gptj": {**GPT, "rotary_dim": 4},
    "mamba": {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4},
    "mixtral": {**LLAMA, "num_local_experts": 4},
    "mpt": {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 64},
    "opt": {"hidden_size": 32, "word_embed_proj_dim": 32, "ffn_dim": 64, "num_hidden_layers": 2,
            "num_attention_heads": 4, "max_position_embeddings": 64},
    "phi": LLAMA,
}  # fmt: skip
ENCODERS = {"bert": LLAMA, "deberta-v2": LLAMA}
EAGER = {"bloom", "deberta-v2", "gemma2", "gpt_neo", "gptj", "mamba", "mpt"}
TEXT = {"text_config": {**LLAMA, "model_type": "llama"}}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "t5": ({"d_model": 32}, "t5 is an encoder-decoder; a decoder or an encoder is needed"),
    "bart": ({"is_encoder_decoder": False}, "bart is an encoder-decoder; "),
    "clip": ({}, "clip reads more than text; a model of text alone is needed"),
    "gemma3": ({"text_config": LLAMA}, "gemma3 reads more than text; "),
    "gemma3_text": ({**LLAMA, "use_bidirectional_attention": True}, "gemma3_text is neither a causal nor"),
    "llava": (TEXT, "llava reads more than text; "),
    "vit": ({}, "vit is neither a causal nor a masked language model"),
    "xlnet": ({"d_model": 32, "n_head": 4}, "xlnet is neither a causal nor a masked language model"),
    "bert-generation": ({}, "bert-generation is neither a causal nor"),
    "llama4_text": ({**LLAMA, "num_local_experts": 2}, "llama4_text cannot be used: transformers does not part"),
    "opt": ({"hidden_size": 32, "word_embed_proj_dim": 16, "num_attention_heads": 4},
            "opt cannot be used: its head reads states 16 wide, while its hidden_size is 32"),
    "gpt2": ({**GPT, "n_positions": 40}, "max_prompt_tokens + max_candidate_tokens = 48, but gpt2 has 40 positions"),
}  # fmt: skip
LORA = Lora(r=2, alpha=4.0, dropout=0.0, targets=["all-linear"])
BATCH = collate([TokenizedPool("a", [3, 4, 5], [[6], [7, 8]]), TokenizedPool("b", [3], [[9], [8]])])


def config_of(kind: str, sizes: dict[str, Any]) -> PreTrainedConfig:
    own = COLOUR_TOKENIZER
    ids = {"bos_token_id": own.bos_token_id, "eos_token_id": own.eos_token_id}
    size = {} if "text_config" in sizes or kind == "clip" else {"vocab_size": len(own)}
    return CONFIG_MAPPING[kind](**size, pad_token_id=own.pad_token_id, **ids, **sizes)


def entry_of(folder: Path, **changes: Any) -> Model:
    values = {"source": "path", "name": str(folder), "revision": None, "dtype": "float32"}
    lengths = {
        "max_prompt_tokens": 32,
        "max_candidate_tokens": 16,
        "batch_size": 2,
        "accumulation": 1,
    }
    return Model.model_validate(
        {**values, "operands": "literal", "lora": None, **lengths, **changes}
    )


def write(folder: Path, kind: str, sizes: dict[str, Any]) -> Path:
    torch.manual_seed(0)
    config = config_of(kind, sizes)
    (AutoModelForCausalLM if is_causal(config) else AutoModel).from_config(config).save_pretrained(
        folder
    )
    COLOUR_TOKENIZER.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("lora", [None, LORA])
@pytest.mark.parametrize(("kind", "sizes"), (DECODERS | ENCODERS).items())
def test_other_architectures_serve_both_families_or_say_why_not(
    kind: str, sizes: dict[str, Any], lora: Lora | None, tmp_path: Path
) -> None:
    weights, base = write(tmp_path / "weights", kind, sizes), tmp_path / "base"
    entry = entry_of(weights, lora=lora and lora.model_dump())
    if kind == "mamba" and lora is not None:
        with pytest.raises(UserError, match=r"^lora: .*'out_proj' is incompatible with Mamba"):
            check_model(entry)
        return
    config = check_model(entry)
    write_base(base, "path", str(weights), None)
    selector.save_untrained(tmp_path / "s", config, read_base(base), 0)
    writer.save_untrained(tmp_path / "g", read_base(base))
    chooses, _ = selector.load_selector(tmp_path / "s", base, trainable=True, lora=lora)
    output = chooses(BATCH)
    output.logits.square().mean().backward()
    chosen = chooses.config._attn_implementation
    assert torch.isfinite(output.logits).all() and chosen == ("eager" if kind in EAGER else "sdpa")
    if kind in ENCODERS:
        with pytest.raises(
            UserError, match=f"^{kind} is an encoder, which writes no text; run the"
        ):
            writer.load_generator(tmp_path / "g", base)
        return
    writes, _ = writer.load_generator(tmp_path / "g", base, trainable=True, lora=lora)
    drawn = [
        sample(
            writes, COLOUR_TOKENIZER, [[5, 6, 7], [8, 9], [10, 11, 12, 13, 14]], temperatures=[1.0] * 2, max_new_tokens=4,
            top_p=0.9, seed=0, batch_size=size,
        )
        for size in (2, 8)
    ]  # fmt: skip
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize("kind", REFUSED)
def test_a_model_that_cannot_be_used_is_refused_by_its_configuration(
    kind: str, tmp_path: Path
) -> None:
    sizes, expected = REFUSED[kind]
    config_of(kind, sizes).save_pretrained(tmp_path)
    COLOUR_TOKENIZER.save_pretrained(tmp_path)
    with pytest.raises(UserError) as caught:
        check_model(entry_of(tmp_path))
    assert str(caught.value).startswith(expected) and "\n" not in str(caught.value)
    if kind != "gpt2":  # whose entry `inspect` makes fit
        with pytest.raises(SystemExit) as left:
            inspect.main([str(tmp_path), "--params", "nothing.yaml"])
        assert str(left.value) == f"inspect: {caught.value}"


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("config.json", "{", "config.json:1:2: not valid JSON"),
        ("config.json", "{}", "cannot be loaded: "),
        ("config.json", '{"model_type": "llama", "hidden_size": "wide"}', "cannot be loaded: .* expected int, got str"),
        ("config.json", '{"model_type": "llama", "hidden_size": 30, "num_attention_heads": 4}', "cannot be loaded: "),
        ("config.json", '{"model_type": "newthing"}', "cannot be loaded: "),
        ("config.json", '{"model_type": "llama", "auto_map": {"AutoConfig": "x.Y"}, "vocab_size": 2}', "special token"),
        ("tokenizer.json", "{", "tokenizer.json:1:2: not valid JSON"),
        ("tokenizer.json", None, "its tokenizer knows no words; tokenizer.json is missing"),
    ],
)  # fmt: skip
def test_broken_files_of_a_model_are_told_in_one_line(
    name: str, content: str | None, expected: str, tmp_path: Path
) -> None:
    folder = write(tmp_path / "weights", "phi", LLAMA)
    if content is None:
        for file in folder.glob("tokenizer*"):
            file.unlink()
    else:
        (folder / name).write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=expected) as caught:
        check_model(entry_of(folder))
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)


def test_what_the_entry_asks_of_the_model_is_checked(tmp_path: Path) -> None:
    folder = write(tmp_path / "weights", "opt", DECODERS["opt"])
    lora = LORA.model_dump()
    for changes, expected in (
        ({"max_prompt_tokens": 60}, "max_prompt_tokens + max_candidate_tokens = 76, but opt has 64"),
        ({"lora": {**lora, "targets": ["q_proj", "v_prj"]}}, "lora.targets: 'v_prj' names no module of opt"),
        ({"source": "hub", "name": "owner/model", "revision": "0" * 40}, "model owner/model at revision"),
        ({"name": str(tmp_path / "nowhere")}, f"{tmp_path / 'nowhere'}: no such folder"),
    ):  # fmt: skip
        with pytest.raises(UserError) as caught:
            check_model(entry_of(folder, **changes))
        assert str(caught.value).startswith(expected)
    other = write(tmp_path / "ctrl", "ctrl", GPT)
    with pytest.raises(
        UserError, match=r"^gradient_checkpointing: ctrl does not know it; set it to"
    ):
        check_model(entry_of(other, gradient_checkpointing=True))


def test_a_tokenizer_without_an_end_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "weights", "phi", LLAMA)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.eos_token = None
    tokenizer.save_pretrained(folder)
    with pytest.raises(UserError, match="its tokenizer has no EOS token, so no answer could end"):
        check_model(entry_of(folder))


def test_a_recurrent_decoder_that_reads_pads_may_only_choose() -> None:
    with pytest.raises(
        UserError, match=r"^rwkv takes pads for text, so its completions would depend"
    ):
        check_writer(CONFIG_MAPPING["rwkv"]())


def test_questions_that_do_not_fit_are_counted_and_refused_where_none_may_be_left_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = [("a", "red", "blue"), ("b", "red " * 90, "blue"), ("c", "red", "blue " * 90)]
    told = r"^2 of 3 {} questions exceed max_prompt_tokens=30 or max_candidate_tokens=20, the first is b: prompt \d+, "
    check_fit("train", rows, COLOUR_TOKENIZER, 30, 20)
    assert capsys.readouterr().out.startswith("2 of 3 train questions exceed max_prompt_tokens=30")
    for split in ("val", "test"):
        check_fit(split, rows[:1], COLOUR_TOKENIZER, 30, 20)
        with pytest.raises(UserError, match=told.format(split)):
            check_fit(split, rows, COLOUR_TOKENIZER, 30, 20)
    with pytest.raises(
        UserError, match=r"^2 of 2 train questions exceed .*raise the limit or, where"
    ):
        check_fit("train", rows[1:], COLOUR_TOKENIZER, 30, 20)
