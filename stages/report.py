"""Write the report: what was compared, and a browser of the test questions with the answers they got.

python stages/report.py

plots/report.md holds the tables, plots/report.html all in one file that needs no network.
"""

from collections.abc import Sequence
from pathlib import Path

from posttrain.core.files import atomic_write, read_jsonl, read_text
from posttrain.core.params import Params
from posttrain.core.stage import run
from posttrain.report.browser import browser_data, generator_policy, selector_policy
from posttrain.report.compare import UNTRAINED, Run, load_runs
from posttrain.report.page import html_report, markdown_report
from posttrain.tasks import Task, get_task

PLOTS = Path("plots")


def main(params: Params) -> None:
    task, seeds = get_task(params.selected_dataset.task), params.seeds
    examples = read_jsonl(Path("data/prepare/test.jsonl"))
    pools = read_jsonl(Path("data/rewards/test.jsonl"))
    names = generator_names(params)
    selectors = load_runs(Path("data/evaluate"), params.compare.policies, seeds)
    generators = load_runs(Path("data/evaluate_generator"), names, seeds)
    policies = [selector_policy(found, pools) for found in distinct(selectors)]
    policies += [generator_policy(found) for found in distinct(generators)]
    weights = params.rewards.weights.model_dump()
    data = browser_data(task, examples, pools, policies, weights, params.report.questions)
    margins = {f"preferences/{seed}.png": f"preference pairs, seed {seed}" for seed in seeds}
    markdown = markdown_report(
        what_was_run(task, params, len(examples)),
        {
            "Selector: chooses one of the candidates": [
                read_text(PLOTS / "compare.md"),
                "![accuracy, and change in reward against SFT](compare.png)",
            ],
            "Generator: writes the answer": [
                read_text(PLOTS / "compare_generator.md"),
                "![accuracy, and change in reward against SFT](compare_generator.png)",
            ],
            "Training data": [
                "![rewards of the selector's candidates](rewards.png)",
                *(f"![margins of the generator's {of}]({name})" for name, of in margins.items()),
            ],
        },
    )
    shown = ("compare.png", "compare_generator.png", "rewards.png", *margins)
    images = {name: (PLOTS / name).read_bytes() for name in shown}
    title = f"posttrain: {params.model} on {params.dataset}"
    with atomic_write(PLOTS / "report.md") as file:
        file.write(markdown)
    with atomic_write(PLOTS / "report.html") as file:
        file.write(html_report(title, markdown, images, data))


def distinct(runs: Sequence[Run]) -> list[Run]:
    """Without the copies of an untrained policy that stand for it at the later seeds."""
    first = runs[0].seed
    return [found for found in runs if found.policy not in UNTRAINED or found.seed == first]


def generator_names(params: Params) -> list[str]:
    return ["base", "sft", *params.rl.generator.methods]


def what_was_run(task: Task, params: Params, questions: int) -> dict[str, str]:
    """The lines at the top of the report."""
    model = params.selected_model
    revision = f" at revision {model.revision}" if model.revision else ""
    return {
        "data set": f"{params.dataset}, {questions} test questions",
        "base model": f"{params.model} ({model.name}{revision})",
        **task.describe(params),
        "seeds": ", ".join(map(str, params.seeds)),
        "selectors": ", ".join(params.compare.policies),
        "generators": ", ".join(generator_names(params)),
        "rules": "rows `rule: ...` choose by the candidates alone, without the page",
    }


if __name__ == "__main__":
    run(main)
