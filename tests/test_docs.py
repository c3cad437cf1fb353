"""README and docs: every command is accepted by its program, and run by a test or listed here with the reason why not.

A command is a line of an `sh` or `console` block, or inline code that begins with a program's name. It is parsed by the
program's own parser; its files, stages, settings and targets must be there.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import runpy
import shlex
from collections.abc import Iterator
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from dvc.cli import parse_args
from dvc.utils.hydra import apply_overrides, get_hydra_sweeps
from PIL import Image
from workspace import ROOT, copy_project, must, run

from posttrain.core.code import digest
from posttrain.core.methods import check_methods
from posttrain.core.params import FAMILIES, load_params
from posttrain.core.schema import read_yaml
from posttrain.measures.named import MEASURES

PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
}
RESULTS = sorted((ROOT / "docs/results").glob("*/params.yaml"))
PROGRAMS = "accelerate|cp|dvc|git|make|pytest|python|tensorboard|touch"
INLINE = re.compile(rf"`((?:{PROGRAMS}) [^`]+)`")
# Words that stand for something of the reader's, and what is put there to parse a command.
PLACEHOLDERS = {"KEY": "pocket", "MODEL": "pocket", "EXPERIMENT": "lousy-link", "BRANCH": "kept"}

# ------------------------------------------------------------------------------- which test runs it, or why none does

WHOLE_PAGES = {  # every command of the page
    "docs/storage.md": "test_storage.py::test_repro_with_pull_in_a_third_clone_runs_no_stage",
    "docs/export.md": "test_export.py::test_the_commands_and_the_code_of_the_page_run",
}
MODEL_PAGE = "test_adding_a_model.py::test_the_printed_entry_makes_a_model_that_the_pipeline_loads"
TESTED = {  # commands that begin so
    "cp docs/results/": "test_docs.py::test_the_settings_of_a_result_are_valid_today",
    "dvc repro": "test_pipeline.py::test_repro_makes_every_output",
    "dvc metrics show": "test_pipeline.py::test_metrics_and_curves_can_be_shown",
    "dvc plots show": "test_pipeline.py::test_metrics_and_curves_can_be_shown",
    "dvc exp run -S selector.ppo.clip_range": "test_pipeline.py::test_a_parameter_of_one_method_reruns_that_method_alone",
    "dvc exp run -S dataset=sums": "test_adding_a_task.py::test_the_experiment_of_the_page_runs_to_its_end",
    "dvc stage list": "test_plan.py::test_the_stages_ahead_are_those_that_dvc_runs",
    "python -m posttrain.core.code": "test_docs.py::test_the_files_of_a_stage_can_be_listed",
    "python -m posttrain.core.params": "test_params.py::test_make_repro_checks_the_file_before_dvc_reads_it",
    "python -m posttrain.models.inspect": MODEL_PAGE,
    "dvc exp run -S model=KEY": MODEL_PAGE,
    "python -m posttrain.report.experiments": "test_cost.py::test_policies_are_tabulated_over_experiments",
    "python -m posttrain.report.across": "test_cost.py::test_accuracies_of_data_sets_are_weighted_by_their_questions",
    "python -m posttrain.report.cost": "test_cost.py::test_a_policy_that_took_longer_for_no_more_accuracy_is_named",
    "python -m posttrain.tasks.finqa.evaluate": "test_finqa_official.py::test_the_module_runs_as_a_command",
    "python -m posttrain.tune": "test_tune.py::test_each_value_is_recorded_the_budget_told_and_the_best_chosen_and_set",
    "python benchmarks/presets.py": "test_launch.py::test_the_table_of_the_docs_is_that_of_the_script",
    "pytest tests/test_train.py": "test_adding_an_algorithm.py::test_the_new_method_learns_and_resumes_like_the_others",
    "python stages/": "test_adding_a_task.py::test_three_functions_run_through_the_data_stages",
    **dict.fromkeys(
        (
            "dvc exp run --queue",
            "dvc exp run --run-all",
            "dvc exp run -S +selector.ppo.steps",
            "dvc exp list",
            "dvc exp show",
            "dvc exp apply",
            "dvc exp branch",
            "dvc params diff",
            "dvc queue status",
            "dvc checkout",
            "dvc status",
            "dvc metrics diff HEAD",
            "git restore --staged",
            "touch params.yaml",
        ),
        "test_docs.py::test_an_experiment_leaves_its_settings_and_the_way_back_is_as_written",
    ),
}
NOT_RUN = {  # commands that begin so
    "make demo": "minutes; test_demo.py checks its settings",
    "make repro": "minutes; test_pipeline.py runs the same pipeline in small",
    "make test": "it is what runs this test",
    "dvc exp run": "minutes: other values of settings, checked below, of stages that test_pipeline.py runs in small",
    "dvc queue start": "it leaves a process behind; `dvc exp run --run-all` does the same and waits",
    "dvc metrics diff main": "needs a branch of the reader's",
    "dvc commit": "needs several machines",
    "git restore dvc.lock": "after a kill in a moment that cannot be chosen; tests/soak.py",
    "python -m posttrain.report.rerank_summary": "needs a whole run; its numbers are tested in test_generation_metrics.py",
    "python tests/soak.py": "hours",
    "python benchmarks/": "minutes on an idle machine",
    "accelerate launch": "several machines, or started by test_launch.py with its own settings",
    "tensorboard": "a server; test_tracking.py reads what it would show",
    "pytest tests/test_selector_model.py": "a test",
    "chromium": "a picture; test_report.py opens the page in a browser",
    "python -c": "the picture again",
    "Q=": "the picture again",
}


def commands() -> Iterator[tuple[str, str]]:
    """Page and command of every fenced or inline command."""
    for page, text in PAGES.items():
        for block in re.findall(r"^```(?:sh|console)\n(.*?)^```$", text, re.M | re.S):
            for command in _split(block):
                yield page, command
        for command in INLINE.findall(re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)):
            yield page, " ".join(command.split())


def _split(block: str) -> Iterator[str]:
    """The commands of a block, without comments and prompts, with their continued lines."""
    open_lines = ""
    for line in block.replace("\\\n", " ").splitlines():
        open_lines += line.removeprefix("$ ") + "\n"
        try:
            words = shlex.split(open_lines, comments=True)
        except ValueError:  # a quotation goes on in the next line
            continue
        for command in re.split(r" && ", re.sub(r"\s+#.*$", "", open_lines.strip())):
            if words:
                yield command.strip()
        open_lines = ""
    assert not open_lines, open_lines


COMMANDS = list(dict.fromkeys(commands()))


def by_prefix(table: dict[str, str], command: str) -> str | None:
    """The entry with the longest beginning of the command."""
    found = [prefix for prefix in table if command.startswith(prefix)]
    return table[max(found, key=len)] if found else None


def test_every_command_is_run_by_a_test_or_listed_with_the_reason_why_not() -> None:
    alone = [
        f"{page}: {command}"
        for page, command in COMMANDS
        if not (WHOLE_PAGES.get(page) or by_prefix(TESTED, command) or by_prefix(NOT_RUN, command))
    ]
    assert alone == []


def test_the_tests_that_are_named_are_there_and_no_entry_is_left_over() -> None:
    for place in {*WHOLE_PAGES.values(), *TESTED.values()}:
        file, name = place.split("::")
        assert f"def {name}(" in (ROOT / "tests" / file).read_text(encoding="utf-8"), place
    said = [command for _, command in COMMANDS]
    for prefix in (*TESTED, *NOT_RUN):
        assert any(command.startswith(prefix) for command in said), prefix
    assert WHOLE_PAGES.keys() <= PAGES.keys()


# ------------------------------------------------------------------------------- every command is accepted


@pytest.mark.parametrize(("page", "command"), COMMANDS, ids=[c[:60] for _, c in COMMANDS])
def test_every_command_is_accepted(page: str, command: str, tmp_path: Path) -> None:
    filled = re.sub(r"\b[A-Z]{3,}\b", lambda word: PLACEHOLDERS.get(word[0], word[0]), command)
    words = shlex.split(filled)
    if re.fullmatch(r"[A-Z_]+=.*", words[0], re.S) or words[0] == "export":
        return
    check = {
        "dvc": _dvc,
        "make": _make,
        "python": _python,
        "pytest": _pytest,
        "git": _git,
        "cp": _copy,
        "accelerate": _accelerate,
    }.get(words[0])
    if check is None:
        assert words[0] in ("chromium", "tensorboard", "touch"), page
    else:
        check(words[1:], tmp_path)


def _dvc(words: list[str], tmp_path: Path) -> None:
    parsed = parse_args(words)
    for target in getattr(parsed, "targets", None) or []:
        known = stage_names() if words[0] == "repro" or words[:2] == ["exp", "run"] else outputs()
        assert target in known or target == "dvc.yaml", target  # the default of some commands
    overrides = getattr(parsed, "set_param", None) or []
    for values in get_hydra_sweeps({"params.yaml": overrides}) if overrides else []:
        path = tmp_path / "params.yaml"
        text = (ROOT / "params.yaml").read_text(encoding="utf-8")
        path.write_text(_with_the_pages_task(text), encoding="utf-8")
        apply_overrides(path, values["params.yaml"])
        check_methods(load_params(path))


def _with_the_pages_task(text: str) -> str:
    """params.yaml with a data set `sums`, which docs/adding-a-task.md adds, of a task that is there."""
    (entry,) = re.findall(r"^```yaml\n(.*?)^```$", PAGES["docs/adding-a-task.md"], re.M | re.S)
    return text.replace(
        "\ndatasets:\n", f"\ndatasets:\n{entry.replace('task: sums', 'task: gsm8k')}"
    )


@cache
def stage_names() -> set[str]:
    """The names of stages as targets of `dvc repro`: `compare`, and `compare@selector`."""
    params, names = read_yaml(ROOT / "params.yaml"), set[str]()
    for name, stage in read_yaml(ROOT / "dvc.yaml")["stages"].items():
        axes = [
            _look_up(params, values[2:-1]) if isinstance(values, str) else values
            for values in stage.get("matrix", {}).values()
        ]
        names |= {name, *("@".join([name, "-".join(map(str, item))]) for item in product(*axes))}
    return names


def _look_up(values: Any, key: str) -> Any:
    for part in key.split("."):
        values = values[part]
    return values


@cache
def outputs() -> set[str]:
    """The pipeline's output paths that a command may name, of seed 0."""
    params = load_params(ROOT / "params.yaml")
    return {
        f"metrics/{family}_evaluate/{policy}/0.json"
        for family in FAMILIES
        for policy in params.family(family).policies
    }


