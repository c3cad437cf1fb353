"""Compare base, SFT and RL generators at all seeds on the same test questions.

python stages/compare_generator.py
"""

import csv
from pathlib import Path

from posttrain.evaluation.compare import compare, load_runs
from posttrain.evaluation.plots import plot_comparison
from posttrain.evaluation.tables import flat_metrics, markdown, tidy_rows
from posttrain.files import atomic_write, write_json
from posttrain.params import Params
from posttrain.stage import run

KINDS = (
    "whose answer is right in program and stated result, or fails first in each way (`wrong_answer_only`: "
    "its program is right)"
)


def main(params: Params) -> None:
    policies = ["base", "sft", *params.rl.generator.methods]
    runs = load_runs(Path("data/evaluate_generator"), policies, params.seeds)
    results = compare(runs, params.compare.bootstrap)
    questions = len(runs[0].predictions)
    write_json("metrics/compare_generator.json", flat_metrics("generator", results, {}))
    rows = tidy_rows(results, {}, questions)
    with atomic_write("plots/compare_generator.csv") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    with atomic_write("plots/compare_generator.md") as file:
        file.write(markdown(results, {}, questions, KINDS))
    plot_comparison(results, {}, questions, Path("plots/compare_generator.png"))


if __name__ == "__main__":
    run(main)
