"""Candidate pools of whole splits: candidates by the task, scored once, filtered by `pools.filter`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from posttrain.core.files import temporary_file
from posttrain.core.params import Params
from posttrain.pools.blind import fit_blind_model
from posttrain.pools.filter import filter_pool
from posttrain.pools.rewards import reward_pool
from posttrain.tasks import Example, Task
from posttrain.tasks.others import other_answers

Row = dict[str, Any]


def make_pools(
    task: Task, params: Params, examples: Mapping[str, Iterable[Example]]
) -> Iterator[tuple[str, Iterator[Row]]]:
    """(split, rows of data/pools) for each split of `examples`; consume the rows before taking the next split.

    A row has exactly `pools.count` distinct candidates in random order, one of them gold. The split `train` comes first
    and is iterated over more than once, as task and filter learn from it alone. A task without `candidates` gets those of
    `other_answers`.
    """
    config, weights, train = params.pools, params.reward.weights, examples["train"]
    learn = task.candidates or other_answers
    make = learn(params, train)

    def scored(example: Example, count: int) -> Row:
        return reward_pool(task, example, make(example, count), weights)

    if config.oversample == 1:
        for split, rows in examples.items():
            yield split, (scored(example, config.count) for example in rows)
        return

    larger = 1 + config.oversample * (config.count - 1)
    with temporary_file() as file:  # the larger pools of the training split would fill the memory

        def stored() -> Iterator[list[Row]]:
            for example in train:
                row = scored(example, larger)
                file.write(json.dumps(row).encode() + b"\n")
                yield row["candidates"]

        model = fit_blind_model(stored())
        file.seek(0)
        yield "train", (filter_pool(json.loads(line), model, config) for line in file)
    for split, rows in examples.items():
        if split != "train":
            yield split, (filter_pool(scored(example, larger), model, config) for example in rows)
