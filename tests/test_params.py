"""params.yaml is checked before a stage starts its work, and a mistake is named in one line."""

from __future__ import annotations

import difflib
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from dvc.utils.hydra import apply_overrides
from ruamel.yaml import YAML
from toys import PARAMS, ROOT, settings
from workspace import copy_project, must, run

from posttrain.core.committed import settings_that_differ
from posttrain.core.errors import UserError
from posttrain.core.methods import check_methods, load_method, settings_of
from posttrain.core.params import FAMILIES, Params, check_params, load_params, method_names
from posttrain.models.description import as_yaml
from posttrain.tasks import get_task

TEXT = (ROOT / "params.yaml").read_text()
GONE = object()


def parts(key: str) -> list[str]:
    """The keys from section to section; `models` and `datasets` have whatever follows them as a name."""
    first, _, rest = key.partition(".")
    return [first, rest] if first in ("models", "datasets") and rest in DOTTED else key.split(".")


DOTTED = ("llama-3.2-1b", "finqa.v2")


def changed(key: str, value: Any) -> dict[str, Any]:
    """The project's params.yaml with one key set, or taken out."""
    values: dict[str, Any] = YAML(typ="safe").load(TEXT)
    section = values
    *path, last = parts(key)
    for part in path:
        section = section[part]
    if value is GONE:
        del section[last]
    else:
        section[last] = value
    return values


def checked(values: Any) -> Params:
    """params.yaml checked like in stage `code`, with the sections of all methods."""
    params = check_params(values)
    check_methods(params)
    return params


