"""Claims about episodes: their rows, the engine that plays them, the credit of their actions, and training on them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from hallway import (
    TOKENIZER,
    Hallway,
    hallway_params,
    hallway_run,
    hallway_task,
    start,
    walker,
)
from torch.nn.functional import cross_entropy
from toys import Killed, contents, frozen_copy, settings

from posttrain.core.errors import UserError
from posttrain.core.loop import History, trainable_state
from posttrain.core.methods import load_method
from posttrain.environments import Outcome
from posttrain.environments.scripted import expert, first_legal, random_legal
from posttrain.generator import on_policy
from posttrain.generator.batches import collate, prompt_batches
from posttrain.generator.methods import grpo, ppo, rloo
from posttrain.generator.settings import Curriculum
from posttrain.models.tokens import decode_answer, tokenize_observations, tokenize_prompts
from posttrain.rollouts import sampling
from posttrain.rollouts.credit import (
    equal_groups,
    grpo_advantages,
    returns_to_go,
    rloo_advantages,
    token_gae,
    turn_gae,
)
from posttrain.rollouts.critic import Critic
from posttrain.rollouts.episode import Episode, Row, Step, Turn, Window, read_record
from posttrain.rollouts.play import (
    Policy,
    Scripted,
    off_path,
    play,
    successes,
)
from posttrain.rollouts.sampling import sample

PARAMS = hallway_params()
TASK = hallway_task()
STARTS = [(start(number), sample) for number in range(4) for sample in range(4)]


@pytest.fixture(scope="module")
def model() -> Any:
    return walker()


def played(model: Any, starts: Any = STARTS, params: Any = PARAMS, **more: Any) -> list[Episode]:
    task = more.pop("task", TASK)
    player = Policy(model, TOKENIZER, sample, params, temperature=1.0, seed=5, step=2)
    return play(player, task, params, starts, **more)


def scripted(actions: Sequence[str], task: Any = TASK, **episodes: Any) -> Episode:
    """One episode of these actions."""
    left = iter(actions)
    player = Scripted(lambda environment, numbers: next(left), "short")
    (episode,) = play(player, task, hallway_params(**episodes), [(start(0), 0)])
    return episode


# --------------------------------------------------------------------------------- rows of tokens


def test_sampled_ids_decode_to_the_text_that_the_environment_got(model: Any) -> None:
    for episode in played(model):
        turns = [(row, turn) for row in episode.rows for turn in row.turns]
        assert len(turns) == len(episode.steps)
        for (row, turn), step in zip(turns, episode.steps, strict=True):
            ids = row.ids[turn.start : turn.stop]
            ended = ids[-1] == TOKENIZER.eos_token_id
            assert ended == step.finished
            assert decode_answer(ids[: len(ids) - ended], TOKENIZER) == step.text
            assert turn.reward == step.reward


def test_each_row_continues_its_prompt_or_is_another_window(model: Any) -> None:
    """A row is the prompt, the last whole turns that fill half of it, and its own turns with what was read between."""
    params = hallway_params(context=72)
    rows = [start(number, steps=4, turns=8) for number in range(4)]
    episodes = played(model, [(row, 0) for row in rows], params)
    prompts = tokenize_prompts([row["prompts"]["direct"] for row in rows], TOKENIZER)
    assert max(len(episode.rows) for episode in episodes) > 2
    for episode, prompt in zip(episodes, prompts, strict=True):
        answers = [r.ids[t.start : t.stop] for r in episode.rows for t in r.turns]
        texts = tokenize_observations([step.observation for step in episode.steps], TOKENIZER)
        turns = [(*answer, *text) for answer, text in zip(answers, texts, strict=True)]
        own = 0
        for row in episode.rows:
            before, inside = turns[:own], turns[own : own + len(row.turns)]
            kept = row.ids[len(prompt) : row.turns[0].start]
            count = next(n for n in range(own + 1) if sum(map(len, before[own - n :])) == len(kept))
            assert [*kept] == [id for turn in before[own - count :] for id in turn]
            assert count <= 1 or len(prompt) + len(kept) <= 36
            if count < own:
                assert len(prompt) + len(kept) + len(before[own - count - 1]) > 36
            written = [id for turn in inside for id in turn][: len(row.ids) - row.turns[0].start]
            assert [*row.ids] == [*prompt, *kept, *written] and len(row.ids) <= 72
            own += len(row.turns)
        assert own == len(episode.steps)


def test_a_window_keeps_the_last_whole_turns_that_fill_half_of_it() -> None:
    window = Window([1, 2], context=20, turn_tokens=4)
    for turn in range(4):
        if turn:
            window.read([50 + turn])
        window.write([10 * turn + 10, 10 * turn + 11, 10 * turn + 12])
    steps = [Step("", "", True, float(turn), "") for turn in range(4)]
    assert window.rows(steps) == (
        Row(
            (1, 2, 10, 11, 12, 51, 20, 21, 22, 52, 30, 31, 32, 53, 40, 41, 42),
            (Turn(2, 5, 0.0), Turn(6, 9, 1.0), Turn(10, 13, 2.0), Turn(14, 17, 3.0)),
        ),
    )
    window.read([54])
    assert window.ids == [1, 2, 30, 31, 32, 53, 40, 41, 42, 54]
    with pytest.raises(
        UserError, match="context: 20 tokens do not hold a prompt of 2, a turn of 33"
    ):
        window.write([7] * 3)
        window.read([8] * 30)


def test_a_record_read_again_has_the_rows_that_were_sampled(model: Any) -> None:
    params = hallway_params(context=72)
    rows = [start(number, steps=4, turns=8) for number in range(4)]
    prompts = tokenize_prompts([row["prompts"]["direct"] for row in rows], TOKENIZER)
    episodes = played(model, [(row, 0) for row in rows], params)
    same = 0
    for episode, prompt in zip(episodes, prompts, strict=True):
        again = read_record(episode.record("sft"), prompt, TOKENIZER, 72, 8)
        assert (again.steps, again.end, again.score) == (episode.steps, episode.end, episode.score)
        same += again.rows == episode.rows
    assert same >= 3  # a text may have been sampled in other tokens than its own


def test_a_turn_that_no_state_precedes_and_one_inside_another_are_refused() -> None:
    for turns in ((Turn(0, 1, 0.0),), (Turn(1, 3, 0.0), Turn(2, 4, 0.0)), (Turn(1, 6, 0.0),)):
        with pytest.raises(ValueError, match="no turn of 5 ids"):
            Row((1, 2, 3, 4, 5), turns)


# ------------------------------------------------------------------------------------- the engine


@pytest.mark.parametrize("slots", [1, 3])
def test_the_same_keys_give_the_same_episodes_in_any_slots_and_order(
    model: Any, slots: int
) -> None:
    expected = played(model)
    assert played(model, params=hallway_params(slots=slots)) == expected
    assert played(model, STARTS[::-1])[::-1] == expected
    assert played(model, STARTS[5:7]) == expected[5:7]
    assert len({episode.steps for episode in expected[:4]}) > 1, "samples of one start differ"


def test_scripted_players_reach_what_they_can() -> None:
    starts = [(start(number), sample) for number in range(10) for sample in range(10)]
    share = {
        name: successes(play(player, TASK, PARAMS, starts))
        for name, player in {
            "expert": Scripted(expert, "short"),
            "thoughtful": Scripted(expert, "thought"),
            "first": Scripted(first_legal, "short"),
            "random": Scripted(random_legal, "short"),
            "off path": off_path(0.5, "short"),
        }.items()
    }
    assert share["expert"] == 1 and share["first"] == 0.5 and share["thoughtful"] == 0
    assert share["random"] < 0.3 < share["off path"] < 1


def test_an_explored_turn_is_read_and_not_trained_on() -> None:
    episodes = play(
        off_path(0.6, "short"), TASK, PARAMS, [(start(0, turns=9), n) for n in range(9)]
    )
    episode = next(e for e in episodes if 0 < sum(s.explored for s in e.steps) < len(e.steps))
    explored = [step.explored for step in episode.steps]
    assert explored == sorted(explored, reverse=True)
    (row,) = read_record(episode.record("expert"), [7, 8], TOKENIZER, 500, 8).rows
    assert len(row.turns) == explored.count(False)
    assert [turn.reward for turn in row.turns] == [
        s.reward for s in episode.steps if not s.explored
    ]


def test_answers_without_the_form_are_told_so_and_cost_their_turn() -> None:
    texts = iter(["go left", "Action: left\nAction: left", "Action: up", "Action: left"])

    class Writes(Scripted):
        def _write(self, each: Any, environment: Any) -> Any:
            return super()._write(each, environment).__class__(next(texts), len(each.steps) < 3)

    (episode,) = play(Writes(expert, "short"), TASK, PARAMS, [(start(0), 0)])
    assert [(s.action, s.valid, s.reward) for s in episode.steps] == [
        (None, False, 0.0),
        (None, False, 0.0),
        ("up", False, 0.0),
        (None, False, 0.0),
    ]
    assert [step.observation for step in episode.steps] == [
        "Invalid answer: expected one 'Action:', found 0.",
        "Invalid answer: expected one 'Action:', found 2.",
        "left or right?",
        "Invalid answer: cut off after 8 tokens.",
    ]
    assert episode.end == "limit" and episode.score == 0


def test_a_lower_cap_ends_an_episode_earlier() -> None:
    starts = [(start(0, steps=3, turns=9), 0)]
    for turns, end, count in ((2, "limit", 2), (3, "goal", 3), (20, "goal", 3), (None, "goal", 3)):
        (episode,) = play(Scripted(expert, "short"), TASK, PARAMS, starts, turns=turns)
        assert (episode.end, len(episode.steps)) == (end, count)


class Breaking(Hallway):
    """Breaks at the second step of the games that are told, the first time or always."""

    opened: ClassVar[dict[str, int]] = {}

    def __init__(self, id: str, breaks: Any) -> None:
        super().__init__()
        self.opened[id] = self.opened.get(id, 0) + 1
        self.broken = breaks(id, self.opened[id])
        self.steps = 0

    def step(self, action: str) -> Outcome:
        self.steps += 1
        if self.broken and self.steps == 2:
            if self.broken == "slow":
                time.sleep(5)
            raise RuntimeError("the engine\nis gone")
        return super().step(action)


def breaking(breaks: Any) -> Any:
    Breaking.opened = {}
    return hallway_task(lambda params, example: Breaking(example["id"], breaks))


@pytest.mark.parametrize("how", ["raises", "slow"])
def test_a_crash_is_repeated_in_a_new_environment_once(how: str, model: Any) -> None:
    params = hallway_params(seconds=0.05)
    starts = [(start(number), 0) for number in range(8)]
    once = breaking(lambda id, opened: how if id == "h3" and opened == 1 else None)
    assert played(model, starts, params, task=once) == played(model, starts)
    always = breaking(lambda id, opened: how if id == "h3" else None)
    episodes = played(model, starts, params, task=always)
    assert [episode.end for episode in episodes].count("error") == 1
    assert episodes[3].rows == () and len(episodes[3].steps) == 1
    assert episodes[3].error in (
        "RuntimeError: the engine is gone",
        "TimeoutError: took more than 0.05 seconds",
    )
    assert successes(episodes) == successes([*episodes[:3], *episodes[4:]])


def test_more_than_one_percent_of_errors_is_one_line() -> None:
    task = breaking(lambda id, opened: "raises" if id in ("h1", "h2") else None)
    with pytest.raises(
        UserError, match=r"^2 of 4 episodes ended .* the last in episode h1, turn 2: .*gone$"
    ):
        play(Scripted(expert, "short"), task, PARAMS, [(start(n), 0) for n in range(4)])


def test_an_environment_that_begins_otherwise_than_its_row_is_an_error() -> None:
    (episode,) = play(
        Scripted(expert, "short"),
        TASK,
        PARAMS,
        [({**start(0), "question": "door left, 9 steps."}, 0)],
    )
    assert episode.end == "error" and "not the row's question" in str(episode.error)


# ----------------------------------------------------------------------------------------- credit


def of_turns(*turns: tuple[int, float], between: int = 0, **more: Any) -> Episode:
    """An episode of turns (tokens, reward) in one row, with so many ids after each; or in rows of one turn."""
    rows, ids, found = [], [9], []
    for tokens, reward in turns:
        found.append(Turn(len(ids), len(ids) + tokens, reward))
        ids += [*range(3, 3 + tokens), *[14] * between]
        if more.get("split"):
            rows.append(Row(tuple(ids), (found[-1],)))
    steps = tuple(Step("", "", True, reward, "") for _, reward in turns)
    rows = rows or [Row(tuple(ids), tuple(found))]
    score = sum(reward for _, reward in turns)
    return Episode(more.get("id", "a"), 0, tuple(rows), steps, "goal", score)


def acted(
    episodes: Sequence[Episode], model: Any, credit: Any, batch_size: int = 8
) -> tuple[Any, dict[str, float]]:
    config = settings("generator", "ppo", kl_coef=0.3)
    reference = {name: 1.05 * p for name, p in frozen_copy(model).items()}
    return on_policy.rollout(model, reference, episodes, config, batch_size, credit, True)


def ppo_credit(**changes: Any) -> Any:
    """PPO's, without a penalty, and with a critic that has learned something."""
    critic = Critic(32, 2)
    torch.manual_seed(0)
    critic.learn(torch.randn(50, 32), torch.rand(50, 2), torch.randn(50))
    config = settings(
        "generator", "ppo", **{"kl_coef": 0.0, "gae_lambda": 0.9, "gamma": 0.8} | changes
    )
    return partial(ppo.credit, critic, config)


