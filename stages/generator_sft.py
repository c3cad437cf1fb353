"""Fine-tune the generator on the gold answers of the training questions.

python stages/generator_sft.py SEED
"""

from posttrain.core.params import FINE_TUNED, Params
from posttrain.core.stage import read_seed, run
from posttrain.generator.methods import sft
from posttrain.generator.run import train_and_save


def main(params: Params, seed: str) -> None:
    train_and_save(params, FINE_TUNED, read_seed(seed), sft)


if __name__ == "__main__":
    run(main, shared=True)
