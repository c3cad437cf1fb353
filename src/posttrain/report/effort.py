"""What each method of a family was given: steps, questions, samples, and the values tried on validation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from posttrain.core.files import read_json, sha256_file
from posttrain.core.methods import load_method, settings_of
from posttrain.core.params import Params
from posttrain.report.findings import label
from posttrain.report.tables import table
from posttrain.report.tuned import Tuned, differs, read_tuned

# Stage inputs copies the record, or writes {} where there is none.
COPY = Path("data/inputs/tuning.json")
QUESTIONS = {"selector": Path("data/pools/val.jsonl"), "generator": Path("data/examples/val.jsonl")}
EFFORT = ("steps", "optimizer steps", "questions", "samples", "passes", "values tried")


def read_effort(params: Params, family: str) -> str:
    """`effort_table` of this run, with the record of its tuning."""
    return effort_table(params, family, read_json(COPY), sha256_file(QUESTIONS[family]))


def effort_table(params: Params, family: str, record: Any, questions_sha256: str) -> str:
    """Markdown: the effort of each method, and sentences about what differs.

    record: metrics/tuning.json, parsed. questions_sha256: of this run's validation questions.
    """
    methods = params.family(family).methods
    settings = {
        name: settings_of(params, family, name, load_method(family, name)).model_dump()
        for name in methods
    }
    chosen, efforts = {}, {}
    for name in methods:
        tuned = read_tuned(record, family, name)
        why = differs(
            tuned,
            dataset=params.dataset,
            model=params.model,
            questions_sha256=questions_sha256,
            settings=settings[name],
        )
        chosen[name] = _how_chosen(tuned, why)
        counts = effort_of(family, settings[name])
        efforts[name] = {**counts, "values tried": len(tuned.tried) if tuned and not why else 0}
    rows = [
        [
            label(name),
            *(_cell(efforts[name][key]) for key in EFFORT[:-1]),
            f"{settings[name]['learning_rate']:g}",
            chosen[name],
            _penalty(settings[name]),
        ]
        for name in methods
    ]
    heads = ["method", *EFFORT[:-1], "learning rate", "chosen", "penalty"]
    notes = [*_differences(efforts), *_notes(family, settings)]
    return "\n\n".join([table(heads, rows), "\n".join(f"- {note}" for note in notes)])


def effort_of(family: str, settings: Mapping[str, Any]) -> dict[str, int | str]:
    """By column of the table, the effort that a method's settings ask for."""
    passes = settings.get("inner_epochs", 1)
    pairs = "pairs_per_step" in settings
    rows = settings["pairs_per_step" if pairs else "prompts_per_step"]
    return {
        "steps": settings["steps"],
        "optimizer steps": settings["steps"] * passes * settings.get("minibatches", 1),
        "questions": f"{settings['steps'] * rows} pairs" if pairs else settings["steps"] * rows,
        "samples": settings.get("samples", 0),
        "passes": passes,
    }


def _cell(value: int | str) -> str:
    return str(value or "none")


def _penalty(settings: Mapping[str, Any]) -> str:
    named = {key: settings[key] for key in ("kl_coef", "beta") if key in settings}
    return ", ".join(f"{key} {value:g}" for key, value in named.items()) or "none"


def _how_chosen(tuned: Tuned | None, why: str | None) -> str:
    if tuned is None:
        return "not tuned"
    if why:
        return f"not tuned ({why})"
    (count, questions), seeds = (len(tuned.tried), tuned.questions), len(tuned.seeds)
    return f"best of {count} on {questions} validation questions, {seeds} seed{'s'[: seeds > 1]}"


def _differences(efforts: Mapping[str, Mapping[str, int | str]]) -> list[str]:
    """A sentence for each count of effort that is not the same for all methods, and one for those that are."""
    same, found = [], []
    tuned = any(effort["values tried"] for effort in efforts.values())
    for key in EFFORT if tuned else EFFORT[:-1]:
        by_value: dict[int | str, list[str]] = {}
        for name, effort in efforts.items():
            by_value.setdefault(effort[key], []).append(label(name))
        if len(by_value) == 1:
            same.append(f"{key} ({_cell(*by_value)})")
            continue
        most = max(by_value, key=lambda value: len(by_value[value]))
        rest = [
            f"{_cell(value)} for {_listed(names)}"
            for value, names in by_value.items()
            if value != most
        ]
        found.append(f"{key.capitalize()} differ: {_cell(most)}, but {', '.join(rest)}.")
    return [*([f"The same for all methods: {', '.join(same)}."] if same else []), *found]


def _listed(names: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _notes(family: str, settings: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What the counts do not say of these methods with these settings."""
    notes = []
    for name, own in settings.items():
        title = label(name)
        if "beta" in own:
            place = "the pool" if family == "selector" else "the samples of the SFT generator"
            notes.append(
                f"{title} samples no answers while it trains: its pairs come from {place}, and it has beta in place of "
                "kl_coef."
            )
        elif "samples" not in own and "kl_coef" in own:
            notes.append(f"{title} samples nothing: it weighs all candidates of a pool.")
        elif "samples" not in own:
            notes.append(f"{title} samples nothing: it trains on the gold answers.")
        scale = own.get("scale_rewards", "none")
        if scale != "none" and own.get("kl_coef"):
            whose = "group's" if scale == "group" else "batch's"
            notes.append(
                f"{title} divides by the {whose} deviation (scale_rewards: {scale}): where that is 0.3, say, kl_coef is "
                "about a third as strong as in a method without a division."
            )
        if family == "selector" and "target_kl" in own and own.get("kl_coef"):
            notes.append(
                f"{title} divides advantages by the batch's deviation, which makes kl_coef weaker in the same way."
            )
        if own.get("target_kl") is not None:
            notes.append(
                f"{title} ends the passes over a batch early where KL(old || new) exceeds {own['target_kl']:g} (target_kl)."
            )
    return notes