def test_token_gae_discounts_at_the_ends_of_turns_only() -> None:
    """Turns of 2 and 1 tokens: without values, a token's advantage at lambda 1 is its return."""
    assert token_gae([0.0, 1.0, 2.0], [0.0] * 3, [2, 1], 0.5, 1.0) == [2.0, 2.0, 2.0]
    assert token_gae([0.0, 1.0, 2.0], [0.0] * 3, [1, 2], 0.5, 1.0) == [1.5, 3.0, 2.0]
    # delta = [0 + 0.4 - 0.2, 1 + 0.5 * 0.6 - 0.4, 2 - 0.6]; decay 0.8 inside the turn, 0.4 at its end.
    found = token_gae([0.0, 1.0, 2.0], [0.2, 0.4, 0.6], [2, 1], 0.5, 0.8)
    assert found == pytest.approx([0.2 + 0.8 * (0.9 + 0.4 * 1.4), 0.9 + 0.4 * 1.4, 1.4])
    assert returns_to_go([0.0, 1.0, 2.0], [2, 1], 0.5) == [2.0, 2.0, 2.0]


def test_turn_gae_has_one_value_and_one_advantage_per_turn() -> None:
    """Turns of 2, 1 and 2 tokens with rewards 1, 0, 2; values 0.2, 0.6, 0.4 before them; others do not count."""
    found = turn_gae([0.5, 0.5, 0.0, 0.0, 2.0], [0.2, 9, 0.6, 0.4, 9], [2, 1, 2], 0.5, 0.8)
    last = 2 - 0.4
    middle = 0 + 0.5 * 0.4 - 0.6 + 0.4 * last
    first = 1 + 0.5 * 0.6 - 0.2 + 0.4 * middle
    assert found == pytest.approx([first, first, middle, last, last])


