"""Compare the policies of compare.policies at all seeds, with each other, SFT and the trivial
rules.

python stages/compare.py
"""

import csv
from pathlib import Path

from posttrain.errors import UserError
from posttrain.evaluation.compare import compare, load_runs
from posttrain.evaluation.plots import plot_comparison
from posttrain.evaluation.tables import flat_metrics, markdown, tidy_rows
from posttrain.files import atomic_write, read_json, write_json
from posttrain.params import Params
from posttrain.stage import run

RULES = Path("metrics/rewards.json")


def main(params: Params) -> None:
    runs = load_runs(Path("data/evaluate"), params.compare.policies, params.seeds)
    trivial = read_trivial_rules(RULES)
    results = compare(runs, params.compare.bootstrap)
    questions = len(runs[0].predictions)
    write_json("metrics/compare.json", flat_metrics("selector", results, trivial))
    rows = tidy_rows(results, trivial, questions)
    with atomic_write("plots/compare.csv") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    with atomic_write("plots/compare.md") as file:
        file.write(markdown(results, trivial, questions))
    plot_comparison(results, trivial, questions, Path("plots/compare.png"))


def read_trivial_rules(path: Path) -> dict[str, float]:
    """Test accuracy of each rule, as stage rewards measured it."""
    metrics = read_json(path)
    try:
        rules: dict[str, float] = metrics["shortcuts"]["test"]
    except (KeyError, TypeError) as error:
        raise UserError(f"{path}: no shortcuts.test; run stage rewards") from error
    return rules


if __name__ == "__main__":
    run(main)
