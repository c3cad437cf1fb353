"""How well a pool can be solved without reading the page: the accuracy of trivial rules.

Each rule sees the K candidate texts of a pool and nothing else. A rule that prefers several candidates equally
gets the share of them that is right, so accuracies are exact expectations, not samples. `learned` is the
strongest: a linear softmax model over hashed tokens of the texts and over how each candidate relates to its
pool, fitted on training pools (L-BFGS, L2), the "model without context".
"""

from __future__ import annotations

import os
import re
import zlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from itertools import combinations, islice
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from posttrain.core.files import temporary_file

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

Pool = Sequence[Mapping[str, Any]]  # text, answer (or None), consistent, correct
Array = NDArray[np.float64]

_TOKEN = re.compile(r"[A-Za-z_]+|[0-9]|[^\sA-Za-z0-9_]")
_OPERAND = re.compile(r"#?[A-Z]*[0-9][0-9.,]*%?")
_BUCKETS = 1 << 15
_COLUMNS = (
    _BUCKETS + 64 * 4
)  # those of tokens, and ranks in the pool by four relations; 16 bits hold them
_CHUNK = 256  # pools whose features are in memory together


def audit_shortcuts(
    train: Iterable[Pool], splits: Mapping[str, Iterable[Pool]]
) -> dict[str, dict[str, float]]:
    """Accuracy of each rule on the pools of each split; `fixed_slot` is the best of the slots.

    The pools of `splits` are iterated over twice.
    """
    blind = fit_blind_model(train)
    result = {}
    for split, pools in splits.items():
        slots = {f"slot {n}": _slot_rule(n) for n in range(max(map(len, pools)))}
        rates = _accuracies(pools, RULES | slots | {"learned": partial(blind_scores, model=blind)})
        rates["fixed_slot"] = max(rates.pop(name) for name in slots)
        result[split] = rates
    return result


def fit_blind_model(
    pools: Iterable[Pool], l2: float = 1.0, iterations: int = 60, chunk: int = _CHUNK
) -> Array:
    """Weights of the linear softmax model, fitted to put its mass on right candidates.

    The features of `chunk` pools at a time are in memory, those of all in a temporary file.
    """
    from scipy.optimize import minimize  # 0.2 s that other users of this module need not wait

    with temporary_file() as file:
        waiting = iter(pools)
        while part := list(islice(waiting, chunk)):
            _store(part, file)

        def loss(weights: Array) -> tuple[float, Array]:
            value, gradient = l2 / 2 * float(weights @ weights), l2 * weights
            for features, starts, target in _stored(file):
                owner = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(target)))
                scores = features @ weights
                scores -= np.maximum.reduceat(scores, starts)[owner]
                mass = np.exp(scores)
                total = np.add.reduceat(mass, starts)
                value -= float((target * (scores - np.log(total)[owner])).sum())
                gradient += features.T @ (mass / total[owner] - target)
            return value, gradient

        options = {"maxiter": iterations}
        found = minimize(loss, np.zeros(_COLUMNS), jac=True, method="L-BFGS-B", options=options)
    return np.asarray(found.x, dtype=np.float64)


def blind_scores(pool: Pool, model: Array) -> Array:
    """The model's logit of each candidate."""
    columns, ends = _features([pool])
    return np.asarray(np.add.reduceat(model[columns], ends[:-1]), dtype=np.float64)


def _accuracies(
    pools: Iterable[Pool], rules: Mapping[str, Callable[[Pool], Array]]
) -> dict[str, float]:
    """For each rule the mean over pools of the share of right candidates among those that it likes best."""
    shares: dict[str, list[float]] = {name: [] for name in rules}
    for pool in pools:
        right = np.array([bool(made["correct"]) for made in pool])
        for name, rule in rules.items():
            scores = rule(pool)
            shares[name].append(float(right[scores >= scores.max() - 1e-9].mean()))
    return {name: float(np.mean(found)) for name, found in shares.items()}


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
    alike: list[list[float]] = [[] for _ in pool]  # by candidate, with each of the others
    for i, j in combinations(range(len(pool)), 2):
        shared = len(grams[i] & grams[j])
        similarity = shared / max(1, len(grams[i]) + len(grams[j]) - shared)
        alike[i].append(similarity)
        alike[j].append(similarity)
    return np.array(alike).mean(axis=1) if len(pool) > 1 else np.zeros(1)


