"""Claims about scoring pools, and stage selector_evaluate on a tiny model from files to metrics."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from stages.selector_evaluate import main
from toys import COLOUR_TOKENIZER, PARAMS, contents, pool_row, tiny_config, write_project
from transformers import AutoModelForCausalLM

from posttrain.core.errors import UserError
from posttrain.core.files import read_jsonl, write_json, write_jsonl
from posttrain.core.params import load_params
from posttrain.models.load import BASE, load_config, load_tokenizer, read_base
from posttrain.selector.batch import TokenizedPool, collate
from posttrain.selector.data import make_pools, with_reference
from posttrain.selector.model import Selector, load_selector, save_untrained
from posttrain.selector.policy import log_softmax
from posttrain.selector.predict import longest_first, score_pools
from posttrain.selector.run import score_rows


def tiny_selector() -> Selector:
    torch.manual_seed(0)
    config = tiny_config(attention_dropout=0.5)
    return Selector(AutoModelForCausalLM.from_config(config, attn_implementation="sdpa"))


def pool(name: str, length: int, count: int = 3) -> TokenizedPool:
    return TokenizedPool(
        name,
        [(7 * i + length) % 50 for i in range(length)],
        [[(k + 3 * i) % 50 for i in range(2 + k)] for k in range(count)],
    )


POOLS = [pool("short", 4), pool("long", 30), pool("middle", 11), pool("longer", 31)]


def test_results_come_back_in_the_order_of_the_input() -> None:
    selector = tiny_selector().eval()
    logits, states = score_pools(selector, POOLS, 2, "cpu")
    assert logits.shape == (4, 3) and states.shape[0] == 4
    for row, one in enumerate(POOLS):
        with torch.no_grad():
            alone = selector(collate([one]))
        torch.testing.assert_close(logits[row], alone.logits[0], atol=1e-5, rtol=0)
        torch.testing.assert_close(states[row], alone.states[0], atol=1e-5, rtol=0)


def test_the_batch_size_does_not_change_the_scores() -> None:
    selector = tiny_selector()
    one, _ = score_pools(selector, POOLS, 1, "cpu")
    all_at_once, _ = score_pools(selector, POOLS, 100, "cpu")
    torch.testing.assert_close(one, all_at_once, atol=1e-5, rtol=0)


def test_the_longest_prompt_goes_first() -> None:
    assert longest_first(POOLS) == [3, 1, 2, 0]


def test_dropout_is_off_while_scoring_and_on_again_after() -> None:
    selector = tiny_selector().train()
    first, _ = score_pools(selector, POOLS, 4, "cpu")
    second, _ = score_pools(selector, POOLS, 4, "cpu")
    assert torch.equal(first, second)
    assert selector.training and selector.backbone.training


def test_scores_are_constants_that_training_may_use() -> None:
    selector = tiny_selector()
    logits, _ = score_pools(selector, POOLS, 4, "cpu")
    assert not logits.requires_grad
    weight = torch.ones(3, requires_grad=True)
    (weight * logits).sum().backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None


def test_no_pools_give_no_scores() -> None:
    logits, states = score_pools(tiny_selector(), [], 4, "cpu")
    assert len(logits) == 0 and len(states) == 0


def test_pools_of_different_size_are_refused_by_name() -> None:
    with pytest.raises(UserError, match="odd: 2 candidates where short has 3"):
        score_pools(tiny_selector(), [POOLS[0], pool("odd", 5, count=2)], 4, "cpu")


# ------------------------------------------------------------------------------ the stage


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [pool_row(number) for number in range(6)]
    return write_project(tmp_path_factory.mktemp("project"), {"val": rows[:2], "test": rows[2:]})


@pytest.fixture
def project(inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project as the working directory, in which the untrained selector of seed 0 can be evaluated."""
    shutil.copytree(inputs, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_pools_of_several_sizes_are_scored_in_their_order(project: Path) -> None:
    model = load_params().selected_model
    selector, _ = load_selector(Path("models/selector/base/0"), BASE)
    pools = [pool_row(number) for number in range(5)]
    for one, count in zip(pools, (3, 1, 4, 1, 3), strict=True):
        one["candidates"] = one["candidates"][:count]
    together = score_rows(selector, pools, model)
    assert [len(logits) for logits in together] == [3, 1, 4, 1, 3]
    for logits, one in zip(together, pools, strict=True):
        assert logits == pytest.approx(score_rows(selector, [one], model)[0], abs=1e-5)


def test_of_a_sample_that_reads_as_too_many_tokens_the_beginning_is_scored(project: Path) -> None:
    """A broken character is one token when it is sampled, and three when its text is read."""
    limit = 8
    model = load_params().selected_model.model_copy(update={"max_candidate_tokens": limit})
    selector, _ = load_selector(Path("models/selector/base/0"), BASE)
    pools = [pool_row(0), pool_row(0)]
    for one, count in zip(pools, (limit, 3 * limit), strict=True):
        one["candidates"] = [{"text": count * "\ufffd", "reward": 0.0}]
    short, long = score_rows(selector, pools, model)
    assert long == pytest.approx(short)


def test_the_reference_is_the_selectors_own_policy_on_the_questions_that_are_asked(
    project: Path,
) -> None:
    selector, _ = load_selector(Path("models/selector/base/0"), BASE)
    rows = read_jsonl("data/pools/test.jsonl")
    model = load_params().selected_model
    data, dropped = make_pools(rows, load_tokenizer(BASE), model, training=True)
    assert dropped == [] and data.rewards[0].tolist() == pytest.approx([0.2, 0.0, 1.0, 0.2])
    assert torch.allclose(data.reference.exp(), torch.full((4, 4), 0.25))
    logits, _ = score_pools(selector, data.pools, 4, "cpu")
    asked = with_reference(data, selector, [2, 0, 2], 4).reference
    torch.testing.assert_close(asked[[0, 2]], log_softmax(logits)[[0, 2]])
    assert torch.equal(asked[[1, 3]], data.reference[[1, 3]])


def test_the_stage_keeps_every_choice_and_few_metrics(project: Path) -> None:
    main(load_params(), "base", "0")
    output = Path("data/selector_evaluate/base/0")
    rows = read_jsonl(output / "predictions.jsonl")
    assert [row["id"] for row in rows] == ["q0", "q1", "q2", "q3", "q4", "q5"]
    metrics = json.loads(Path("metrics/selector_evaluate/base/0.json").read_text())
    test = [row for row in rows if row["split"] == "test"]
    assert metrics["test"]["accuracy"] == sum(row["correct"] for row in test) / 4
    summary = json.loads((output / "summary.json").read_text())
    assert set(summary["test"]["intervals"]["reward"]) == {"0.8", "0.95"}
    assert set(summary["test"]["kinds"]) == {"gold", "plausible", "corrupted"}
    manifest = json.loads((output / "manifest.json").read_text())
    assert manifest["stage"] == "selector_evaluate" and manifest["policy"] == "base"
    assert {"seed", "inputs", "code", "params", "packages"} <= manifest.keys()

    before = contents(output)
    main(load_params(), "base", "0")
    assert contents(output) == before


@pytest.mark.parametrize(
    ("policy", "seed", "message"),
    [
        ("sarsa", "0", "cannot read models/selector/sarsa/0/selector.json: No such file"),
        ("sft", "first", "seed 'first'"),
        ("base", "7", "cannot read models/selector/base/7/selector.json: No such file"),
    ],
)
def test_a_wrong_argument_is_named(project: Path, policy: str, seed: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        main(load_params(), policy, seed)


@pytest.mark.parametrize("content", [{"meta": {}}, ["base"]])
def test_a_folder_that_describes_no_policy_is_named(project: Path, content: object) -> None:
    write_json(Path("models/selector/sft/0/selector.json"), content)
    with pytest.raises(
        UserError, match=r"selector\.json: is no description of a policy; run dvc repro"
    ):
        main(load_params(), "sft", "0")


def test_a_question_too_long_for_the_model_is_named_not_cut(project: Path) -> None:
    long = pool_row(7) | {"prompt": "revenue " * 200}
    for split in ("val", "test"):
        write_jsonl(f"data/pools/{split}.jsonl", [long])
    with pytest.raises(UserError, match="the first is q7: prompt"):
        main(load_params(), "base", "0")


def test_each_seed_has_an_untrained_selector_of_its_own(project: Path) -> None:
    """Their heads differ, but not their choices, which are the language model's."""
    for seed in (0, 1):
        folder = Path(f"models/selector/base/{seed}")
        save_untrained(folder, load_config(BASE), read_base(BASE), seed)
        main(load_params(), "base", str(seed))
    choices = [
        contents(Path(f"data/selector_evaluate/base/{seed}"))["predictions.jsonl"]
        for seed in (0, 1)
    ]
    assert choices[0] == choices[1]


def test_training_pools_that_are_all_too_long_are_one_line_with_the_limits() -> None:
    limits = {"max_prompt_tokens": 3, "max_candidate_tokens": 60}
    model = PARAMS.selected_model.model_copy(update=limits)
    with pytest.raises(
        UserError, match="none of the 2 training pools fits max_prompt_tokens=3 and"
    ):
        make_pools([pool_row(0), pool_row(1)], COLOUR_TOKENIZER, model, training=True)
