"""WebShop: the published reward by hand, its pages and files, the search engine, and a buyer who only reads."""

from __future__ import annotations

import builtins
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from needs import need_webshop
from toys import PARAMS

from posttrain.core.errors import UserError
from posttrain.core.files import read_jsonl
from posttrain.core.params import Params, check_params
from posttrain.environments.scripted import play_one
from posttrain.environments.webshop import goals, nouns, products, shop
from posttrain.environments.webshop.fetch import fetch
from posttrain.environments.webshop.game import WebShop, to_row
from posttrain.environments.webshop.goals import Goal
from posttrain.environments.webshop.pages import (
    SUBPAGES,
    item_page,
    results_page,
    search_page,
    sub_page,
    text_of,
)
from posttrain.environments.webshop.products import Product
from posttrain.environments.webshop.reward import option_hits, reward, token_set_ratio
from posttrain.environments.webshop.shop import Shop, get_shop

SHIRT = Product(
    asin="B001",
    title="zumo slim fit shirt",
    kind="fashion",
    query="shirt",
    path="Fashion › Tops › Shirt",
    description="some text",
    bullets=("machine wash", "with Long Sleeve"),
    price=20.0,
    price_tag="$20.0",
    options={"color": ("red", "light blue"), "size": ("small", "x-large")},
    attributes=("slim fit", "pure cottons"),
)
GOAL = Goal(
    "B001",
    "find me slim fit, long sleeve shirt",
    ("slim fit", "long sleeve"),
    ("red", "small"),
    20.0,
    "zumo shirt",
    "shirt",
    "Fashion › Tops › Shirt",
)
PAGES = {"text": "short", "hits": 50, "per_page": 5, "attributes": False, "tagger": "textblob"}
RIGHT = ("red", "small")


def words(title: str) -> tuple[str, ...]:
    """All words of a title as its nouns, for numbers that can be worked out by hand."""
    return tuple(title.lower().split())


@pytest.mark.parametrize(
    ("product", "chosen", "goal", "expected"),
    [
        ({}, RIGHT, {}, 1.0),
        ({"price": 20.01}, RIGHT, {}, 4 / 5),  # the bound itself is no more than the bound
        ({}, ("red", "x-large"), {}, 4 / 5),
        ({}, (), {}, 3 / 5),
        ({}, (), {"options": ()}, 1.0),
        ({"bullets": ("machine wash",)}, RIGHT, {}, 4 / 5),
        ({"bullets": (), "description": "A LONG SLEEVE."}, RIGHT, {}, 1.0),
        ({"bullets": ("with long", "sleeve")}, RIGHT, {}, 1.0),  # bullet points are one text
        ({"attributes": ("DUMMY_ATTR",), "title": "zumo shirt"}, RIGHT, {}, 4 / 5),
        ({}, RIGHT, {"attributes": ("pure cotton", "long sleeve")}, 1.0),  # 96 to `pure cottons`
        # r_type: 2 of 2 nouns, 1 of 5, 1 of 11, none; the goal's query or two categories; no noun
        ({"query": "hat", "path": "Else"}, RIGHT, {}, 1.0),
        ({"query": "hat", "path": "Else"}, RIGHT, {"title": "shirt a b c d"}, 1 / 2),
        ({"query": "hat"}, RIGHT, {"title": "shirt a b c d"}, 1.0),
        ({"query": "hat", "path": "Tops › Fashion"}, RIGHT, {"title": "shirt a b c d"}, 1.0),
        ({"query": "hat", "path": "Tops › Tops"}, RIGHT, {"title": "shirt a b c d"}, 1 / 2),
        ({"path": "Else"}, RIGHT, {"title": "shirt a b c d"}, 1.0),
        ({}, RIGHT, {"title": "shirt a b c d e f g h i j"}, 1 / 10),
        ({}, RIGHT, {"title": "shirt a b c d e f g h i"}, 1.0),  # 0.1 is not less than 0.1
        ({}, RIGHT, {"title": "hat"}, 0.0),
        ({}, RIGHT, {"title": ""}, 1.0),
        ({"query": "hat", "path": "Else"}, RIGHT, {"title": ""}, 1 / 2),
        ({"price": 30.0, "query": "hat", "path": ""}, ("red",), {"title": "shirt a b c d"}, 3 / 10),
    ],
)  # fmt: skip
def test_the_reward_is_the_published_one(
    product: Any, chosen: Any, goal: Any, expected: float
) -> None:
    need_webshop()
    paid = reward(replace(SHIRT, **product), chosen, replace(GOAL, **goal), words)
    assert paid == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("one", "other", "ratio"),
    [  # as thefuzz 0.22.1 has them
        ("essential oil", "essential oils", 96),
        ("x-large", "large", 100),
        ("café", "cafe", 86),
        ("Black-1", "black", 100),
        ("abcdef", "abcdefgh", 86),
        ("abcdefghijk", "abcdefghxyk", 82),
        ("abcdefghijklm", "abcdefghijkxy", 85),
        ("", "x", 0),
        ("", "", 0),
    ],
)
def test_likeness_is_that_of_thefuzz(one: str, other: str, ratio: int) -> None:
    need_webshop()
    assert token_set_ratio(one, other) == ratio
    assert option_hits([one], [other]) == (ratio > 85)


