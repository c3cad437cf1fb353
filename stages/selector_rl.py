"""Train the selector with one RL method, starting from the SFT selector of the same seed.

python stages/selector_rl.py METHOD SEED        METHOD: a file of src/posttrain/selector/methods
"""

from itertools import chain

from posttrain.core.methods import load_method, settings_of
from posttrain.core.params import CONTROL, FINE_TUNED, Model, Params
from posttrain.core.stage import read_seed, run
from posttrain.selector.data import with_reference
from posttrain.selector.model import Selector
from posttrain.selector.run import load_policy, train_and_save
from posttrain.selector.train import Pools, Schedule, steps_of_batches


def main(params: Params, name: str, seed_text: str) -> None:
    seed, method = read_seed(seed_text), load_method("selector", name)
    settings = settings_of(params, "selector", name, method)

    def prepare(data: Pools, model: Model) -> tuple[Selector, Pools, Schedule]:
        # Dropout stays off: the ratio of new to old policy must reflect the update alone. SFT goes on as it was.
        selector = load_policy(FINE_TUNED, seed, model, trainable=True).train(name == CONTROL)
        batches = steps_of_batches(data.pools, settings.prompts_per_step, settings.steps, seed)
        data = with_reference(data, selector, chain.from_iterable(batches), model.batch_size)
        return selector, data, Schedule(batches, settings.inner_epochs, settings.minibatches)

    train_and_save(params, name, seed, method, settings, prepare)


if __name__ == "__main__":
    run(main, shared=True)
