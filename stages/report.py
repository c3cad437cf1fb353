"""Write the report: conclusions, findings, tables, plots, and a browser of the test questions with their answers.

python stages/report.py

plots/report.md has the conclusions, findings, tables and plots; plots/report.html adds the browser, in one file that needs
no network.
"""

from collections.abc import Mapping
from pathlib import Path

from posttrain.core.files import atomic_write, read_json, read_jsonl, read_text
from posttrain.core.params import Params
from posttrain.core.stage import run
from posttrain.measures.episodes import RETURN
from posttrain.report.browser import browser_data, generator_policy, selector_policy
from posttrain.report.compare import Run, read_left_out, read_runs
from posttrain.report.page import html_report, markdown_report
from posttrain.report.tables import MAIN, sections_of, table
from posttrain.tasks import SPLITS, Task, get_task, is_question

PLOTS, POOLS = Path("plots"), Path("data/pools")
FAMILIES = {
    "selector": "chooses one of the candidates",
    "generator": "writes the answer",
}
PICTURES = {
    "compare/{}.png": "right answers and their changes",
    "compare/{}-temperatures.png": "right answers and rewards over temperature",
    "compare/{}-curves.png": "learning curves",
}


def main(params: Params) -> None:
    task, seeds = get_task(*params.tasks), params.seeds
    examples = read_jsonl(Path("data/examples/test.jsonl"))
    pools = read_jsonl(POOLS / "test.jsonl")
    weights = params.reward.weights
    if task.open is not None:
        pools = [{"id": example["id"], "candidates": []} for example in examples]
        asked = any(is_question(example) for example in examples)
        weights = {RETURN: 1.0} | (weights if asked else {})
    runs = {family: read_family(params, family) for family in FAMILIES}
    policies = [selector_policy(one, pools) for one in runs["selector"]]
    policies += [generator_policy(one) for one in runs["generator"]]
    data = browser_data(task, examples, pools, policies, weights, params.report.questions)
    images = {} if task.open is not None else {"pools.png": "rewards of the selector's candidates"}
    images |= {
        f"generator_pairs/{seed}.png": f"margins of the generator's preference pairs, seed {seed}"
        for seed in seeds
    }
    made = {family: read_text(PLOTS / "compare" / f"{family}.md") for family in FAMILIES}
    conclusions, findings = conclude(made)
    sections = {"Conclusions": ["\n".join(conclusions)]}
    for family, text in made.items():
        if not runs[family]:
            sections[family.capitalize()] = ["\n".join(sections_of(text)[0])]
            continue
        pictures = {name.format(family): caption for name, caption in PICTURES.items()}
        first: list[str] = []
        rest: list[str] = []
        for heading, part in sections_of(text)[1].items():
            (first if heading.startswith(MAIN) else rest).append(f"### {heading}\n\n{part}")
        said = "\n".join(findings[family])
        sections[family.capitalize()] = [said, *first, *shown(pictures), *rest]
        images |= pictures
    title = f"{params.model} on {params.dataset}"
    sections["Training data"] = shown({n: c for n, c in images.items() if "compare/" not in n})
    sections["What was run"] = [table(["", ""], facts(task, params))]
    markdown = markdown_report(title, sections)
    pngs = {name: (PLOTS / name).read_bytes() for name in images}
    with atomic_write(PLOTS / "report.md") as file:
        file.write(markdown)
    with atomic_write(PLOTS / "report.html") as file:
        file.write(html_report(title, markdown, pngs, data))
    print("\n".join(conclusions).replace("**", ""))
    print(f"{PLOTS / 'report.html'}: open it in a browser")


def conclude(made: Mapping[str, str]) -> tuple[list[str], dict[str, list[str]]]:
    """The conclusions, and by family its other findings, as items of Markdown lists.

    made: by family the Markdown of its comparison, which opens with a list. The first item of each and those that all of
    them share are conclusions.
    """
    lists = {family: sections_of(text)[0] for family, text in made.items()}
    shared = [item for item in next(iter(lists.values())) if all(item in o for o in lists.values())]
    conclusions = [
        f"- The {family}, which {FAMILIES[family]}: {items[0].removeprefix('- ')}"
        for family, items in lists.items()
    ]
    findings = {
        family: [item for item in items[1:] if item not in shared]
        for family, items in lists.items()
    }
    return [*conclusions, *(item for item in shared if item.startswith("- "))], findings


def read_family(params: Params, family: str) -> list[Run]:
    policies = getattr(params, family).policies
    return read_runs(Path("data") / f"{family}_evaluate", policies, params.seeds)


def named_policies(params: Params, family: str) -> list[str]:
    policies = getattr(params, family).policies
    left_out = read_left_out(Path("data") / f"{family}_evaluate", policies, params.seeds)
    return [f"{name} (not trained)" if name in left_out else name for name in policies]


def shown(images: dict[str, str]) -> list[str]:
    return [f"![{caption}]({name})" for name, caption in images.items()]


def data_set(params: Params) -> str:
    """The number of questions of each split, and of how many they were sampled."""
    counts = read_json("metrics/examples.json")
    told, cut = [], False
    for split in SPLITS:
        count, whole = counts[split]["examples"], counts[split].get("of")
        told.append(f"{count:,} {f'of {whole:,} ' if whole else ''}{split}")
        cut = cut or whole is not None
    sampled = f", sampled by seed {params.selected_dataset.seed}" if cut else ""
    return f"{', '.join(told)} questions{sampled}"


def _settings(params: Params) -> dict[str, str]:
    """What the selected entries set, by the words for each."""
    entries = {
        f"datasets.{params.dataset}": "set by the data set",
        f"models.{params.model}": "set by the model",
    }
    return {
        words: ", ".join(
            f"{name} {value}" for name, (by, value) in params.settings.items() if by == entry
        )
        for entry, words in entries.items()
        if any(by == entry for by, _ in params.settings.values())
    }


def facts(task: Task, params: Params) -> list[list[str]]:
    """The rows of the table at the end of the report."""
    model = params.selected_model
    revision = f" at revision {model.revision}" if model.revision else ""
    named = {
        "data set": f"{params.dataset}: {data_set(params)}",
        "base model": f"{params.model} ({model.name}{revision})",
        **_settings(params),
        **task.describe(params),
        "seeds": ", ".join(map(str, params.seeds)),
        "machine": "all that is trained is of one machine, and differs on another by about as much as between seeds; data, "
        "blind baselines and base are the same everywhere",
        **{f"{family}s": ", ".join(named_policies(params, family)) for family in FAMILIES},
        "cost": "`python -m posttrain.report.cost` prints seconds and tokens, and draws accuracy over seconds",
    }
    return [[name, value.replace("|", "/")] for name, value in named.items()]


if __name__ == "__main__":
    run(main)
