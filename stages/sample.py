"""Draw answers of the SFT generator to training questions, under each variant of the prompt.

python stages/sample.py SEED
"""

from pathlib import Path

from posttrain.core import processes
from posttrain.core.files import atomic_directory, write_json, write_jsonl
from posttrain.core.manifest import build_manifest, write_manifest
from posttrain.core.params import Params
from posttrain.core.stage import read_seed, run
from posttrain.core.training import choose
from posttrain.generator.run import (
    BASE,
    EXAMPLES,
    Answers,
    load_policy,
    model_directory,
    read_examples,
)
from posttrain.measures.answers import mean_quality, sampled_metrics


def main(params: Params, seed_text: str) -> None:
    seed, config = read_seed(seed_text), params.sample
    answers = Answers(params)
    manifest = build_manifest(
        "sample",
        params.sections("sample", "model", "generation", "rewards"),
        [BASE, model_directory("sft", seed), EXAMPLES / "train.jsonl"],
        seed=seed,
        prompt={variant: answers.task.prompt_hash(variant) for variant in config.variants},
    )
    chosen = choose(read_examples("train"), config.questions, f"{seed}/sample")
    examples = answers.fitting(chosen, config.variants)
    print(f"{len(examples)} questions, {len(chosen) - len(examples)} dropped as too long")
    generator = load_policy(params, "sft", seed)
    records, metrics = [], {}
    for number, variant in enumerate(config.variants):
        drawn = answers.drawn(
            generator,
            examples,
            count=config.count,
            temperature=config.temperature,
            top_p=config.top_p,
            seed=1000 * seed + number,
            variant=variant,
        )
        measured = sampled_metrics(drawn, sorted({1, config.count}))
        metrics[variant] = {**measured, "quality": mean_quality(drawn)}
        records += drawn
    if not processes.is_main():
        return
    with atomic_directory(Path("data/sample") / str(seed)) as output:
        write_jsonl(output / "samples.jsonl", records)
        write_manifest(output, manifest)
    write_json(Path("metrics/sample") / f"{seed}.json", metrics)


if __name__ == "__main__":
    run(main, shared=True)
