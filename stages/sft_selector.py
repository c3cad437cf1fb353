"""Fine-tune the selector on the best candidates of each training pool.

python stages/sft_selector.py SEED
"""

from pathlib import Path

import torch

from posttrain.core.manifest import build_manifest
from posttrain.core.params import Params
from posttrain.core.stage import read_seed, run
from posttrain.core.training import device
from posttrain.models.lora import add_lora
from posttrain.selector.methods import sft
from posttrain.selector.model import Selector, load_reader
from posttrain.selector.run import (
    BASE,
    REWARDS,
    load_data,
    model_directory,
    train_and_save,
)
from posttrain.selector.train import Schedule, epochs_of_batches
from posttrain.tasks import get_task


def main(params: Params, seed_text: str) -> None:
    seed, config, model = read_seed(seed_text), params.sft.selector, params.selected_model
    manifest = build_manifest(
        "sft_selector",
        params.sections("sft.selector", "model"),
        [BASE, REWARDS / "train.jsonl", REWARDS / "val.jsonl"],
        seed=seed,
        prompt=get_task(params.selected_dataset.task).prompt_hash(),
    )
    data, val, dropped = load_data(model, config.evaluation_questions)
    print(f"{len(data)} training questions, {len(dropped)} dropped as too long for {params.model}")
    torch.manual_seed(seed)
    backbone = load_reader(BASE, model.dtype, model.quantization)
    if model.lora is not None:
        backbone = add_lora(backbone, **model.lora.model_dump())
    selector = Selector(backbone).to(device()).train()
    batch_size = model.batch_size * model.accumulation
    batches = epochs_of_batches(data.pools, batch_size, config.epochs, seed)
    train_and_save(
        f"sft_selector {seed}",
        selector,
        sft,
        config,
        Schedule(batches),
        data,
        val,
        model=model,
        seed=seed,
        manifest=manifest,
        output=model_directory("sft", seed),
        curves=Path("plots/sft_selector") / str(seed),
    )


if __name__ == "__main__":
    run(main, shared=True)
