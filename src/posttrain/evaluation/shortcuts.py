"""How well a pool can be solved without reading the page: the accuracy of trivial rules.

Each rule sees the K candidate texts of a pool and nothing else. A rule that prefers several candidates equally
gets the share of them that is right, so accuracies are exact expectations, not samples. `learned` is the
strongest: a linear softmax model over hashed tokens of the texts and over how each candidate relates to its
pool, fitted on training pools (L-BFGS, L2), the "model without context".
"""

from __future__ import annotations

import re
import zlib
from array import array
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

Pool = Sequence[Mapping[str, Any]]  # text, answer (or None), consistent, correct
Array = NDArray[np.float64]

_TOKEN = re.compile(r"[A-Za-z_]+|[0-9]|[^\sA-Za-z0-9_]")
_OPERAND = re.compile(r"#?[A-Z]*[0-9][0-9.,]*%?")
_BUCKETS = 1 << 15


def audit_shortcuts(
    train: Sequence[Pool], splits: Mapping[str, Sequence[Pool]]
) -> dict[str, dict[str, float]]:
    """Accuracy of each rule on the pools of each split; `fixed_slot` is the best of the slots."""
    blind = fit_blind_model(train)
    result = {}
    for split, pools in splits.items():
        rates = {name: _accuracy(pools, rule) for name, rule in RULES.items()}
        slots = range(max(map(len, pools)))
        rates["fixed_slot"] = max(_accuracy(pools, _slot_rule(slot)) for slot in slots)
        rates["learned"] = _accuracy(pools, partial(blind_scores, model=blind))
        result[split] = rates
    return result


def fit_blind_model(pools: Sequence[Pool], l2: float = 1.0, iterations: int = 60) -> Array:
    """Weights of the linear softmax model, fitted to put its mass on right candidates."""
    from scipy.optimize import minimize  # 0.2 s that other users of this module need not wait

    features = _features(pools)
    ends = np.cumsum([len(pool) for pool in pools])
    starts = np.concatenate([[0], ends[:-1]])
    owner = np.repeat(np.arange(len(pools)), [len(pool) for pool in pools])
    right = np.array([bool(made["correct"]) for pool in pools for made in pool], dtype=float)
    target = right / np.maximum(np.add.reduceat(right, starts), 1)[owner]

    def loss(weights: Array) -> tuple[float, Array]:
        scores = features @ weights
        scores -= np.maximum.reduceat(scores, starts)[owner]
        mass = np.exp(scores)
        total = np.add.reduceat(mass, starts)
        probability = mass / total[owner]
        value = float(-(target * (scores - np.log(total)[owner])).sum())
        gradient = features.T @ (probability - target)
        return value + l2 / 2 * float(weights @ weights), gradient + l2 * weights

    start = np.zeros(features.shape[1])
    options = {"maxiter": iterations}
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options=options)
    return np.asarray(found.x, dtype=np.float64)


def blind_scores(pool: Pool, model: Array) -> Array:
    """The model's logit of each candidate."""
    return np.asarray(_features([pool]) @ model, dtype=np.float64)


def _accuracy(pools: Sequence[Pool], rule: Callable[[Pool], Array]) -> float:
    """Mean over pools of the share of right candidates among those that the rule likes best."""
    shares = []
    for pool in pools:
        scores = rule(pool)
        best = np.flatnonzero(scores >= scores.max() - 1e-9)
        shares.append(np.mean([bool(pool[index]["correct"]) for index in best.tolist()]))
    return float(np.mean(shares))


def _slot_rule(slot: int) -> Callable[[Pool], Array]:
    return lambda pool: (np.arange(len(pool)) == slot).astype(float)


def _lengths(pool: Pool) -> Array:
    return np.array([len(made["text"]) for made in pool], dtype=float)


def _votes(pool: Pool) -> Array:
    counts = Counter(made["answer"] for made in pool if made["answer"] is not None)
    return np.array([counts.get(made["answer"], 0) for made in pool], dtype=float)


def _consistent(pool: Pool) -> Array:
    return np.array([bool(made["consistent"]) for made in pool], dtype=float)


def _typicality(pool: Pool) -> Array:
    """Mean Jaccard similarity of a candidate's token pairs with those of the others."""
    grams = [set(_ngrams(_TOKEN.findall(made["text"]), 2)) for made in pool]
    score = [
        np.mean([len(a & b) / max(1, len(a | b)) for j, b in enumerate(grams) if j != i] or [0.0])
        for i, a in enumerate(grams)
    ]
    return np.array(score)


RULES: dict[str, Callable[[Pool], Array]] = {
    "random": lambda pool: np.zeros(len(pool)),
    "shortest": lambda pool: -_lengths(pool),
    "longest": _lengths,
    "majority_answer": _votes,
    "consistent": _consistent,
    "most_typical": _typicality,
}


def _ngrams(tokens: Sequence[str], size: int) -> list[str]:
    return [" ".join(tokens[i : i + size]) for i in range(len(tokens) - size + 1)]


def _features(pools: Sequence[Pool]) -> csr_matrix:
    """(candidates of all pools, buckets): hashed n-grams, the program's shape, and ranks inside the pool."""
    from scipy.sparse import csr_matrix

    columns, ends = array("i"), array("q", [0])  # lists of ints would take ten times the memory
    for pool in pools:
        relations = np.stack(
            [
                _lengths(pool) / _lengths(pool).mean(),
                _votes(pool),
                _consistent(pool),
                _typicality(pool),
            ]
        )
        for index, made in enumerate(pool):
            names = set(_describe(made))
            columns.extend(zlib.crc32(name.encode()) % _BUCKETS for name in names)
            order = (relations > relations[:, index : index + 1]).sum(axis=1)
            columns.extend(
                _BUCKETS + kind * 64 + min(int(rank), 63) for kind, rank in enumerate(order)
            )
            ends.append(len(columns))
    matrix = csr_matrix(
        (np.ones(len(columns)), columns, ends), shape=(len(ends) - 1, _BUCKETS + 64 * 4)
    )
    matrix.sum_duplicates()
    return matrix


def _describe(made: Mapping[str, Any]) -> list[str]:
    tokens = _TOKEN.findall(made["text"])
    seen: dict[str, int] = {}
    shape = _OPERAND.sub(lambda match: f"x{seen.setdefault(match[0], len(seen))}", made["text"])
    words = [name for size in (1, 2, 3) for name in _ngrams(tokens, size)]
    words += [f"shape {shape.split('answer')[0]}", f"length {len(made['text']) // 8}"]
    try:
        size = abs(float(str(made["answer"]).rstrip("%")))
        words.append(f"magnitude {int(np.floor(np.log10(size))) if size else 'zero'}")
    except ValueError:
        words.append(f"answer {made['answer']}")
    return words
