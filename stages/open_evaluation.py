"""Let the SFT selector choose among the SFT generator's answers to the test questions: no gold in the pool.

python stages/open_evaluation.py SEED
"""

from pathlib import Path

from posttrain import processes
from posttrain.evaluation.generation import by_question, intervals
from posttrain.evaluation.open import open_columns, open_evaluation, open_pool, open_rows
from posttrain.files import atomic_directory, read_jsonl, write_json, write_jsonl
from posttrain.manifest import build_manifest, write_manifest
from posttrain.models.load import load_tokenizer
from posttrain.params import Params
from posttrain.selector.data import make_pools
from posttrain.selector.predict import score_pools
from posttrain.selector.run import BASE, load_policy
from posttrain.stage import read_seed, run
from posttrain.tasks import get_task
from posttrain.training import device


def main(params: Params, seed_text: str) -> None:
    seed, model, settings = read_seed(seed_text), params.selected_model, params.evaluate
    task = get_task(params.selected_dataset.task)
    answered = Path("data/evaluate_generator") / f"sft-{seed}"
    trained = Path("models/sft_selector") / str(seed)
    examples_file = Path("data/prepare/test.jsonl")
    manifest = build_manifest(
        "open_evaluation",
        params.sections("evaluate", "model"),
        [BASE, examples_file, answered, trained],
        seed=seed,
        prompt=task.prompt_hash(),
    )
    greedy = [row for row in read_jsonl(answered / "greedy.jsonl") if row["split"] == "test"]
    groups = by_question(read_jsonl(answered / "samples.jsonl"))
    examples = read_jsonl(examples_file)
    pools = [
        open_pool(task, example, [answer, *draws])
        for example, answer, draws in zip(examples, greedy, groups, strict=True)
    ]
    selector = load_policy("sft", seed, model)
    tokenizer = load_tokenizer(BASE)
    # A drawn text may tokenise to more tokens than were drawn.
    roomy = model.model_copy(update={"max_candidate_tokens": 2 * model.max_candidate_tokens})
    scores: dict[int, list[float]] = {}
    for size in sorted({len(pool["candidates"]) for pool in pools}):
        chosen = [i for i, pool in enumerate(pools) if len(pool["candidates"]) == size]
        data, _ = make_pools([pools[i] for i in chosen], tokenizer, roomy, training=False)
        logits, _ = score_pools(selector, data.pools, model.batch_size, device())
        scores |= dict(zip(chosen, logits.tolist(), strict=True))
    if not processes.is_main():
        return
    rows = open_rows(greedy, groups, [scores[i] for i in range(len(pools))])
    metrics = open_evaluation(rows)
    with atomic_directory(Path("data/open_evaluation") / str(seed)) as output:
        write_jsonl(output / "choices.jsonl", rows)
        found = intervals(open_columns(rows), settings.intervals, settings.bootstrap)
        write_json(output / "summary.json", {"values": metrics, "intervals": found})
        write_manifest(output, manifest)
    write_json(Path("metrics/open_evaluation") / f"{seed}.json", metrics)


if __name__ == "__main__":
    run(main, shared=True)
