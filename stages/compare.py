"""Compare the policies of a family over all seeds, with SFT, SFT+ and, for the selector, with the blind baselines.

python stages/compare.py FAMILY        FAMILY: selector | generator
"""

from pathlib import Path

from posttrain.core.errors import UserError
from posttrain.core.files import atomic_write, read_json, write_json
from posttrain.core.params import UNTRAINED, Params
from posttrain.core.stage import run
from posttrain.report.compare import REFERENCE, compare_runs, read_left_out, read_runs
from posttrain.report.curves import plot_curves, read_panels
from posttrain.report.findings import headline, left_out_sentences
from posttrain.report.plots import plot_comparison
from posttrain.report.tables import (
    changes_table,
    few_metrics,
    long_table,
    markdown,
    values_table,
)

FAMILIES = ("selector", "generator")
POOLS = Path("metrics/pools.json")


def main(params: Params, family: str) -> None:
    if family not in FAMILIES:
        raise UserError(f"family {family!r}: expected one of {', '.join(FAMILIES)}")
    policies, seeds = getattr(params, family).policies, params.seeds
    runs = read_runs(Path("data") / f"{family}_evaluate", policies, seeds)
    blind = read_blind(POOLS) if family == "selector" else {}
    left_out = read_left_out(Path("data") / f"{family}_evaluate", policies, seeds)
    comparison = compare_runs(family, runs, params.compare.bootstrap, blind, left_out)
    output = Path("plots/compare")
    write_json(Path("metrics/compare") / f"{family}.json", few_metrics(comparison))
    for suffix, text in (("csv", long_table(comparison)), ("md", markdown(comparison))):
        with atomic_write(output / f"{family}.{suffix}") as file:
            file.write(text)
    plot_comparison(comparison, output / f"{family}.png")
    trained = [policy for policy in comparison.results if policy not in (UNTRAINED, REFERENCE)]
    panels = read_panels(Path("plots/curves") / family, trained, seeds)
    plot_curves(family, panels, len(seeds), output / f"{family}-curves.png")
    print(f"{family.capitalize()}: {headline(comparison)}\n\n{values_table(comparison)}")
    for reference in comparison.references:
        print(f"\n{changes_table(comparison, reference)}")
    for sentence in left_out_sentences(comparison):
        print(f"\n{sentence}")


def read_blind(path: Path) -> dict[str, float]:
    """Test accuracy of each blind baseline, as measured by stage pools."""
    try:
        accuracies: dict[str, float] = read_json(path)["blind"]["test"]
    except (KeyError, TypeError) as error:
        raise UserError(f"{path}: no blind.test; run dvc repro pools") from error
    return accuracies


if __name__ == "__main__":
    run(main)
