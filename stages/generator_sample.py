"""Sample the SFT generator's answers to training questions, with each variant of the prompt.

python stages/generator_sample.py SEED

In an environment these are episodes, of the direct variant alone.
"""

from pathlib import Path

from posttrain.core import processes
from posttrain.core.files import atomic_directory, write_json, write_jsonl
from posttrain.core.loop import choose
from posttrain.core.manifest import build_manifest, write_manifest
from posttrain.core.params import FINE_TUNED, Params, Variant
from posttrain.core.stage import read_seed, run
from posttrain.generator.data import of_parts
from posttrain.generator.run import (
    EXAMPLES,
    Answers,
    load_policy,
    model_directory,
    read_examples,
)
from posttrain.measures.answers import mean_quality, sampled_metrics
from posttrain.models.load import BASE


def main(params: Params, seed_text: str) -> None:
    seed, settings = read_seed(seed_text), params.generator.sample
    answers = Answers(params, policy=FINE_TUNED)
    manifest = build_manifest(
        "generator_sample",
        params.sections("generator.sample", "model", "sampling", "reward"),
        [BASE, model_directory(FINE_TUNED, seed), EXAMPLES / "train.jsonl", *answers.inputs],
        seed=seed,
    )
    asked = of_parts(read_examples("train"), settings.parts)
    chosen = choose(asked, settings.questions, f"{seed}/sample")
    variants: list[Variant] = settings.variants if answers.task.open is None else ["direct"]
    examples = answers.fitting(chosen, variants)
    print(f"{len(examples)} questions, {len(chosen) - len(examples)} dropped as too long")
    generator = load_policy(params, FINE_TUNED, seed)
    records, metrics = [], {}
    # Without a question that fits, there are no samples; the methods that need some then are not trained.
    for number, variant in enumerate(variants if examples else ()):
        groups = answers.sample(
            generator,
            examples,
            temperatures=[settings.temperature] * settings.count,
            top_p=settings.top_p,
            seed=1000 * seed + number,
            variant=variant,
        )
        sampled = [record for group in groups for record in group]
        measured = sampled_metrics(sampled, sorted({1, settings.count}))
        metrics[variant] = {**measured, "quality": mean_quality(sampled)}
        records += sampled
    if not processes.is_main():
        return
    with atomic_directory(Path("data/generator_sample") / str(seed)) as output:
        write_jsonl(output / "samples.jsonl", records)
        write_manifest(output, manifest)
    write_json(Path("metrics/generator_sample") / f"{seed}.json", metrics)


if __name__ == "__main__":
    run(main, shared=True)
