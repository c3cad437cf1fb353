"""Pair the sampled answers for DPO: correct over wrong first, then better over worse among the correct.

python stages/generator_pairs.py SEED
"""

from dataclasses import asdict
from pathlib import Path

from posttrain.core.files import atomic_directory, read_jsonl, write_json, write_jsonl
from posttrain.core.manifest import check_code
from posttrain.core.params import Params
from posttrain.core.stage import read_seed, run
from posttrain.measures.answers import by_question
from posttrain.rollouts.plots import plot_margins
from posttrain.rollouts.preferences import make_pairs, split_held_out, statistics


def main(params: Params, seed_text: str) -> None:
    seed, settings = read_seed(seed_text), params.generator.pairs
    folder = Path("data/generator_sample") / str(seed)
    check_code(folder)
    samples = read_jsonl(folder / "samples.jsonl")
    pairs = [pair for group in by_question(samples) for pair in make_pairs(group, settings)]
    training, held_out = split_held_out(pairs, settings.held_out, seed)
    with atomic_directory(Path("data/generator_pairs") / str(seed)) as output:
        write_jsonl(output / "train.jsonl", [asdict(pair) for pair in training])
        write_jsonl(output / "held_out.jsonl", [asdict(pair) for pair in held_out])
    write_json(Path("metrics/generator_pairs") / f"{seed}.json", statistics(pairs, samples))
    plot_margins([asdict(pair) for pair in pairs], Path("plots/generator_pairs") / f"{seed}.png")


if __name__ == "__main__":
    run(main)