@pytest.mark.parametrize(
    ("chosen", "wanted", "hits"),
    [
        (["light blue"], ["blue sky"], 1),  # of blue and light the first by the alphabet
        (["sky blue"], ["blue"], 1),
        (["royal red"], ["dark red"], 0),  # red and dark
        (["rustic"], ["rustic"], 1),
        (["rustic"], [("style", "rustic")], 0),  # its colour is rust, but not the pair's
        (["red"], [("color", "red")], 1),
        (["x-large"], [("size", "x-large"), ("fit", "large")], 1),
        (["large"], [("fit", "large")], 1),
        (["red", "red"], ["red"], 1),
        ([], ["red"], 0),
    ],
)
def test_an_option_is_wanted_by_its_colour_or_its_words(
    chosen: Any, wanted: Any, hits: int
) -> None:
    need_webshop()
    assert option_hits(chosen, wanted) == hits


def test_nouns_are_those_of_the_tagger() -> None:
    need_webshop()
    found = nouns.get_nouns("textblob")("Zumo quick Cotton shirt for men, cotton blue")
    assert found == ("zumo", "cotton", "shirt", "men", "cotton")


# ------------------------------------------------------------------------------- pages


HEAD = "Instruction: [SEP] find me x [SEP] Back to Search [SEP] "
ITEM = (
    f"{HEAD}< Prev [SEP] color [SEP] red [SEP] light blue [SEP] size [SEP] small [SEP] x-large [SEP] zumo slim fit shirt "
    "[SEP] Price: $20.0 [SEP] Rating: N.A. [SEP] Description [SEP] Features [SEP] Reviews [SEP] "
)


def test_original_pages_are_word_for_word_those_of_webshops_text_mode() -> None:
    """Texts that its templates give for this product."""
    hits = [SHIRT] * 11
    found = [
        text_of(page, "original")
        for page in (
            search_page("find me x"),
            results_page("find me x", hits[:1], 1, 10),
            results_page("find me x", hits, 2, 10),
            item_page("find me x", SHIRT, {"color": "red"}, attributes=False),
            item_page("find me x", SHIRT, {}, attributes=True),
            *(sub_page("find me x", SHIRT, kind) for kind in SUBPAGES),
        )
    ]
    product = "B001 [SEP] zumo slim fit shirt [SEP] $20.0"
    assert found == [
        "WebShop [SEP] Instruction: [SEP] find me x [SEP] Search",
        f"{HEAD}Page 1 (Total results: 1) [SEP] Next > [SEP] {product}",
        f"{HEAD}Page 2 (Total results: 11) [SEP] < Prev [SEP] Next > [SEP] {product}",
        f"{ITEM}Buy Now",
        f"{ITEM}Attributes [SEP] Buy Now",
        f"{HEAD}< Prev [SEP] some text",
        f"{HEAD}< Prev [SEP] machine wash [SEP] with Long Sleeve",
        f"{HEAD}< Prev",
        f"{HEAD}< Prev [SEP] slim fit [SEP] pure cottons [SEP] fashion [SEP] shirt [SEP] Fashion › Tops › Shirt",
    ]


