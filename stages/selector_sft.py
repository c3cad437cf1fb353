"""Fine-tune the selector on the best candidates of each training pool.

python stages/selector_sft.py SEED
"""

from posttrain.core.methods import settings_of
from posttrain.core.params import FINE_TUNED, UNTRAINED, Model, Params
from posttrain.core.stage import read_seed, run
from posttrain.selector.methods import sft
from posttrain.selector.model import Selector
from posttrain.selector.run import load_policy, train_and_save
from posttrain.selector.train import Pools, Schedule, epochs_of_batches


def main(params: Params, seed_text: str) -> None:
    seed = read_seed(seed_text)
    settings = settings_of(params, "selector", FINE_TUNED, sft)

    def prepare(data: Pools, model: Model) -> tuple[Selector, Pools, Schedule]:
        batch_size = model.batch_size * model.accumulation
        batches = epochs_of_batches(data.pools, batch_size, settings.epochs, seed)
        selector = load_policy(UNTRAINED, seed, model, trainable=True).train()
        return selector, data, Schedule(batches, patience=settings.patience)

    train_and_save(params, FINE_TUNED, seed, sft, settings, prepare)


if __name__ == "__main__":
    run(main, shared=True)
