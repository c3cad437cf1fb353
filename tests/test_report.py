"""Claims about the report: it shows all scored answers in order, and nothing in the data can act in it."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest
from chromium import Chromium
from hypothesis import given, settings
from hypothesis import strategies as st
from stages.report import main

from posttrain.core.errors import UserError
from posttrain.core.files import sha256_file, write_json, write_jsonl
from posttrain.core.params import Params, load_params
from posttrain.measures.answers import prediction_rows
from posttrain.measures.choices import predict
from posttrain.pools.rewards import reward_pool
from posttrain.report.browser import Policy, browser_data, choose
from posttrain.report.page import html_of, html_report, json_block, markdown_report
from posttrain.report.tables import table
from posttrain.rollouts.record import score_completion
from posttrain.tasks import Candidate, Explanation, Line, Piece, Table, get_task
from posttrain.tasks.finqa.examples import make_example
from posttrain.tasks.finqa.program import execute, format_answer, parse, resolve
from posttrain.tasks.finqa.sample import generate
from posttrain.tasks.rendering import render

ROOT = Path(__file__).resolve().parent.parent
TASK = get_task("finqa")
HOSTILE = "</script><img src=x onerror=alert(1)>"
BOLD = "<b>revenue</b> &amp;"
HEBREW = f"\u05db\u05de\u05d4 {'W' * 900}?"
QUESTIONS, LIMIT = 12, 10
WRITTEN = (
    '{"program": ["add(1, 2)"], "answer": "3"}',
    f"no object {HOSTILE}",
    '{"program": ["divide(1, 0)", "add(#0, 1)"], "answer": "7"}',
    '{"program": ["wrong"], "answer": "7"}',
)
MISSTATED = '{"program": ["add(1, 1)"], "answer": "3"}'  # counted as right below


FAMILIES = {"selector": ["base", "sft", "ppo", "exact"], "generator": ["base", "sft", "dpo"]}


class Changed:
    """params.yaml with some of its sections changed."""

    def __init__(self, params: Params, **changes: Any) -> None:
        self.params = params
        self.__dict__.update(changes)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.params, name)


@pytest.fixture(scope="module")
def params() -> Any:
    families = {name: SimpleNamespace(policies=policies) for name, policies in FAMILIES.items()}
    shown = SimpleNamespace(questions=LIMIT)
    return Changed(load_params(ROOT / "params.yaml"), seeds=[0, 1], report=shown, **families)


@pytest.fixture(scope="module")
def examples() -> list[dict[str, Any]]:
    rows = generate(5, {"train": QUESTIONS, "val": 1, "test": 1})["train"]
    rows[0]["qa"]["question"] = HOSTILE
    rows[1]["table"][1][0] = BOLD
    rows[3]["qa"]["question"] = HEBREW
    return [render(TASK, make_example(row, "full", 8, "cells"), (), 0.01) for row in rows]


@pytest.fixture(scope="module")
def pools(examples: list[dict[str, Any]], params: Any) -> list[dict[str, Any]]:
    """The gold answer and all of `WRITTEN`: K = 5."""
    made = []
    for number, example in enumerate(examples):
        texts = [Candidate(text, "corrupted", "operation") for text in WRITTEN]
        texts.insert(number % 5, Candidate(example["target"], "gold", "gold"))
        made.append(reward_pool(TASK, example, texts, params.reward.weights))
    return made


@pytest.fixture(scope="module")
def project(
    tmp_path_factory: pytest.TempPathFactory,
    params: Any,
    examples: list[dict[str, Any]],
    pools: list[dict[str, Any]],
) -> Path:
    """The files that the stage reads and those that it writes."""
    folder = tmp_path_factory.mktemp("project")
    write_jsonl(folder / "data/examples/test.jsonl", examples)
    write_jsonl(folder / "data/pools/test.jsonl", pools)
    counts = {"train": {"examples": 200, "of": 6251}, "val": {"examples": 1}}
    write_json(folder / "metrics/examples.json", counts | {"test": {"examples": QUESTIONS}})
    manifest = {
        "inputs": {"models/base": "b", "data/test.jsonl": "t"},
        "params": {},
    }
    for family in ("selector", "generator"):
        write_json(folder / "data/code" / f"{family}_evaluate", {})
    code = sha256_file(folder / "data/code/selector_evaluate")
    rng = np.random.default_rng(0)
    weights = params.reward.weights
    for seed in params.seeds:
        for policy in FAMILIES["selector"]:
            target = folder / f"data/selector_evaluate/{policy}/{seed}"
            logits = rng.normal(size=(QUESTIONS, 5))
            write_jsonl(target / "predictions.jsonl", predict("test", pools, logits, 1.2))
            made_by = {"stage": "selector_evaluate", "code": code}
            write_json(target / "manifest.json", manifest | made_by)
        for shift, policy in enumerate(FAMILIES["generator"]):
            records = []
            for number, example in enumerate(examples):
                texts = [example["target"], *WRITTEN]
                scored = score_completion(
                    TASK,
                    example,
                    MISSTATED
                    if (policy, number) == ("dpo", 0)
                    else texts[(number + seed + shift) % 5],
                    weights,
                    variant="direct",
                    index=0,
                    tokens=20,
                    finished=True,
                )
                records.append(scored)
            records[0] |= (
                {"correct": True, "failure": "wrong_answer_only"} if policy == "dpo" else {}
            )
            target = folder / f"data/generator_evaluate/{policy}/{seed}"
            write_jsonl(target / "predictions.jsonl", prediction_rows("test", records))
            made_by = {"stage": "generator_evaluate", "code": code}
            write_json(target / "manifest.json", manifest | made_by)
    for name in ("compare/selector", "compare/generator", "generator_pairs/0", "generator_pairs/1"):
        (folder / f"plots/{name}.png").parent.mkdir(parents=True, exist_ok=True)
        (folder / f"plots/{name}.png").write_bytes(b"\x89PNG")
    (folder / "plots/pools.png").write_bytes(b"\x89PNG")
    for family in FAMILIES:
        for name in ("temperatures", "curves"):
            (folder / f"plots/compare/{family}-{name}.png").write_bytes(b"\x89PNG")
        numbers = "| policy | accuracy |\n|---|---:|\n| SFT | 50.0 [40.0, 60.0] |\n"
        said = f"- **{family} wins.** It does\n- more of the {family}\n- one seed"
        tables = (
            f"### Right answers, %\n\n{numbers}\n12 questions of {family}\n\n### Change against SFT\n\n{numbers}\n"
            f"A note.\n\n### Kinds\n\nBy kind:\n\n{numbers}"
        )
        written = f"{said}\n\n{tables}"
        (folder / f"plots/compare/{family}.md").write_text(written)
    before = Path.cwd()
    os.chdir(folder)
    try:
        main(params)
    finally:
        os.chdir(before)
    return folder


@pytest.fixture(scope="module")
def page(project: Path) -> str:
    return (project / "plots/report.html").read_text()


@pytest.fixture(scope="module")
def data(page: str) -> dict[str, Any]:
    (block,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    loaded: dict[str, Any] = json.loads(block)
    return loaded


def policy_of(data: dict[str, Any], family: str, name: str) -> dict[str, Any]:
    (found,) = (p for p in data["policies"] if (p["family"], p["name"]) == (family, name))
    return dict(found)


# ------------------------------------------------------------------------------ one safe file


class Elements(HTMLParser):
    """Every element of a page, with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_the_page_refers_to_nothing_outside_itself(page: str) -> None:
    elements = Elements(page).found
    addresses = [a.get(key) or "" for _, a in elements for key in ("src", "href") if key in a]
    assert len(addresses) >= 8
    assert all(address.startswith(("data:", "#")) for address in addresses)
    assert "url(" not in page and "@import" not in page
    assert sum(tag == "img" for tag, _ in elements) == 9


