"""Answer the validation and test questions with a generator, and measure the answers.

python stages/generator_evaluate.py POLICY SEED        POLICY: base (untrained), sft or a method

Writes data/generator_evaluate/POLICY/SEED: greedy.jsonl (val, test), samples.jsonl (test, at temperature 1), tempered.jsonl
(test, at the fitted and other temperatures), predictions.jsonl (for the comparison), summary.json (metrics with intervals),
temperatures.json (the fitted temperature, and a curve over temperatures on test) and manifest.json; not_trained.json for
a policy that was not. In an environment an answer is an episode, and the metrics have `episodes`: their measures, without
the questions of a mixture.
"""

from pathlib import Path
from typing import Any

from posttrain.core import processes
from posttrain.core.files import atomic_directory, write_json, write_jsonl
from posttrain.core.manifest import build_manifest, write_manifest
from posttrain.core.not_trained import why_not_trained, write_not_trained
from posttrain.core.params import Params
from posttrain.core.stage import read_seed, run
from posttrain.generator.data import DEMONSTRATIONS, read_episodes
from posttrain.generator.fitted import fit_temperature, gold_rows
from posttrain.generator.run import (
    EXAMPLES,
    Answers,
    load_policy,
    model_directory,
    read_examples,
)
from posttrain.measures.answers import (
    curve,
    greedy_columns,
    greedy_metrics,
    prediction_rows,
    sampled_columns,
    sampled_metrics,
)
from posttrain.measures.episodes import summarise_episodes
from posttrain.measures.named import intervals
from posttrain.measures.temperature import described
from posttrain.models.load import BASE
from posttrain.rollouts.episode import Row

SPLITS = ("val", "test")


def main(params: Params, policy: str, seed_text: str) -> None:
    seed, settings = read_seed(seed_text), params.evaluate
    answers = Answers(params, policy=policy)
    manifest = build_manifest(
        "generator_evaluate",
        params.sections("evaluate", "model", "sampling", "reward"),
        [
            BASE,
            model_directory(policy, seed),
            *(EXAMPLES / f"{split}.jsonl" for split in SPLITS),
            *answers.inputs,
        ],
        policy=policy,
        seed=seed,
    )
    output_folder = Path("data/generator_evaluate") / policy / str(seed)
    metrics_file = Path("metrics/generator_evaluate") / policy / f"{seed}.json"
    if (reason := why_not_trained(model_directory(policy, seed))) is not None:
        if processes.is_main():
            write_not_trained(output_folder, reason, manifest)
            write_json(metrics_file, {"not_trained": reason})
        return
    generator = load_policy(params, policy, seed)
    sampling = settings.generator
    ks = sorted({1, sampling.samples})
    metrics: dict[str, dict[str, Any]] = {}
    summary: dict[str, Any] = {}
    greedy, predictions = [], []
    batch_size = params.selected_model.batch_size
    fit = fit_temperature(generator, gold(answers), batch_size)
    temperatures = [0.0] + [1.0] * sampling.samples + [fit.temperature] * sampling.samples
    temperatures += sampling.temperatures
    # Together, as they share the reading of the prompt.
    tested = answers.sample(
        generator,
        read_examples("test"),
        temperatures=temperatures,
        top_p=sampling.top_p,
        seed=seed,
    )
    first, second = 1 + sampling.samples, 1 + 2 * sampling.samples
    sampled = {
        "sampled": [group[1:first] for group in tested],
        "fitted": [group[first:second] for group in tested],
    }
    tempered = [
        {"temperature": temperature, **record}
        for group in tested
        for temperature, record in zip(temperatures[first:], group[first:], strict=True)
    ]
    answered = {
        "val": answers.greedy(generator, read_examples("val")),
        "test": [group[0] for group in tested],
    }
    for split, records in answered.items():
        greedy += [{"split": split, **record} for record in records]
        groups = sampled if split == "test" else {}
        predictions += prediction_rows(split, records, *groups.values())
        metrics[split] = greedy_metrics(records)
        columns = greedy_columns(records)
        for name, drawn in groups.items():
            flat = [record for group in drawn for record in group]
            metrics[split] |= {f"{name}_{k}": v for k, v in sampled_metrics(flat, ks).items()}
            columns |= {f"{name}_{k}": v for k, v in sampled_columns(flat, ks).items()}
        summary[split] = {
            "values": metrics[split],
            "intervals": intervals(columns, settings.intervals, settings.bootstrap),
        }
        if played := answers.played(read_examples(split)):
            records = [record for record in records if record["id"] in played]
            found = summarise_episodes(records, settings.intervals, settings.bootstrap)
            metrics[split] = {**metrics[split], "episodes": found["values"]}
            summary[split]["episodes"] = found
    if not processes.is_main():
        return
    of_temperatures = described(fit, curve(tested, temperatures))
    metrics["val"]["temperature"] = of_temperatures["fitted"]
    with atomic_directory(output_folder) as output:
        write_jsonl(output / "greedy.jsonl", greedy)
        write_jsonl(
            output / "samples.jsonl", [row for group in sampled["sampled"] for row in group]
        )
        write_jsonl(output / "tempered.jsonl", tempered)
        write_jsonl(output / "predictions.jsonl", predictions)
        write_json(output / "summary.json", summary)
        write_json(output / "temperatures.json", of_temperatures)
        write_manifest(output, manifest)
    write_json(metrics_file, metrics)


def gold(answers: Answers) -> list[Row]:
    """The gold answers to the validation questions, or the demonstrations from these starts, as SFT trains on them."""
    params, examples = answers.params, read_examples("val")
    if answers.task.open is None:
        return gold_rows(examples, answers.tokenizer, params.selected_model)
    shown = read_episodes(
        DEMONSTRATIONS / "val.jsonl",
        examples,
        answers.tokenizer,
        params.selected_model,
        params.episodes,
    )
    return [row for episode in shown for row in episode.rows]


if __name__ == "__main__":
    run(main, shared=True)