def test_short_pages_have_the_same_facts_on_few_lines() -> None:
    assert text_of(item_page("i", SHIRT, {}, attributes=False), "short").splitlines() == [
        "b001: zumo slim fit shirt $20.0",
        "color: red, light blue",
        "size: small, x-large",
    ]
    chosen = item_page("i", SHIRT, {"size": "small", "color": "red"}, attributes=False)
    assert text_of(chosen, "short") == "Chosen: small, red"
    assert text_of(sub_page("i", SHIRT, "reviews"), "short") == "Reviews: none"


# ------------------------------------------------------------------------------- the game


@pytest.fixture(scope="module")
def small() -> Shop:
    need_webshop()
    return get_shop(None, 60, 0)


@pytest.fixture
def begun(small: Shop) -> tuple[WebShop, Shop]:
    """A game, after a search that finds products on more than one page."""
    game = WebShop()
    game.begin(small, small.goals[0], PAGES)
    game.step("search[color]")
    return game, small


def test_pages_are_left_and_come_back_to_as_on_the_published_site(begun: Any) -> None:
    game, _ = begun
    first = game._page
    assert first.kind == "results" and first.total > 5 and "< prev" not in first.clickables()
    game.step("click[next >]")
    second = game._page
    assert second.number == 2 and {*first.items}.isdisjoint(second.items)
    game.step(f"click[{second.items[0][0].lower()}]")
    value = game._page.options["color"][0]
    assert game.step(f"click[{value}]").observation == f"Chosen: {value}"
    for name in ("features", "description", "reviews"):
        assert game.step(f"click[{name}]").valid and "buy now" not in game._page.clickables()
        game.step("click[< prev]")
        assert game._page.chosen == {"color": value}
    assert not game.step("click[attributes]").valid
    game.step("click[< prev]")
    assert game._page == second
    game.step(f"click[{second.items[0][0].lower()}]")
    assert game._page.chosen == {}  # the results forgot it
    game.step("click[back to search]")
    assert game._page.kind == "search" and game._page.clickables() == []
    assert not game.step("click[next >]").valid


def test_pages_after_the_last_are_empty_and_lead_back(begun: Any) -> None:
    game, _ = begun
    for _ in range(30):
        assert game.step("click[next >]").valid
    assert game._page.items == ()
    assert game.step("click[< prev]").valid and game._page.number == 30


def test_another_value_of_an_option_takes_the_place_of_the_first(begun: Any) -> None:
    game, _ = begun
    game.step(f"click[{game._page.items[0][0].lower()}]")
    one, other = game._page.options["color"][:2]
    game.step(f"click[{one}]")
    assert game.step(f"Click[{other.upper()}]").observation == f"Chosen: {other}"


def test_what_is_not_on_the_page_cannot_be_clicked(begun: Any) -> None:
    game, small = begun
    before = game.state_key()
    absent = next(
        each for each in small.products if each not in [item[0] for item in game._page.items]
    )
    for action in (
        f"click[{absent.lower()}]",
        "click[buy now]",
        "click[search]",
        "click[]",
        "search[]",
        "search[a], search[b]",
        "search shirt",
        "click[features]",
    ):
        outcome = game.step(action)
        assert (outcome.valid, outcome.reward, outcome.end) == (False, 0.0, None)
    assert game.state_key() == before