def test_text_of_the_data_is_never_markup(page: str, data: dict[str, Any]) -> None:
    elements = Elements(page).found
    assert sum(tag == "script" for tag, _ in elements) == 2
    assert not [tag for tag, attributes in elements if tag == "b" or "onerror" in attributes]
    assert HOSTILE not in page and BOLD not in page
    texts = json.dumps(data["questions"])
    assert json.dumps(HOSTILE)[1:-1] in texts and json.dumps(BOLD)[1:-1] in texts


def test_only_this_script_and_style_may_run(page: str) -> None:
    (policy,) = (a["content"] for t, a in Elements(page).found if t == "meta" and "http-equiv" in a)
    assert policy and policy.startswith("default-src 'none'; ") and "unsafe" not in policy
    for tag in ("style", "script"):
        (text,) = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.S)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


@settings(deadline=None)
@given(st.lists(st.text()))
def test_the_json_block_says_the_same_and_cannot_end_its_element(value: Any) -> None:
    block = json_block(value)
    assert json.loads(block) == value
    assert block.isascii() and not set("<>&") & set(block)


def test_markdown_becomes_tables_and_escaped_text() -> None:
    text = (
        f"# A\n\n{HOSTILE}\nand `x` **y**\n\n"
        "| a | b |\n|---|---:|\n| <i> [1] | |\n| | **1** [0, 2] | extra |\n\n- one\n"
    )
    shown = html_of(text, {})
    assert shown == (
        "<h1>A</h1>\n<p>&lt;/script&gt;&lt;img src=x onerror=alert(1)&gt; and <code>x</code> "
        "<strong>y</strong></p>\n"
        '<div class="wide"><table><tr><th>a</th><th class="number">b</th></tr>'
        '<tr><td>&lt;i&gt; [1]</td><td class="number"></td></tr><tr><td></td><td class="number">'
        '<strong>1</strong> <span class="interval">[0, 2]</span></td><td>extra</td></tr></table></div>\n'
        "<ul><li>one</li></ul>"
    )


