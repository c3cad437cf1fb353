"""Let the SFT selector and generator choose among the generator's answers to the test questions: no gold in the pool.

python stages/open_evaluation.py SEED
"""

from pathlib import Path

from posttrain.core import processes
from posttrain.core.files import atomic_directory, read_jsonl, write_json, write_jsonl
from posttrain.core.manifest import build_manifest, write_manifest
from posttrain.core.params import Params
from posttrain.core.stage import read_seed, run
from posttrain.core.training import device
from posttrain.generator import run as generator
from posttrain.measures.answers import by_question, intervals
from posttrain.report.rerank import (
    calculated,
    candidates,
    open_columns,
    open_evaluation,
    open_pool,
    open_rows,
)
from posttrain.selector.run import BASE, by_likelihood, load_policy, score_rows
from posttrain.tasks import get_task


def main(params: Params, seed_text: str) -> None:
    seed, settings, weights = read_seed(seed_text), params.evaluate, params.rewards.weights
    task = get_task(params.selected_dataset.task)
    answered = Path("data/evaluate_generator") / f"sft-{seed}"
    trained = [Path("models/sft_selector") / str(seed), Path("models/sft_generator") / str(seed)]
    examples_file = Path("data/prepare/test.jsonl")
    manifest = build_manifest(
        "open_evaluation",
        params.sections("evaluate", "model", "rewards"),
        [BASE, examples_file, answered, *trained],
        seed=seed,
        prompt=task.prompt_hash(),
    )
    greedy = [row for row in read_jsonl(answered / "greedy.jsonl") if row["split"] == "test"]
    draws = by_question(read_jsonl(answered / "samples.jsonl"))
    examples = read_jsonl(examples_file)
    groups = [
        [
            calculated(task, example, answer, params.rewards.tolerance, weights.model_dump())
            for answer in (first, *others)
        ]
        for example, first, others in zip(examples, greedy, draws, strict=True)
    ]
    offered = [candidates(answers) for answers in groups]
    read = [[one["text"] for one in made] for made in offered]
    written = [[text for one in made for text in one["written"]] for made in offered]
    pools, own_pools = (
        [open_pool(task, example, of_one) for example, of_one in zip(examples, of_all, strict=True)]
        for of_all in (read, written)
    )
    model = params.selected_model
    scores = score_rows(load_policy("sft", seed, model), pools, model)
    writer = by_likelihood(generator.load_policy(params, "sft", seed)).to(device())
    likelihoods = score_rows(writer, own_pools, model)
    if not processes.is_main():
        return
    of_texts = [
        dict(zip(texts, values, strict=True))
        for texts, values in zip(written, likelihoods, strict=True)
    ]
    rows = open_rows(groups, scores, of_texts)
    metrics = open_evaluation(rows)
    with atomic_directory(Path("data/open_evaluation") / str(seed)) as output:
        write_jsonl(output / "choices.jsonl", rows)
        found = intervals(open_columns(rows), settings.intervals, settings.bootstrap)
        write_json(output / "summary.json", {"values": metrics, "intervals": found})
        write_manifest(output, manifest)
    write_json(Path("metrics/open_evaluation") / f"{seed}.json", metrics)


if __name__ == "__main__":
    run(main, shared=True)
