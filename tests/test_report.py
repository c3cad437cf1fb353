"""Claims about the report: it shows what was scored, whole and in order, and nothing in the data can act in it."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stages.report import main

from posttrain.core.errors import UserError
from posttrain.core.files import write_json, write_jsonl
from posttrain.core.params import Params, Report, load_params
from posttrain.measures.answers import prediction_rows
from posttrain.measures.choices import predict
from posttrain.pools.rewards import reward_pool
from posttrain.report.browser import Policy, browser_data, choose
from posttrain.report.page import html_of, html_report, json_block, markdown_report
from posttrain.rollouts.record import score_completion
from posttrain.tasks import Explanation, Line, Piece, Table, get_task
from posttrain.tasks.finqa.prepare import prepare_row
from posttrain.tasks.finqa.program import execute, format_answer, parse, resolve
from posttrain.tasks.finqa.sample import generate

ROOT = Path(__file__).resolve().parent.parent
TASK = get_task("finqa")
HOSTILE = "</script><img src=x onerror=alert(1)>"
BOLD = "<b>revenue</b> &amp;"
QUESTIONS, LIMIT = 12, 10
WRITTEN = (
    '{"program": ["add(1, 2)"], "answer": "3"}',
    f"no object {HOSTILE}",
    '{"program": ["divide(1, 0)", "add(#0, 1)"], "answer": "7"}',
    '{"program": ["wrong"], "answer": "7"}',
)


@pytest.fixture(scope="module")
def params() -> Params:
    loaded = load_params(ROOT / "params.yaml")
    return loaded.model_copy(update={"seeds": [0, 1], "report": Report(questions=LIMIT)})


@pytest.fixture(scope="module")
def examples() -> list[dict[str, Any]]:
    rows = generate(5, {"train": QUESTIONS, "val": 1, "test": 1})["train"]
    rows[0]["qa"]["question"] = HOSTILE
    rows[1]["table"][1][0] = BOLD
    return [prepare_row(row, "full", 8, "cells") for row in rows]


@pytest.fixture(scope="module")
def pools(examples: list[dict[str, Any]], params: Params) -> list[dict[str, Any]]:
    """The gold answer and all of `WRITTEN`: K = 5."""
    made = []
    for number, example in enumerate(examples):
        texts = [{"text": text, "kind": "corrupted", "edit": "operation"} for text in WRITTEN]
        gold = {"text": TASK.render_target(example), "kind": "gold", "edit": "gold"}
        texts.insert(number % 5, gold)
        made.append(reward_pool(TASK, example, texts, params.rewards))
    return made


@pytest.fixture(scope="module")
def project(
    tmp_path_factory: pytest.TempPathFactory,
    params: Params,
    examples: list[dict[str, Any]],
    pools: list[dict[str, Any]],
) -> Path:
    """The files that the stage reads, and those that it wrote."""
    folder = tmp_path_factory.mktemp("project")
    write_jsonl(folder / "data/prepare/test.jsonl", examples)
    write_jsonl(folder / "data/rewards/test.jsonl", pools)
    manifest = {
        "inputs": {"models/base": "b", "data/test.jsonl": "t"},
        "prompt": "p",
        "evaluator": "e",
        "params": {},
        "code": {},
    }
    rng = np.random.default_rng(0)
    weights = params.rewards.weights.model_dump()
    for seed in params.seeds:
        for policy in params.compare.policies:
            target = folder / f"data/evaluate/{policy}-{seed}"
            logits = rng.normal(size=(QUESTIONS, 5))
            write_jsonl(target / "predictions.jsonl", predict("test", pools, logits))
            write_json(target / "manifest.json", manifest)
        for policy in ("base", "sft", *params.rl.generator.methods):
            records = []
            for number, example in enumerate(examples):
                texts = [TASK.render_target(example), *WRITTEN]
                scored = score_completion(
                    TASK,
                    example,
                    texts[(number + seed) % 5],
                    0.01,
                    weights,
                    variant="direct",
                    index=0,
                    tokens=20,
                    finished=True,
                )
                records.append(scored)
            target = folder / f"data/evaluate_generator/{policy}-{seed}"
            write_jsonl(target / "predictions.jsonl", prediction_rows("test", records))
            write_json(target / "manifest.json", manifest)
    (folder / "plots/preferences").mkdir(parents=True)
    for name in ("compare", "compare_generator", "rewards", "preferences/0", "preferences/1"):
        (folder / f"plots/{name}.png").write_bytes(b"\x89PNG")
    for name in ("compare", "compare_generator"):
        table = f"12 questions of {name}\n\n| policy | accuracy |\n|---|---|\n| sft | 0.5 |\n"
        (folder / f"plots/{name}.md").write_text(table)
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
    assert sum(tag == "img" for tag, _ in elements) == 5


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
    text = f"# A\n\n{HOSTILE}\nand `x` **y**\n\n| a | b |\n|---|---:|\n| <i> | |\n\n- one\n"
    shown = html_of(text, {})
    assert shown == (
        "<h1>A</h1>\n<p>&lt;/script&gt;&lt;img src=x onerror=alert(1)&gt; and <code>x</code> "
        "<strong>y</strong></p>\n"
        "<table><tr><th>a</th><th>b</th></tr><tr><td>&lt;i&gt;</td><td></td></tr></table>\n"
        "<ul><li>one</li></ul>"
    )


def test_an_image_is_put_into_the_page_and_its_caption_escaped() -> None:
    shown = html_of('![a "b"](c.png)\n\n![none](d.png)', {"c.png": b"png"})
    caption = "a &quot;b&quot;"
    assert shown == (
        f'<figure><img src="data:image/png;base64,cG5n" alt="{caption}">'
        f"<figcaption>{caption}</figcaption></figure>\n<p>![none](d.png)</p>"
    )


def test_a_title_or_text_with_a_placeholder_is_left_as_it_is() -> None:
    shown = html_report("$script <i>", "cost $data", {}, {})
    assert "<title>$script &lt;i&gt;</title>" in shown and "<p>cost $data</p>" in shown


# ------------------------------------------------------------------------------ what it holds


def test_the_markdown_names_what_was_run_and_holds_both_comparisons(project: Path) -> None:
    text = (project / "plots/report.md").read_text()
    for line in ("| data set | sample, 12 test questions |", "| seeds | 0, 1 |"):
        assert line in text
    assert "pocket (pretrain/pocket)" in text
    for name in ("compare", "compare_generator"):
        assert (project / f"plots/{name}.md").read_text().strip() in text
    assert markdown_report({"model": "c|d"}, {}).endswith("|---|---|\n| model | c/d |\n")


def test_every_policy_is_there_at_every_seed_and_the_base_model_once(
    data: dict[str, Any], params: Params
) -> None:
    names = [f"{p['family']}/{p['name']}" for p in data["policies"]]
    methods = {"selector": params.rl.selector.methods, "generator": params.rl.generator.methods}
    expected = []
    for family, trained in methods.items():
        expected += [f"{family}/base-0"]
        expected += [f"{family}/{policy}-{seed}" for policy in ("sft", *trained) for seed in (0, 1)]
    assert names == expected


def test_no_policy_shows_more_questions_than_asked_for_and_failures_come_first(
    data: dict[str, Any],
) -> None:
    right = data["classes"].index("right")
    for number, policy in enumerate(data["policies"]):
        found = [data["questions"][row["question"]]["classes"][number] for row in policy["rows"]]
        counts = dict(policy["classes"])
        assert len(found) == LIMIT and sum(counts.values()) == QUESTIONS
        assert found == sorted(found, key=lambda name: name == right)
        assert found.count(right) == max(0, LIMIT - (QUESTIONS - counts.get(right, 0)))


def test_wrong_programs_come_before_other_failures_and_rare_classes_are_kept() -> None:
    classes = ["right", *["wrong"] * 4, "unparseable", "wrong_answer_only"]
    rows = [{"correct": name in ("right", "wrong_answer_only")} for name in classes]
    policy = Policy("generator", "sft-0", rows, classes)
    assert choose(policy, 3) == [1, 2, 5]
    assert choose(policy, 99) == [1, 2, 3, 4, 5, 6, 0]


def test_a_selector_shows_all_candidates_their_logits_and_what_was_chosen(
    data: dict[str, Any], pools: list[dict[str, Any]], project: Path
) -> None:
    by_id = {pool["id"]: pool["candidates"] for pool in pools}
    lines = (project / "data/evaluate/ppo-1/predictions.jsonl").read_text().splitlines()
    predictions = {row["id"]: row for row in map(json.loads, lines)}
    for row in policy_of(data, "selector", "ppo-1")["rows"]:
        question = data["questions"][row["question"]]
        made, prediction = question["candidates"], predictions[question["id"]]
        assert [c["text"] for c in made] == [c["text"] for c in by_id[question["id"]]]
        assert [c["reward"] for c in made] == [c["reward"] for c in by_id[question["id"]]]
        assert row["logits"] == pytest.approx(prediction["logits"], abs=1e-3)
        assert row["chosen"] == prediction["chosen"] == int(np.argmax(row["logits"]))
        for candidate in made:
            parts = zip(data["components"], candidate["components"], strict=True)
            assert candidate["reward"] == pytest.approx(sum(w * value for (_, w), value in parts))


def test_a_generator_shows_what_it_wrote_and_its_class(data: dict[str, Any], project: Path) -> None:
    lines = (project / "data/evaluate_generator/dpo-1/predictions.jsonl").read_text().splitlines()
    written = {row["id"]: row for row in map(json.loads, lines)}
    policy = policy_of(data, "generator", "dpo-1")
    number = data["policies"].index(policy)
    for row in policy["rows"]:
        question = data["questions"][row["question"]]
        expected = written[question["id"]]
        assert row["answer"]["text"] == expected["text"]
        assert row["answer"]["reward"] == expected["reward"]
        assert data["classes"][question["classes"][number]] == expected["kind"]


def test_predictions_of_other_questions_are_refused(
    examples: list[dict[str, Any]], pools: list[dict[str, Any]], params: Params
) -> None:
    weights = params.rewards.weights.model_dump()
    rows = predict("test", pools, np.zeros((QUESTIONS, 5)))
    moved = Policy("selector", "sft-0", [*rows[1:], rows[0]], ["right"] * QUESTIONS)
    with pytest.raises(UserError, match=f"sft-0 has question {re.escape(rows[1]['id'])} where"):
        browser_data(TASK, examples, pools, [moved], weights, LIMIT)
    with pytest.raises(UserError, match="data/rewards has 11 test questions of 12"):
        browser_data(TASK, examples, pools[1:], [], weights, LIMIT)


# ------------------------------------------------------------------------------ answers explained


def page_text(explained: Explanation, cells: bool) -> str:
    """The page put together again from its parts."""
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
        example = prepare_row(row, context, 8, operands)
        explained = TASK.explain(example, TASK.render_target(example))
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
        verdict = TASK.score(written, examples[2], 0.01)
        last = explained.steps[-1].value if explained.steps else None
        assert (last is None) == (verdict.value is None)


def test_a_table_operation_reads_a_whole_row(examples: list[dict[str, Any]]) -> None:
    example = examples[2]
    explained = TASK.explain(example, '{"program": ["table_sum(A2, none)"], "answer": "1"}')
    width = len(example["table"][1])
    assert sorted(explained.places) == [f"{letter}2" for letter in "ABCDEFGH"[:width]]


# ------------------------------------------------------------------------------ in a browser


class Chromium:
    """A headless Chromium, driven over the pipe of its DevTools protocol.

    `problems` collects errors and warnings of the console, exceptions and dialogs.
    """

    def __init__(self, program: str, folder: Path) -> None:
        self.problems: list[Any] = []
        self.sent = 0
        pipes = folder / "in", folder / "out"
        for pipe in pipes:
            os.mkfifo(pipe)
        # `timeout` ends a browser that hangs, and with it the pipe.
        command = ["timeout", "120", program, "--headless=new", "--no-sandbox", "--disable-gpu"]
        command += ["--remote-debugging-pipe", "--window-size=1400,900"]
        command += [f"--user-data-dir={folder / 'profile'}"]
        self.process = subprocess.Popen(
            ["sh", "-c", f'exec "$@" 3<"{pipes[0]}" 4>"{pipes[1]}"', "sh", *command],
            stderr=subprocess.DEVNULL,
        )
        self.commands, self.answers = pipes[0].open("wb"), pipes[1].open("rb")
        self.session: dict[str, str] = {}
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self.session = {"sessionId": attached["sessionId"]}
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        self.sent += 1
        message = {"id": self.sent, "method": method, "params": params, **self.session}
        self.commands.write(json.dumps(message).encode() + b"\0")
        self.commands.flush()
        while (answer := self.receive()).get("id") != self.sent:
            pass
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    def receive(self) -> dict[str, Any]:
        raw = b""
        while not raw.endswith(b"\0"):
            byte = self.answers.read(1)
            assert byte, "the browser has ended"
            raw += byte
        message: dict[str, Any] = json.loads(raw[:-1])
        method, params = message.get("method"), message.get("params", {})
        if (
            method in ("Runtime.exceptionThrown", "Page.javascriptDialogOpening")
            or (method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"))
            or (method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"))
        ):
            self.problems.append(params)
        return message

    def open(self, address: str) -> None:
        self.call("Page.navigate", url="about:blank")
        self.call("Page.navigate", url=address)
        while not self.run("document.readyState === 'complete' && location.href !== 'about:blank'"):
            pass

    def run(self, script: str) -> Any:
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def press(self, key: str) -> None:
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key)

    def filter(self, name: str, value: str) -> int:
        """Set one filter as a person would; the number of questions that are listed then."""
        self.run(
            f"{{ const box = document.getElementById({name!r}); box.value = {value!r}; "
            "box.dispatchEvent(new Event('input')); }"
        )
        return int(self.run("document.querySelectorAll('#list li').length"))

    def close(self) -> None:
        self.commands.close()
        self.answers.close()
        self.process.wait()


@pytest.fixture
def chromium(tmp_path: Path) -> Iterator[Chromium]:
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next(filter(None, map(shutil.which, names)), None)
    if program is None:
        pytest.skip(f"needs a browser on PATH: {', '.join(names)}")
    browser = Chromium(program, tmp_path)
    yield browser
    browser.close()


def test_the_page_works_in_a_browser(
    chromium: Chromium, project: Path, data: dict[str, Any]
) -> None:
    address = (project / "plots/report.html").as_uri()
    chromium.open(address)
    assert chromium.run("document.getElementById('questions').hidden")
    policy = policy_of(data, "generator", "sft-0")
    number = data["policies"].index(policy)
    chromium.open(f"{address}#{urlencode({'policy': 'generator/sft-0'})}")
    assert chromium.run("document.getElementById('results').hidden")

    questions = [data["questions"][row["question"]] for row in policy["rows"]]
    classes = [data["classes"][question["classes"][number]] for question in questions]
    operations = [question["gold"]["operations"] for question in questions]
    assert chromium.filter("class", "") == LIMIT
    for name in {*classes}:
        assert chromium.filter("class", name) == classes.count(name) < LIMIT
    assert chromium.filter("class", "failures") == LIMIT - classes.count("right") < LIMIT
    chromium.filter("class", "")
    for count in {len(names) for names in operations}:
        expected = sum(len(names) == count for names in operations)
        assert chromium.filter("steps", str(count)) == expected
    chromium.filter("steps", "")
    for operation in {name for names in operations for name in names}:
        expected = sum(operation in names for names in operations)
        assert chromium.filter("operation", operation) == expected
    chromium.filter("operation", "")
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
    row = next(r for r in policy["rows"] if data["questions"][r["question"]] is hostile)
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
    assert not chromium.run("/null|undefined|NaN/.test(document.body.innerText)")

    # Nothing of the data became an element, and nothing was logged.
    assert chromium.run("document.querySelectorAll('#questions img, b').length") == 0
    assert chromium.problems == []