def refusal(values: Any) -> str:
    with pytest.raises(UserError) as caught:
        checked(values)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_the_projects_own_file_is_valid() -> None:
    params = load_params(ROOT / "params.yaml")
    assert params.selected_model is params.models[params.model]
    assert params.selected_dataset is params.datasets[params.dataset]
    check_methods(params)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("selector.ppo.clip_rnage", 0.1, "selector.ppo.clip_rnage: unknown parameter; did you mean 'clip_range'?"),
        ("sed", 1, "sed: unknown parameter"),
        ("models.pocket.batchsize", 4, "models.pocket.batchsize: unknown parameter; did you mean 'batch_size'?"),
        ("models.llama-3-8b.lora.rank", 4, "models.llama-3-8b.lora.rank: unknown parameter"),
        ("selector.sft.learning_rate", "2e-5", "selector.sft.learning_rate: '2e-5' is text, not a number; write it without quotes"),
        ("selector.sft.epochs", "3", "selector.sft.epochs: '3' is text, not a number"),
        ("selector.sft.epochs", 0, "selector.sft.epochs: Input should be greater than or equal to 1 (found 0)"),
        ("selector.sft.epochs", 1.5, "selector.sft.epochs: "),
        ("selector.sft.learning_rate", float("nan"), "selector.sft.learning_rate: "),
        ("selector.sft.learning_rate", float("inf"), "selector.sft.learning_rate: "),
        ("selector.sft.learning_rate", None, "selector.sft.learning_rate: "),
        ("selector.sft.learning_rate", True, "selector.sft.learning_rate: "),
        ("model", "llama-3-2-1bb", "model: 'llama-3-2-1bb' is not one of models; did you mean 'llama-3-2-1b'?"),
        ("dataset", "finka", "dataset: 'finka' is not one of datasets; did you mean 'finqa'?"),
        ("selector.methods", ["ppo", "grop"], "selector.methods: 'grop' is not one of dpo, exact, grpo, ppo, rloo, sft_plus; did you mean 'grpo'?"),
        ("generator.methods", ["exact"], "generator.methods: 'exact' is not one of dpo, grpo, ppo, ppo_affine, rloo, sft_plus"),
        ("selector.methods", ["sft", "ppo"], "selector.methods: 'sft' is not one of dpo, exact, grpo, ppo, rloo, sft_plus"),
        ("selector.methods", ["ppo", "ppo"], "selector.methods: an entry is listed twice"),
        ("generator.methods", ["ppo", "ppo"], "generator.methods: an entry is listed twice"),
        ("generator.sample.variants", ["direct", "direct"], "generator.sample.variants: an entry is listed twice"),
        ("selector.methods", [], "selector.methods: "),
        ("selector.policies", ["base", "ppo"], "selector.policies: must contain sft, which the others are compared with"),
        ("selector.policies", ["sft", "sft"], "selector.policies: an entry is listed twice"),
        ("generator.policies", ["sft", "exact"], "generator.policies: 'exact' is not trained; add it to generator.methods, or take it out"),
        ("selector.sft", GONE, "selector.sft: missing"),
        ("generator.grpo", GONE, "generator.grpo: missing"),
        ("selector.grop", {}, "selector.grop: unknown parameter; did you mean 'grpo'?"),
        ("generator.smaple", {}, "generator.smaple: unknown parameter; did you mean 'sample'?"),
        ("generator.common", GONE, "generator.common: missing"),
        ("selector.common.warmpu", 0.1, "selector.common.warmpu: unknown parameter; did you mean 'warmup'?"),
        ("selector.common.temperature", 1.0, "selector.common.temperature: unknown parameter"),
        ("selector.common.warmup", 2, "selector.common.warmup: Input should be less than or equal to 1 (found 2)"),
        ("selector.common.steps", GONE, "selector.sft_plus.steps: missing"),
        ("selector.ppo.minibatches", 17, "selector.ppo: minibatches must not exceed prompts_per_step"),
        ("selector.rloo.samples", 1, "selector.rloo.samples: Input should be greater than or equal to 2 (found 1)"),
        ("selector.ppo", 3, "selector.ppo: expected sections, found int"),
        ("generator.sft.kl_coef", 0.1, "generator.sft.kl_coef: unknown parameter"),
        ("models.llama-3.2-1b", {}, "models.llama-3.2-1b: DVC splits keys at dots, so a name must not have any; write llama-3-2-1b"),
        ("datasets.finqa.v2", {}, "datasets.finqa.v2: DVC splits keys at dots, so a name must not have any; write finqa-v2"),
        ("seeds", [0, 0], "seeds: an entry is listed twice"),
        ("seeds", [-1], "seeds.0: "),
        ("pools.corruption_rate", 1.5, "pools.corruption_rate: "),
        ("pools.noise", [0.2, 0.1], "pools: noise must be [smallest, largest]"),
        ("pools.count", 1, "pools.count: "),
        ("models.llama-3-8b.dtype", "fp16", "models.llama-3-8b.dtype: 'fp16' is not one of 'float32', 'bfloat16' or 'float16'"),
        ("models.llama-3-8b.quantization", "2bit", "models.llama-3-8b.quantization: '2bit' is not one of '8bit' or '4bit'"),
        ("models.pocket.quantization", "4bit", "models.pocket: quantization is 4bit, so lora must be set: only adapters can train"),
        ("models.pocket.dtype", "bfloat16", "models.pocket: dtype is bfloat16, so lora must be set (or dtype float32): rounding to 16 bits would swallow most steps"),
        ("models.pocket.dtype", "float16", "models.pocket: dtype is float16, in which gradients below 6e-8 are 0"),
        ("models.llama-3-8b.dtype", "float16", "models.llama-3-8b: dtype is float16, in which gradients below 6e-8 are 0"),
        ("models.llama-3-8b.compute_dtype", "float32", "models.llama-3-8b: dtype is bfloat16, so compute_dtype cannot be"),
        ("models.llama-3-8b.lora", None, "models.llama-3-8b: dtype is bfloat16, so lora must be set"),
        ("models.llama-3-8b.lora.targets", [], "models.llama-3-8b.lora.targets: expected auto, [all-linear] or a list of names like [q_proj, v_proj]"),
        ("models.llama-3-8b.lora.targets", "q_proj", "models.llama-3-8b.lora.targets: expected auto, "),
        ("models.llama-3-8b.lora.targets", [1], "models.llama-3-8b.lora.targets: expected auto, "),
        ("models.llama-3-8b.lora.targets", ["q_proj", "q_proj"], "models.llama-3-8b.lora.targets: 'q_proj' is listed twice"),
        ("models.llama-3-8b.lora.targets", ["all-linear", "q_proj"], "models.llama-3-8b.lora.targets: all-linear stands for every linear layer, so it must stand alone"),
        ("models.llama-3-8b.revision", None, "models.llama-3-8b: source is hub, so revision must pin a commit"),
        ("datasets.finqa.source", "path", "datasets.finqa.path: source is path, so path must name a folder"),
        ("datasets.finqa.task", "finka", "datasets.finqa.task: not one of the tasks abd, alfworld, babyai, ded, finqa, gsm8k, mixture, sat, sciworld, textcraft, webshop; did you mean 'finqa'?"),
        ("datasets.gsm8k.vall", 5, "datasets.gsm8k.vall: unknown parameter; did you mean 'val'?"),
        ("datasets.finqa.commit", "main", "datasets.finqa.commit: "),
        ("examples.context", "retreived", "examples.context: 'retreived' is not one of 'full', 'retrieved' or 'gold'; did you mean 'retrieved'?"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_naming_key_and_problem(key: str, value: Any, expected: str) -> None:
    assert refusal(changed(key, value)).startswith(f"params.yaml: {expected}")


def test_weights_that_are_all_zero_are_refused() -> None:
    nothing = dict.fromkeys(PARAMS.reward.weights, 0.0)
    assert "at least one weight must be positive" in refusal(changed("reward.weights", nothing))


def test_a_policy_that_is_not_trained_is_refused_where_it_is_named() -> None:
    message = refusal(changed("selector.methods", ["ppo"]))
    assert message == (
        "params.yaml: selector.policies: 'sft_plus' is not trained; "
        "add it to selector.methods, or take it out"
    )


@pytest.mark.parametrize(
    "section", ["selector", "models", "seeds", "launch", "evaluate", "tracking"]
)
def test_a_missing_section_is_named(section: str) -> None:
    values = YAML(typ="safe").load(TEXT)
    del values[section]
    assert refusal(values) == f"params.yaml: {section}: missing"


def test_an_exponent_without_a_point_is_the_number_that_dvc_takes_it_for(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    before, after = TEXT.split("  sft:\n", 1)
    path.write_text(
        before + "  sft:\n" + re.sub("learning_rate: .*", "learning_rate: 2e-5", after, count=1)
    )
    params = load_params(path)
    sft = settings_of(params, "selector", "sft", load_method("selector", "sft"))
    assert sft.learning_rate == 2e-5


@pytest.mark.parametrize("text", ["", "- 1", "just text"])
def test_a_file_without_sections_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(UserError, match="expected sections"):
        load_params(tmp_path / "params.yaml")


def test_broken_yaml_and_a_missing_file_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("a: [1, 2")
    for name, problem in (("params.yaml", "not valid YAML"), ("none.yaml", "cannot read")):
        with pytest.raises(UserError, match=problem) as caught:
            load_params(tmp_path / name)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("name: pretrain/pocket", r'name: "\ud800"', r"models.pocket.name holds '\ud800'"),
        ("dataset: sample", r'dataset: "\ud800"', r"dataset holds '\ud800'"),
        ("unseen: 0.5", r'"\udcff": 0.5', r"a key of datasets.sample.options holds '\udcff'"),
        ("learning_rate: 0.001", "learning_rate: .nan", "selector.sft.learning_rate is nan"),
        ("seed: 1", f"seed: 0x{'f' * 5000}", "datasets.sample.seed is larger than 1.8e+308"),
        ("seed: 1", f"seed: {'9' * 5000}", "not valid YAML: Exceeds the limit"),
        ("seed: 1", "seed: 2020-13-45", "not valid YAML: month must be in 1..12"),
        ("seed: 1", "seed: !!bool maybe", "not valid YAML: 'maybe'"),
        ("seed: 1", f"seed: {'[' * 5000}{']' * 5000}", "not valid YAML: nested too deeply"),
        ("options:  ", "options: &a\n      x: *a #", "datasets.sample.options: x: unknown"),
        ("dataset: sample", "dataset: sam\0ple", "not valid YAML: unacceptable character"),
    ],
)
def test_values_that_are_no_text_or_number_are_one_line(
    key: str, value: str, expected: str, tmp_path: Path
) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(TEXT.replace(key, value, 1), encoding="utf-8")
    with pytest.raises(UserError) as caught:
        get_task("finqa").fetch(load_params(path), tmp_path / "out")
    message = str(caught.value).removeprefix(f"{path}: ").removeprefix("params.yaml: ")
    assert message.startswith(expected) and "\n" not in message