def test_no_step_reward_is_lost_to_an_observation(model: Any) -> None:
    """The sum of the actions' rewards is that of the environment's, also where the last token is an observation.

    AgentGym-RL puts the reward on the last token of the sequence, and multiplies by the mask of actions in GAE: a reward
    on an observation becomes nothing.
    """

    def masked_gae(rewards: list[float], mask: list[int]) -> list[float]:
        ahead, found = 0.0, []
        for reward, action in zip(rewards[::-1], mask[::-1], strict=True):
            ahead = (reward + ahead) * action
            found.append(ahead)
        return found[::-1]

    assert masked_gae([0, 0, 0, 0, 1], [1, 1, 0, 0, 0]) == [0] * 5
    episode = of_turns((2, 1.0), between=3)
    assert episode.rows[0].actions == [False, True, True, False, False, False]
    credit = ppo_credit(gae_lambda=1.0, gamma=1.0)
    values: list[Any] = []

    def spy(found: on_policy.Acted) -> Any:
        values.append(found.spread([returns_to_go([0.0, 1.0], [2], 1.0)]))
        return credit(found)

    acted([episode], model, spy)
    assert values[0].tolist() == [1.0, 1.0]
    for played_one in played(model):
        earned = sum(turn.reward for row in played_one.rows for turn in row.turns)
        assert earned == pytest.approx(sum(step.reward for step in played_one.steps))
        assert earned == pytest.approx(played_one.score)


