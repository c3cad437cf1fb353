"""Choose an answer to each validation and test question with a selector, and measure the choices.

python stages/selector_evaluate.py POLICY SEED        POLICY: base (untrained), sft or a method

Writes data/selector_evaluate/POLICY/SEED: predictions.jsonl, summary.json (intervals, kinds, edits), temperatures.json
(the fitted temperature, and a curve over temperatures on test) and manifest.json; not_trained.json for a policy that was
not.
"""

from pathlib import Path
from typing import Any

import numpy as np

from posttrain.core import processes
from posttrain.core.files import atomic_directory, read_jsonl, write_json, write_jsonl
from posttrain.core.loop import device
from posttrain.core.manifest import build_manifest, write_manifest
from posttrain.core.not_trained import why_not_trained, write_not_trained
from posttrain.core.params import Params
from posttrain.core.stage import read_seed, run
from posttrain.measures.choices import (
    by_edit,
    by_kind,
    curve,
    headline_intervals,
    headlines,
    predict,
)
from posttrain.measures.temperature import described, fit_choice
from posttrain.models.load import BASE, load_tokenizer
from posttrain.rollouts.groups import best
from posttrain.selector.data import make_pools
from posttrain.selector.predict import score_pools
from posttrain.selector.run import POOLS, load_policy, model_directory

SPLITS = ("val", "test")
CURVE = np.geomspace(0.1, 3.0, 25).tolist()


def main(params: Params, policy: str, seed_text: str) -> None:
    seed, model, settings = read_seed(seed_text), params.selected_model, params.evaluate
    manifest = build_manifest(
        "selector_evaluate",
        params.sections("evaluate", "model"),
        [
            BASE,
            model_directory(policy, seed),
            *(POOLS / f"{split}.jsonl" for split in SPLITS),
        ],
        policy=policy,
        seed=seed,
    )
    output_folder = Path("data/selector_evaluate") / policy / str(seed)
    metrics_file = Path("metrics/selector_evaluate") / policy / f"{seed}.json"
    reason = why_not_trained(POOLS) or why_not_trained(model_directory(policy, seed))
    if reason is not None:
        if processes.is_main():
            write_not_trained(output_folder, reason, manifest)
            write_json(metrics_file, {"not_trained": reason})
        return
    tokenizer = load_tokenizer(BASE)
    selector = load_policy(policy, seed, model)
    pools, logits = {}, {}
    for split in SPLITS:
        pools[split] = read_jsonl(POOLS / f"{split}.jsonl")
        data, _ = make_pools(pools[split], tokenizer, model, training=False)
        scores, _ = score_pools(selector, data.pools, model.batch_size, device())
        logits[split] = scores.double().numpy()
        if split == "val":
            fit = fit_choice(logits[split], best(data.rewards).numpy())
    predictions: list[dict[str, Any]] = []
    summary: dict[str, Any] = {}
    metrics: dict[str, dict[str, float]] = {}
    for split, rows in pools.items():
        chosen = predict(split, rows, logits[split], fit.temperature)
        predictions += chosen
        metrics[split] = headlines(chosen)
        summary[split] = {
            "questions": len(chosen),
            "values": metrics[split],
            "intervals": headline_intervals(chosen, settings.intervals, settings.bootstrap),
            "kinds": by_kind(chosen, rows, settings.intervals),
            "edits": by_edit(chosen, rows),
        }
    if not processes.is_main():
        return
    temperatures = described(
        fit, curve(pools["test"], logits["test"], [0.0, *CURVE, 1.0, fit.temperature])
    )
    metrics["val"]["temperature"] = temperatures["fitted"]
    with atomic_directory(output_folder) as output:
        write_jsonl(output / "predictions.jsonl", predictions)
        write_json(output / "summary.json", summary)
        write_json(output / "temperatures.json", temperatures)
        write_manifest(output, manifest)
    write_json(metrics_file, metrics)


if __name__ == "__main__":
    run(main, shared=True)