def test_a_byte_order_mark_before_params_is_no_part_of_them(tmp_path: Path) -> None:
    for encoding in ("utf-8", "utf-8-sig"):
        (tmp_path / encoding).write_text(TEXT, encoding=encoding)
    assert load_params(tmp_path / "utf-8-sig") == load_params(tmp_path / "utf-8")


def test_the_operand_form_is_the_models_unless_the_examples_set_it() -> None:
    assert check_params(changed("model", "pocket")).operands == "cells"
    assert check_params(changed("model", "llama-3-8b")).operands == "literal"
    assert check_params(changed("examples.operands", "literal")).operands == "literal"


# ------------------------------------------------------------------------------ methods


def test_a_method_is_a_file_and_its_settings_are_in_it() -> None:
    for family in FAMILIES:
        names = {path.stem for path in ROOT.glob(f"src/posttrain/{family}/methods/[!_]*.py")}
        assert set(method_names(family)) == names == PARAMS.family(family).sections.keys()
        assert names - {"ppo_affine"} == {"sft", *PARAMS.family(family).methods}
        for name in names:
            module = load_method(family, name)
            assert module.__name__ == f"posttrain.{family}.methods.{name}"
            assert type(settings(family, name)) is module.Settings
    ppo, affine = settings("generator", "ppo"), settings("generator", "ppo_affine")
    assert (ppo.value_coef, ppo.entropy_coef) == (0, 0)
    assert (affine.inner_epochs, affine.clip_range, affine.value_coef) == (4, 0.2, 0.5)
    assert (affine.entropy_coef, affine.gae_lambda, affine.gamma) == (0.01, 0.95, 0.99)
    assert affine.max_grad_norm == 1.0 and affine.kl_coef == ppo.kl_coef