def test_an_image_is_put_into_the_page_and_its_caption_escaped() -> None:
    png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + (1400).to_bytes(4, "big")
    shown = html_of('![a "b"](c.png)\n\n![none](d.png)', {"c.png": png})
    caption, source = "a &quot;b&quot;", base64.b64encode(png).decode()
    assert shown == (
        f'<figure><div class="wide"><img src="data:image/png;base64,{source}" width="1000" alt="{caption}">'
        f"</div><figcaption>{caption}</figcaption></figure>\n<p>![none](d.png)</p>"
    )


def test_a_title_or_text_with_a_placeholder_is_left_as_it_is() -> None:
    shown = html_report("$script <i>", "cost $data", {}, {})
    assert "<title>$script &lt;i&gt;</title>" in shown and "<p>cost $data</p>" in shown


# ------------------------------------------------------------------------------ what it holds


def test_the_report_opens_with_the_conclusions_and_ends_with_what_was_run(project: Path) -> None:
    text = (project / "plots/report.md").read_text()
    headings = re.findall("^##? .*", text, re.M)
    assert headings == [
        "# pocket on sample",
        "## Conclusions",
        "## Selector",
        "## Generator",
        "## Training data",
        "## What was run",
    ]
    conclusions = text.split("\n\n")[2].split("\n")
    assert conclusions == [
        "- The selector, which chooses one of the candidates: **selector wins.** It does",
        "- The generator, which writes the answer: **generator wins.** It does",
        "- one seed",
    ]
    for family in FAMILIES:
        section = text.split(f"## {family.capitalize()}\n\n")[1].split("\n\n")
        assert (
            section[0] == f"- more of the {family}"
        )  # what is among the conclusions is not said again
        assert section[1] == "### Right answers, %"
        assert section[2].startswith("| policy") and section[3] == f"12 questions of {family}"
        assert section[4] == "### Change against SFT"
        assert f"(compare/{family}-temperatures.png)" in section[8]
        assert section[9] == f"![learning curves](compare/{family}-curves.png)"
        assert section[10] == "### Kinds"
    for line in (
        "| data set   | sample: 200 of 6,251 train, 1 val, 12 test questions, sampled by seed 1 ",
        "| seeds      | 0, 1 ",
    ):
        assert line in text
    assert "pocket (pretrain/pocket)" in text
    assert markdown_report("A", {"B": ["c", "d\n"]}) == "# A\n\n## B\n\nc\n\nd\n"


