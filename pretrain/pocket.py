"""Train the small base model `pocket`, and measure how well it reads pages of other seeds.

python -m pretrain.pocket                 read pretrain/params.yaml, write pretrain/pocket and pretrain/metrics.json
python -m pretrain.pocket --measure DIR   print the metrics of the model in DIR

Run it from the project's root. A killed run resumes from its last checkpoint.
"""

import csv
import json
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from random import Random

from pretrain.exercises import SMALL, Document, Exercise, Size, World, make_document
from pretrain.model import build_model, llama_config, save_pocket, train_tokenizer
from pretrain.pages import PageTokens, encode, exact_answers
from pretrain.pretraining import pretrain
from tqdm import tqdm
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from posttrain.core.checkpoint import ROOT, CheckpointFile
from posttrain.core.code import digest_of
from posttrain.core.errors import UserError
from posttrain.core.files import atomic_directory, atomic_write, sha256_file, write_json
from posttrain.core.manifest import build_manifest, digest
from posttrain.core.params import Variant
from posttrain.core.schema import (
    Fraction,
    NonNegative,
    Positive,
    Rate,
    Section,
    Seed,
    check,
    read_yaml,
)
from posttrain.models.tokens import tokenize_prompts
from posttrain.rollouts.sampling import greedy
from posttrain.tasks.finqa.load import load_split
from posttrain.tasks.gsm8k.examples import make_example
from posttrain.tasks.gsm8k.options import Annotations
from posttrain.tasks.gsm8k.prompt import prompt as render_prompt
from posttrain.tasks.gsm8k.prompt import target
from posttrain.tasks.gsm8k.sample import make_row
from posttrain.tasks.gsm8k.score import score

SETTINGS = Path("pretrain/params.yaml")
OUTPUT = Path("pretrain/pocket")
TOKENIZER_DOCUMENTS = 3000
MEASURED_DOCUMENTS = 100
VARIANTS: tuple[Variant, ...] = ("direct", "reflective", "deliberative")


class Pocket(Section):
    """Architecture and training of the model, as explained in pretrain/params.yaml."""

    seed: Seed
    vocabulary: Positive
    hidden_size: Positive
    layers: Positive
    heads: Positive
    head_size: Positive
    intermediate_size: Positive
    positions: Positive
    tokens: Positive
    small_until: Fraction
    small_share: Fraction
    word_problems: Fraction
    batch_tokens: Positive
    longest: Positive
    muon_learning_rate: Rate
    adam_learning_rate: Rate
    weight_decay: NonNegative
    bfloat16: bool


class Settings(Section):
    """pretrain/params.yaml."""

    pages: str | None
    start: str | None
    pocket: Pocket


def main() -> None:
    settings = check(Settings, read_yaml(SETTINGS), str(SETTINGS))
    if settings.pages is None:
        raise UserError(f"{SETTINGS}: pages: name the folder that holds FinQA's train.json")
    source = Path(settings.pages) / "train.json"
    world = World.from_rows(load_split(source))
    if sys.argv[1:2] == ["--measure"]:
        model = AutoModelForCausalLM.from_pretrained(sys.argv[2])
        tokenizer = AutoTokenizer.from_pretrained(sys.argv[2])
        print(json.dumps(measure(model.eval(), tokenizer, world), indent=1))
        return
    chosen = settings.pocket
    origins = {"pages": sha256_file(source)}
    if settings.start is not None:
        origins["start"] = sha256_file(Path(settings.start) / "model.safetensors")
    code = digest(digest_of({Path(__file__).resolve()}, "finqa"))
    manifest = build_manifest("pocket", chosen.model_dump(), [], code, **origins)
    model, tokenizer = begin(world, chosen, settings.start)
    work = ROOT / digest(manifest)
    checkpoint = CheckpointFile("pretraining", work)
    with tqdm(
        desc="pocket", total=chosen.tokens, unit="token", unit_scale=True, mininterval=20
    ) as bar:

        def report(row: dict[str, float]) -> None:
            losses = {name: f"{row[name]:.3f}" for name in ("loss", "lines", "early")}
            bar.set_postfix(losses, refresh=False)
            bar.update(row["tokens"] - bar.n)

        curve = pretrain(
            model,
            training_documents(world, tokenizer, chosen),
            tokens=chosen.tokens,
            batch_tokens=chosen.batch_tokens,
            muon_learning_rate=chosen.muon_learning_rate,
            adam_learning_rate=chosen.adam_learning_rate,
            weight_decay=chosen.weight_decay,
            seed=chosen.seed,
            bfloat16=chosen.bfloat16,
            checkpoint=checkpoint,
            report=report,
        )
    metrics = measure(model, tokenizer, world)
    with atomic_directory(OUTPUT) as directory:
        save_pocket(directory, model, tokenizer)
        card = model_card(model, chosen, metrics, further=settings.start is not None)
        (directory / "README.md").write_text(card, encoding="utf-8")
        write_json(directory / "manifest.json", manifest)
    write_json("pretrain/metrics.json", metrics)
    write_curve(curve)
    checkpoint.remove()