def test_a_name_without_a_file_is_refused() -> None:
    with pytest.raises(UserError, match=r"^method 'grop': expected one of dpo, exact, grpo, ppo"):
        load_method("selector", "grop")
    with pytest.raises(
        UserError,
        match=r"^method 'exact': expected one of dpo, grpo, ppo, ppo_affine, rloo, sft, sft_plus",
    ):
        load_method("generator", "exact")


def test_a_key_that_a_method_does_not_have_is_taken_from_common_and_its_own_wins() -> None:
    """`common` may have keys that a method does not use: `exact` samples nothing and has no `samples`."""
    section = PARAMS.selector
    assert "evaluations" in section.common and "evaluations" in section.sections["sft"]
    sft, exact = settings("selector", "sft"), settings("selector", "exact")
    assert (
        sft.evaluations == section.sections["sft"]["evaluations"] != section.common["evaluations"]
    )
    assert exact.evaluations == section.common["evaluations"]
    assert exact.steps == section.common["steps"] and not hasattr(sft, "steps")

    params = checked(changed("selector.common.steps", 48))
    found = {name: settings_of(params, "selector", name, load_method("selector", name))
             for name in params.selector.methods}  # fmt: skip
    assert {own.steps for own in found.values()} == {48}
    params = checked(changed("selector.ppo.steps", 48))
    ppo, grpo = (
        settings_of(params, "selector", name, load_method("selector", name))
        for name in ("ppo", "grpo")
    )
    assert (ppo.steps, grpo.steps) == (48, section.common["steps"])


def test_a_method_that_is_not_trained_needs_no_section_and_may_keep_one() -> None:
    values = changed("selector.methods", ["ppo"])
    values["selector"]["policies"] = ["sft", "ppo"]
    checked(values)
    del values["selector"]["exact"]
    params = checked(values)
    with pytest.raises(UserError, match=r"^params\.yaml: selector\.exact: missing$"):
        settings_of(params, "selector", "exact", load_method("selector", "exact"))


# ------------------------------------------------------------------------------ `dvc exp run -S`


def edited_by_dvc(path: Path, override: str, copy: Path) -> list[tuple[str, str]]:
    """The lines of a params.yaml that an override takes out and puts in, as ("-" or "+", line)."""
    before = path.read_text(encoding="utf-8")
    copy.write_text(before, encoding="utf-8")
    apply_overrides(copy, [override])
    after = copy.read_text(encoding="utf-8")
    lines = difflib.ndiff(before.splitlines(), after.splitlines())
    return [(line[0], line[2:]) for line in lines if line[0] in "+-"]


