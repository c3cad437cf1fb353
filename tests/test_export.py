"""Claims about an exported policy: it equals the pipeline's model, and it does not need the pipeline."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
import torch
from pretrain.model import build_model, llama_config, save_pocket, train_tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer, BertConfig, BertModel
from workspace import ROOT

from posttrain import export
from posttrain.core.code import CODE
from posttrain.core.errors import UserError
from posttrain.core.files import hash_path, sha256_file
from posttrain.core.manifest import PACKAGES
from posttrain.core.params import Lora
from posttrain.models.load import load_tokenizer, read_base, write_base
from posttrain.models.lora import add_lora
from posttrain.models.tokens import tokenize_prompts
from posttrain.report.card import code, fenced
from posttrain.rollouts.sampling import greedy
from posttrain.rollouts.writer import load_generator, save_generator, save_untrained
from posttrain.selector.batch import PoolText, tokenize_pools
from posttrain.selector.model import Selector, load_reader, load_selector, save_selector
from posttrain.selector.predict import score_pools
from posttrain.selector.scorer import Scorer

PAGE = (ROOT / "docs/export.md").read_text(encoding="utf-8")
LORA = Lora(r=4, alpha=8, dropout=0.0, targets="auto")
PROMPT = "1 | B 2009 | C 2008\n2 net `` revenue``` | 5829 | 5735\nquestion: it's \\n what?\nanswer:"
CANDIDATES = ['{"answer": "0.94"}', "5829", "a longer one: `5829 - 5735` <eos>", "5829"]
OUT = Path("out")


def make_base(kind: str = "llama") -> None:
    """models/base of the working directory, which points to a small model with random weights."""
    tokenizer = train_tokenizer([PROMPT] * 5, 512)
    model: Any = build_model(llama_config(len(tokenizer), 32, 2, 4, 48), 0)
    if kind == "bert":
        sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
        model = BertModel(BertConfig(vocab_size=len(tokenizer), num_attention_heads=4, **sizes))
    save_pocket(Path("small"), model, tokenizer)
    Path("small/README.md").write_text("---\nlicense: apache-2.0\n---\n# small\n", encoding="utf-8")
    Path("small/LICENSE").write_text("Apache", encoding="utf-8")
    Path("models/base").mkdir(parents=True)
    write_base(Path("models/base"), "path", "small", None)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with data only, in the pipeline's folders."""
    monkeypatch.chdir(tmp_path)
    shutil.copy2(ROOT / "params.yaml", "params.yaml")
    example = {"id": "a", "prompts": {"direct": PROMPT}, "target": '{"answer": "5829"}'}
    offered = [{"text": text, "kind": "plausible"} for text in CANDIDATES]
    offered[1]["kind"] = "gold"
    for path, row in (
        ("data/examples/train.jsonl", example),
        ("data/examples/test.jsonl", example),
        ("data/pools/test.jsonl", {"id": "a", "prompt": PROMPT, "candidates": offered}),
    ):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(json.dumps(row) + "\n", encoding="utf-8")
    return tmp_path


