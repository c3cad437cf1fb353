"""Blind baselines: rules that choose from a pool without reading the question or its page.

A rule sees only the pool's K candidates. If it ranks several first, its score is the fraction of them that is correct,
so accuracies are exact expectations, not samples. `learned` is the strongest rule: a linear softmax model over hashed
n-grams of the texts and over ranks of each candidate in its pool, fitted on training pools (L-BFGS, L2).
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
from typing import IO, TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from posttrain.core.files import temporary_file
from posttrain.core.progress import shown

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

Pool = Sequence[Mapping[str, Any]]  # text, answer (or None), consistent, correct
Array = NDArray[np.float64]
Name = TypeVar("Name")  # of a split

_TOKEN = re.compile(r"[A-Za-z_]+|[0-9]|[^\sA-Za-z0-9_]")
_OPERAND = re.compile(r"#?[A-Z]*[0-9][0-9.,]*%?")
_BUCKETS = 1 << 15
_COLUMNS = _BUCKETS + 64 * 4  # tokens, and ranks in the pool by four relations; they fit in 16 bits
_CHUNK = 256  # pools whose features are in memory together


def blind_baselines(
    train: Iterable[Pool], splits: Mapping[Name, Iterable[Pool]]
) -> dict[Name, dict[str, float]]:
    """Accuracy of each rule on the pools of each split; `fixed_slot` is the best single slot.

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
    """Weights of the linear softmax model, fitted to put its probability on correct candidates.

    Features are kept in a temporary file, and in memory only those of `chunk` pools at a time.
    """
    from scipy.optimize import minimize  # takes 0.2 s, which other users of this module are spared

    with temporary_file() as file:
        waiting = shown(pools, "pools for the blind model")
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
    """The model's logits of the pool's candidates, (K,)."""
    columns, ends = _features([pool])
    return np.asarray(np.add.reduceat(model[columns], ends[:-1]), dtype=np.float64)


def _accuracies(
    pools: Iterable[Pool], rules: Mapping[str, Callable[[Pool], Array]]
) -> dict[str, float]:
    """For each rule, the mean over pools of the fraction of correct candidates among those it ranks first."""
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
    """Append to `file` the pools' features and targets: probability shared equally by a pool's correct candidates."""
    columns, ends = _features(pools)
    sizes = [len(pool) for pool in pools]
    right = np.array([bool(made["correct"]) for pool in pools for made in pool], dtype=float)
    starts = np.cumsum([0, *sizes[:-1]])
    target = right / np.repeat(np.maximum(np.add.reduceat(right, starts), 1), sizes)
    for stored in (columns, ends, starts, target):
        np.save(file, stored)


def _stored(file: IO[bytes]) -> Iterator[tuple[csr_matrix, NDArray[np.intp], Array]]:
    """The chunks written by `_store`: features, index of each pool's first candidate, targets."""
    end = file.seek(0, os.SEEK_END)
    file.seek(0)
    while file.tell() < end:
        columns, ends, starts, target = (np.load(file) for _ in range(4))
        yield _matrix(columns, ends), starts, target


def _features(pools: Sequence[Pool]) -> tuple[NDArray[np.uint16], NDArray[np.int32]]:
    """The feature columns of all candidates in one array, and the offsets between candidates.

    Features are hashed n-grams, the program's shape, and ranks in the pool. Two in the same bucket count twice.
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
            # Not a set: its order differs between processes, and so would the rounding of sums over features.
            columns.extend(map(_bucket, dict.fromkeys(_describe(made))))
            columns.extend(place)
            ends.append(len(columns))
    return np.frombuffer(columns, np.uint16), np.frombuffer(ends, np.int32)


@lru_cache(maxsize=1 << 13)  # the candidates of a pool share most of their names
def _bucket(name: str) -> int:
    return zlib.crc32(name.encode()) % _BUCKETS


def _matrix(columns: NDArray[np.uint16], ends: NDArray[np.int32]) -> csr_matrix:
    """The features of `_features` as a sparse matrix (candidates, _COLUMNS)."""
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