@pytest.mark.parametrize(
    ("override", "comment"),
    [
        ("dataset=finqa", "# a key of `datasets`"),
        ("launch=sh", "# command that starts"),
        ("datasets.finqa.path=/somewhere/else", "# folder with train.json"),
        ("datasets.sample.options.unseen=0.1", "# probability"),
        ("models.pocket.batch_size=32", "# on a CPU"),
        ("models.llama-3-8b.lora.r=4", ""),
        ("models.llama-3-8b.lora=null", ""),
        ("models.dialogpt-medium.lora.targets=[c_attn]", ""),
        ("examples.context=gold", "# full: whole page"),
        ("pools.oversample=1", "# wrong candidates"),
        ("reward.weights.exact_match=5", "# the program's value"),
        ("sampling.batch_size=16", "# completions sampled"),
        ("selector.common.steps=1000", "# rollout batches"),
        ("selector.ppo.clip_range=0.1", ""),
        ("selector.ppo.target_kl=null", "# stop the passes"),
        ("generator.sample.variants=[reflective]", ""),
        ("generator.pairs.quality.brevity=0.1", "# 1 for the shortest"),
        ("generator.dpo.beta=0.3", ""),
        ("evaluate.generator.samples=8", "# at temperature 1"),
        ("compare.bootstrap=100", "# resamples"),
        ("report.questions=10", "# test questions"),
        ("seeds=[3]", ""),
    ],
)
def test_an_override_by_dvc_changes_one_line_and_keeps_its_comment_in_place(
    override: str, comment: str, tmp_path: Path
) -> None:
    """`dvc exp run -S` writes the whole file anew, so params.yaml is in the form in which DVC leaves it."""
    edit = edited_by_dvc(ROOT / "params.yaml", override, tmp_path / "params.yaml")
    assert sorted(sign for sign, _ in edit) == ["+", "-"]
    old, new = (next(line for sign, line in edit if sign == kind) for kind in "-+")
    if comment:
        assert comment in new
        grown = len(new.split(" # ")[0]) > old.index("# ") - 1
        assert grown or new.index("# ") == old.index("# ")


@pytest.mark.parametrize(
    ("override", "signs"),
    [
        ("seeds=[0,1,2]", "++"),
        ("pools.noise=[0.1,0.15]", "+-"),
        ("selector.methods=[sft_plus,ppo,grpo,rloo,dpo]", "-"),
        ("+selector.ppo.steps=48", "+"),
        ("+selector.exact.steps=48", "+"),
        ("+generator.dpo.steps=48", "+"),
        ("~selector.ppo.target_kl", "-"),
    ],
)
def test_a_list_and_a_new_key_change_their_own_lines_alone(
    override: str, signs: str, tmp_path: Path
) -> None:
    edit = edited_by_dvc(ROOT / "params.yaml", override, tmp_path / "params.yaml")
    assert "".join(sorted(sign for sign, _ in edit)) == signs


LISTS = (
    "seeds", "pools.noise", "selector.methods", "selector.policies", "generator.methods",
    "generator.policies", "generator.sample.variants", "evaluate.intervals",
    "tuning.seeds", "tuning.selector.learning_rate", "tuning.generator.learning_rate",
    "datasets.sat.options.variables", "datasets.sat.options.share",
    "datasets.textcraft.options.depth", "datasets.babyai.options.levels", "datasets.sciworld.options.tasks",
    "datasets.alfworld.options.kinds",
    "evaluate.generator.temperatures",
)  # fmt: skip


def test_these_are_all_lists_of_the_file() -> None:
    def lists(values: Any, key: str = "") -> list[str]:
        if isinstance(values, dict):
            return [x for name, value in values.items() for x in lists(value, f"{key}.{name}")]
        return [key[1:]] if isinstance(values, list) and not key.endswith(".targets") else []

    assert sorted(lists(YAML(typ="safe").load(TEXT))) == sorted(LISTS)


