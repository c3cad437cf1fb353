"""An environment's data set runs through every stage, and its policies learn from their own turns alone."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hallway import TOKENIZER, hallway_params, hallway_task, start, walker
from stages.demonstrations import demonstrate
from stages.demonstrations import main as demonstrations
from test_architectures import run_stage, stages_of
from toys import PARAMS, Killed, settings, write_model
from workspace import TINY, copy_project, edit_params, set_params

from posttrain.core.files import read_json, read_jsonl, write_jsonl
from posttrain.core.not_trained import why_not_trained
from posttrain.generator import data, preferred
from posttrain.generator.data import IGNORED, Data
from posttrain.generator.run import Run
from posttrain.measures.episodes import summarise_episodes
from posttrain.models.tokens import tokenize_answers
from posttrain.rollouts import sampling
from posttrain.rollouts.play import Scripted, off_path, play
from posttrain.rollouts.preferences import make_pairs
from posttrain.rollouts.record import score_episode
from posttrain.rollouts.rewards import RewardFunction

STARTS = [start(number, steps=2, turns=6) for number in range(8)]
TASK, PLAYED = hallway_task(), hallway_params()
LIMITS = {"max_prompt_tokens": 64, "max_candidate_tokens": 16}
DATA_STAGES = ("code", "fetch", "audit", "examples")
CHANGES: dict[str, Any] = TINY | {
    "dataset": "textcraft",
    **{
        f"datasets.textcraft.{split}": size
        for split, size in (("train", 6), ("val", 3), ("test", 3))
    },
    "datasets.textcraft.options.depth": [1, 1],
    "datasets.textcraft.options.distractors": 0,
    "episodes.turn_tokens": 8,
    "episodes.context": 400,
    "selector.methods": ["ppo"],
    "selector.policies": ["base", "sft", "ppo"],
    "generator.methods": ["sft_plus", "dpo"],
    "generator.policies": ["base", "sft", "sft_plus", "dpo"],
    "generator.sft.epochs": 1,
    "generator.sft.evaluations": 1,
    "generator.sft_plus.prompts_per_step": 4,
    "generator.sft_plus.minibatches": 2,
    "generator.common.evaluation_questions": 2,
    "generator.sample.questions": 2,
    "generator.sample.count": 2,
}


# ------------------------------------------------------------------------------ the pipeline


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose pipeline has run on a few games, with a model that writes at random."""
    project = copy_project(tmp_path_factory.mktemp("episodes"), CHANGES)
    with contextlib.chdir(project):
        stages = stages_of(project)
        for stage in stages:
            if stage.name in DATA_STAGES:
                run_stage(stage)
        rows = read_jsonl("data/examples/train.jsonl")
        folder = tmp_path_factory.mktemp("model")
        texts = [row["prompts"]["direct"] + row["target"] for row in rows]
        write_model(folder, texts * 4, max_length=512)
        entry = {**PARAMS.models["pocket"].model_dump(), "name": str(folder / "weights")}
        entry |= {"max_prompt_tokens": 300, "max_candidate_tokens": 64, "batch_size": 8}
        edit_params(project, lambda values: values["models"].update(tiny=entry))
        set_params(project, {"model": "tiny"})
        for stage in stages_of(project):
            if stage.name not in DATA_STAGES:
                run_stage(stage)
            assert [o.def_path for o in stage.outs if not Path(o.def_path).exists()] == []
    return project


def test_policies_of_an_environment_are_compared_beside_scripted_players(project: Path) -> None:
    compared = read_json(project / "metrics/compare/generator.json")
    assert {"base", "sft", "sft_plus"} <= compared.keys()
    table = (project / "plots/compare/generator.md").read_text()
    assert "| expert (scripted)" in table and "| 100.0 [" in table
    assert "The environment's own expert ends at the goal on 100.0" in table
    assert "| greedy episodes | return | turns |" in table
    found = read_json(project / "metrics/generator_evaluate/sft/0.json")["test"]["episodes"]
    assert found["success"] == 0 and found["limit"] == 1 and found["error"] == 0
    assert 0 < found["invalid"] <= 1 and found["turns"] > 1
    summary = read_json(project / "data/generator_evaluate/sft/0/summary.json")["test"]
    assert summary["episodes"]["intervals"]["success"].keys() == {"0.8", "0.95"}
    episodes = read_jsonl(project / "data/generator_evaluate/sft/0/greedy.jsonl")
    assert {"id", "sample", "policy", "turns", "end", "score"} <= episodes[0].keys()
    assert {episode["policy"] for episode in episodes} == {"sft"}


