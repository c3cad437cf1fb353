"""Rerank the SFT generator's answers to validation and test questions by selector and generator, without gold among them.

python stages/rerank.py SEED

The answers are sampled here, with random numbers of this stage. The validation questions choose the rule whose gain on the
test questions is reported. Writes data/rerank/SEED: choices.jsonl (test) and summary.json; not_trained.json where the
selector was not trained.
"""

import random
from pathlib import Path

from posttrain.core import processes
from posttrain.core.files import atomic_directory, write_json, write_jsonl
from posttrain.core.loop import device
from posttrain.core.manifest import build_manifest, write_manifest
from posttrain.core.not_trained import why_not_trained, write_not_trained
from posttrain.core.params import FAMILIES, FINE_TUNED, Params
from posttrain.core.stage import read_seed, run
from posttrain.generator import run as generator
from posttrain.generator.run import EXAMPLES, Answers, read_examples
from posttrain.measures.named import intervals
from posttrain.models.load import BASE
from posttrain.report.rerank import (
    calculated,
    candidates,
    choose_rule,
    rerank_columns,
    rerank_metrics,
    rerank_pool,
    rerank_rows,
)
from posttrain.selector.run import by_likelihood, load_policy, model_directory, score_rows


def main(params: Params, seed_text: str) -> None:
    seed, settings, model = read_seed(seed_text), params.evaluate, params.selected_model
    manifest = build_manifest(
        "rerank",
        params.sections("evaluate", "model", "sampling", "reward"),
        [
            BASE,
            *(EXAMPLES / f"{split}.jsonl" for split in ("val", "test")),
            *(Path("models") / family / FINE_TUNED / str(seed) for family in FAMILIES),
        ],
        seed=seed,
    )
    folder, metrics_file = Path("data/rerank") / str(seed), Path("metrics/rerank") / f"{seed}.json"
    if (reason := why_not_trained(model_directory(FINE_TUNED, seed))) is not None:
        if processes.is_main():
            write_not_trained(folder, reason, manifest)
            write_json(metrics_file, {"not_trained": reason})
        return
    answers = Answers(params)
    val, test = read_examples("val"), read_examples("test")
    examples = [*val, *test]
    writer = generator.load_policy(params, FINE_TUNED, seed)
    sampling = settings.generator
    drawn = answers.sample(
        writer,
        examples,
        temperatures=[0.0] + [1.0] * sampling.samples,
        top_p=sampling.top_p,
        # Other samples than those of the evaluation, on which the rules were found.
        seed=random.Random(f"rerank/{seed}").getrandbits(48),
    )
    groups = [
        [calculated(answers.task, example, answer, params.reward.weights) for answer in group]
        for example, group in zip(examples, drawn, strict=True)
    ]
    offered = [candidates(group) for group in groups]
    read = [[one["text"] for one in made] for made in offered]
    written = [[text for one in made for text in one["written"]] for made in offered]
    pools, own_pools = (
        [rerank_pool(example, of_one) for example, of_one in zip(examples, of_all, strict=True)]
        for of_all in (read, written)
    )
    likelihoods = score_rows(by_likelihood(writer).to(device()), own_pools, model)
    scores = score_rows(load_policy(FINE_TUNED, seed, model), pools, model)
    if not processes.is_main():
        return
    of_texts = [
        dict(zip(texts, values, strict=True))
        for texts, values in zip(written, likelihoods, strict=True)
    ]
    rows = rerank_rows(groups, scores, of_texts)
    for_choice, rows = rows[: len(val)], rows[len(val) :]
    rule = choose_rule(for_choice)
    metrics = {"rule": rule, **rerank_metrics(rows), "val": rerank_metrics(for_choice)}
    with atomic_directory(folder) as output:
        write_jsonl(output / "choices.jsonl", rows)
        found = intervals(rerank_columns(rows), settings.intervals, settings.bootstrap)
        write_json(output / "summary.json", {"values": metrics, "intervals": found})
        write_manifest(output, manifest)
    write_json(metrics_file, metrics)


if __name__ == "__main__":
    run(main, shared=True)
