"""Claims about base models: loading, LoRA, and what is saved."""

from __future__ import annotations

import codecs
import gzip
import json
import os
import re
import shutil
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
from ruamel.yaml import YAML
from toys import PARAMS, ROOT, contents, tiny_config, write_model
from transformers import AutoModel, AutoModelForCausalLM, LlamaConfig

from posttrain.core import cost
from posttrain.core.errors import UserError
from posttrain.core.loop import load_trainable_state, trainable_state
from posttrain.core.params import Lora
from posttrain.models import description, hub, inspect, load
from posttrain.models.check import skeleton
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
from posttrain.selector.batch import PoolText, TokenizedPool, collate, tokenize_pools
from posttrain.selector.model import (
    Selector,
    load_reader,
    load_selector,
    save_selector,
)

PAGE = "1 | B 2009 | C 2008\n3 net revenue | 5829 | 5735\nquestion: what was it in 2009?\nanswer:"
ANSWER = '{"program": ["subtract(B3, C12)", "divide(#0, const_100)"], "answer": "0.94"}'
TEXTS = [PAGE, ANSWER] * 5
BATCH = collate([TokenizedPool("a", [3, 4, 5], [[6], [7, 8]]), TokenizedPool("b", [3], [[9], [8]])])


@pytest.fixture(scope="module")
def pocket(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base as written by its stage: base.json, which points to a saved small model."""
    return write_model(tmp_path_factory.mktemp("models"), TEXTS, layers=2, max_length=2048)


# ------------------------------------------------------------------------------------------ loading


def test_what_a_loaded_model_reads_is_counted(
    pocket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(cost.READ, "tokens", 0)
    model = load_causal_lm(pocket)
    adapted = add_lora(model, 4, 8, 0.0, "auto", "CAUSAL_LM")
    ids = torch.tensor([[1, 2, 3], [4, 5, 6]])
    adapted(input_ids=ids)
    model.base_model(ids[:, :1])
    assert cost.READ["tokens"] == 8


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


def test_a_broken_file_of_a_model_is_named_in_one_line(pocket: Path, tmp_path: Path) -> None:
    """Wherever transformers and tokenizers fail, and with whatever error."""
    reads = {
        "config.json": load_config,
        "generation_config.json": load_causal_lm,
        "tokenizer.json": load_tokenizer,
        "tokenizer_config.json": load_tokenizer,
        "special_tokens_map.json": load_tokenizer,
        "added_tokens.json": load_tokenizer,
    }
    deep, digits = b'{"a": ' + b"[" * 100_000, b'{"a": ' + b"9" * 5000 + b"}"
    for name, read in reads.items():
        for content, expected in (
            (b"[1]", ": expected a JSON object, found list"),
            (b"null", ": expected a JSON object, found NoneType"),
            (deep, ": lists or objects are nested too deeply"),
            (digits, ": a number has more than 4300 digits"),
            (b'{"a": ', ":1:7: not valid JSON"),
            (b"", ":1:1: not valid JSON"),
            (b'{"a": "\xe9"}', ":1: not UTF-8 text (byte 7 of the file)"),
            (gzip.compress(b"{}"), ": not UTF-8 text but gzip"),
            (codecs.BOM_UTF8 + b"{}", ": starts with a byte order mark"),
        ):
            if name == "generation_config.json" and content[:1] not in (b"[", b"n"):
                continue  # transformers takes its defaults
            folder = tmp_path / "model"
            shutil.copytree(pocket.parent / "weights", folder, dirs_exist_ok=True)
            (folder / name).write_bytes(content)
            with pytest.raises(UserError) as caught:
                read(folder)
            assert str(caught.value).startswith(f"{folder / name}{expected}"), (name, content[:9])
            assert "\n" not in str(caught.value)
            shutil.rmtree(folder)


def test_a_tokenizer_file_with_other_content_is_one_line(pocket: Path, tmp_path: Path) -> None:
    """tokenizers raises Exception itself, transformers a KeyError."""
    shutil.copytree(pocket.parent / "weights", tmp_path / "model")
    for content in ("{}", '{"version": "1.0", "added_tokens": [], "model": {"type": "x"}}'):
        (tmp_path / "model" / "tokenizer.json").write_text(content, encoding="utf-8")
        with pytest.raises(UserError, match="model cannot be loaded: ") as caught:
            load_tokenizer(tmp_path / "model")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("beside", [[], ["config.json"]])
def test_gguf_is_named_where_a_folder_has_nothing_else(beside: list[str], tmp_path: Path) -> None:
    for name in ["weights.gguf", *beside]:
        (tmp_path / name).write_text("{}", encoding="utf-8")
    read = load.hash_weights if beside else locate
    for path, function in ((tmp_path, read), (tmp_path / "weights.gguf", locate)):
        with pytest.raises(UserError, match=rf"{path}: .*stage base converts a GGUF file"):
            function(path)


def test_a_folder_without_a_model_and_one_with_broken_weights_are_named(
    pocket: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="holds neither"):
        load_backbone(tmp_path)
    broken = tmp_path / "broken"
    broken.mkdir()
    for name, content in contents(pocket.parent / "weights").items():
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
    check_lengths(tiny_config("gpt2"), 40, 24)
    with pytest.raises(UserError, match="lower max_prompt_tokens to 39"):
        check_lengths(tiny_config("gpt2"), 40, 25)


# --------------------------------------------------------------------------------------------- LoRA


@pytest.mark.parametrize(
    ("model_type", "target"),
    [("llama", "down_proj"), ("qwen3", "q_proj"), ("gpt2", "c_attn"), ("bert", "query")],
)
def test_auto_targets_exist_and_only_the_adapters_train(model_type: str, target: str) -> None:
    model = AutoModel.from_config(tiny_config(model_type))
    assert target in lora_targets(model.config)
    adapted = add_lora(model, r=2, alpha=4, dropout=0.0, targets="auto")
    trainable = [name for name, p in adapted.named_parameters() if p.requires_grad]
    assert trainable and all("lora_" in name for name in trainable)
    assert {t for t in lora_targets(model.config) if any(f".{t}." in n for n in trainable)} == set(
        lora_targets(model.config)
    )


def test_an_adapter_starts_as_the_identity() -> None:
    model = AutoModel.from_config(tiny_config("gpt2")).eval()
    ids = torch.tensor([[3, 4, 5]])
    before = model(input_ids=ids).last_hidden_state
    after = add_lora(model, 2, 4, 0.0, "auto").eval()(input_ids=ids).last_hidden_state
    assert torch.allclose(before, after, atol=1e-6)


def test_an_architecture_that_auto_does_not_know_is_named() -> None:
    config = LlamaConfig()
    config.model_type = "newthing"
    with pytest.raises(UserError, match=r"'newthing'.*all-linear"):
        lora_targets(config)


LLAMA_LAYERS = "down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj"


@pytest.mark.parametrize(
    ("model_type", "targets", "expected"),
    [
        ("llama", ["q_proj", "v_prj"], "'v_prj' names no module of llama; did you mean 'v_proj'?; its linear layers are "),
        ("llama", ["q_proj", "query_key_value"], "'query_key_value' names no module of llama; its linear layers are "),
        ("llama", ["q_proj", "lm_head"], "'lm_head' names the language-model head of llama, which gets no adapter"),
        ("llama", ["embed_tokens"], "'embed_tokens' names a layer of kind Embedding of llama, which gets no adapter"),
        ("llama", ["input_layernorm"], "'input_layernorm' names a layer of kind LlamaRMSNorm of llama, which"),
        ("llama", ["mlp"], "'mlp' names a layer of kind LlamaMLP of llama, which"),
        ("llama", ["[qv]_proj"], "'[qv]_proj' names no module of llama"),
        ("gpt2", ["c_attn", "q_proj"], "did you mean 'c_proj'?; its linear layers are c_attn, c_fc, c_proj"),
        ("gpt2", ["wte"], "'wte' names a layer of kind Embedding of gpt2"),
        ("gpt2", ["lm_head"], "'lm_head' names the language-model head of gpt2"),
        ("gpt_neox", ["lm_head"], "'lm_head' names the language-model head of gpt_neox"),
        ("bert", ["query", "q_proj"], "'q_proj' names no module of bert; its linear layers are dense, key, query, value"),
        ("bert", ["LayerNorm"], "'LayerNorm' names a layer of kind LayerNorm of bert"),
        ("mixtral", ["w1"], "'w1' names no module of mixtral"),
        ("mixtral", ["gate_up_proj"], "'gate_up_proj' names a tensor in no layer of its own of mixtral"),
        ("mamba", ["all-linear"], "Module 'out_proj' is incompatible with Mamba"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("tied", [True, False])
def test_a_target_that_cannot_be_adapted_is_named(
    model_type: str, targets: list[str], expected: str, tied: bool
) -> None:
    config = tiny_config(model_type, tie_word_embeddings=tied)
    lora = Lora(r=2, alpha=4.0, dropout=0.0, targets=targets)
    with pytest.raises(UserError) as caught:
        add_lora(skeleton(config), **lora.model_dump())
    message = str(caught.value)
    assert expected in message and message.startswith("lora") and "\n" not in message


@pytest.mark.parametrize(
    ("model_type", "targets", "adapted"),
    [
        ("llama", ["self_attn.q_proj", "layers.1.mlp.down_proj"], {"q_proj", "down_proj"}),
        ("llama", ["all-linear"], set(LLAMA_LAYERS.split(", "))),
        ("gpt2", ["all-linear"], {"c_attn", "c_fc", "c_proj"}),
        ("bert", ["dense"], {"dense"}),
    ],
)
def test_a_target_is_the_end_of_a_name_or_every_linear_layer(
    model_type: str, targets: list[str], adapted: set[str]
) -> None:
    model = add_lora(skeleton(tiny_config(model_type)), 2, 4, 0.0, targets)
    trained = [n.split(".lora_")[0] for n, p in model.named_parameters() if p.requires_grad]
    assert {name.rsplit(".", 1)[-1] for name in trained} == adapted
    assert sum("down_proj" in name for name in trained) == 2 * targets.count(
        "layers.1.mlp.down_proj"
    ) + 4 * (targets == ["all-linear"] and model_type == "llama")
    config = model.peft_config["default"]
    assert config.fan_in_fan_out == (model_type == "gpt2")


# ----------------------------------------------------------------------------------------- selector


@pytest.mark.parametrize("lora", [True, False])
def test_a_saved_selector_gives_the_same_logits_and_the_same_bytes(
    pocket: Path, tmp_path: Path, lora: bool
) -> None:
    torch.manual_seed(0)
    backbone: Any = load_reader(pocket, "float32")
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
    one = contents(tmp_path / "one")
    assert one == contents(tmp_path / "two")
    assert ("adapter/adapter_config.json" in one) == lora
    trainable = {name for name, p in loaded.named_parameters() if p.requires_grad}
    assert trainable == {name for name, p in selector.named_parameters() if p.requires_grad}


def test_a_selector_on_another_base_or_without_its_head_is_refused(
    pocket: Path, tmp_path: Path
) -> None:
    selector = Selector(load_reader(pocket, "float32"))
    base = json.loads((pocket / "base.json").read_text())
    save_selector(tmp_path / "s", selector, base | {"sha256": {"model.safetensors": "0" * 64}}, {})
    with pytest.raises(UserError, match="weights 000000000000, but"):
        load_selector(tmp_path / "s", pocket)
    settings = base["settings"] | {"tokenizer.json": "0" * 64}
    save_selector(tmp_path / "u", selector, base | {"settings": settings}, {})
    with pytest.raises(UserError, match=r"base holds the same with another tokenizer\.json$"):
        load_selector(tmp_path / "u", pocket)
    save_selector(tmp_path / "t", selector, base, {})
    (tmp_path / "t" / "head.safetensors").write_bytes(b"short")
    with pytest.raises(UserError, match="cannot load the selector"):
        load_selector(tmp_path / "t", pocket)


def test_trainable_state_brings_back_a_selector(pocket: Path) -> None:
    selector = Selector(add_lora(load_reader(pocket, "float32"), 2, 4, 0.0, "auto")).eval()
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


# ------------------------------------------------------------------------------------------ inspect


def test_counts_without_weights_equal_those_of_the_real_model() -> None:
    config = tiny_config("llama")
    model = AutoModelForCausalLM.from_config(config)
    counts = description.count_parameters(
        config, Lora(r=4, alpha=8.0, dropout=0.0, targets=["q_proj"])
    )
    assert counts.backbone == sum(p.numel() for p in model.parameters())
    # Per layer A is (4, 16) and B is (16, 4).
    assert counts.adapters == 2 * (4 * 16 + 16 * 4)
    assert counts.heads == sum(
        p.numel() for n, p in Selector(model).named_parameters() if not n.startswith("backbone.")
    )


def test_a_preset_is_described_at_the_memory_that_is_given(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    inspect.main(["pocket", "--memory", "0.4"])
    text = capsys.readouterr().out
    assert "MiB for a pass of DPO over 1 pair; in sampling, 1.12 GiB for 128 answers" in text
    assert "for 1 question of 1024 + 8 x 512 tokens" in text and "accumulation: 4" in text
    with pytest.raises(SystemExit, match=r"^inspect: pretrain/pocket: does not fit 0.01 GiB; "):
        inspect.main(["pocket", "--memory", "0.01"])


def test_a_local_model_is_described_with_an_entry_that_the_schema_accepts(
    pocket: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inspect.main([str(pocket.parent / "weights"), "--params", "nothing.yaml"])
    text = capsys.readouterr().out
    assert "llama, 2 layers, width 16" in text and "targets: auto}" in text
    assert "source: path" in text and "max_prompt_tokens: 1792" in text


def test_the_key_of_a_proposed_entry_is_not_one_that_is_there() -> None:
    assert inspect.free_key("pocket", {}) == "pocket"
    assert inspect.free_key("pocket", {"pocket", "pocket-2"}) == "pocket-3"


@pytest.mark.parametrize("gib", [40, 24, 4, 2])
def test_the_proposed_entry_fits_the_memory_that_is_given(gib: float) -> None:
    """A model of the size of SmolLM2-135M."""
    sizes = {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "head_dim": 64}
    heads = {"num_attention_heads": 9, "num_key_value_heads": 3, "max_position_embeddings": 8192}
    config = LlamaConfig(vocab_size=49152, **sizes, **heads, tie_word_embeddings=True)
    first = description.propose_entry(config, inspect.named("a/b", None, None), 16, "bfloat16")
    entry = description.fit_memory(config, first, 8, gib)
    counts = description.count_parameters(config, entry.lora)
    needed = description.estimate_memory(config, counts, entry, 8).total / 2**30
    assert gib / 8 < needed < gib
    assert entry.batch_size * entry.accumulation == first.batch_size * first.accumulation
    assert (entry == first) == (gib >= 24)
    with pytest.raises(UserError, match=r"^a/b: does not fit 0.1 GiB; one question of 256 \+ 8 x"):
        description.fit_memory(config, first, 8, 0.1)


def test_options_for_less_memory_are_in_the_entry_and_in_the_estimate() -> None:
    entry = PARAMS.models["llama-3-2-1b"]
    config = tiny_config("llama")
    counts = description.count_parameters(config, entry.lora)
    plain = description.estimate_memory(config, counts, entry, 8)
    assert "quantization" not in description.as_yaml("one", entry)
    changes = {"gradient_checkpointing": True, "quantization": "4bit"}
    small = entry.model_copy(update=changes)
    text = description.as_yaml("one", small)
    assert "gradient_checkpointing: true\n" in text and "quantization: 4bit\n" in text
    assert YAML(typ="safe").load(text)["one"] == small.model_dump(exclude_defaults=True)
    estimate = description.estimate_memory(config, counts, small, 8)
    linear = sum(
        module.weight.numel()
        for name, module in AutoModelForCausalLM.from_config(config).named_modules()
        if isinstance(module, torch.nn.Linear) and name != "lm_head"
    )
    assert counts.linear == linear
    assert plain.weights - estimate.weights == pytest.approx(linear * (2 - 0.52), abs=1)
    assert (plain.gradients, plain.optimizer) == (estimate.gradients, estimate.optimizer)
    deep = tiny_config("llama")
    deep.num_hidden_layers = 80
    counts = description.count_parameters(deep, entry.lora)
    whole, part = (description.estimate_memory(deep, counts, entry, 8, count) for count in (1, 8))
    share = 1 / 8 + 4 / 80
    assert whole.weights - part.weights == pytest.approx(counts.linear * 2 * (1 - share), abs=1)


@pytest.mark.parametrize(
    ("gpu", "expected"),
    [
        (False, "quantization: 4bit needs a GPU, and there is none; set it to null"),
        (True, "quantization: 4bit needs a package: pip install bitsandbytes"),
    ],
)
def test_quantised_weights_without_gpu_or_package_are_refused_in_one_line(
    gpu: bool, expected: str, pocket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(load, "find_spec", lambda name: None)
    with pytest.raises(UserError) as caught:
        load_reader(pocket, "bfloat16", "4bit")
    assert str(caught.value) == expected


class _Nowhere(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self.send_error(503)


def test_an_answer_of_any_kind_comes_from_a_hub_that_can_be_reached(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_Nowhere, "log_message", lambda *arguments: None)
    server = HTTPServer(("127.0.0.1", 0), _Nowhere)
    thread = Thread(target=server.handle_request)
    thread.start()
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    assert hub.unreachable() is None
    thread.join()
    server.server_close()
    assert "does not answer (" in str(hub.unreachable())
    monkeypatch.setattr(hub, "TIMEOUT", 0.1)
    monkeypatch.setattr(hub, "_ask", lambda endpoint: time.sleep(1))
    assert "does not answer (nothing for 0.1 s)" in str(hub.unreachable())
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert hub.unreachable() == "HF_HUB_OFFLINE is set"


def test_a_hub_name_without_network_is_told_without_waiting_and_without_torch(
    tmp_path: Path,
) -> None:
    script = (
        "import sys\nfrom posttrain.models import inspect\n"
        "try:\n    inspect.main(['owner/model'])\n"
        "finally:\n    print('torch' in sys.modules, 'transformers' in sys.modules)\n"
    )
    environment = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
    environment |= {"PYTHONPATH": str(ROOT / "src"), "HF_ENDPOINT": "http://127.0.0.1:9"}
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=environment | {"HF_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert hub.TIMEOUT <= 2
    assert done.returncode == 1 and done.stdout == "False False\n"
    assert re.fullmatch(
        r"inspect: model owner/model cannot be reached: .* local folder\n", done.stderr
    )


def test_a_model_in_the_cache_is_described_without_network(
    pocket: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "0" * 40
    snapshot = tmp_path / "models--owner--model" / "snapshots" / commit
    snapshot.mkdir(parents=True)
    shutil.copy2(pocket.parent / "weights" / "config.json", snapshot)
    (tmp_path / "models--owner--model" / "refs").mkdir()
    (tmp_path / "models--owner--model" / "refs" / "main").write_text(commit, encoding="utf-8")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(hub, "unreachable", lambda: "no network")
    assert hub.check("owner/model", None) and hub.check("owner/model", commit)
    assert load_config("owner/model", cached_only=True).model_type == "llama"
    assert not hub.check(str(tmp_path), None)
    with pytest.raises(UserError, match="owner/other at revision abc cannot be reached: no netw"):
        hub.check("owner/other", "abc")


def test_a_misspelt_preset_gets_a_suggestion(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(hub, "unreachable", lambda: "no network")
    with pytest.raises(SystemExit, match="llama-3-2-1b"):
        inspect.main(["lama-3-2-1b", "--params", str(ROOT / "params.yaml")])


def test_a_folder_with_an_adapter_is_no_base(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match="adapter"):
        locate(tmp_path)
