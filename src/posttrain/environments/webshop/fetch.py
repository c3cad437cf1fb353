"""The games of each split, as rows of {train,val,test}.jsonl: a shop, and a goal of it.

Of files, the splits are WebShop's own: goals in its order, cut by number. Of the generated catalogue, a product is the
target of goals in one split only, though all splits search among all products; a goal that the expert does not reach is left
out. Rows have the expert's number of turns, its first action and its return.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from posttrain.core.errors import UserError
from posttrain.core.files import atomic_directory, write_jsonl
from posttrain.core.params import GeneratedDataset, Params
from posttrain.environments.scripted import most_turns
from posttrain.environments.starts import play_expert
from posttrain.environments.webshop.game import WebShop, to_row
from posttrain.environments.webshop.goals import Goal, published_order
from posttrain.environments.webshop.nouns import get_nouns
from posttrain.environments.webshop.options import Options
from posttrain.environments.webshop.shop import Shop, get_shop
from posttrain.tasks import SPLITS, no_files, read_options

_LONGEST = 200  # turns of the expert


def fetch(params: Params, directory: Path) -> None:
    """Put the rows into `directory`."""
    dataset, options = params.selected_dataset, read_options(params, Options)
    if not isinstance(dataset, GeneratedDataset):
        no_files(params, directory)
        return
    get_nouns(options.tagger)
    get_shop.cache_clear()  # a user's files may have changed
    shop = get_shop(options.products, options.size, dataset.seed)
    counts = {split: getattr(dataset, split) for split in SPLITS}
    goals = _generated(shop, counts, dataset.seed)
    if options.products is not None:
        goals = _published(shop, options)
    with atomic_directory(directory) as output:
        for split, count in counts.items():
            rows = [*_rows(shop, goals[split], options, dataset.seed, split, count)]
            if len(rows) < count:
                where = options.products or f"the catalogue of {options.size} products"
                raise UserError(
                    f"params.yaml: datasets.{params.dataset}.{split}: asks for {count} games, and {where} has {len(rows)}"
                )
            write_jsonl(output / f"{split}.jsonl", rows)


def _published(shop: Shop, options: Options) -> dict[str, list[Goal]]:
    """WebShop's splits: test first, then validation, then training."""
    goals, test = published_order(shop.goals), options.test_goals
    val = test + options.val_goals
    return {"test": goals[:test], "val": goals[test:val], "train": goals[val:]}


def _generated(shop: Shop, counts: dict[str, int], seed: int) -> dict[str, list[Goal]]:
    """The goals of as many products for each split as it has games, in random order."""
    random, asins = Random(f"goals/{seed}"), [*shop.products]
    random.shuffle(asins)
    found, total, before = {}, sum(counts.values()), 0
    for split, count in counts.items():
        start, stop = (len(asins) * part // total for part in (before, before + count))
        own = {*asins[start:stop]}
        found[split] = [goal for goal in shop.goals if goal.asin in own]
        random.shuffle(found[split])
        before += count
    return found


def _rows(
    shop: Shop, goals: list[Goal], options: Options, seed: int, split: str, count: int
) -> Iterator[dict[str, Any]]:
    pages = options.model_dump(include={"text", "hits", "per_page", "attributes", "tagger"})
    made = {
        "products": options.products,
        "size": options.size,
        "seed": seed,
        "digest": shop.digest,
    }
    game, number = WebShop(), 0
    for goal in goals:
        if number == count:
            return
        question = game.begin(shop, goal, pages)
        played = play_expert(game, _LONGEST)
        assert played is not None  # the buyer always has something to do
        if options.products is None and played.end != "goal":
            continue
        yield {
            "id": f"{split}-{number}",
            "kind": shop.products[goal.asin].kind,
            "seed": seed,
            "question": question,
            "turns": most_turns(played.turns, options.turns),
            "goal": goal.instruction,
            "expert": played.first,
            "expert_turns": played.turns,
            "expert_return": round(played.earned, 6),
            "wanted": to_row(goal),
            "pages": pages,
            "shop": made,
        }
        number += 1
