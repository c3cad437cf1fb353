"""Let a generator answer validation and test questions, and measure the answers.

python stages/evaluate_generator.py POLICY SEED        POLICY: base | sft | ppo | grpo | rloo | dpo

data/evaluate_generator/POLICY-SEED holds greedy.jsonl (val, test), samples.jsonl (test), predictions.jsonl
(for the comparison), summary.json (metrics with intervals) and manifest.json.
"""

from pathlib import Path
from typing import Any

from posttrain.core import processes
from posttrain.core.errors import UserError
from posttrain.core.files import atomic_directory, write_json, write_jsonl
from posttrain.core.manifest import build_manifest, write_manifest
from posttrain.core.params import GENERATOR_METHODS, Params
from posttrain.core.stage import read_seed, run
from posttrain.generator.run import (
    BASE,
    EXAMPLES,
    Answers,
    load_policy,
    model_directory,
    read_examples,
)
from posttrain.measures.answers import (
    by_question,
    evaluator_hash,
    greedy_columns,
    greedy_metrics,
    intervals,
    prediction_rows,
    sampled_columns,
    sampled_metrics,
)

POLICIES = ("base", "sft", *GENERATOR_METHODS)
SPLITS = ("val", "test")


def main(params: Params, policy: str, seed_text: str) -> None:
    if policy not in POLICIES:
        raise UserError(f"policy {policy!r}: expected one of {', '.join(POLICIES)}")
    seed, settings = read_seed(seed_text), params.evaluate
    answers = Answers(params)
    trained = [model_directory(policy, seed)] if policy != "base" else []
    manifest = build_manifest(
        "evaluate_generator",
        params.sections("evaluate", "model", "generation", "rewards"),
        [BASE, *trained, *(EXAMPLES / f"{split}.jsonl" for split in SPLITS)],
        policy=policy,
        seed=seed,
        prompt=answers.task.prompt_hash(),
        evaluator=evaluator_hash(),
    )
    generator = load_policy(params, policy, seed)
    drawing = settings.generator
    ks = sorted({1, drawing.samples})
    metrics: dict[str, dict[str, Any]] = {}
    summary: dict[str, Any] = {}
    greedy, predictions = [], []
    samples = answers.drawn(
        generator,
        read_examples("test"),
        count=drawing.samples,
        temperature=drawing.temperature,
        top_p=drawing.top_p,
        seed=seed,
    )
    for split in SPLITS:
        records = answers.best(generator, read_examples(split))
        greedy += [{"split": split, **record} for record in records]
        drawn = by_question(samples) if split == "test" else None
        predictions += prediction_rows(split, records, drawn)
        metrics[split] = greedy_metrics(records)
        columns = greedy_columns(records)
        if drawn is not None:
            metrics[split] |= {f"sampled_{k}": v for k, v in sampled_metrics(samples, ks).items()}
            columns |= {f"sampled_{k}": v for k, v in sampled_columns(samples, ks).items()}
        summary[split] = {
            "values": metrics[split],
            "intervals": intervals(columns, settings.intervals, settings.bootstrap),
        }
    if not processes.is_main():
        return
    name = f"{policy}-{seed}"
    with atomic_directory(Path("data/evaluate_generator") / name) as output:
        write_jsonl(output / "greedy.jsonl", greedy)
        write_jsonl(output / "samples.jsonl", samples)
        write_jsonl(output / "predictions.jsonl", predictions)
        write_json(output / "summary.json", summary)
        write_manifest(output, manifest)
    write_json(Path("metrics/evaluate_generator") / f"{name}.json", metrics)


if __name__ == "__main__":
    run(main, shared=True)