def begin(
    world: World, chosen: Pocket, start: str | None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A new model and tokenizer, or those of the folder `start`; `UserError` if its sizes are not the chosen ones."""
    if start is None:
        tokenizer = train_tokenizer(tokenizer_texts(world), chosen.vocabulary, chosen.positions)
    else:
        tokenizer = AutoTokenizer.from_pretrained(start)
        for key in ("is_local", "local_files_only"):  # of the loading, not of the tokenizer
            tokenizer.init_kwargs.pop(key, None)
    config = llama_config(
        len(tokenizer),
        chosen.hidden_size,
        chosen.layers,
        chosen.heads,
        chosen.intermediate_size,
        chosen.positions,
        chosen.head_size,
    )
    newline = tokenizer.encode("\n", add_special_tokens=False)[0]
    model = build_model(config, chosen.seed, newline)
    if start is not None:
        found = AutoModelForCausalLM.from_pretrained(start)
        try:
            model.load_state_dict(found.state_dict())
        except RuntimeError as error:
            raise UserError(f"{start}: its sizes are not those of {SETTINGS}") from error
    return model, tokenizer


def tokenizer_texts(world: World) -> list[str]:
    """The training texts of the tokenizer: real sentences, documents with their exercises, and word problems."""
    texts = [line for row in world.rows for line in (*row["pre_text"], *row["post_text"])]
    for index in range(TOKENIZER_DOCUMENTS):
        document = make_document(Random(f"tokenizer/{index}"), world)
        if document is not None:
            texts.append(document.page)
            texts += [exercise.prompt + exercise.answer for exercise in document.exercises]
        problem = word_problem(Random(f"tokenizer/{index}"))
        texts += [problem.page, problem.exercises[0].answer]
    return texts


def training_documents(
    world: World, tokenizer: PreTrainedTokenizerBase, chosen: Pocket
) -> Callable[[int, float], PageTokens | None]:
    def draw(index: int, progress: float) -> PageTokens | None:
        rng = Random(f"{chosen.seed}/train/{index}")
        if rng.random() < chosen.word_problems:
            return tokenize(word_problem(rng), tokenizer)
        small = progress < chosen.small_until or rng.random() < chosen.small_share
        kind, size = ("table", SMALL) if small else (None, None)
        look_ups, programs = (8, 6) if small else (14, 14)
        document = make_document(rng, world, kind, size, look_ups, programs)
        tokens = tokenize(document, tokenizer) if document is not None else None
        return tokens if tokens is not None and len(tokens) <= chosen.longest else None

    return draw


def word_problem(rng: Random) -> Document:
    """A generated word problem with the prompt of task gsm8k; the page is everything before "Solution:"."""
    annotations: Annotations = rng.choices(("keep", "strip"), (4, 1))[0]
    example = make_example({"id": "", **make_row(rng)}, annotations)
    prompt = render_prompt(example, rng.choices(VARIANTS, (4, 1, 1))[0])
    page, solution = prompt.rsplit("\n", 1)
    answer = f"\n{target(example)}"
    return Document(page, [Exercise("problem", f"\n{solution}", answer, len(answer))], 0, 0)


def tokenize(document: Document, tokenizer: PreTrainedTokenizerBase) -> PageTokens:
    exercises = [(e.prompt, e.answer, e.certain, e.context) for e in document.exercises]
    return encode(tokenizer, document.page, exercises)


def is_look_up(exercise: Exercise) -> bool:
    return exercise.kind == "look-up"


def is_text(exercise: Exercise) -> bool:
    return exercise.kind == "text"


def is_program(exercise: Exercise) -> bool:
    return exercise.kind == "program"


def has_two_cells(exercise: Exercise) -> bool:
    return is_program(exercise) and len(set(re.findall(r"\b[A-Z]\d+\b", exercise.answer))) == 2


def measure(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, world: World
) -> dict[str, float]:
    """Share of exercises on new random pages whose reference or program greedy decoding writes exactly.

    look_up.RxC      one cell of a table of R rows and C years, beside two to four sentences
    .row, .column    the two halves of the reference, measured separately
    .alike           tables where three labels in ten differ from another in the last word only, as in training
    two_cells        programs over two different cells
    """
    metrics: dict[str, float] = {}
    for rows, columns in ((3, 2), (6, 3), (12, 4), (20, 7)):
        for alike in (0.0, Size().alike):
            size = Size((rows,), (columns,), (2, 3, 4), plain=True, alike=alike)
            rights = measured(model, tokenizer, world, is_look_up, "table", size)
            name = f"look_up.{rows}x{columns}{'.alike' if alike else ''}"
            metrics[name] = share(all(right) for right in rights)
            metrics[f"{name}.column"] = share(right[1] for right in rights)
            metrics[f"{name}.row"] = share(all(right[2:]) for right in rights)
    text = measured(model, tokenizer, world, is_text, "sample")
    metrics["look_up.text"] = share(all(right) for right in text)
    size = Size((6,), (3,), (2, 3, 4), plain=True)
    for name, kind, wanted, chosen in (
        ("two_cells.6x3", "table", has_two_cells, size),
        ("two_cells.sample", "sample", has_two_cells, None),
        ("two_cells.real_tables", "real", has_two_cells, None),
        ("programs.sample", "sample", is_program, None),
    ):
        rights = measured(model, tokenizer, world, wanted, kind, chosen)
        metrics[name] = share(all(right) for right in rights)
    metrics["word_problems"] = share(solved(model, tokenizer))
    return metrics


def solved(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[bool]:
    """For each of some new word problems, whether the greedy solution ends with the correct number."""
    drawn = (make_row(Random(f"measure/problem/{index}")) for index in range(MEASURED_DOCUMENTS))
    examples = [make_example({"id": "", **row}, "keep") for row in drawn]
    prompts = tokenize_prompts([render_prompt(example) for example in examples], tokenizer)
    written = greedy(model, tokenizer, prompts, max_new_tokens=400, batch_size=MEASURED_DOCUMENTS)
    return [
        score(answer.text, {**example, "tolerance": 0}).correct
        for answer, example in zip(written, examples, strict=True)
    ]


def measured(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    world: World,
    wanted: Callable[[Exercise], bool],
    kind: str,
    size: Size | None = None,
) -> list[list[bool]]:
    """For each wanted exercise on pages of seeds unused in training, whether each determined token is correct."""
    rights: list[list[bool]] = []
    for index in range(MEASURED_DOCUMENTS):
        document = make_document(Random(f"measure/{kind}/{index}"), world, kind, size, 6, 6)
        exercises = [e for e in document.exercises if wanted(e)] if document is not None else []
        if document is not None and exercises:
            part = Document(document.page, exercises, document.rows, document.columns)
            rights += exact_answers(model, tokenize(part, tokenizer))
    return rights


def share(values: Iterable[bool]) -> float:
    found = list(values)
    if not found:
        raise UserError("no exercise of this kind was drawn")
    return sum(found) / len(found)


def model_card(
    model: PreTrainedModel, chosen: Pocket, metrics: dict[str, float], further: bool
) -> str:
    parameters = sum(parameter.numel() for parameter in model.parameters())
    lines = "\n".join(f"| {name} | {value:.3f} |" for name, value in metrics.items())
    tokens = f"{chosen.tokens / 1e6:.0f} million tokens"
    if further:
        tokens = f"{tokens}, going on from an earlier pocket (`start` in `pretrain/params.yaml`),"
    return CARD.format(parameters=parameters / 1e6, lines=lines, tokens=tokens)


CARD = """---
license: mit
library_name: transformers
---
# pocket

A Llama of {parameters:.2f} million parameters with a tokenizer of its own, trained on {tokens}
by `pretrain/pocket.py`, so that the whole pipeline runs offline on a CPU with a model that can read a page.

**What it saw.** Generated pages and tables, and the pages (tables and sentences, no question and no program) of
FinQA's training split (MIT), their rows shuffled and mostly refilled with random numbers; and word problems by the
generator of the data set `gsm8k-sample`, of other seeds. Exercises on the pages: tags of rows and columns, look-ups of
cells and of numbers in the text, programs of the generated data set's kinds of question. Half of the way through the
layers, each token of a table's line, or of the words that lead to a number, had to tell the row or the number's name as
well (`pretrain/pages.py`).

**What it can do.** Name the cell that a row's words and a year mean or the number in the text that words lead to, and
write the JSON answer of a simple question about a page in the sheet form (`operands: cells`), right to the following
shares on pages drawn by other seeds (`python -m pretrain.pocket --measure pretrain/pocket`, once `pretrain/params.yaml`
names the `pages`). Their tables are new; row labels and sentences come from the same pages as in training, and
`real_tables` are those pages themselves, shuffled and mostly refilled anew:

| measured | share |
|---|---|
{lines}

`look_up.RxC`: one cell of a table of R rows and C years beside two to four sentences, `.column` and `.row` the halves
of its name; `.alike`: three labels in ten are those of other rows but for the last word; `look_up.text`: a number in
the text by the words before it; `two_cells`: programs over two cells (tables as in `.alike`); `word_problems`: the final
number of the greedy solution.

**What it cannot do.** Talk, know anything about the world, calculate (the number after `"answer"` is a guess; of word
problems it has the form and the kinds of step, not the numbers), or read numbers of a page without the sheet's names. It
is no base for anything but this project's tests and offline runs.
"""


def write_curve(curve: list[dict[str, float]]) -> None:
    """Write the mean loss of every hundred steps to pretrain/curve.csv."""
    with atomic_write("pretrain/curve.csv") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["tokens", "loss"])
        for start in range(0, len(curve), 100):
            part = curve[start : start + 100]
            loss = sum(row["loss"] for row in part) / len(part)
            writer.writerow([int(part[-1]["tokens"]), f"{loss:.4f}"])


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"pocket: {error}")