def _make(words: list[str], tmp_path: Path) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in words:
        assert re.search(rf"^{target}:", makefile, re.M), target


class Accepted(Exception):
    """The arguments are parsed; nothing is to be run."""


def _python(words: list[str], tmp_path: Path) -> None:
    if words[0] == "-c":
        compile(words[1], "docs", "exec")
        return
    name = ""
    if words[0] == "-m":
        name, arguments = words[1], words[2:]
        file = (ROOT / "src").joinpath(*name.split(".")).with_suffix(".py")
    else:
        file, arguments = ROOT / words[0], words[1:]
    assert file.is_file(), file
    source = file.read_text(encoding="utf-8")
    if file.parent.name == "stages":
        (main,) = (n for n in ast.parse(source).body if getattr(n, "name", "") == "main")
        assert isinstance(main, ast.FunctionDef)
        assert len(arguments) == len(main.args.args) - 1
    elif "ArgumentParser" in source:
        _parse(file, arguments)
    elif name == "posttrain.core.code":
        assert all(digest(argument, "finqa") for argument in arguments)
    elif name == "posttrain.report.experiments":
        assert arguments[0] in FAMILIES and set(arguments[1:]) <= {one.name for one in MEASURES}
    else:
        assert not arguments, words


def _parse(file: Path, arguments: list[str]) -> None:
    """`UserError` or SystemExit unless the program's own parser takes the arguments."""
    original = argparse.ArgumentParser.parse_args

    def parse(self: Any, *given: Any, **named: Any) -> Any:
        original(self, *given, **named)
        raise Accepted

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.syspath_prepend(str(file.parent))
        patch.setattr("sys.argv", [str(file), *arguments])
        patch.setattr(argparse.ArgumentParser, "parse_args", parse)
        with pytest.raises(Accepted):
            runpy.run_path(str(file), run_name="__main__")


