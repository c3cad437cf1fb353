"""An entry of a model or a data set may bring settings, which apply to runs of that model or data set alone."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from dvc.utils.hydra import apply_overrides
from toys import ROOT

from posttrain import tune
from posttrain.core.errors import UserError
from posttrain.core.inputs import settings_by_part
from posttrain.core.manifest import digest
from posttrain.core.methods import check_methods, load_method, settings_of
from posttrain.core.params import FAMILIES, Params, check_params, load_params
from posttrain.core.schema import read_yaml

VALUES = read_yaml(ROOT / "params.yaml")
SETTINGS: dict[str, Any] = {
    "selector": {"sft": {"learning_rate": 2e-4}},
    "generator": {
        "common": {"kl_coef": 0.01, "learning_rate": 3e-5},
        "dpo": {"learning_rate": 5e-6},
        "sample": {"count": 8},
    },
    "sampling": {"batch_size": 16},
}


def params_with(settings: Any, model: str = "pocket", selected: str = "pocket") -> Params:
    values = deepcopy(VALUES)
    values["model"] = selected
    values["models"][model]["settings"] = settings
    return check_params(values)


def rate(params: Params, family: str, method: str) -> float:
    return float(settings_of(params, family, method, load_method(family, method)).learning_rate)


def test_a_models_settings_win_over_the_sections_and_its_own_for_a_method_over_its_common() -> None:
    params = params_with(SETTINGS)
    assert rate(params, "selector", "sft") == 2e-4
    assert rate(params, "selector", "ppo") == VALUES["selector"]["ppo"]["learning_rate"]
    # Each method has a rate of its own in params.yaml, and the model's common one wins over it.
    assert {rate(params, "generator", name) for name in ("sft", "ppo", "grpo", "rloo")} == {3e-5}
    assert rate(params, "generator", "dpo") == 5e-6
    grpo = settings_of(params, "generator", "grpo", load_method("generator", "grpo"))
    assert (grpo.kl_coef, grpo.samples) == (0.01, VALUES["generator"]["common"]["samples"])
    assert params.generator.sample.count == 8 and params.sampling.batch_size == 16
    assert params.sections("generator.sample")["generator.sample"]["count"] == 8


def test_settings_of_another_model_change_nothing() -> None:
    other = params_with(SETTINGS, model="llama-3-8b")
    own = ("selector", "generator", "sampling", "model")
    assert other.sections(*own) == check_params(VALUES).sections(*own)
    chosen = params_with(SETTINGS, model="llama-3-8b", selected="llama-3-8b")
    assert rate(chosen, "generator", "dpo") == 5e-6
    assert chosen.plain().sections("generator") == other.sections("generator")


def test_a_data_sets_settings_win_over_the_sections_and_the_models_over_both() -> None:
    values = deepcopy(VALUES)
    values["datasets"]["sample"]["settings"] = {
        "generator": {"common": {"kl_coef": 0.5, "steps": 3}, "dpo": {"learning_rate": 1.0}},
        "episodes": {"context": 2048},
    }
    assert check_params(values).generator.common["kl_coef"] == 0.5
    assert rate(check_params(values), "generator", "dpo") == 1.0
    values["models"]["pocket"]["settings"] = SETTINGS
    params = check_params(values)
    assert (params.generator.common["kl_coef"], params.generator.common["steps"]) == (0.01, 3)
    assert rate(params, "generator", "dpo") == 5e-6 and params.episodes.context == 2048
    assert params.settings["generator.common.steps"] == ("datasets.sample", 3)
    assert params.settings["generator.dpo.learning_rate"] == ("models.pocket", 5e-6)
    assert settings_by_part(params)["episodes"] == {"episodes.context": 2048}
    values["dataset"] = "gsm8k-sample"
    other = check_params(values)
    assert (other.episodes.context, other.generator.common["steps"]) == (
        1024,
        VALUES["generator"]["common"]["steps"],
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"episodes": {"form": "thought"}}, "episodes.form: not a parameter that an entry can set"),
        ({"episodes": {"contxt": 1}}, "episodes.contxt: unknown parameter; did you mean 'context'?"),
        ({"selector": {"pop": {}}}, "selector.pop: not a section that an entry can set"),
        ({"pools": {"count": 3}}, "pools: unknown parameter"),
        ({"generator": {"sft": {"epohcs": 3}}}, "generator.sft.epohcs: unknown parameter; did you mean"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_data_sets_settings_is_one_line_even_if_it_is_not_selected(
    settings: Any, message: str
) -> None:
    values = deepcopy(VALUES)
    values["datasets"]["babyai"]["settings"] = settings
    with pytest.raises(UserError) as caught:
        check_methods(check_params(values))
    assert str(caught.value).startswith(f"params.yaml: datasets.babyai.settings.{message}")


def test_the_entry_in_a_manifest_has_no_settings_and_the_sections_have_them() -> None:
    """So that a training depends on those that it reads."""
    before, after = check_params(VALUES), params_with({"generator": {"dpo": {"beta": 0.2}}})
    same = ("model", "generator.common", "generator.ppo", "sampling")
    assert digest(before.sections(*same)) == digest(after.sections(*same))
    assert after.sections("generator.dpo")["generator.dpo"]["beta"] == 0.2


@pytest.mark.parametrize("model", ["pocket", "llama-3-8b"])
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (3, ": Input should be a valid dictionary"),
        ({"selectr": {}}, ".selectr: unknown parameter; did you mean 'selector'?"),
        ({"selector": {"methods": {}}}, ".selector.methods: not a section that an entry can set"),
        ({"selector": {"pop": {}}}, ".selector.pop: not a section that an entry can set"),
        ({"selector": {"ppo": {"clip_rnage": 0.1}}}, ".selector.ppo.clip_rnage: unknown parameter; did you mean"),
        ({"selector": {"ppo": {"clip_range": "1"}}}, ".selector.ppo.clip_range: '1' is text, not a number"),
        ({"selector": {"ppo": {"minibatches": 17}}}, ".selector.ppo: minibatches must not exceed prompts_per_step"),
        ({"selector": {"common": {"clip_rnage": 1}}}, ".selector.common.clip_rnage: unknown parameter; did"),
        ({"generator": {"common": {"learning_rate": "2e-5"}}}, ".generator.common.learning_rate: '2e-5' is text"),
        ({"generator": {"sample": {"cuont": 4}}}, ".generator.sample.cuont: unknown parameter; did you mean 'count'?"),
        ({"generator": {"sample": {"variants": ["direct"]}}}, ".generator.sample.variants: not a parameter that an"),
        ({"sampling": {"batch_size": 0}}, ".sampling.batch_size: Input should be greater"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_models_settings_is_one_line_even_if_the_model_is_not_selected(
    model: str, settings: Any, message: str
) -> None:
    with pytest.raises(UserError) as caught:
        check_methods(params_with(settings, model))
    line = str(caught.value)
    assert line.startswith(f"params.yaml: models.{model}.settings{message}") and "\n" not in line


def test_a_section_that_is_wrong_itself_is_not_blamed_on_the_model() -> None:
    values = deepcopy(VALUES)
    values["models"]["pocket"]["settings"] = SETTINGS
    values["selector"]["ppo"]["clip_rnage"] = 0.1
    with pytest.raises(UserError, match=r"^params\.yaml: selector\.ppo\.clip_rnage: unknown"):
        check_methods(check_params(values))


# ------------------------------------------------------------------------------- what runs again


def test_what_a_part_of_the_pipeline_reads_of_the_settings_is_a_file_of_its_own() -> None:
    found = settings_by_part(params_with(SETTINGS))
    assert found["selector/sft"] == {"selector.sft.learning_rate": 2e-4}
    assert found["selector/ppo"] == found["generator/pairs"] == {}
    assert found["generator/sample"] == {"generator.sample.count": 8, "sampling.batch_size": 16}
    ppo = {name for name in found["generator/dpo"] if name not in found["generator/ppo"]}
    assert ppo == {"generator.dpo.learning_rate"}
    other = deepcopy(SETTINGS)
    other["generator"]["dpo"]["learning_rate"] = 1e-6
    now = settings_by_part(params_with(other))
    assert [part for part in now if now[part] != found[part]] == ["generator/dpo"]


def test_stages_depend_on_the_settings_that_they_read_and_not_on_the_whole_entry() -> None:
    parts = settings_by_part(check_params(VALUES)).keys()
    for name, stage in read_yaml(ROOT / "dvc.yaml")["stages"].items():
        params = [key for key in stage.get("params", []) if isinstance(key, str)]
        assert not {"models.${model}", "datasets.${dataset}"} & {*params} or name == "report", name
        read = {key for key in params if key.split(".")[0] in (*FAMILIES, "sampling", "episodes")}
        read -= {"selector.policies", "generator.policies", "selector.methods", "generator.methods"}
        read -= {"generator.sample.variants", "episodes.form", "${item.family}"}
        start = "data/inputs/settings/"
        there = {dep.removeprefix(start) for dep in stage.get("deps", []) if dep.startswith(start)}
        assert bool(read) == bool(there - {"${item.family}"}), name
        for file in there - {"${item.family}"}:
            part = file.removesuffix(".json").replace("${item.method}", "ppo")
            assert part in parts
            expected = {part.replace("/", ".")} - {"sampling", "episodes"}
            assert expected <= {key.replace("${item.method}", "ppo") for key in read}, name


# ------------------------------------------------------------------------------- tuning


def test_tuning_tries_its_values_where_the_model_does_not_hide_them(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    for method, key, value in (("ppo", "learning_rate", 1e-4), ("dpo", "beta", 0.5),
                               ("dpo", "steps", 7)):  # fmt: skip
        path.write_text((ROOT / "params.yaml").read_text(encoding="utf-8"), encoding="utf-8")
        place = "+models.pocket.settings.generator"
        apply_overrides(path, [f"{place}.common.learning_rate=3e-5", f"{place}.dpo.beta=0.3"])
        override = tune._override(load_params(path), "generator", method, key, value)
        apply_overrides(path, [override])
        params = load_params(path)
        found = settings_of(params, "generator", method, load_method("generator", method))
        assert getattr(found, key) == value, override
