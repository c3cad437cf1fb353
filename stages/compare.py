"""Compare the policies of a family over all seeds, with SFT, SFT+ and, for the selector, with the blind baselines.

python stages/compare.py FAMILY        FAMILY: selector | generator

Of a data set with parts, also by part and over the parts. Where SFT was not trained there is nothing to compare, and the
outputs say so in one sentence.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from posttrain.core.errors import UserError
from posttrain.core.figures import write_note
from posttrain.core.files import atomic_write, iterate_jsonl, read_json, write_json
from posttrain.core.params import UNTRAINED, Params
from posttrain.core.stage import run
from posttrain.report.compare import REFERENCE, Run, compare_runs, read_left_out, read_runs
from posttrain.report.critic import critic_sentences
from posttrain.report.curves import plot_curves, read_panels
from posttrain.report.effort import read_effort
from posttrain.report.episodes import episodes_section
from posttrain.report.findings import (
    EXPERT,
    headline,
    left_out_sentences,
    not_trained_sentences,
)
from posttrain.report.parts import Parts, figures_by_policy, measure_parts, rows, sentences
from posttrain.report.parts import sections as parts_sections
from posttrain.report.plots import plot_comparison
from posttrain.report.tables import (
    COLUMNS,
    changes_table,
    few_metrics,
    long_table,
    markdown,
    values_table,
)
from posttrain.report.temperatures import (
    plot_temperatures,
    read_temperatures,
    temperature_table,
)
from posttrain.report.training import plateau_sentences
from posttrain.tasks import is_question

FAMILIES = ("selector", "generator")
OUTPUT = Path("plots/compare")
BLIND = {"selector": Path("metrics/pools.json"), "generator": Path("metrics/examples.json")}


def main(params: Params, family: str) -> None:
    if family not in FAMILIES:
        raise UserError(f"family {family!r}: expected one of {', '.join(FAMILIES)}")
    policies, seeds = getattr(params, family).policies, params.seeds
    left_out = read_left_out(Path("data") / f"{family}_evaluate", policies, seeds)
    if REFERENCE in left_out:
        write_nothing(family, not_trained_sentences(left_out))
        return
    runs = read_runs(Path("data") / f"{family}_evaluate", policies, seeds)
    curves, output = Path("plots/curves") / family, OUTPUT
    found = read_parts(params, family, runs)
    comparison = compare_runs(
        family,
        runs,
        params.compare.bootstrap,
        read_blind(family),
        left_out,
        notes=[
            *(sentences(found) if found else []),
            *plateau_sentences(curves, seeds),
            *critic_sentences(curves, seeds),
        ],
    )
    temperatures = read_temperatures(Path("data") / f"{family}_evaluate", comparison)
    sections = {
        **episodes_section(Path("data") / f"{family}_evaluate", comparison),
        "Temperature": temperature_table(temperatures),
        "Effort": read_effort(params, family),
        **(parts_sections(found) if found else {}),
    }
    metrics: dict[str, dict[str, Any]] = {**few_metrics(comparison)}
    for policy, figures in (figures_by_policy(found) if found else {}).items():
        metrics[policy] |= figures
    write_json(Path("metrics/compare") / f"{family}.json", metrics)
    for suffix, text in (
        ("csv", long_table(comparison, rows(found) if found else ())),
        ("md", markdown(comparison, sections)),
    ):
        with atomic_write(output / f"{family}.{suffix}") as file:
            file.write(text)
    plot_comparison(comparison, output / f"{family}.png")
    trained = [policy for policy in comparison.results if policy not in (UNTRAINED, REFERENCE)]
    panels = read_panels(curves, trained, seeds)
    plot_curves(family, panels, len(seeds), output / f"{family}-curves.png")
    plot_temperatures(family, temperatures, output / f"{family}-temperatures.png")
    print(f"{family.capitalize()}: {headline(comparison)}\n\n{values_table(comparison)}")
    for reference in comparison.references:
        print(f"\n{changes_table(comparison, reference)}")
    for sentence in left_out_sentences(comparison):
        print(f"\n{sentence}")


def write_nothing(family: str, sentences: Sequence[str]) -> None:
    """The outputs of this stage without a comparison: the sentences in its place."""
    write_json(Path("metrics/compare") / f"{family}.json", {})
    told = "".join(f"- {sentence}\n" for sentence in sentences)
    for suffix, text in (("csv", ",".join(COLUMNS) + "\n"), ("md", told)):
        with atomic_write(OUTPUT / f"{family}.{suffix}") as file:
            file.write(text)
    for name in ("", "-temperatures", "-curves"):
        write_note(OUTPUT / f"{family}{name}.png", f"{family.capitalize()}: not trained")
    print(told)


def read_parts(params: Params, family: str, runs: Sequence[Run]) -> Parts | None:
    """The figures of the policies by part of the data set; None if it has no parts."""
    if not params.parts:
        return None
    part_of, played = dict[str, str](), set[str]()
    for row in iterate_jsonl("data/examples/test.jsonl"):
        part_of[row["id"]] = row["part"]
        if "turns" in row and not is_question(row):
            played.add(row["part"])
    blind = {part: read_blind(family, part) for part in params.parts}
    resamples = params.compare.bootstrap
    return measure_parts(runs, part_of, params.part_weights, blind, resamples, played)


def read_blind(family: str, part: str | None = None) -> dict[str, float]:
    """Test accuracy of each blind baseline: of stage pools, or those that the task offers for written answers.

    part: of the data set, where it has some. Over all parts, the one for written answers is the best baseline of each, not
    counting an environment's expert.
    """
    path = BLIND[family]
    try:
        read = read_json(path)
        if family == "selector":
            found = read["parts"][part]["test"] if part else read["blind"]["test"]
        else:
            found = read["test"].get("baselines", {})
            parts = read["test"].get("parts", {})
            if part:
                found = found[part]
            elif parts:
                counts = [
                    (
                        of["examples"],
                        max((x for key, x in found[name].items() if key != EXPERT), default=0.0),
                    )
                    for name, of in parts.items()
                ]
                right = sum(count * best for count, best in counts)
                found = {"best of each part": right / sum(count for count, _ in counts)}
        return {name: float(accuracy) for name, accuracy in found.items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: no blind baselines of the test split; run dvc repro") from error


if __name__ == "__main__":
    run(main)