@pytest.mark.parametrize("key", LISTS)
@pytest.mark.parametrize("value", ["[]", "3", "[x]", "[x,y,z,x,y,z,x,y,z]"])
def test_a_list_of_any_length_takes_nothing_else_with_it(
    key: str, value: str, tmp_path: Path
) -> None:
    """DVC drops comments under a list, and writes no valid file for `[]` with a comment beside its key."""
    path = tmp_path / "params.yaml"
    path.write_text(TEXT, encoding="utf-8")
    apply_overrides(path, [f"{key}={value}"])
    text = path.read_text(encoding="utf-8")
    assert YAML(typ="safe").load(text) == changed(key, YAML(typ="safe").load(value))
    for line in TEXT.splitlines():
        assert not re.search(r"#|^$", line) or line in text.splitlines()


FILES = [ROOT / "params.yaml", *sorted(ROOT.glob("docs/results/*/params.yaml"))]


@pytest.mark.parametrize("path", FILES, ids=[path.parent.name for path in FILES])
def test_dvc_leaves_a_params_file_as_it_is_written(path: Path, tmp_path: Path) -> None:
    assert edited_by_dvc(path, "tracking=none", tmp_path / "params.yaml") == []


def test_a_printed_model_entry_is_in_the_form_that_dvc_leaves(tmp_path: Path) -> None:
    entry = PARAMS.models["pocket"].model_copy(update={"lora": PARAMS.models["llama-3-8b"].lora})
    models = (PARAMS.models["pocket"], entry, PARAMS.models["llama-3-8b"])
    for number, model in enumerate(models):
        path = tmp_path / f"{number}.yaml"
        path.write_text(f"models:\n{as_yaml('one', model)}\n", encoding="utf-8")
        same = f"models.one.dtype={model.dtype}"
        assert edited_by_dvc(path, same, tmp_path / "params.yaml") == []


# ------------------------------------------------------------------------------ what differs from the commit


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A git repository whose one commit has the project's params.yaml."""
    (tmp_path / "params.yaml").write_text(TEXT, encoding="utf-8")
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    for command in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-qm", "all"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    return tmp_path


def test_settings_that_differ_from_the_commit_are_named_with_both_values(repository: Path) -> None:
    path = repository / "params.yaml"
    assert settings_that_differ(path) == []
    apply_overrides(path, ["reward.weights.exact_match=5"])  # left by an earlier experiment
    apply_overrides(path, ["+selector.ppo.steps=48", "seeds=[0,1]", "~selector.ppo.target_kl"])
    apply_overrides(path, ["datasets.gsm8k.path=/data"])
    assert settings_that_differ(path) == [
        "seeds: [0] → [0, 1]",
        "datasets.gsm8k.path: null → /data",
        "reward.weights.exact_match: 0.6 → 5",
        "selector.ppo.target_kl: 0.05 → (none)",
        "selector.ppo.steps: (none) → 48",
    ]


def test_an_edit_of_form_or_order_is_no_difference(repository: Path) -> None:
    values = YAML(typ="safe").load(TEXT)
    with (repository / "params.yaml").open("w", encoding="utf-8") as file:
        YAML(typ="safe").dump(dict(reversed(values.items())), file)
    assert settings_that_differ(repository / "params.yaml") == []


