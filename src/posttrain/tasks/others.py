"""Pools for a task without `candidates` of its own: the wrong ones are gold answers of other questions.

By itself each looks as plausible as gold, so a blind baseline gains nothing. But none is nearly correct, so a selector
learns little more than which answer is about this question. An answer that happens to be correct here too is kept, and
the scorer counts it as correct.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable

from posttrain.core.errors import UserError
from posttrain.core.params import Params
from posttrain.tasks import Candidate, Example

TIMES = 8  # answers sampled for each one needed, because many are equal


def other_answers(
    params: Params, train: Iterable[Example]
) -> Callable[[Example, int], list[Candidate]]:
    """make(example, n): n distinct candidates in random order, or fewer if the training answers are fewer.

    Wrong ones are sampled by their frequency as gold in training. Raises `UserError` if all training answers are equal.
    """
    texts = [example["target"] for example in train]
    distinct = sorted(set(texts))
    if len(distinct) < 2:
        raise UserError(
            "the task has no `candidates`, and the gold answers of its training questions are all the same: "
            "there is nothing to choose from"
        )

    def make(example: Example, count: int) -> list[Candidate]:
        rng = random.Random(f"{params.pools.seed}/{example['id']}")
        count = min(count, len(distinct))
        wrong = dict.fromkeys(rng.sample(texts, min(len(texts), TIMES * count)))
        if len(wrong) <= count:
            wrong |= dict.fromkeys(rng.sample(distinct, len(distinct)))
        wrong.pop(example["target"], None)
        pool = [Candidate(example["target"], "gold", "gold")]
        pool += [Candidate(text, "plausible", "other question") for text in [*wrong][: count - 1]]
        rng.shuffle(pool)
        return pool

    return make
