"""Train the generator with one RL method, starting from the SFT generator of the same seed.

python stages/generator_rl.py METHOD SEED        METHOD: a file of src/posttrain/generator/methods
"""

from posttrain.core.methods import load_method
from posttrain.core.params import Params
from posttrain.core.stage import read_seed, run
from posttrain.generator.run import train_and_save


def main(params: Params, method: str, seed: str) -> None:
    train_and_save(params, method, read_seed(seed), load_method("generator", method))


if __name__ == "__main__":
    run(main, shared=True)