def test_the_stage_prints_the_findings_and_where_the_report_is(
    project: Path, params: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project)
    main(params)
    printed = capsys.readouterr().out
    assert (
        "\n- The generator, which writes the answer: generator wins. It does\n- one seed\n"
        in printed
    )
    assert printed.endswith("plots/report.html: open it in a browser\n")


def test_every_policy_is_there_at_every_seed(data: dict[str, Any]) -> None:
    names = [f"{p['family']}/{p['name']}" for p in data["policies"]]
    assert names == [
        f"{family}/{policy}-{seed}"
        for family, policies in FAMILIES.items()
        for policy in policies
        for seed in (0, 1)
    ]
    against = [None if p["against"] is None else names[p["against"]] for p in data["policies"]]
    for name, sft in zip(names, against, strict=True):
        family, seed = name.split("/")[0], name.rpartition("-")[2]
        assert sft == (None if "/sft-" in name else f"{family}/sft-{seed}")


def test_all_policies_show_the_same_questions_and_tell_how_many_are_right(
    data: dict[str, Any], project: Path
) -> None:
    assert len(data["questions"]) == LIMIT
    for number, policy in enumerate(data["policies"]):
        assert len(policy["rows"]) == LIMIT
        assert sum(count for _, count in policy["classes"]) == QUESTIONS
        name, _, seed = policy["name"].rpartition("-")
        path = project / f"data/{policy['family']}_evaluate/{name}/{seed}/predictions.jsonl"
        rows = {row["id"]: row for row in map(json.loads, path.read_text().splitlines())}
        assert policy["right"] == sum(row["correct"] for row in rows.values())
        for question in data["questions"]:
            assert question["right"][number] == rows[question["id"]]["correct"]


def chosen(limit: int, *answers: str) -> list[int]:
    """Questions chosen from those with these answers, one letter per policy: r right, w wrong, u unparseable."""
    policies = [
        Policy("generator", f"p{n}", 0, [{"correct": a == "r"} for a in given], list(given))
        for n, given in enumerate(answers)
    ]
    return choose(policies, limit)


def test_half_of_the_questions_are_torn_and_the_rest_all_wrong_and_all_right() -> None:
    #        0123456789ab
    first = "rrrrrrwwwwww"
    other = "rrrwwwrrrwww"  # torn from 3 to 8
    assert chosen(8, first, other) == [0, 1, 3, 4, 5, 6, 9, 10]
    assert chosen(99, first, other) == list(range(12))
    assert chosen(4, "rrrrr", "rrrrr") == [0, 1, 2, 3]  # one kind fills up for the others
    assert chosen(1, first, other) == [3]
    assert choose([], 5) == []


def test_rare_failures_are_kept() -> None:
    assert chosen(4, "wwwwwuw", "wwwwwuw") == [0, 1, 2, 5]


def test_an_answer_that_counts_as_right_is_right_whatever_it_fails_at(data: dict[str, Any]) -> None:
    (number,) = (
        n
        for n, p in enumerate(data["policies"])
        if (p["family"], p["name"]) == ("generator", "dpo-0")
    )
    misstated = [q for q in data["questions"] if q["text"] == HOSTILE]
    assert data["classes"][misstated[0]["classes"][number]] == "wrong_answer_only"
    assert misstated[0]["right"][number]


def test_a_selector_shows_all_candidates_their_logits_and_what_was_chosen(
    data: dict[str, Any], pools: list[dict[str, Any]], project: Path
) -> None:
    by_id = {pool["id"]: pool["candidates"] for pool in pools}
    lines = (project / "data/selector_evaluate/ppo/1/predictions.jsonl").read_text().splitlines()
    predictions = {row["id"]: row for row in map(json.loads, lines)}
    shown = policy_of(data, "selector", "ppo-1")["rows"]
    for row, question in zip(shown, data["questions"], strict=True):
        made, prediction = question["candidates"], predictions[question["id"]]
        assert [c["text"] for c in made] == [c["text"] for c in by_id[question["id"]]]
        assert [c["reward"] for c in made] == [c["reward"] for c in by_id[question["id"]]]
        assert row["logits"] == pytest.approx(prediction["logits"], abs=1e-3)
        assert row["chosen"] == prediction["chosen"] == int(np.argmax(row["logits"]))
        for candidate in made:
            parts = zip(data["parts"], candidate["parts"], strict=True)
            assert candidate["reward"] == pytest.approx(sum(w * value for (_, w), value in parts))


