"""Rerank the SFT generator's answers to the test questions by selector and generator, without gold among them.

python stages/rerank.py SEED
"""

from pathlib import Path

from posttrain.core import processes
from posttrain.core.files import atomic_directory, read_jsonl, write_json, write_jsonl
from posttrain.core.loop import device
from posttrain.core.manifest import build_manifest, write_manifest
from posttrain.core.params import FAMILIES, Params
from posttrain.core.stage import read_seed, run
from posttrain.generator import run as generator
from posttrain.measures.answers import by_question
from posttrain.measures.named import intervals
from posttrain.models.load import BASE
from posttrain.report.rerank import (
    calculated,
    candidates,
    rerank_columns,
    rerank_metrics,
    rerank_pool,
    rerank_rows,
)
from posttrain.selector.run import by_likelihood, load_policy, score_rows
from posttrain.tasks import get_task


def main(params: Params, seed_text: str) -> None:
    seed, settings, weights = read_seed(seed_text), params.evaluate, params.reward.weights
    task = get_task(params.selected_dataset.task)
    answered = Path("data/generator_evaluate/sft") / str(seed)
    trained = [Path("models") / family / "sft" / str(seed) for family in FAMILIES]
    examples_file = Path("data/examples/test.jsonl")
    manifest = build_manifest(
        "rerank",
        params.sections("evaluate", "model", "reward"),
        [BASE, examples_file, answered, *trained],
        seed=seed,
    )
    greedy = [row for row in read_jsonl(answered / "greedy.jsonl") if row["split"] == "test"]
    draws = by_question(read_jsonl(answered / "samples.jsonl"))
    examples = read_jsonl(examples_file)
    groups = [
        [calculated(task, example, answer, weights) for answer in (first, *others)]
        for example, first, others in zip(examples, greedy, draws, strict=True)
    ]
    offered = [candidates(answers) for answers in groups]
    read = [[one["text"] for one in made] for made in offered]
    written = [[text for one in made for text in one["written"]] for made in offered]
    pools, own_pools = (
        [rerank_pool(example, of_one) for example, of_one in zip(examples, of_all, strict=True)]
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
    rows = rerank_rows(groups, scores, of_texts)
    metrics = rerank_metrics(rows)
    with atomic_directory(Path("data/rerank") / str(seed)) as output:
        write_jsonl(output / "choices.jsonl", rows)
        found = intervals(rerank_columns(rows), settings.intervals, settings.bootstrap)
        write_json(output / "summary.json", {"values": metrics, "intervals": found})
        write_manifest(output, manifest)
    write_json(Path("metrics/rerank") / f"{seed}.json", metrics)


if __name__ == "__main__":
    run(main, shared=True)
