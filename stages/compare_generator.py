"""Compare base, SFT and RL generators at all seeds on the same test questions.

python stages/compare_generator.py
"""

from pathlib import Path

from posttrain.core.params import Params
from posttrain.core.stage import run
from posttrain.report.compare import load_runs
from posttrain.report.tables import write_comparison

KINDS = (
    "whose answer is right in program and stated result, or fails first in each way (`wrong_answer_only`: "
    "its program is right)"
)


def main(params: Params) -> None:
    policies = ["base", "sft", *params.rl.generator.methods]
    runs = load_runs(Path("data/evaluate_generator"), policies, params.seeds)
    resamples = params.compare.bootstrap
    write_comparison("compare_generator", "generator", runs, resamples, {}, KINDS)


if __name__ == "__main__":
    run(main)