@pytest.mark.parametrize("credit", ["token", "turn"])
def test_observations_split_rows_and_padding_change_no_advantage(credit: str, model: Any) -> None:
    """Given the same values and no penalty; so the critic is at its start."""
    turns = [[(2, 0.0), (3, 0.5), (1, 1.0)], [(1, 0.25), (4, 0.0)], [(5, 0.1)]]
    found = []
    for shape in ({}, {"between": 4}, {"split": True}, {"split": True, "between": 2}):
        episodes = [of_turns(*each, **shape) for each in turns]
        config = settings("generator", "ppo", kl_coef=0.0, gae_lambda=0.9, gamma=0.8, credit=credit)
        for batch_size in (1, 8):
            plain: list[Any] = []

            def spy(seen: on_policy.Acted, plain: Any = plain, config: Any = config) -> Any:
                advantages, stats = ppo.credit(Critic(32, 2), config, seen)
                own = {e.score: seen.of(n, advantages) for n, e in enumerate(seen.episodes)}
                plain.append(torch.cat([own[score] for score in sorted(own)]))
                return advantages, stats

            acted(episodes, model, spy, batch_size)
            found += plain
    for other in found[1:]:
        torch.testing.assert_close(other, found[0])


def test_the_gradient_on_the_logits_of_observations_is_exactly_0(model: Any) -> None:
    (row,) = of_turns((2, 0.0), (3, 1.0), between=3).rows
    made, _ = acted([of_turns((2, 0.0), (3, 1.0), between=3)], model, ppo_credit())
    kept: list[torch.Tensor] = []
    handle = model.get_output_embeddings().register_forward_hook(
        lambda module, inputs, output: output.retain_grad() or kept.append(output)
    )
    on_policy.accumulate_gradients(model, made, settings("generator", "ppo"))
    handle.remove()
    kept = [each for each in kept if each.numel()]
    assert [tuple(each.shape[:-1]) for each in kept] == [(1, 5)], "only actions have logits"
    # The same loss on all logits of the row: none of the others gets a gradient.
    model.zero_grad()
    logits = model(input_ids=torch.tensor([row.ids])).logits
    logits.retain_grad()
    batch = collate([row])
    own = -cross_entropy(logits[batch.before_action], batch.tokens, reduction="none")
    losses, _ = on_policy.loss(own, made.old_log_probs, made.advantages, 0.2)
    losses.mean().backward()
    used = logits.grad.abs().sum(dim=-1) > 0
    assert used.tolist() == batch.before_action.tolist()
    torch.testing.assert_close(kept[0].grad[0], logits.grad[batch.before_action])
    model.zero_grad()