def test_a_generator_shows_what_it_wrote_and_its_class(data: dict[str, Any], project: Path) -> None:
    lines = (project / "data/generator_evaluate/dpo/1/predictions.jsonl").read_text().splitlines()
    written = {row["id"]: row for row in map(json.loads, lines)}
    policy = policy_of(data, "generator", "dpo-1")
    number = data["policies"].index(policy)
    for row, question in zip(policy["rows"], data["questions"], strict=True):
        expected = written[question["id"]]
        assert row["answer"]["text"] == expected["text"]
        assert row["answer"]["reward"] == expected["reward"]
        assert data["classes"][question["classes"][number]] == expected["kind"]


def test_predictions_of_other_questions_are_refused(
    examples: list[dict[str, Any]], pools: list[dict[str, Any]], params: Any
) -> None:
    weights = params.reward.weights
    rows = predict("test", pools, np.zeros((QUESTIONS, 5)), 1.2)
    moved = Policy("selector", "sft", 0, [*rows[1:], rows[0]], ["right"] * QUESTIONS)
    with pytest.raises(UserError, match=f"sft-0 has question {re.escape(rows[1]['id'])} where"):
        browser_data(TASK, examples, pools, [moved], weights, LIMIT)
    with pytest.raises(UserError, match="data/pools has 11 test questions, data/examples has 12"):
        browser_data(TASK, examples, pools[1:], [], weights, LIMIT)


# ------------------------------------------------------------------------------ answers explained


def page_text(explained: Explanation, cells: bool) -> str:
    """The text of the page, joined from its parts."""
    lines = []
    for part in explained.page:
        if isinstance(part, Line):
            lines.append("".join(piece.text for piece in part.pieces))
        else:
            rows = [" | ".join(piece.text for piece in row) for row in part.rows]
            lines += [row.rstrip(" |") if cells else f"| {row} |" for row in rows]
    return "\n".join(lines)


def pieces_of(explained: Explanation) -> list[Piece]:
    pieces: list[Piece] = []
    for part in explained.page:
        rows = part.rows if isinstance(part, Table) else (part.pieces,)
        pieces += [piece for row in rows for piece in row if piece.place]
    return pieces


@pytest.mark.parametrize("operands", ["cells", "literal"])
@pytest.mark.parametrize("context", ["full", "retrieved"])
def test_the_page_is_the_one_that_models_read_and_steps_have_the_executors_values(
    operands: str, context: str
) -> None:
    for row in generate(6, {"train": 40, "val": 1, "test": 1})["train"]:
        example = make_example(row, context, 8, operands)
        explained = TASK.explain(example, TASK.target(example))
        assert page_text(explained, operands == "cells") == example["input_text"]
        program = parse(example["literal_program"])
        values = [execute(program[: n + 1], row["table"]) for n in range(len(program))]
        assert [step.value for step in explained.steps] == [format_answer(v) for v in values]
        assert ", ".join(step.text for step in explained.steps) == example["target_program"]
        assert ", ".join(step.literal for step in explained.steps) == example["literal_program"]
        assert explained.answer == example["target_answer"] and explained.error is None
        pieces = pieces_of(explained)
        assert len({piece.place for piece in pieces}) == len(pieces)
        assert set(explained.places) <= example["references"].keys()
        if operands == "cells":
            assert {piece.place for piece in pieces} == example["references"].keys()
            resolved = resolve(example["target_program"], example["references"])
            assert {s.arg1 for s in resolved} >= {
                example["references"][place] for place in explained.places[:1]
            }


def test_an_answer_that_fails_says_where(examples: list[dict[str, Any]]) -> None:
    def explained(text: str) -> Explanation:
        return TASK.explain(examples[2], text)

    nothing = explained("I do not know")
    assert nothing.steps == () and nothing.error == "no JSON object with a program"
    assert explained(WRITTEN[3]).error and explained(WRITTEN[3]).answer == "7"
    first, second = explained(WRITTEN[2]).steps
    assert (first.value, first.error) == (None, "divide: division by zero")
    assert (second.value, second.error) == (None, None)
    far = explained('{"program": ["add(Z99, 1)"], "answer": "7"}')
    assert far.places == () and far.steps[0].error == "'Z99' is not a number"