def _pytest(words: list[str], tmp_path: Path) -> None:
    assert words and all((ROOT / word).is_file() for word in words if word.endswith(".py"))


def _git(words: list[str], tmp_path: Path) -> None:
    assert words[0] in ("add", "commit", "restore")
    for word in words[1:]:
        if words[0] != "commit" and not word.startswith("-"):
            assert word in ("metrics", "plots", "dvc.lock") or (ROOT / word).exists(), word


def _copy(words: list[str], tmp_path: Path) -> None:
    assert ROOT / words[0] in RESULTS and words[1] == "params.yaml"


def _accelerate(words: list[str], tmp_path: Path) -> None:
    for word in words:
        if word.endswith((".yaml", ".py")):
            assert (ROOT / word).is_file(), word


# ------------------------------------------------------------------------------- commands run in small


@pytest.mark.slow
def test_the_files_of_a_stage_can_be_listed() -> None:
    listed = must(ROOT, "python", "-m", "posttrain.core.code", "selector_rl/ppo")
    assert "src/posttrain/selector/methods/ppo.py" in listed and "/grpo.py" not in listed


@pytest.mark.slow
def test_an_experiment_leaves_its_settings_and_the_way_back_is_as_written(tmp_path: Path) -> None:
    """docs/experiments.md, on the data stages."""
    small = {"datasets.sample.train": 40, "datasets.sample.val": 10, "datasets.sample.test": 10}
    project = copy_project(tmp_path / "project", {**small, "pools.oversample": 1})
    text = (project / "dvc.yaml").read_text(encoding="utf-8")
    (project / "dvc.yaml").write_text(re.sub(r"\n  selector_sft:\n.*", "\n", text, flags=re.S))
    must(project, "git", "-c", "user.name=t", "-c", "user.email=t@e.org", "commit", "-qam", "small")
    must(project, "dvc", "repro")
    must(project, "git", "add", "--all")
    must(project, "git", "-c", "user.name=t", "-c", "user.email=t@e.org", "commit", "-qm", "run")
    page = PAGES["docs/experiments.md"]
    (look, touch, restore, bring) = re.search(
        r"^(dvc params diff)\n(touch .*)\n(git restore .*)\n(dvc checkout)$", page, re.M
    ).groups()  # type: ignore[union-attr]

    must(project, "dvc", "exp", "run", "-S", "pools.count=6", "-S", "+selector.ppo.steps=48")
    assert load_params(project / "params.yaml").pools.count == 6
    assert re.search(r"pools\.count\s+8\s+6", must(project, *look.split()))
    must(project, *touch.split())
    must(project, *restore.split())
    must(project, *bring.split())
    assert must(project, "git", "status", "--porcelain") == ""
    assert must(project, "dvc", "status").split() == ["inputs:", "always", "changed"]

    failed = run(project, "dvc", "exp", "run", "-S", "pools.count=1")
    assert failed.returncode != 0 and "pools.count" in failed.stdout + failed.stderr
    must(project, *touch.split())
    must(project, *restore.split())
    must(project, *bring.split())
    assert must(project, "dvc", "status").split() == ["inputs:", "always", "changed"]

    must(project, "dvc", "exp", "run", "--queue", "-S", "pools.count=4,5")
    outside = tmp_path / "outside"
    outside.mkdir()
    options = ["-S", "dataset=gsm8k", "-S", f"datasets.gsm8k.path=../{outside.name}"]
    must(project, "dvc", "exp", "run", "--queue", *options)
    done = run(project, "dvc", "exp", "run", "--run-all")
    assert f"../{outside.name} is not a folder" in done.stdout + done.stderr
    status = must(project, "dvc", "queue", "status")
    assert status.count("Success") == 2 and status.count("Failed") == 1
    must(project, "dvc", "exp", "show", "--only-changed", "--md")
    names = must(project, "dvc", "exp", "list", "--name-only").split()
    counted = [name for name in names if name in status and "Failed" not in _line(status, name)]
    must(project, "dvc", "exp", "branch", counted[0], "kept")
    must(project, "dvc", "exp", "apply", counted[0])
    assert load_params(project / "params.yaml").pools.count in (4, 5)
    shown = must(
        project, "dvc", "metrics", "diff", "HEAD", counted[0], "--targets", "metrics/pools.json"
    )
    assert "blind" in shown


