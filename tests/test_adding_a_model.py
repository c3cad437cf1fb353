"""The steps of docs/adding-a-model.md, followed as written."""

from __future__ import annotations

import re
from pathlib import Path

from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM
from workspace import ROOT, copy_project, must, set_params

from posttrain.core.params import load_params

PAGE = (ROOT / "docs/adding-a-model.md").read_text(encoding="utf-8")


def test_the_printed_entry_makes_a_model_that_the_pipeline_loads(tmp_path: Path) -> None:
    project, folder = copy_project(tmp_path / "project", {}), tmp_path / "my-model"
    tokenizer = AutoTokenizer.from_pretrained(ROOT / "pretrain/pocket")
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    Qwen2ForCausalLM(Qwen2Config(vocab_size=len(tokenizer), **sizes, **heads)).save_pretrained(
        folder
    )
    tokenizer.save_pretrained(folder)

    (command,) = re.findall(r"^python (.* )MODEL$", PAGE, re.M)
    printed = must(project, "python", *command.split(), str(folder))
    entry = printed.split("Entry for `models` in params.yaml:\n")[1]
    (key,) = re.findall(r"^  (\S+):$", entry, re.M)
    params = project / "params.yaml"
    text = params.read_text(encoding="utf-8")
    params.write_text(text.replace("\nmodels:\n", f"\nmodels:\n{entry}"), encoding="utf-8")
    set_params(project, {"model": key})

    must(project, "python", "stages/code.py")
    must(project, "python", "stages/base.py")
    assert load_params(params).selected_model.name == str(folder)
    assert str(folder) in (project / "models/base/base.json").read_text(encoding="utf-8")


def test_the_files_that_the_page_names_hold_what_it_says() -> None:
    tables = re.findall(r"`([A-Z_]+)` in\s+`(src/\S+?)`", PAGE)
    assert tables
    for name, path in tables:
        assert f"\n{name} = " in (ROOT / path).read_text(encoding="utf-8")
    for path in re.findall(r"`(src/\S+?)`|(tests/\S+?)`", PAGE):
        assert (ROOT / "".join(path)).is_file()