def disturb(model: torch.nn.Module) -> None:
    """Take one large step on the trainable weights."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)


def write_manifest(directory: Path, stage: str, method: str, **model: Any) -> None:
    entry = {"name": "small", "dtype": "float32", "quantization": None, "max_candidate_tokens": 24}
    inputs = {name: hash_path(Path(name)) for name in ("data/examples/train.jsonl", "models/base")}
    manifest = {
        "stage": stage,
        "policy": method,
        "seed": 0,
        "params": {
            "model": entry | model,
            f"{stage.split('_')[0]}.{method}": {"learning_rate": 0.125},
        },
        "inputs": inputs,
        "code": "0" * 64,
        "packages": dict.fromkeys(PACKAGES, "9.9"),
    }
    (directory / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


def make_generator(lora: Lora | None, dtype: Any = "float32", **model: Any) -> Path:
    make_base()
    base, directory = Path("models/base"), Path("models/generator/grpo/0")
    torch.manual_seed(0)
    untrained = Path("models/generator/base/0")
    save_untrained(untrained, read_base(base))
    generator, _ = load_generator(untrained, base, dtype, trainable=True, lora=lora)
    disturb(generator)
    save_generator(directory, generator, read_base(base), {})
    write_manifest(directory, "generator_rl/grpo", "grpo", dtype=dtype, **model)
    return directory


def make_selector(lora: Lora | None, kind: str = "llama") -> Path:
    make_base(kind)
    base, directory = Path("models/base"), Path("models/selector/ppo/0")
    torch.manual_seed(0)
    backbone: Any = load_reader(base, "float32")
    if lora is not None:
        backbone = add_lora(backbone, **lora.model_dump())
    selector = Selector(backbone)
    disturb(selector)
    save_selector(directory, selector, read_base(base), {})
    write_manifest(directory, "selector_rl/ppo", "ppo")
    return directory


def export_to_out(directory: Path) -> None:
    export.main([str(directory), str(OUT)])


def without_posttrain(folder: Path, snippet: str) -> str:
    """Output of the snippet, run in `folder` by a process that cannot import this package."""
    blocked = f"import sys\nsys.modules['posttrain'] = None\nsys.path.insert(0, '')\n{snippet}"
    done = subprocess.run(
        [sys.executable, "-c", blocked],
        cwd=folder,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def blocks(text: str, language: str) -> list[str]:
    """The contents of the code blocks in this language, as Markdown ends them."""
    found, lines = [], iter(text.splitlines())
    for line in lines:
        if opening := re.fullmatch(r"(`{3,})(\w*)", line):
            inside = list(takewhile(lambda each, fence=opening[1]: each != fence, lines))
            found.append((opening[2], "\n".join(inside)))
    return [content for kind, content in found if kind == language]


# ---------------------------------------------------------------------------------------- generator


@pytest.mark.parametrize("lora", [LORA, None])
def test_a_generator_continues_as_the_pipelines_own_model(lora: Lora | None, project: Path) -> None:
    directory = make_generator(lora)
    export_to_out(directory)
    own, _ = load_generator(directory, Path("models/base"))
    tokenizer = load_tokenizer(Path("models/base"))
    (prompt,) = tokenize_prompts([PROMPT], tokenizer)
    (expected,) = greedy(own, tokenizer, [prompt], max_new_tokens=24, batch_size=1)

    model = AutoModelForCausalLM.from_pretrained(OUT)
    exported = AutoTokenizer.from_pretrained(OUT)
    messages = [{"role": "user", "content": PROMPT}]
    asked = exported.apply_chat_template(
        messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    assert asked["input_ids"].tolist() == [prompt] == exported([PROMPT])["input_ids"]
    named = f"{PROMPT} <eos> is <pad>, not <s>"
    asked_named = exported.apply_chat_template(
        [{"role": "user", "content": named}],
        add_generation_prompt=True,
        return_dict=True,
        sanitize_control_tokens=True,
    )
    assert exported.decode(asked_named["input_ids"]) == f"<bos>{named}"
    assert not {0, 2} & {*asked_named["input_ids"]}
    ids = model.generate(**asked, max_new_tokens=24, do_sample=False)
    assert ids[0, len(prompt) :].tolist() == expected.ids
    with torch.no_grad():
        logits, reference = model(input_ids=ids).logits, own(input_ids=ids).logits
    assert torch.allclose(logits, reference, atol=1e-4)
    assert torch.equal(logits, reference) or lora is not None

    names = {path.name for path in OUT.iterdir()}
    assert [name for name in names if "model" in name] == ["model.safetensors"]
    assert names >= {"config.json", "tokenizer.json", "chat_template.jinja", "README.md", "LICENSE"}
    assert len({path.stat().st_mode for path in OUT.iterdir()}) == 1
    assert model.config.use_cache


def test_the_card_of_a_generator_prints_its_answer_in_a_process_without_this_package(
    project: Path,
) -> None:
    export_to_out(make_generator(LORA))
    card = (OUT / "README.md").read_text(encoding="utf-8")
    (snippet,) = blocks(card, "python")
    answer, gold, _ = blocks(card, "")
    assert without_posttrain(OUT, snippet).strip() == answer.strip()
    assert gold == '{"answer": "5829"}'


def test_the_dtype_of_the_training_is_kept_and_adapters_are_rounded_once(project: Path) -> None:
    directory = make_generator(LORA, dtype="bfloat16")
    export_to_out(directory)
    model = AutoModelForCausalLM.from_pretrained(OUT)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    own: Any
    own, _ = load_generator(directory, Path("models/base"), "bfloat16")
    layer = own.base_model.model.model.layers[0].mlp.up_proj
    exact = layer.base_layer.weight.float() + layer.get_delta_weight("default").float()
    assert torch.equal(model.model.layers[0].mlp.up_proj.weight, exact.bfloat16())


def test_a_template_that_cannot_be_followed_is_refused_by_it(project: Path) -> None:
    export_to_out(make_generator(None))
    tokenizer = AutoTokenizer.from_pretrained(OUT)
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    assert tokenizer.apply_chat_template(turns, tokenize=False) == "<bos>q\na<eos>"
    with pytest.raises(Exception, match="without system"):
        tokenizer.apply_chat_template([{"role": "system", "content": "be kind"}], tokenize=False)


def test_the_template_adds_what_the_tokenizer_adds_and_no_more() -> None:
    tokenizer = train_tokenizer([PROMPT], 300)
    for expected in ("<bos>q", "q"):
        tokenizer.chat_template = export.chat_template(tokenizer)
        turn = [{"role": "user", "content": "q"}]
        assert tokenizer.apply_chat_template(turn, tokenize=False) == expected
        tokenizer.backend_tokenizer.post_processor = None


def test_generation_ends_where_the_pipeline_ends_an_answer(project: Path) -> None:
    directory = make_generator(None)
    path = directory / "model" / "generation_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    for given, expected in ((7, 2), ([7, 2], [7, 2]), (None, 2)):
        shutil.rmtree(OUT, ignore_errors=True)
        path.write_text(json.dumps(settings | {"eos_token_id": given}), encoding="utf-8")
        export_to_out(directory)
        written = json.loads((OUT / "generation_config.json").read_text(encoding="utf-8"))
        assert written["eos_token_id"] == expected and written["pad_token_id"] == 0


# ----------------------------------------------------------------------------------------- selector


@pytest.mark.parametrize(("lora", "kind"), [(LORA, "llama"), (None, "llama"), (LORA, "bert")])
def test_a_selector_scores_as_the_pipelines_own(
    lora: Lora | None, kind: str, project: Path
) -> None:
    directory = make_selector(lora, kind)
    export_to_out(directory)
    own, _ = load_selector(directory, Path("models/base"))
    tokenizer = load_tokenizer(Path("models/base"))
    pools, _ = tokenize_pools([PoolText("a", PROMPT, CANDIDATES)], tokenizer, 999, 999)
    expected, _ = score_pools(own, pools, 1, "cpu")
    for batch_size in (1, 3, 8):
        scores = Scorer(OUT, batch_size=batch_size)(PROMPT, CANDIDATES)
        assert torch.allclose(torch.tensor(scores), expected[0], atol=1e-4)
    assert len(set(scores)) == 3 and Scorer(OUT)(PROMPT, []) == []
    with pytest.raises(ValueError, match="tokens, the model has"):
        Scorer(OUT)(PROMPT * 200, ["1"])
    assert not (OUT / "chat_template.jinja").exists()


def test_the_card_of_a_selector_prints_its_scores_in_a_process_without_this_package(
    project: Path,
) -> None:
    export_to_out(make_selector(None))
    card = (OUT / "README.md").read_text(encoding="utf-8")
    (snippet,) = blocks(card, "python")
    scores, gold, _ = blocks(card, "")
    assert without_posttrain(OUT, snippet).rstrip() == scores
    assert gold == "5829" and CANDIDATES[2] in scores


# ----------------------------------------------------------------------------------------- the card


def evaluate(directory: Path, figures: Mapping[str, Any]) -> None:
    """Write the figures of an evaluation of the present weights."""
    metrics, manifest = export.evaluation("generator", "grpo", 0)
    for path, content in (
        (metrics, figures),
        (manifest, {"inputs": {str(directory): hash_path(directory)}}),
    ):
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(content), encoding="utf-8")


def test_the_card_tells_data_method_settings_figures_and_licence(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = make_generator(LORA)
    evaluate(directory, {"test": {"accuracy": 0.625, "failures": {"x": 3}}, "val": {"reward": 1}})
    export_to_out(directory)
    card = (OUT / "README.md").read_text(encoding="utf-8")
    assert card.startswith('---\nlibrary_name: "transformers"\npipeline_tag: "text-generation"\n')
    assert 'license: "apache-2.0"\n' in card and "licence (`apache-2.0`) holds" in card
    assert "trained by GRPO from `small` on `sample`" in card and "seed 0" in card
    assert "| measure | val | test |" in card and "| `accuracy` |  | 0.625 |" in card
    assert "failures" not in card and '"learning_rate": 0.125' in card
    assert "not in a git repository" in card and '"unseen": 0.5' in card
    assert str(project) not in card and "tells no" not in capsys.readouterr().out


def test_what_the_card_cannot_vouch_for_it_does_not_tell(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = make_generator(LORA)
    evaluate(directory, {"test": {"accuracy": 0.625}})
    (directory / "generator.json").write_text(
        (directory / "generator.json").read_text(encoding="utf-8") + " ", encoding="utf-8"
    )
    Path("data/examples/train.jsonl").write_text("{}\n", encoding="utf-8")
    export_to_out(directory)
    card, printed = (OUT / "README.md").read_text(encoding="utf-8"), capsys.readouterr().out
    assert "0.625" not in card and "`sample`" not in card
    assert "tells no figures: metrics/generator_evaluate/grpo/0.json is of other weights" in printed
    assert "no data set: data/examples/train.jsonl is not the file that it was trained" in printed


def test_a_card_without_examples_or_a_licence_says_so(project: Path) -> None:
    directory = make_generator(None)
    shutil.rmtree("data")
    Path("small/README.md").unlink()
    export_to_out(directory)
    card = (OUT / "README.md").read_text(encoding="utf-8")
    assert "This is printed" not in card and "it was not at hand here" in card
    assert "license" not in card


def test_the_commit_is_told_and_whether_its_code_trained_the_policy(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = export.read_policy(make_generator(None))
    monkeypatch.setattr(export, "_git", lambda *command: "" if "status" in command else "0" * 40)
    noted = CODE / policy.manifest["stage"]
    noted.parent.mkdir(parents=True)
    noted.write_text("the code of that time", encoding="utf-8")
    manifest = {**policy.manifest, "code": sha256_file(noted)}
    (policy.directory / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert export.find_commit(policy) == f"commit {'0' * 40}"
    noted.write_text("other code", encoding="utf-8")
    assert export.find_commit(policy).startswith("trained by other code than that of commit 000")


def test_backticks_end_neither_spans_nor_blocks() -> None:
    assert code("a `` b") == "``` a `` b ```" and code("a") == "`a`"
    assert fenced("x\n````\ny", "sh") == "`````sh\nx\n````\ny\n`````"


# ----------------------------------------------------------------------------------------- mistakes


def test_a_folder_with_something_in_it_is_left_alone(project: Path) -> None:
    directory = make_generator(None)
    OUT.mkdir()
    (OUT / "notes").write_text("mine", encoding="utf-8")
    with pytest.raises(SystemExit, match=r"^export: out: exists and is not empty"):
        export_to_out(directory)
    assert [path.name for path in OUT.iterdir()] == ["notes"]
    (OUT / "notes").unlink()
    export_to_out(directory)
    assert (OUT / "model.safetensors").is_file()
    with pytest.raises(SystemExit, match=r"config\.json: exists"):
        export.main([str(directory), str(OUT / "config.json")])


def test_what_no_training_stage_wrote_is_refused(project: Path) -> None:
    export_to_out(make_selector(None))
    with pytest.raises(UserError, match=r"nothing: no such folder"):
        export.read_policy(Path("nothing"))
    for other in (Path("models/base"), OUT):
        with pytest.raises(UserError, match=rf"^{other}: no policy .*generator\.json or selector"):
            export.read_policy(other)


def test_adapters_of_a_quantised_base_are_refused_with_what_to_do(project: Path) -> None:
    directory = make_generator(LORA, quantization="4bit")
    with pytest.raises(SystemExit, match=r"grpo/0: .*4bit.*grpo/0/adapter by peft.*train it again"):
        export_to_out(directory)


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda: shutil.rmtree("models/base"), "base.json: no base model here; dvc repro base"),
        (lambda: shutil.rmtree("small"), "small: no such folder"),
        (lambda: Path("small/model.safetensors").write_bytes(b"x"), "small: its weights are not"),
    ],
)
def test_a_missing_or_changed_base_is_refused(damage: Any, expected: str, project: Path) -> None:
    directory = make_generator(LORA)
    damage()
    with pytest.raises(SystemExit, match=f"^export: .*{expected}"):
        export_to_out(directory)
    assert not OUT.exists()


def test_nothing_is_left_of_an_export_that_fails(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = make_generator(None)
    Path("data/examples/test.jsonl").write_text("{}\n", encoding="utf-8")
    before = sorted(project.rglob("*"))
    with pytest.raises(SystemExit, match=r"test\.jsonl:1: no 'prompts' in this row"):
        export_to_out(directory)
    assert sorted(project.rglob("*")) == before


# ----------------------------------------------------------------------------------------- the page


def test_the_commands_and_the_code_of_the_page_run(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_generator(LORA)
    shutil.rmtree("models/base")
    shutil.rmtree("small")
    make_selector(LORA)
    (commands,) = blocks(PAGE, "sh")
    for command in commands.splitlines():
        program, arguments = command.split("posttrain.export ")
        assert program == "python -m "
        export.main(arguments.split())
    generator, selector = blocks(PAGE, "python")
    assert without_posttrain(project, generator)
    done = subprocess.run(
        [sys.executable, "-c", selector],
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert len(json.loads(done.stdout)) == 3, done.stderr