RULES: dict[str, Callable[[Pool], Array]] = {
    "random": lambda pool: np.zeros(len(pool)),
    "shortest": lambda pool: -_lengths(pool),
    "longest": _lengths,
    "majority_answer": _votes,
    "consistent": _consistent,
    "most_typical": _typicality,
}


def _ngrams(tokens: Sequence[str], size: int) -> list[str]:
    return [*map(" ".join, zip(*(tokens[start:] for start in range(size)), strict=False))]


def _store(pools: Sequence[Pool], file: IO[bytes]) -> None:
    """Append to `file` the pools' features and, by candidate, its part of the pool's right ones."""
    columns, ends = _features(pools)
    sizes = [len(pool) for pool in pools]
    right = np.array([bool(made["correct"]) for pool in pools for made in pool], dtype=float)
    starts = np.cumsum([0, *sizes[:-1]])
    target = right / np.repeat(np.maximum(np.add.reduceat(right, starts), 1), sizes)
    for stored in (columns, ends, starts, target):
        np.save(file, stored)


def _stored(file: IO[bytes]) -> Iterator[tuple[csr_matrix, NDArray[np.intp], Array]]:
    """By chunk of what `_store` wrote: features, first candidate of each pool, targets."""
    end = file.seek(0, os.SEEK_END)
    file.seek(0)
    while file.tell() < end:
        columns, ends, starts, target = (np.load(file) for _ in range(4))
        yield _matrix(columns, ends), starts, target


def _features(pools: Sequence[Pool]) -> tuple[NDArray[np.uint16], NDArray[np.int32]]:
    """Columns of the features that each candidate has, in a row, and where those of each begin and end.

    They are hashed n-grams, the program's shape, and ranks inside the pool. Two that share a bucket count twice.
    """
    columns, ends = array("H"), array("i", [0])
    for pool in pools:
        relations = np.stack(
            [
                _lengths(pool) / _lengths(pool).mean(),
                _votes(pool),
                _consistent(pool),
                _typicality(pool),
            ]
        )
        ranks = (relations[:, None] > relations[:, :, None]).sum(axis=2)  # (relation, candidate)
        places = np.minimum(ranks.T, 63) + _BUCKETS + 64 * np.arange(len(relations))
        for made, place in zip(pool, places.tolist(), strict=True):
            # No set, whose order is another in each process: sums over the features would round differently.
            columns.extend(map(_bucket, dict.fromkeys(_describe(made))))
            columns.extend(place)
            ends.append(len(columns))
    return np.frombuffer(columns, np.uint16), np.frombuffer(ends, np.int32)


@lru_cache(maxsize=1 << 13)  # the candidates of a pool share most of their names
def _bucket(name: str) -> int:
    return zlib.crc32(name.encode()) % _BUCKETS


def _matrix(columns: NDArray[np.uint16], ends: NDArray[np.int32]) -> csr_matrix:
    """(candidates, _COLUMNS): what `_features` describes."""
    from scipy.sparse import csr_matrix

    parts = (np.ones(len(columns)), columns.astype(np.int32), ends)
    return csr_matrix(parts, shape=(len(ends) - 1, _COLUMNS))


def _describe(made: Mapping[str, Any]) -> list[str]:
    tokens = _TOKEN.findall(made["text"])
    seen: dict[str, int] = {}
    shape = _OPERAND.sub(lambda match: f"x{seen.setdefault(match[0], len(seen))}", made["text"])
    words = [*tokens, *_ngrams(tokens, 2), *_ngrams(tokens, 3)]
    words += [f"shape {shape.split('answer')[0]}", f"length {len(made['text']) // 8}"]
    try:
        size = abs(float(str(made["answer"]).rstrip("%")))
        words.append(f"magnitude {int(np.floor(np.log10(size))) if size else 'zero'}")
    except ValueError:
        words.append(f"answer {made['answer']}")
    return words
