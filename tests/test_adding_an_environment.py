"""The steps of docs/adding-an-environment.md, followed as written, and the numbers of its page."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from toys import PARAMS, ROOT

from posttrain import environments
from posttrain.core.files import read_jsonl, write_jsonl
from posttrain.core.params import GeneratedDataset
from posttrain.core.schema import check
from posttrain.environments import read_action
from posttrain.environments.scripted import expert, play_one, success_rates
from posttrain.tasks import get_task
from posttrain.tasks.rendering import rendered

PAGE = (ROOT / "docs/adding-an-environment.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"```(\w+)\n(.*?)```\n", re.S)
ROW = re.compile(
    r"^\| (\d) \|.*?\| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|.* ([\d.]+) \| (?:.* = )?([\d.]+) \|$",
    re.M,
)


def blocks(language: str) -> list[str]:
    return [text for found, text in BLOCK.findall(PAGE) if found == language]


GAME, PLAY = blocks("python")


def test_the_smallest_environment_is_small() -> None:
    assert len(GAME.splitlines()) <= 60


def test_the_page_s_game_is_played_and_the_numbers_are_those_of_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page's stages are run by test_adding_a_task.py; here, what they ask of an environment."""
    monkeypatch.setattr(environments, "__path__", [*environments.__path__, str(tmp_path)])
    (tmp_path / "guess").mkdir()
    (tmp_path / "guess/task.py").write_text(GAME)
    (entry,) = blocks("yaml")
    found = YAML(typ="safe").load(entry)["guess"]
    dataset = check(GeneratedDataset, found | {"task": "sat"}, "the page")  # a name that is there
    chosen = {**PARAMS.datasets, "guess": dataset.model_copy(update={"task": found["task"]})}
    params = PARAMS.model_copy(update={"dataset": "guess", "datasets": chosen})
    task, rows = get_task("guess"), []
    for split in ("train", "val", "test"):
        rows += rendered(task, task.examples(params, split, tmp_path), (), 0.01)
    assert len({(row["most"], row["number"]) for row in rows}) == len(rows) == 450
    for row in rows:
        assert row["prompts"]["direct"].endswith(row["question"])
        assert read_action(row["target"], "short").text is not None
    monkeypatch.chdir(tmp_path)
    write_jsonl(Path("data/examples/test.jsonl"), rows[-100:])
    (printed,) = re.findall(r"^print\((.*)\)$", PLAY, re.M)
    module = import_module("posttrain.environments.guess.task")
    assert printed == 'success_rates(Guess(), read_jsonl("data/examples/test.jsonl"))'
    rates = success_rates(module.Guess(), read_jsonl("data/examples/test.jsonl"))
    (said,) = re.findall(r"here ([\d.]+) and ([\d.]+) ", PAGE)
    assert (rates["expert"], round(rates["random_legal"], 2)) == tuple(map(float, said))
    environment = task.open(params, rows[0]) if task.open else None
    assert environment is not None and play_one(environment, rows[0], expert)[0] == "goal"
    with pytest.raises(RuntimeError):
        environment.step("1")


def test_the_worked_example_of_credit_is_what_the_code_gives() -> None:
    credit = pytest.importorskip("posttrain.rollouts.credit")
    found = [tuple(map(float, line)) for line in ROW.findall(PAGE)]
    _, rewards, discounts, values, deltas, advantages = zip(*found, strict=True)
    assert discounts == (1, 0.9, 1, 0.9)
    for trace, said in ((0.0, deltas), (0.5, advantages)):
        given = credit.token_gae(rewards, values, [2, 2], 0.9, trace)
        assert given == pytest.approx(list(said), abs=1e-9)
    given = credit.turn_gae(rewards, values, [2, 2], 0.9, 0.5)
    assert given == pytest.approx([0.475, 0.475, 0.5, 0.5])
    assert "A = 0.25 + 0.45 × 0.5 = 0.475" in PAGE
