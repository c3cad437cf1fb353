"""Claims about the output of a running stage."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from workspace import ROOT, run, start

from posttrain.core.files import write_json

LIBRARY = """
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=8, **sizes, **heads))
    model.gradient_checkpointing_enable()
    assert model.is_gradient_checkpointing
    model.gradient_checkpointing_disable()
"""
STAGE = f"""
import warnings

from posttrain.core.stage import run
from posttrain.models import load


def main(params):
{LIBRARY}
    warnings.warn("`is_gradient` is ours", FutureWarning)
    load.logger.warning("the weights are ours")


SHOWN
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    shutil.copy2(ROOT / "params.yaml", tmp_path)
    (tmp_path / "src").symlink_to(ROOT / "src")
    (tmp_path / "stages").mkdir()
    for name in ("one", "files.json"):
        write_json(tmp_path / "data/code" / name, {})
    return tmp_path


def test_warnings_of_libraries_about_each_other_are_not_shown_and_ours_are(project: Path) -> None:
    def errors(call: str) -> str:
        (project / "stages/one.py").write_text(STAGE.replace("SHOWN", call), encoding="utf-8")
        done = run(project, "python", "stages/one.py")
        assert done.returncode == 0, done.stderr
        return done.stderr

    shown = errors("run(main)")
    assert "FutureWarning: `is_gradient` is ours" in shown and "the weights are ours" in shown
    assert "deprecated" not in shown
    assert errors("main(None)").count(" is deprecated and will be removed") == 3


ORPHAN = """
import sys, time
from posttrain.core.stage import run

def main(params):
    print("started", flush=True)
    time.sleep(8)
    print("finished", flush=True)

run(main)
"""
DVC = """
import os, subprocess, sys
environment = {**os.environ, **({"DVC_STAGE": "one@0"} if sys.argv[1] == "dvc" else {})}
subprocess.run(["/bin/sh", "-c", sys.argv[2]], env=environment)
"""


@pytest.mark.parametrize(
    ("parent", "command", "ends"),
    [
        ("dvc", "exec python stages/one.py", True),
        ("dvc", "python stages/one.py; true", True),  # below a shell or a launcher
        ("hand", "exec python stages/one.py", False),
    ],
)
def test_a_stage_ends_with_the_dvc_that_runs_it_but_not_with_a_shell(
    project: Path, parent: str, command: str, ends: bool
) -> None:
    (project / "stages/one.py").write_text(ORPHAN, encoding="utf-8")
    process = start(project, sys.executable, "-c", DVC, parent, command)
    assert process.stdout is not None and process.stdout.readline() == "started\n"
    process.kill()
    output, errors = process.communicate()  # the stage holds the pipes until it ends
    assert output == ("" if ends else "finished\n")
    assert errors.startswith("one@0: ended, because the dvc that ran it has\n") == ends


GARBAGE = """
import posttrain
import gc

before = gc.isenabled()
from posttrain.core import stage

stage.RANK = 1  # this stage's work is another process's
stage.run(print)
print(before, gc.isenabled(), gc.get_freeze_count() > 1000)
"""


def test_a_stage_looks_for_garbage_once_its_modules_are_imported(project: Path) -> None:
    (project / "stages/one.py").write_text(GARBAGE, encoding="utf-8")
    assert run(project, "python", "stages/one.py").stdout.split() == ["False", "True", "True"]
