"""Compare the policies of compare.policies at all seeds, with each other, SFT and the trivial
rules.

python stages/compare.py
"""

from pathlib import Path

from posttrain.core.errors import UserError
from posttrain.core.files import read_json
from posttrain.core.params import Params
from posttrain.core.stage import run
from posttrain.report.compare import load_runs
from posttrain.report.tables import write_comparison

RULES = Path("metrics/rewards.json")


def main(params: Params) -> None:
    runs = load_runs(Path("data/evaluate"), params.compare.policies, params.seeds)
    rules = read_trivial_rules(RULES)
    write_comparison("compare", "selector", runs, params.compare.bootstrap, rules)


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