@settings(deadline=None, max_examples=50)
@given(text=st.text() | st.sampled_from(("exp(T1, T1)", "table_sum(#0, none)", "add(A2, #9)")))
def test_any_text_is_explained(text: str, examples: list[dict[str, Any]]) -> None:
    for written in (text, json.dumps({"program": [text, text], "answer": text})):
        explained = TASK.explain(examples[2], written)
        verdict = TASK.score(written, examples[2])
        last = explained.steps[-1].value if explained.steps else None
        assert (last is None) == (verdict.value is None)


def test_a_table_operation_reads_a_whole_row(examples: list[dict[str, Any]]) -> None:
    example = examples[2]
    explained = TASK.explain(example, '{"program": ["table_sum(A2, none)"], "answer": "1"}')
    width = len(example["table"][1])
    assert sorted(explained.places) == [f"{letter}2" for letter in "ABCDEFGH"[:width]]


# ------------------------------------------------------------------------------ in a browser


@pytest.fixture
def chromium(tmp_path: Path) -> Iterator[Chromium]:
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next(filter(None, map(shutil.which, names)), None)
    if program is None:
        pytest.skip(f"needs a browser on PATH: {', '.join(names)}")
    browser = Chromium(program, tmp_path)
    yield browser
    browser.close()


def test_on_a_phone_the_tables_of_seven_policies_are_not_wider_than_the_page(
    chromium: Chromium, tmp_path: Path
) -> None:
    names = ["base", "SFT", "PPO", "GRPO", "RLOO", "DPO", "exact"]
    heads = ["policy", "accuracy % [95 %]", "change of the greedy answer vs SFT, points"]
    changed = "**−52.4** [−54.5, −50.4]"
    compared = [[name, "78.8 [75.1, 82.2]", changed, changed] for name in names]
    kinds = [[f"wrong: {name}", *["50.6"] * 7] for name in ("unknown reference", "wrong program")]
    tables = [
        table([*heads, "change of a sample vs SFT, points"], compared),
        table(["% of the questions", *names], kinds),
    ]
    data = {"policies": [], "classes": ["right"], "questions": [], "parts": []}
    page = html_report("a", "\n\n".join(["# a", *tables]), {}, data)
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    screen = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    chromium.call("Emulation.setDeviceMetricsOverride", **screen)
    chromium.open((tmp_path / "page.html").as_uri())
    wide = "[...document.querySelectorAll('.wide')].map(e => e.scrollWidth - e.clientWidth)"
    assert chromium.run(wide) == [0, 0]
    value, change = "td.number", "td.number:last-child"
    for cell in (value, change):
        assert (
            chromium.run(f"getComputedStyle(document.querySelector({cell!r})).textAlign") == "right"
        )


