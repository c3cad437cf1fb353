"""Build preference pairs from sampled answers: right over wrong first, then better over worse.

python stages/preferences.py SEED
"""

from dataclasses import asdict
from pathlib import Path

from posttrain.core.files import atomic_directory, read_jsonl, write_json, write_jsonl
from posttrain.core.manifest import check_code
from posttrain.core.params import Params
from posttrain.core.stage import read_seed, run
from posttrain.measures.answers import by_question
from posttrain.report.plots import plot_margins
from posttrain.rollouts.preferences import make_pairs, split_held_out, statistics


def main(params: Params, seed_text: str) -> None:
    seed, config = read_seed(seed_text), params.preferences
    drawn = Path("data/sample") / str(seed)
    check_code(drawn)
    samples = read_jsonl(drawn / "samples.jsonl")
    pairs = [pair for group in by_question(samples) for pair in make_pairs(group, config)]
    training, held_out = split_held_out(pairs, config.held_out, seed)
    with atomic_directory(Path("data/preferences") / str(seed)) as output:
        write_jsonl(output / "train.jsonl", [asdict(pair) for pair in training])
        write_jsonl(output / "held_out.jsonl", [asdict(pair) for pair in held_out])
    write_json(Path("metrics/preferences") / f"{seed}.json", statistics(pairs, samples))
    plot_margins([asdict(pair) for pair in pairs], Path("plots/preferences") / f"{seed}.png")


if __name__ == "__main__":
    run(main)