def test_a_selector_has_nothing_to_choose_and_the_others_go_on(project: Path) -> None:
    reason = why_not_trained(project / "data/pools")
    assert reason is not None
    for folder in ("models/selector/ppo/0", "data/selector_evaluate/base/0", "data/rerank/0"):
        assert why_not_trained(project / folder) == reason
    assert read_json(project / "metrics/compare/selector.json") == {}
    (said,) = (project / "plots/compare/selector.md").read_text().splitlines()
    assert said.endswith(f"{reason}.")
    best = read_json(project / "metrics/best.json")
    assert best["selector"] == {"not_trained": reason} and best["generator"]["policy"]


def test_the_report_shows_episodes_as_conversations(project: Path) -> None:
    page = (project / "plots/report.html").read_text(encoding="utf-8")
    block = page.split('id="data">')[1].split("</script>")[0]
    shown = json.loads(block)
    assert {policy["family"] for policy in shown["policies"]} == {"generator"}
    answer = shown["policies"][0]["rows"][0]["answer"]
    _, action, valid, reward, observation = answer["turns"][0]
    assert answer["end"] == "limit" and not (valid and action is None)
    assert isinstance(observation, str) and reward == 0
    assert shown["questions"][0]["prompt"].endswith(shown["questions"][0]["text"])


# ------------------------------------------------------------------------------ what is trained on


def demonstrated(folder: Path, epsilon: float = 0.6) -> list[Any]:
    """Demonstrations with random prefixes, written where SFT looks for them."""
    episodes = play(off_path(epsilon, "short"), TASK, PLAYED, [(row, 0) for row in STARTS])
    write_jsonl(folder / "train.jsonl", [one.record("expert") for one in episodes])
    return episodes


def own_data(folder: Path) -> Data:
    model = PARAMS.selected_model.model_copy(update=LIMITS)
    return Data(STARTS, TOKENIZER, model, folder, folder, PLAYED.episodes)


def test_sft_learns_the_experts_turns_and_neither_random_ones_nor_observations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "DEMONSTRATIONS", tmp_path)
    episodes = demonstrated(tmp_path)
    steps = [step for episode in episodes for step in episode.steps]
    assert any(step.explored for step in steps)
    rows = own_data(tmp_path).gold_answers()
    learned = [label for row in rows for label in row["labels"] if label != IGNORED]
    wanted = tokenize_answers([step.text for step in steps if not step.explored], TOKENIZER)
    assert learned == [id for answer in wanted for id in answer]


def test_demonstrations_end_at_the_goal_and_their_statistics_count_all_attempts() -> None:
    rows = [start(number, steps=2, turns=2) for number in range(12)]  # no random turn to spare
    params = PLAYED.model_copy(
        update={
            "episodes": PLAYED.episodes.model_copy(
                update={
                    "demonstrations": PLAYED.episodes.demonstrations.model_copy(
                        update={"off_path": 0.6}
                    )
                }
            )
        }
    )
    records, found = demonstrate(TASK, params, rows)
    assert 0 < len(records) == found["demonstrated"] < found["starts"] == 12
    assert all(record["end"] == "goal" for record in records)
    assert found["success"] < found["demonstrated"] / found["starts"]


def test_a_task_of_one_turn_has_no_demonstrations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    demonstrations(PARAMS)
    assert read_json("metrics/demonstrations.json") == {}
    folder = Path("data/demonstrations")
    assert {path.name: path.read_text().strip() for path in folder.iterdir()} == {
        "train.jsonl": "",
        "val.jsonl": "",
        "settings.json": "{}",
    }


# ------------------------------------------------------------------------------ preference pairs


def of_each_end() -> list[dict[str, Any]]:
    """From each start an episode to the door and one away from it, as records of samples."""
    away = Scripted(lambda env, numbers: next(a for a in env.legal() if a != env.expert()), "short")
    records = []
    for index, player in enumerate((off_path(0.0, "short"), away)):
        played = play(player, TASK, PLAYED, [(row, index) for row in STARTS])
        records += [score_episode(one, policy="sft", index=index) for one in played]
    return records