def test_log_probs_at_training_equal_those_at_sampling(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of every sampled token, in rows of several windows and batches, to 1e-4."""
    config = settings("generator", "ppo", temperature=0.8)
    params = hallway_params(context=72)
    starts = [(start(number, steps=4, turns=8), 0) for number in range(4)]
    plain = sampling._inverted

    def spy(logits: Any, uniforms: Any, top_p: float) -> Any:
        ids = plain(logits, uniforms, top_p)
        chances = logits.log_softmax(-1).gather(-1, ids[..., None])[..., 0]
        sampled.append((ids.flatten().tolist(), chances.flatten().tolist()))
        return ids

    sampled: list[Any] = []
    monkeypatch.setattr(sampling, "_inverted", spy)
    player = Policy(model, TOKENIZER, sample, params, temperature=0.8, seed=5)
    for place in starts:  # one at a time, so that the order of the tokens is known
        sampled.clear()
        (episode,) = play(player, TASK, params, [place])
        tokens = [ids[0] for ids, _ in sampled]
        chances = [chance[0] for _, chance in sampled]
        made, _ = on_policy.rollout(model, {}, [episode], config, 1, ppo_credit(), True)
        assert tokens == [
            id for row in episode.rows for t in row.turns for id in row.ids[t.start : t.stop]
        ]
        # Batches are ordered by length, and these of one row each by their ids.
        found: dict[Any, Any] = {
            tuple(batch.ids[0].tolist()): own
            for batch, own in zip(
                made.batches, torch.split(made.old_log_probs, made.sizes), strict=True
            )
        }
        ordered = torch.cat([found[row.ids] for row in episode.rows])
        torch.testing.assert_close(ordered, torch.tensor(chances), atol=1e-4, rtol=0)


def test_group_advantages_by_hand() -> None:
    """Group a returns 0, 1, 1; group b twice 0.5; one alone."""
    returns, groups = [0.0, 1.0, 0.5, 1.0, 0.5, 7.0], ["a", "a", "b", "a", "b", "c"]
    assert rloo_advantages(returns, groups).tolist() == [-1.0, 0.5, 0.0, 0.5, 0.0, 0.0]
    found = grpo_advantages(returns, groups, "none").tolist()
    assert found == pytest.approx([-2 / 3, 1 / 3, 0, 1 / 3, 0, 0])
    deviation = (1 / 3) ** 0.5 + 1e-4
    found = grpo_advantages(returns, groups).tolist()
    assert found == pytest.approx([x / deviation for x in (-2 / 3, 1 / 3, 0, 1 / 3, 0, 0)])
    assert equal_groups(returns, groups) == pytest.approx(2 / 3)


@pytest.mark.parametrize("method", ["grpo", "rloo", "ppo"])
def test_an_injected_crash_changes_no_other_advantage(method: str, model: Any) -> None:
    """One of eight environments crashes: the others get what they get if it was never started."""
    starts = [(start(number // 4), number % 4) for number in range(8)]
    whole = played(model, starts)
    # Four environments of h1 are opened, 1 to 4; 5 is the one in which the actions of the third are repeated.
    broken = breaking(lambda id, opened: "raises" if id == "h1" and opened in (3, 5) else None)
    with_crash = played(model, starts, task=broken)
    assert [n for n, e in enumerate(with_crash) if e.end == "error"] == [6]
    kept = [*whole[:6], whole[7]]
    assert [*with_crash[:6], with_crash[7]] == kept
    results = []
    for episodes in (kept, with_crash):
        credit = {
            "ppo": ppo_credit(),
            "grpo": partial(grpo.credit, settings("generator", "grpo")),
            "rloo": partial(rloo.credit, settings("generator", "rloo")),
        }[method]
        made, stats = acted(episodes, model, credit)
        results.append((made.advantages, stats["reward"], stats["success"], stats["kl"]))
    assert torch.equal(results[0][0], results[1][0]) and results[0][1:] == results[1][1:]


# --------------------------------------------------------------------------------------- training


def train(
    method: str, work: Path, die_at: Any = None, task: Any = TASK, **changes: Any
) -> tuple[Any, History]:
    """8 steps of 8 starts and 4 episodes each; it is killed before a turn of a step, `die_at`."""
    examples = [start(number) for number in range(16)]

    def evaluate(model: Any) -> dict[str, float]:
        player = Policy(model, TOKENIZER, sample, PARAMS, temperature=0.0)
        episodes = play(player, TASK, PARAMS, [(example, 0) for example in examples[:2]])
        return {"reward": successes(episodes)}

    def sampler(*given: Any, keys: Any = None, **more: Any) -> Any:
        if die_at in [(key.split("/")[0], key.split("/")[-1]) for key in keys]:
            raise Killed
        return sample(*given, keys=keys, **more)

    model, params = walker(), hallway_params(slots=32)
    run = hallway_run(model, examples, work, params, evaluate=evaluate, sample=sampler, task=task)
    small = {
        "steps": 8,
        "prompts_per_step": 8,
        "samples": 4,
        "learning_rate": 3e-3,
        "evaluations": 2,
    }
    changed = settings("generator", method, **small | changes)
    history: History = load_method("generator", method).train(run, changed)
    return model, history


@pytest.mark.parametrize(
    ("method", "changes"), [("ppo", {}), ("ppo", {"credit": "turn"}), ("grpo", {}), ("rloo", {})]
)
def test_training_finds_the_door(method: str, changes: dict[str, Any], tmp_path: Path) -> None:
    """From a quarter of the episodes to most."""
    _, history = train(method, tmp_path, **changes)
    success = [row["success"] for row in history.train]
    assert success[0] < 0.35
    assert sum(success[-3:]) / 3 > 0.75
    assert history.train[0]["kl"] == pytest.approx(0.0, abs=1e-4) and history.train[-1]["kl"] > 0.1
    assert {"turns", "invalid", "limit", "errors", "equal_rewards", "rows"} <= history.train[
        0
    ].keys()


@pytest.mark.parametrize(
    ("method", "more"),
    [
        ("ppo", {"curriculum": Curriculum(by="side", reward=0.05)}),
        ("ppo_affine", {}),
        ("rloo", {}),
    ],
)
def test_killed_inside_an_episode_and_resumed_is_as_if_not_killed(
    method: str, more: dict[str, Any], tmp_path: Path
) -> None:
    changes = {"steps": 3, "prompts_per_step": 2, "samples": 2, **more}
    whole, history = train(method, tmp_path / "whole", **changes)
    with pytest.raises(Killed):
        train(method, tmp_path / "killed", die_at=("2", "2"), **changes)
    assert contents(tmp_path / "killed"), "the first step is kept"
    resumed, its_history = train(method, tmp_path / "killed", **changes)
    assert its_history == history
    expected = trainable_state(whole)
    assert all(torch.equal(t, expected[name]) for name, t in trainable_state(resumed).items())
    columns = {key for row in history.train for key in row}
    assert ("open_groups" in columns) == (method == "ppo")
    assert ("value_loss" in columns) == (method == "ppo_affine")


def test_caps_rise_over_the_training(tmp_path: Path) -> None:
    _, history = train("rloo", tmp_path, steps=4, turn_caps=[1, 2], samples=2, prompts_per_step=2)
    turns = [row["turns"] for row in history.train]
    assert turns[:2] == [1.0, 1.0] and all(1 < each <= 2 for each in turns[2:])


def test_errors_of_a_whole_training_are_counted(tmp_path: Path) -> None:
    """One in a step of eight episodes is let pass, and a second one in the next step is not."""
    prompts = tokenize_prompts([start(n)["prompts"]["direct"] for n in range(16)], TOKENIZER)
    asked = prompt_batches(prompts, 4, 4, seed=3)
    ids = {f"h{asked[0][0]}", f"h{asked[1][0]}"}
    # Two environments of a start are opened; the third is the one in which the actions of the first are repeated.
    task = breaking(lambda id, opened: "raises" if id in ids and opened in (1, 3) else None)
    with pytest.raises(UserError, match=r"^2 of 16 episodes ended"):
        train("rloo", tmp_path, steps=4, samples=2, prompts_per_step=4, task=task)