def test_the_page_works_in_a_browser(
    chromium: Chromium, project: Path, data: dict[str, Any]
) -> None:
    address = (project / "plots/report.html").as_uri()
    chromium.open(address)
    assert chromium.run("document.getElementById('questions').hidden")
    number = data["policies"].index(policy_of(data, "generator", "dpo-0"))
    sft = data["policies"][number]["against"]
    chromium.open(f"{address}#{urlencode({'policy': 'generator/dpo-0'})}")
    assert chromium.run("document.getElementById('results').hidden")

    # Wrong answers come first.
    questions = sorted(data["questions"], key=lambda question: question["right"][number])
    classes = [data["classes"][question["classes"][number]] for question in questions]
    right = [question["right"][number] for question in questions]
    operations = [question["gold"]["operations"] for question in questions]
    assert chromium.filter("class", "") == LIMIT
    for name in {*classes}:
        assert chromium.filter("class", name) == classes.count(name) < LIMIT
    assert chromium.filter("class", "failures") == LIMIT - sum(right) < LIMIT
    assert chromium.filter("class", "correct") == sum(right) > classes.count("right")
    options = chromium.run("[...document.getElementById('class').options].map(e => e.value)")
    assert options.index("failures") < options.index("wrong_program") < options.index("correct")
    assert options.index("correct") < options.index("wrong_answer_only")  # its program is right
    label = "right (wrong answer only)"
    (shown,) = chromium.run(
        "[...document.querySelectorAll('#list .good')].map(e => e.textContent)"
        f".filter(text => text === {label!r})"
    )
    assert shown == label
    chromium.filter("class", "")
    for count in {len(names) for names in operations}:
        expected = sum(len(names) == count for names in operations)
        assert chromium.filter("steps", str(count)) == expected
    chromium.filter("steps", "")
    for operation in {name for names in operations for name in names}:
        expected = sum(operation in names for names in operations)
        assert chromium.filter("operation", operation) == expected
    chromium.filter("operation", "")
    before = [question["right"][sft] for question in questions]
    pairs = list(zip(before, right, strict=True))
    for change, pair in (("gained", (False, True)), ("lost", (True, False))):
        assert chromium.filter("change", change) == pairs.count(pair) > 0
    chromium.filter("change", "")
    assert chromium.filter("text", questions[3]["id"].upper()) == 1
    assert chromium.filter("text", "no such words") == 0
    assert chromium.filter("text", "") == LIMIT

    # Keys move through the list, and the fragment follows.
    title, fragment = "document.querySelector('#detail h2').textContent", "location.hash"
    chromium.run("document.getElementById('item-0').click()")
    assert chromium.run(title) == questions[0]["text"]
    chromium.press("ArrowDown")
    chromium.press("ArrowDown")
    assert chromium.run(title) == questions[2]["text"]
    chromium.press("ArrowUp")
    assert chromium.run(title) == questions[1]["text"]
    assert urlencode({"question": questions[1]["id"]}) in chromium.run(fragment)

    # A link to a question of a selector shows the chosen candidate among all K; another can be looked at.
    policy = policy_of(data, "selector", "ppo-0")
    hostile = next(q for q in data["questions"] if q["text"] == HOSTILE)
    row = policy["rows"][data["questions"].index(hostile)]
    link = urlencode({"policy": "selector/ppo-0", "question": hostile["id"]})
    chromium.open(f"{address}#{link}")
    assert chromium.run(title) == HOSTILE
    rows = "document.querySelectorAll('.pool tr')"
    assert chromium.run(f"{rows}.length") == 1 + 5
    assert chromium.run(f"{rows}[1].textContent").startswith(f"{row['chosen']} chosen")
    other = next(n for n, made in enumerate(hostile["candidates"]) if HOSTILE in made["text"])
    chromium.run(
        f"[...document.querySelectorAll('.pool button')].find(b => b.textContent == {other}).click()"
    )
    assert HOSTILE in chromium.run("document.querySelector('.written').textContent")

    written = urlencode({"policy": "generator/sft-0", "question": questions[0]["id"]})
    chromium.open(f"{address}#{written}")
    assert chromium.run("document.querySelectorAll('.pool').length") == 0
    assert chromium.run("document.getElementById('change').disabled")  # SFT against itself
    assert not chromium.run("/null|undefined|NaN/.test(document.body.innerText)")

    # On a phone nothing is wider than the screen.
    screen = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    chromium.call("Emulation.setDeviceMetricsOverride", **screen)
    for fragment in ("", f"#{written}"):
        chromium.open(f"{address}{fragment}")
        assert chromium.run("document.documentElement.scrollWidth") == 390

    # Text that runs from right to left does so, and a long word is broken.
    hebrew = next(q for q in data["questions"] if q["text"] == HEBREW)
    chromium.open(f"{address}#{urlencode({'policy': 'generator/sft-0', 'question': hebrew['id']})}")
    heading = "document.querySelector('#detail h2')"
    assert chromium.run(title) == HEBREW
    assert chromium.run(f"getComputedStyle({heading}).direction") == "rtl"
    assert chromium.run(f"{heading}.scrollWidth <= {heading}.clientWidth")

    # Nothing of the data became an element, and nothing was logged.
    assert chromium.run("document.querySelectorAll('#questions img, b').length") == 0
    assert chromium.problems == []