@pytest.mark.parametrize("committed", [None, "a: [1", "\udcff", "", "just text"])
def test_without_a_readable_commit_nothing_differs(
    committed: str | None, repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """No repository, and a file that is broken, not UTF-8, empty or without sections in the commit."""
    if committed is None:
        alone = tmp_path_factory.mktemp("alone") / "params.yaml"
        alone.write_text(TEXT, encoding="utf-8")
        assert settings_that_differ(alone) == []
        return
    path = repository / "params.yaml"
    path.write_bytes(committed.encode("utf-8", "surrogateescape"))
    command = [
        "git",
        "-c",
        "user.name=t",
        "-c",
        "user.email=t@example.org",
        "commit",
        "-qam",
        "bad",
    ]
    subprocess.run(command, cwd=repository, check=True)
    path.write_text(TEXT, encoding="utf-8")
    assert settings_that_differ(path) == []


def test_a_section_that_is_taken_out_is_one_line(repository: Path) -> None:
    apply_overrides(repository / "params.yaml", ["~datasets.sat", "+pools.more={a: 1, b: 2}"])
    assert settings_that_differ(repository / "params.yaml") == [
        "datasets.sat: {...} → (none)",
        "pools.more: (none) → {...}",
    ]


def test_without_git_nothing_differs(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    apply_overrides(repository / "params.yaml", ["pools.count=4"])
    monkeypatch.setenv("PATH", str(repository))
    assert settings_that_differ(repository / "params.yaml") == []


# ------------------------------------------------------------------------------ mistakes that DVC sees


@pytest.mark.slow
@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("seeds=[]", "params.yaml: seeds: List should have at least 1 item"),
        ("seeds=[a]", "params.yaml: seeds.0: 'a' is text, not a number"),
        ("model=lama", "params.yaml: model: 'lama' is not one of models; did you mean 'llama-3-8b'?"),
        ("dataset=finqq", "params.yaml: dataset: 'finqq' is not one of datasets; did you mean 'finqa'?"),
        ("selector.methods=[ppo,reinforce]", "params.yaml: selector.methods: 'reinforce' is not one of dpo, exact, "),
        ("selector.policies=[sft,pp]", "params.yaml: selector.policies: 'pp' is not trained"),
        ("launch=null", "params.yaml: launch: Input should be a valid string"),
        ("~selector.ppo", "params.yaml: selector.ppo: missing"),
        ("+selector.ppo.clip_rnage=1", "params.yaml: selector.ppo.clip_rnage: unknown parameter; did you mean 'clip_range'?"),
    ],
)  # fmt: skip
def test_what_dvc_can_read_is_refused_by_stage_code_in_one_line(
    override: str, line: str, workspace: Path
) -> None:
    done = run(workspace, "dvc", "exp", "run", "-S", override)
    must(workspace, "touch", "params.yaml")  # see docs/experiments.md
    must(workspace, "git", "restore", "--staged", "--worktree", ".")
    said = done.stdout + done.stderr
    assert done.returncode != 0 and f"code: {line}" in said, said
    assert "unexpected error" not in said and "Errno" not in said


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project whose stage `code` has run."""
    project = copy_project(tmp_path_factory.mktemp("workspace") / "project", {})
    must(project, "dvc", "repro", "code")
    must(project, "git", "add", "--all")
    must(project, "git", "-c", "user.name=t", "-c", "user.email=t@e.org", "commit", "-qm", "run")
    return project


@pytest.mark.slow
def test_make_repro_checks_the_file_before_dvc_reads_it(tmp_path: Path) -> None:
    (tmp_path / "src").symlink_to(ROOT / "src")
    path = tmp_path / "params.yaml"
    path.write_text(TEXT, encoding="utf-8")
    must(tmp_path, "python", "-m", "posttrain.core.params")
    apply_overrides(path, ["seeds=3"])
    done = run(tmp_path, "python", "-m", "posttrain.core.params")
    assert done.returncode == 1
    assert done.stderr == "params.yaml: seeds: Input should be a valid list (found 3)\n"
    recipe = (ROOT / "Makefile").read_text(encoding="utf-8").split("\nrepro:")[1]
    assert recipe.index("posttrain.core.params") < recipe.index("dvc repro")


@pytest.mark.parametrize("name", ["llama[3]", "p*", "llama?", 7, ""])
def test_a_name_that_dvc_reads_as_a_pattern_is_refused(name: Any) -> None:
    values = YAML(typ="safe").load(TEXT)
    values["models"][name] = values["models"]["pocket"]
    with pytest.raises(UserError, match="a name must"):
        check_params(values)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("launch", " "),
        ("generator.sample.temperature", 1e-40),
        ("evaluate.generator.temperatures", [1e-40]),
    ],
)
def test_a_value_that_cannot_run_is_refused(path: str, value: Any) -> None:
    values = YAML(typ="safe").load(TEXT)
    *parts, last = path.split(".")
    section = values
    for part in parts:
        section = section[part]
    section[last] = value
    with pytest.raises(UserError, match=path):
        check_params(values)


def test_a_learning_rate_over_32_bits_is_refused() -> None:
    values = YAML(typ="safe").load(TEXT)
    values["selector"]["sft"]["learning_rate"] = 1e39
    with pytest.raises(UserError, match="learning_rate"):
        check_methods(check_params(values))