def test_what_is_invalid_shows_the_same_page_in_the_original_text(small: Shop) -> None:
    game = WebShop()
    first = game.begin(small, small.goals[0], PAGES | {"text": "original"})
    outcome = game.step("click[buy now]")
    assert (outcome.observation, outcome.valid) == (first, False)


def test_a_purchase_pays_its_reward_once_and_ends(small: Shop) -> None:
    goal = small.goals[0]
    product, game = small.products[goal.asin], WebShop()
    for values, expected, end in (
        ([value for _, value in goal.options], 1.0, "goal"),
        ([], 3 / 5, "failed"),
    ):
        game.begin(small, goal, PAGES)
        game.step(f"search[{product.title}]")
        game.step(f"click[{product.asin.lower()}]")
        outcomes = [game.step(f"click[{value}]") for value in values]
        assert not any(outcome.reward for outcome in outcomes)
        last = game.step("click[buy now]")
        assert (last.reward, last.end) == (pytest.approx(expected), end)
        with pytest.raises(RuntimeError, match="ended"):
            game.step("click[buy now]")


def test_each_generated_goal_can_be_reached_by_its_own_product(small: Shop) -> None:
    tagger = nouns.get_nouns("textblob")
    for goal in small.goals:
        chosen = [value for _, value in goal.options]
        assert reward(small.products[goal.asin], chosen, goal, tagger) == 1


def test_the_first_hit_does_not_decide() -> None:
    """A player who buys the first hit, with all options as the instruction has them."""
    need_webshop()
    found, game = get_shop(None, 150, 0), WebShop()
    reached = 0
    for goal in Random(0).sample(found.goals, 100):
        game.begin(found, goal, PAGES)
        game.step(game.expert() or "")
        game.step(f"click[{game._page.items[0][0].lower()}]")
        for _, value in goal.options:
            game.step(f"click[{value}]")
        reached += game.step("click[buy now]").end == "goal"
    assert 20 < reached < 70


def test_a_search_has_the_best_match_first_and_equal_ones_in_order(small: Shop) -> None:
    product = next(iter(small.products.values()))
    brand = product.title.split()[0]
    assert product in small.search(f"{product.title} {brand}", 3)
    hits = small.search("SHIRTS for the", 50)
    assert hits and all("shirt" in hit.title for hit in hits)  # stemmed, without small words
    assert small.search("of the zzzz", 50) == [] == small.search("the", 50)
    places = [*small.products]
    scores = small._engine.get_scores(["shirt"])
    order = [places.index(hit.asin) for hit in hits]
    assert order == sorted(order, key=lambda place: (-scores[place], place))
    assert len(small.search("color, size or flavor", 50)) == 50


def test_the_buyer_knows_only_what_it_reads(small: Shop) -> None:
    """With the same instruction and another hidden goal it does the same."""
    goal = small.goals[5]
    hidden = replace(goal, asin="B00", attributes=("x",), options=(), price_bound=1.0, title="x")
    played = []
    for each in (goal, hidden):
        game, actions = WebShop(), [""]
        game.begin(small, each, PAGES)
        while actions[-1] != "click[buy now]":
            actions.append(game.expert() or "")
            game.step(actions[-1])
        played.append(actions)
    assert played[0] == played[1] and len(played[0]) > 5


# ------------------------------------------------------------------------------- files


