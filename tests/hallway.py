"""A tiny environment, and a tiny model that has its form of answers and often goes wrong, for tests and benchmarks."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from pretrain.model import build_model, llama_config, train_tokenizer
from toys import colour_data

from posttrain.core.params import Params, load_params
from posttrain.environments import Outcome
from posttrain.generator.run import Run
from posttrain.models.tokens import tokenize_answers, tokenize_observations, tokenize_prompts
from posttrain.rollouts.sampling import sample
from posttrain.tasks import Task

SIDES = ("left", "right")
ROOT = Path(__file__).resolve().parent.parent


class Hallway:
    """Walk to a door `steps` steps away; each step nearer earns a share of 0.5, the door the other half."""

    def __init__(self) -> None:
        self.row: Mapping[str, Any] | None = None

    def reset(self, row: Mapping[str, Any]) -> str:
        self.row, self.left = row, row["steps"]
        return self._see()

    def step(self, action: str) -> Outcome:
        if self.row is None:
            raise RuntimeError("the episode has ended")
        if action not in SIDES:
            return Outcome("left or right?", valid=False)
        move = 1 if action == self.row["side"] else -1
        self.left -= move
        reward = 0.5 * move / self.row["steps"]
        if self.left == 0:
            self.row = None
            return Outcome("the door.", reward + 0.5, "goal")
        return Outcome(self._see(), reward)

    def _see(self) -> str:
        assert self.row is not None
        return f"door {self.row['side']}, {self.left} steps."

    def legal(self) -> list[str]:
        return list(SIDES)

    def expert(self) -> str | None:
        return None if self.row is None else self.row["side"]

    def state_key(self) -> str:
        return str(self.left)

    def close(self) -> None:
        self.row = None


def start(number: int, steps: int = 3, turns: int = 4) -> dict[str, Any]:
    """A row of examples."""
    side = SIDES[number % 2]
    question = f"door {side}, {steps} steps."
    return {
        "id": f"h{number}",
        "kind": "hallway",
        "seed": number,
        "question": question,
        "target_answer": f"Action: {side}",
        "prompts": {"direct": f"walk. {question}"},
        "turns": turns,
        "side": side,
        "steps": steps,
    }


def hallway_task(opened: Any = lambda params, example: Hallway()) -> Task:
    """`open` may be another one."""
    return Task(
        examples=lambda params, split, source: [],
        prompt=lambda example, variant="direct": str(example["prompts"][variant]),
        open=opened,
    )


TOKENIZER = train_tokenizer(
    [f"walk. door {side}, 3 steps.\nAction: {side}\nthe door." for side in SIDES] * 4, 420
)


def hallway_params(**episodes: Any) -> Params:
    params = load_params(ROOT / "params.yaml")
    small = {"slots": 8, "turn_tokens": 8, "context": 120}
    return params.model_copy(
        update={"episodes": params.episodes.model_copy(update=small | episodes)}
    )


@cache
def _walker_weights(steps: int) -> tuple[Any, dict[str, torch.Tensor]]:
    config = llama_config(len(TOKENIZER), 32, 1, 2, 64, 256)
    torch.manual_seed(0)
    model = build_model(config, 0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    rng = random.Random(0)
    for _ in range(steps):
        texts, answers, seen = [], [], []
        for _ in range(16):
            row = start(rng.randrange(2), rng.randint(1, 4))
            texts.append(row["prompts"]["direct"])
            sides = [*SIDES, row["side"], row["side"]]
            answers.append([f"Action: {rng.choice(sides)}" for _ in range(3)])
            seen.append([f"door {row['side']}, {rng.randint(1, 4)} steps." for _ in range(2)])
        prompts = tokenize_prompts(texts, TOKENIZER)
        rows, labels = [], []
        for prompt, own, observed in zip(prompts, answers, seen, strict=True):
            ids, label = list(prompt), [-100] * len(prompt)
            parts = tokenize_answers(own, TOKENIZER)
            for place, answer in enumerate(parts):
                ids += answer
                label += answer
                if place < 2:
                    (observation,) = tokenize_observations([observed[place]], TOKENIZER)
                    ids += observation
                    label += [-100] * len(observation)
            rows.append(ids)
            labels.append(label)
        width = max(map(len, rows))
        batch = torch.tensor([ids + [0] * (width - len(ids)) for ids in rows])
        target = torch.tensor([ids + [-100] * (width - len(ids)) for ids in labels])
        optimizer.zero_grad()
        model(input_ids=batch, labels=target).loss.backward()
        optimizer.step()
    return config, model.state_dict()


def walker(steps: int = 80) -> Any:
    """A Llama after so many steps of imitating a player that goes to the door with probability 3/4, else away."""
    config, weights = _walker_weights(steps)
    model = build_model(config, 0)
    model.load_state_dict(weights)
    return model.eval()


def hallway_run(
    model: Any, starts: Sequence[Mapping[str, Any]], work: Path, params: Params, **changes: Any
) -> Run:
    """A training of the model on episodes from these starts; its validation is always 0, unless `changes` has one."""
    asked = [{"prompt": row["prompts"]["direct"], "example": n} for n, row in enumerate(starts)]
    fields: dict[str, Any] = {
        "model": model,
        "seed": 3,
        "work": work,
        "evaluate": lambda model: {"reward": 0.0},
        "report": lambda done, total, shown: None,
        "tokenizer": TOKENIZER,
        "data": colour_data(prompts=lambda which: asked, examples=starts),
        "reward": None,
        "sample": sample,
        "in_flight": 64,
        "max_new_tokens": 8,
        "batch_size": 32,
        "task": hallway_task(),
        "params": params,
    }
    return Run(**fields | changes)