def pairs_in(folder: Path) -> Data:
    records = of_each_end()
    write_jsonl(folder / "samples.jsonl", records)
    made = [
        pair
        for row in STARTS
        for pair in make_pairs([r for r in records if r["id"] == row["id"]], PARAMS.generator.pairs)
    ]
    assert [pair.kind for pair in made] == ["correctness"] * len(STARTS)
    rows = [{name: getattr(pair, name) for name in ("id", "chosen", "rejected")} for pair in made]
    write_jsonl(folder / "train.jsonl", rows[:6])
    write_jsonl(folder / "held_out.jsonl", rows[6:])
    return own_data(folder)


def test_two_successes_make_no_pair() -> None:
    success = next(record for record in of_each_end() if record["correct"])
    longer = {**success, "text": "another", "tokens": 900, "index": 1}
    assert make_pairs([success, longer], PARAMS.generator.pairs) == []


def test_a_pair_is_as_likely_as_the_policys_own_tokens(tmp_path: Path) -> None:
    model, (pair, *_) = walker(), pairs_in(tmp_path).pairs("train")
    found = preferred.pair_log_probs(model, [pair], 4)
    for column, kind in enumerate(preferred.KINDS):
        total = 0.0
        for row in pair[kind]:
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([row.ids])).logits[0].log_softmax(dim=-1)
            for turn in row.turns:
                for place in range(turn.start, turn.stop):
                    total += float(logits[place - 1, row.ids[place]])
        assert float(found[0, column]) == pytest.approx(total, rel=1e-4)


def train_on_pairs(folder: Path, work: Path, model: Any, die_at: int | None = None) -> Any:
    def report(done: int, total: int, stats: Any) -> None:
        if done == die_at:
            raise Killed

    run = Run(
        model=model,
        seed=0,
        work=work,
        evaluate=lambda trained: {"reward": 0.0},
        report=report,
        tokenizer=TOKENIZER,
        data=pairs_in(folder),
        reward=RewardFunction(TASK, STARTS, {}),
        sample=sampling.sample,
        in_flight=8,
        max_new_tokens=8,
        batch_size=2,
        task=TASK,
        params=PLAYED,
    )
    chosen = {"steps": 4, "pairs_per_step": 4, "inner_epochs": 2, "learning_rate": 1e-3}
    return preferred.train(run, settings("generator", "dpo", evaluations=1, **chosen))


def test_dpo_prefers_successes_and_a_killed_training_ends_with_the_same_weights(
    tmp_path: Path,
) -> None:
    whole, killed = walker(), walker()
    history = train_on_pairs(tmp_path, tmp_path / "whole", whole)
    assert history.train[-1]["margin"] > history.train[0]["margin"]
    assert history.meta["implicit_accuracy"] == 1.0
    with pytest.raises(Killed):
        train_on_pairs(tmp_path, tmp_path / "killed", killed, die_at=2)
    resumed = walker()
    train_on_pairs(tmp_path, tmp_path / "killed", resumed)
    others = resumed.state_dict()
    assert all(torch.equal(tensor, others[name]) for name, tensor in whole.state_dict().items())


# ------------------------------------------------------------------------------ measures


def test_an_episode_with_an_error_counts_for_the_errors_alone() -> None:
    turn = {"valid": True, "finished": True}
    records = [
        {"end": "goal", "score": 1.0, "turns": [turn, {**turn, "valid": False}]},
        {"end": "limit", "score": 0.0, "turns": [turn] * 4},
        {"end": "error", "score": 0.5, "turns": []},
    ]
    found = summarise_episodes(records, [0.8, 0.95], 50)
    assert found["values"] == {
        "success": 0.5, "return": 0.5, "turns": 3.0, "invalid": 0.25, "cut": 0.0, "limit": 0.5,
        "error": round(1 / 3, 6),
    }  # fmt: skip
    low, high = found["intervals"]["success"]["0.95"]
    assert 0 < low < 0.5 < high < 1


def test_only_errors_have_no_success() -> None:
    found = summarise_episodes([{"end": "error", "score": 0.0, "turns": []}], [0.95], 10)
    assert found["values"] == {"error": 1.0}