@pytest.mark.slow
def test_dvc_refuses_what_the_page_says_with_the_words_that_it_says(tmp_path: Path) -> None:
    project = copy_project(tmp_path / "project", {})
    page = PAGES["docs/experiments.md"]
    table = page.split("## What DVC refuses itself")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `([^|]+)` \| `([^|]+)` \|", table, re.M)
    assert len(rows) == len(re.findall(r"^\| ", table, re.M)) - 1
    (back,) = re.findall(r"^touch .* && (git restore .*)$", table, re.M)
    for words, example in rows:
        done = run(project, "dvc", "exp", "run", *shlex.split(example))
        said = done.stdout + done.stderr
        assert done.returncode != 0 and words in said, said
        must(project, "touch", "params.yaml")
        must(project, *back.split())
        assert must(project, "git", "status", "--porcelain") == ""


def _line(text: str, word: str) -> str:
    (line,) = (line for line in text.splitlines() if word in line)
    return line


def test_the_gains_of_a_result_are_counted_as_its_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two questions: SFT is right on the first; a method gains 0.25 and 0.5 in a sample, and turns the second."""
    for family, policy, seed in product(FAMILIES, ("sft", "ppo", "grpo", "rloo", "dpo"), (0, 1, 2)):
        folder = tmp_path / f"data/{family}_evaluate/{policy}/{seed}"
        folder.mkdir(parents=True)
        gain = 0.0 if policy == "sft" else 1.0
        rows = [
            {"split": "val", "correct": False, "expected_reward": 0.0},
            {"split": "test", "correct": True, "expected_reward": 0.5 + 0.25 * gain},
            {"split": "test", "correct": policy != "sft", "expected_reward": 0.5 * gain},
        ]
        lines = "".join(f"{json.dumps(row)}\n" for row in rows)
        (folder / "predictions.jsonl").write_text(lines, encoding="utf-8")
    (code,) = re.findall(
        r"^```python\n(.*?)^```$", PAGES["docs/results/finqa/README.md"], re.M | re.S
    )
    monkeypatch.chdir(tmp_path)
    Path("count.py").write_text(code, encoding="utf-8")
    runpy.run_path("count.py")
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 8
    assert printed[0] == (
        "selector ppo gain where SFT was right, wrong: 0.25 0.5; turned right, wrong: 3 0"
    )


# ------------------------------------------------------------------------------- what the pages name is there


@pytest.mark.parametrize("path", RESULTS, ids=[path.parent.name for path in RESULTS])
def test_the_settings_of_a_result_are_valid_today(path: Path) -> None:
    params = load_params(path)
    check_methods(params)
    page = path.with_name("README.md").read_text(encoding="utf-8")
    assert f"means over seeds {', '.join(map(str, params.seeds))}," in page
    assert f"cp docs/results/{path.parent.name}/params.yaml params.yaml" in page


@pytest.mark.parametrize("page", PAGES)
def test_links_and_pictures_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", PAGES[page]):
        path, _, anchor = target.partition("#")
        if "://" in target:
            continue
        file = (ROOT / page).parent / path if path else ROOT / page
        assert file.exists(), target
        if anchor:
            heads = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.M)
            assert anchor in [re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in heads]


@pytest.mark.parametrize("page", PAGES)
def test_files_and_settings_that_a_page_names_are_there(page: str) -> None:
    rooms = "benchmarks|docs|launch|pretrain|src|stages|tests"
    for name in re.findall(rf"`((?:{rooms})/[\w./*-]+)`", PAGES[page]):
        added = re.search("tasks/sums/|environments/guess/", name) or name.endswith(
            "/remax.py"
        )  # by the page itself
        assert added or "NAME" in name or list(ROOT.glob(name)), name
    params = read_yaml(ROOT / "params.yaml")
    for key in re.findall(r"`([a-z_]+(?:\.[a-z0-9_-]+)+)(?:[:=][^`]*)?`", PAGES[page]):
        if key.split(".")[0] in params and not key.endswith((".py", ".md", ".json", ".lock")):
            assert _has(params, key), key


def _has(values: Any, key: str) -> bool:
    try:
        _look_up(values, key)
    except (KeyError, TypeError):
        return False
    return True


def test_no_page_has_a_retired_name() -> None:
    retired = "prepare|preferences|open_evaluation|evaluate_generator|compare_generator"
    retired += "|sft_selector|rl_selector|sft_generator|rl_generator"
    old = rf"`(?:{retired})[`.=:@ ]|\b(?:rl|sft)\.(?:selector|generator)\b"
    found = {page: re.findall(old, text) for page, text in PAGES.items()}
    assert {page: names for page, names in found.items() if names} == {}


# ------------------------------------------------------------------------------- the front page


def test_the_readme_is_one_page() -> None:
    text = PAGES["README.md"]
    assert len(text.splitlines()) <= 80
    assert len(re.findall(r"\d\.\d", re.sub(r"`[^`]*`|Python 3\.\d+", "", text))) <= 10
    assert len(re.findall(r"\w+", text)) <= 900  # three minutes, read aloud at five words a second


def test_the_table_of_the_readme_is_that_of_its_result() -> None:
    (table,) = re.findall(r"^\| generator on `sample`.*?\n\n", PAGES["README.md"], re.M | re.S)
    result = PAGES["docs/results/sample/README.md"].split("## The selector")[0]
    right, against, from_sft, *_ = (
        {cells[0]: cells[1:] for cells in (_cells(row) for row in found.splitlines()[2:])}
        for found in re.findall(r"(?:^\|.*\n)+", result, re.M)
    )
    for name, percent, greedy, sample in map(_cells, table.strip().splitlines()[2:]):
        assert abs(float(percent) - float(right[name][0].split()[0])) <= 0.5 + 1e-9
        if name == "SFT":  # its change against SFT+, the other way round
            assert [-_number(x.split()[0]) for x in (from_sft["SFT+"][0], from_sft["SFT+"][2])] == [
                _number(greedy),
                _number(sample),
            ]
        elif greedy:
            assert [
                x.strip("*").split()[0].strip("*") for x in (against[name][0], against[name][2])
            ] == [
                greedy,
                sample,
            ]


def _cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip().strip("|").split("|")]


def _generator(result: str) -> str:
    return result.split("## Generator")[1].split("With the annotated facts")[0]


def _number(text: str) -> float:
    return float(text.replace("−", "-"))


def test_the_picture_is_sharp_and_small() -> None:
    picture = ROOT / "docs/browser.png"
    assert picture.stat().st_size < 400_000
    with Image.open(picture) as image:
        assert image.width >= 2000