def item(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "asin": f"A{number:03}",
        "name": f"Cotton Shirt {number}",
        "category": "fashion",
        "query": "Mens Shirts ",
        "product_category": "Fashion › Tops",
        "full_description": "A shirt.",
        "small_description": ["soft", "warm"],
        "pricing": f"${number + 1}.50",
        "customization_options": {"Color": [{"value": " Red/Blue "}, {"value": "Green"}], "Fit": None},
        "images": ["x"],
    } | changes  # fmt: skip


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Path]:
    """A folder of 60 products, of which every second has an instruction that a person wrote."""
    need_webshop()
    folder = tmp_path / "products"
    folder.mkdir()
    items = [item(number) for number in range(60)]
    items += [item(0, name="again"), item(0, asin="nan"), item(0, asin="A" * 11)]
    items[1] |= {"pricing": "", "small_description": "one text", "customization_options": None}
    items[2] |= {"pricing": "$1,001.00 to $1,009.50"}
    notes: dict[str, Any] = {
        f"A{n:03}": {
            "attributes": ["soft", "warm"],
            "instruction": "Find me soft shirt",
            "instruction_attributes": ["soft"],
        }
        for n in range(3)
    }
    told = {
        "instruction": "i want a soft cotton shirt that is red.",
        "instruction_attributes": ["soft"],
        "instruction_options": ["red | blue"],
    }
    written = {f"A{n:03}": [told, told | {"instruction_attributes": []}] for n in range(0, 60, 2)}
    for name, content in (
        ("items_shuffle_1000.json", items),
        ("items_ins_v2_1000.json", notes),
        ("items_human_ins.json", written),
    ):
        (folder / name).write_text(json.dumps(content))
    yield folder
    get_shop.cache_clear()


def stored(folder: Path, **options: Any) -> Params:
    values = PARAMS.model_dump()
    values["datasets"]["webshop"] |= {"train": 12, "val": 5, "test": 5}
    values["datasets"]["webshop"]["options"] = {"products": str(folder), "val_goals": 5} | options
    return check_params(values | {"dataset": "webshop"})


def test_products_are_read_as_webshop_reads_them(files: Path) -> None:
    found = products.read_products(products.read_folder(files, "k"), 0, "k")
    assert len(found) == 60 and found["A000"].title == "Cotton Shirt 0"
    assert found["A000"].options == {"color": ("red | blue", "green")}
    assert (found["A000"].query, found["A000"].price_tag) == ("mens shirts", "$1.5")
    assert (found["A001"].price, found["A001"].bullets) == (100.0, ("one text",))
    assert 1001 <= found["A002"].price <= 1009.5
    assert found["A002"].price_tag == "$1001.0 to $1009.5"
    assert found["A003"].attributes == ("DUMMY_ATTR",)
    assert found["A000"].indexed == "cotton shirt 0 a shirt. soft color: red | blue, green"


def test_splits_of_written_goals_are_webshops_own(files: Path, tmp_path: Path) -> None:
    fetch(stored(files, test_goals=8), tmp_path / "out")
    rows = {s: read_jsonl(tmp_path / "out" / f"{s}.jsonl") for s in ("train", "val", "test")}
    order = [*range(30)]
    Random(233).shuffle(order)  # random.seed(233), random.shuffle(goals)
    places = {
        split: [int(row["wanted"]["asin"][1:]) // 2 for row in each] for split, each in rows.items()
    }
    assert places == {"test": order[:5], "val": order[8:13], "train": order[13:25]}
    for row in (row for each in rows.values() for row in each):
        price = float(row["wanted"]["asin"][1:]) + 1.5
        bound = row["wanted"]["price_bound"]
        if row["wanted"]["asin"] == "A002":
            assert bound == goals.NO_BOUND and "lower" not in row["goal"]
        else:
            assert price < bound <= price + 40 and bound % 10 == 0
            assert row["goal"].endswith(f"that is red, and price lower than {bound:.2f} dollars")
        assert row["wanted"]["options"] == ["red | blue"]
    game = WebShop()
    assert game.reset(rows["test"][0]) == rows["test"][0]["question"]
    assert play_one(game, rows["test"][0], lambda game, _: game.expert())[1] == pytest.approx(
        rows["test"][0]["expert_return"]
    )


def test_price_bounds_depend_on_the_seed_alone(files: Path) -> None:
    def bounds(seed: int) -> list[float]:
        read = products.read_folder(files, "k")
        found = goals.read_goals(read, products.read_products(read, seed, "k"), seed, "k")
        return [goal.price_bound for goal in found]

    assert bounds(0) == bounds(0) != bounds(1)


def test_without_written_instructions_a_product_has_a_goal_for_each_combination(
    files: Path,
) -> None:
    (files / "items_human_ins.json").unlink()
    read = products.read_folder(files, "k")
    found = goals.read_goals(read, products.read_products(read, 0, "k"), 0, "k")
    assert [goal.asin for goal in found] == ["A000", "A000", "A001", "A002", "A002"]
    assert found[1].instruction.startswith("Find me soft shirt with color: green, and price lower ")
    assert found[1].options == (("color", "green"),) and found[2].options == ()
    assert to_row(found[1])["options"] == [["color", "green"]]


def test_other_products_than_those_of_the_rows_are_one_line(files: Path, tmp_path: Path) -> None:
    fetch(stored(files, test_goals=8), tmp_path / "out")
    row = read_jsonl(tmp_path / "out" / "test.jsonl")[0]
    path = files / "items_shuffle_1000.json"
    path.write_text(path.read_text().replace("Cotton Shirt 7", "Wool Shirt 7"))
    get_shop.cache_clear()
    with pytest.raises(UserError, match=r"test-0: the products of .* are others than those"):
        WebShop().reset(row)


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("items_shuffle_1000.json", "{", "items_shuffle_1000.json: not JSON"),
        ("items_shuffle_1000.json", "{}", "must have one file each of"),
        ("items_shuffle_1000.json", "[]", "has no products"),
        ("items_shuffle_1000.json", '[{"asin": "A"}]', "product 0 is not of WebShop's form: KeyErr"),
        ("items_shuffle_2.json", "[]", r"has 2 files items_shuffle\*.json"),
        ("items_human_ins.json", "[]", "not instructions by asin"),
        ("items_human_ins.json", '{"A000": [{}]}', "goal 0 is not of WebShop's form"),
    ],
)  # fmt: skip
def test_files_of_another_form_are_one_line(
    name: str, content: str, problem: str, files: Path, tmp_path: Path
) -> None:
    (files / name).write_text(content)
    with pytest.raises(UserError, match=problem) as caught:
        fetch(stored(files), tmp_path / "out")
    assert "options.products" in str(caught.value) and not (tmp_path / "out").exists()


def test_more_games_than_goals_are_one_line(files: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"webshop\.train: asks for 12 games, and .* has 0"):
        fetch(stored(files), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_no_product_is_the_target_of_goals_in_two_splits(tmp_path: Path) -> None:
    need_webshop()
    values = PARAMS.model_dump()
    values["datasets"]["webshop"] |= {"train": 20, "val": 10, "test": 10}
    fetch(check_params(values | {"dataset": "webshop"}), tmp_path / "out")
    found = [
        {row["wanted"]["asin"] for row in read_jsonl(tmp_path / "out" / f"{split}.jsonl")}
        for split in ("train", "val", "test")
    ]
    assert sum(map(len, found)) == len(set.union(*found))


@pytest.mark.parametrize("missing", ["bm25s", "Stemmer", "rapidfuzz", "textblob"])
def test_without_a_package_one_line_says_what_to_install(
    missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need_webshop()
    original = builtins.__import__

    def without(name: str, *arguments: Any, **named: Any) -> Any:
        if name.split(".")[0] == missing:
            raise ModuleNotFoundError(f"No module named {name!r}", name=missing)
        return original(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    nouns.get_nouns.cache_clear()
    shop.get_shop.cache_clear()
    values = PARAMS.model_dump() | {"dataset": "webshop"}
    values["datasets"]["webshop"]["options"] = {"size": 30}
    with pytest.raises(UserError) as caught:
        fetch(check_params(values), tmp_path / "out")
    assert str(caught.value) == (
        f"the environment webshop needs the package {missing}; pip install -r requirements-environments.txt"
    )
