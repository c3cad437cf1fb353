"""Typed schema of params.yaml: every key and its allowed values, except those of methods (`core/methods.py`).

    python -m posttrain.core.params

checks params.yaml, for `make repro`: DVC reads the file before any stage does, and would be the first to name a mistake.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    model_validator,
)

from posttrain.core.errors import UserError
from posttrain.core.overlay import DatasetSettings, ModelSettings, blaming, lay_over
from posttrain.core.schema import (
    Fraction,
    NonNegative,
    Parts,
    Positive,
    Rate,
    Section,
    Seed,
    Temperature,
    check,
    nearest,
    read_yaml,
)

PACKAGE = Path(__file__).resolve().parents[1]
FAMILIES = ("selector", "generator")
UNTRAINED, FINE_TUNED = "base", "sft"  # the policies of each family that RL does not train
CONTROL = "sft_plus"  # the method that is no RL: SFT continued with the effort of one
ALL_LINEAR = "all-linear"  # the LoRA target that stands for every linear layer
Variant = Literal["direct", "reflective", "deliberative"]


def _known_task(name: str) -> str:
    # The folders are listed, not imported: a stage that uses no task must not depend on all of them.
    folders = ("tasks", "environments")
    known = sorted(p.parent.name for folder in folders for p in PACKAGE.glob(f"{folder}/*/task.py"))
    if name not in known:
        raise ValueError(f"not one of the tasks {', '.join(known)}{nearest(name, known)}")
    return name


TaskName = Annotated[str, AfterValidator(_known_task)]


class GeneratedDataset(Section):
    task: TaskName
    source: Literal["generated"]
    seed: Seed
    train: Positive
    val: Positive
    test: Positive
    options: Annotated[dict[str, Any], Field(default_factory=dict)]
    settings: DatasetSettings = DatasetSettings()


class StoredDataset(Section):
    """A stored data set: downloaded at a pinned commit, or read from the folder `path` if that is set.

    train, val, test: the most examples of a split that are used, sampled by `seed`; None for all. Where the data has no
    validation split, `val` rows of train become one. The task checks `options` (`posttrain.tasks.read_options`).
    """

    task: TaskName
    source: Literal["hub", "path"]
    path: str | None
    repository: str
    commit: Annotated[str, Field(pattern="^[0-9a-f]{40}$")]
    blobs: dict[str, Annotated[str, Field(pattern="^[0-9a-f]{40}$")]]
    train: Positive | None = None
    val: Positive | None = None
    test: Positive | None = None
    seed: Seed = 0
    options: Annotated[dict[str, Any], Field(default_factory=dict)]
    settings: DatasetSettings = DatasetSettings()

    @model_validator(mode="after")
    def _path_is_named(self) -> StoredDataset:
        if self.source == "path" and self.path is None:
            raise ValueError("source is path, so path must name a folder")
        return self


Dataset = Annotated[GeneratedDataset | StoredDataset, Field(discriminator="source")]


def _targets(found: Any) -> Any:
    if found == "auto":
        return found
    if not isinstance(found, list) or not found or not all(n and isinstance(n, str) for n in found):
        raise ValueError(f"expected auto, [{ALL_LINEAR}] or a list of names like [q_proj, v_proj]")
    for name, count in Counter(found).items():
        if count > 1:
            raise ValueError(f"{name!r} is listed twice")
    if ALL_LINEAR in found and len(found) > 1:
        raise ValueError(f"{ALL_LINEAR} stands for every linear layer, so it must stand alone")
    return found


Targets = Annotated[Literal["auto"] | list[str], BeforeValidator(_targets)]


class Lora(Section):
    r: Positive
    alpha: Rate
    dropout: Annotated[float, Field(ge=0, lt=1)]
    targets: Targets


class Model(Section):
    """A base model. `file` is a GGUF file in a hub repository or in a Python package, `sha256` its hash."""

    source: Literal["hub", "path", "package"]
    name: str
    revision: str | None
    file: Annotated[str, Field(pattern=r"\.gguf$")] | None = None
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    dtype: Literal["float32", "bfloat16", "float16"]
    operands: Literal["cells", "literal"]
    prompt: Literal["plain", "chat"] = "plain"
    lora: Lora | None
    max_prompt_tokens: Positive
    max_candidate_tokens: Positive
    batch_size: Positive
    accumulation: Positive
    gradient_checkpointing: bool = False
    quantization: Literal["8bit", "4bit"] | None = None
    deterministic: bool = False
    compute_dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    settings: ModelSettings = ModelSettings()

    @model_validator(mode="after")
    def _pinned(self) -> Model:
        if self.source == "hub" and self.revision is None:
            raise ValueError("source is hub, so revision must pin a commit")
        return self

    @property
    def is_gguf(self) -> bool:
        """Whether the model is a GGUF file, which stage `base` converts."""
        return self.file is not None or (self.source == "path" and self.name.endswith(".gguf"))

    @model_validator(mode="after")
    def _file_is_pinned(self) -> Model:
        if self.source == "package":
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9.!+_-]+", self.name):
                raise ValueError("source is package, so name must be PACKAGE==VERSION")
            if self.file is None or self.sha256 is None:
                raise ValueError(
                    "source is package, so file must name a GGUF file in it, and sha256 its hash"
                )
        if self.source == "path" and self.file is not None:
            raise ValueError("source is path, so name must be the GGUF file itself, without file")
        if self.sha256 is not None and not self.is_gguf:
            raise ValueError("sha256 is that of a GGUF file, and the entry names none")
        return self

    @model_validator(mode="after")
    def _quantized_weights_are_frozen(self) -> Model:
        if self.quantization is not None and self.lora is None:
            raise ValueError(
                f"quantization is {self.quantization}, so lora must be set: only adapters can train"
            )
        return self

    @model_validator(mode="after")
    def _trained_weights_are_precise(self) -> Model:
        if self.dtype == "float16":
            raise ValueError(
                "dtype is float16, in which gradients below 6e-8 are 0, and nothing scales the loss; take bfloat16"
            )
        if self.compute_dtype == "float32" and self.dtype != "float32":
            raise ValueError(f"dtype is {self.dtype}, so compute_dtype cannot be float32")
        if self.dtype != "float32" and self.lora is None:
            raise ValueError(
                f"dtype is {self.dtype}, so lora must be set (or dtype float32): rounding to 16 bits "
                "would swallow most steps of weights that are trained themselves"
            )
        return self


class Examples(Section):
    context: Literal["full", "retrieved", "gold"]
    top_n: Positive
    operands: Literal["auto", "cells", "literal"]


class Pools(Section):
    seed: Seed
    count: Annotated[int, Field(ge=2, le=64)]
    corruption_rate: Fraction
    oversample: Annotated[int, Field(ge=1, le=8)]
    noise: Annotated[list[Rate], Field(min_length=2, max_length=2)]

    @model_validator(mode="after")
    def _noise_is_a_range(self) -> Pools:
        if self.noise[0] > self.noise[1]:
            raise ValueError("noise must be [smallest, largest]")
        return self


class Reward(Section):
    """Weights of the parts of a score, by name. Weights of parts that the task does not score have no effect."""

    tolerance: NonNegative
    weights: Annotated[dict[str, NonNegative], Field(min_length=1)]

    @model_validator(mode="after")
    def _some_weight(self) -> Reward:
        if sum(self.weights.values()) <= 0:
            raise ValueError("at least one weight must be positive")
        return self


class Sampling(Section):
    """How completions are sampled."""

    engine: Literal["transformers", "vllm"]
    batch_size: Positive | Literal["auto"]


class Demonstrations(Section):
    """Episodes of an environment's expert.

    off_path: probability of a random action before the expert takes over, at each turn; the training is not on these.
    attempts: episodes of a start, at most, until one ends at the goal.
    """

    off_path: Annotated[float, Field(ge=0, lt=1)] = 0.15
    attempts: Positive = 2


class Episodes(Section):
    """How episodes of an environment are played; a task of one turn has none.

    form: of an answer, `Action: ...` or `Thought: ... Action: ...`. slots: episodes played at the same time. turn_tokens:
    the most tokens of one answer. context: the most tokens of a row, which longer episodes continue in another one.
    seconds: that one step of an environment may take.
    """

    form: Literal["short", "thought"] = "short"
    slots: Positive = 32
    turn_tokens: Positive = 32
    context: Positive = 1024
    seconds: Annotated[float, Field(gt=0)] = 20.0
    demonstrations: Demonstrations = Demonstrations()

    @model_validator(mode="after")
    def _a_turn_fits(self) -> Episodes:
        if self.turn_tokens >= self.context:
            raise ValueError("turn_tokens must be less than context")
        return self


class Family(Section):
    """A family of policies and its methods. Besides the typed keys it has a section for `sft` and one for each method."""

    model_config = ConfigDict(extra="allow")

    methods: Annotated[list[str], Field(min_length=1)]
    policies: Annotated[list[str], Field(min_length=1)]
    common: dict[str, Any]

    @property
    def sections(self) -> dict[str, Any]:
        """The unchecked section of each method by name."""
        return dict(self.model_extra or {})

    @property
    def trained(self) -> list[str]:
        """The policies that are trained."""
        return [FINE_TUNED, *self.methods]


class Sample(Section):
    """parts: of a mixture, those whose questions are sampled."""

    questions: Positive
    parts: Parts = "all"
    count: Annotated[int, Field(ge=2, le=64)]
    temperature: Temperature
    top_p: Annotated[float, Field(gt=0, le=1)]
    variants: Annotated[list[Variant], Field(min_length=1)]


class PairQuality(Section):
    """Weights of the parts of an answer's quality, by which correct answers are ranked among themselves.

    Weights of parts that the task does not score have no effect.
    """

    program_valid: NonNegative
    format_valid: NonNegative
    steps_used: NonNegative
    no_repetition: NonNegative
    brevity: NonNegative


class Pairs(Section):
    pairs_per_question: Positive
    quality: PairQuality
    minimal_margin: NonNegative
    held_out: Annotated[float, Field(gt=0, lt=1)]


class GeneratorFamily(Family):
    sample: Sample
    pairs: Pairs


class Tuning(Section):
    """Values of settings that `posttrain.tune` tries for the methods of each family, on trainings of these seeds.

    selector, generator: lists of values by setting; under the name of a method, those that it has instead. questions: of
    each validation, None for all.
    """

    seeds: Annotated[list[Seed], Field(min_length=1)]
    selector: dict[str, Any]
    generator: dict[str, Any]
    questions: Positive | None


class EvaluateGenerator(Section):
    """Greedy decoding of every question, and samples per test question: `samples` at temperature 1, as many at the
    temperature fitted on validation, and one at each of `temperatures`."""

    samples: Annotated[int, Field(ge=1, le=64)]
    temperatures: list[Temperature]
    top_p: Annotated[float, Field(gt=0, le=1)]


class Evaluate(Section):
    intervals: Annotated[
        list[Annotated[float, Field(gt=0, lt=1)]], Field(min_length=1, max_length=4)
    ]
    bootstrap: Positive
    generator: EvaluateGenerator


class Compare(Section):
    bootstrap: Positive


class Report(Section):
    questions: Positive


class Params(Section):
    """All of params.yaml; `selected_dataset` and `selected_model` are the presets of this run.

    The `settings` of both are laid over the sections that they name (`core/overlay.py`).
    """

    _written: dict[str, Any] = PrivateAttr(default_factory=dict)  # the values of params.yaml

    dataset: str
    model: str
    seeds: Annotated[list[Seed], Field(min_length=1)]
    launch: Annotated[str, Field(pattern=r"\S")]
    tracking: Literal["none", "tensorboard", "wandb", "mlflow"]
    datasets: dict[str, Dataset]
    models: dict[str, Model]
    examples: Examples
    pools: Pools
    reward: Reward
    sampling: Sampling
    episodes: Episodes = Episodes()
    selector: Family
    generator: GeneratorFamily
    tuning: Tuning | None = None
    evaluate: Evaluate
    compare: Compare
    report: Report

    @property
    def selected_dataset(self) -> GeneratedDataset | StoredDataset:
        return self.datasets[self.dataset]

    @property
    def parts(self) -> dict[str, float]:
        """The data sets that the chosen one is a mixture of, with their weights; empty if it is none."""
        return dict(self.selected_dataset.options.get("parts") or {})

    @property
    def part_weights(self) -> dict[str, float]:
        """The weights of the parts in a mean over them."""
        return dict(self.selected_dataset.options.get("weights") or self.parts)

    @property
    def tasks(self) -> list[str]:
        """The task of the chosen data set, then those of its parts."""
        parts = [self.datasets[part].task for part in self.parts]
        return [*dict.fromkeys([self.selected_dataset.task, *parts])]

    def of_part(self, part: str) -> Params:
        """The same with a part of the chosen data set as the chosen one."""
        return self.model_copy(update={"dataset": part})

    @property
    def selected_model(self) -> Model:
        return self.models[self.model]

    def family(self, name: str) -> Family:
        """The section of a family."""
        section: Family = getattr(self, name)
        return section

    @property
    def settings(self) -> dict[str, tuple[str, Any]]:
        """What the selected entries set, by dotted name: the entry, such as `models.pocket`, and the value."""
        of_model = self.selected_model.settings.leaves()
        found = {name: (f"models.{self.model}", value) for name, value in of_model.items()}
        for name, value in self.selected_dataset.settings.leaves().items():
            section, _, key = name.rpartition(".")
            common = f"{section.split('.')[0]}.common.{key}"
            if name not in found and common not in found:
                found[name] = (f"datasets.{self.dataset}", value)
        return found

    def with_settings_of(self, kind: Literal["datasets", "models"], name: str) -> Params:
        """The params with the settings of that entry, and of no other."""
        settings = getattr(self, kind)[name].settings
        values = _over(self._written, f"{kind}.{name}", settings, "params.yaml")
        return check(Params, values, "params.yaml")

    def plain(self) -> Params:
        """The params without the settings of any entry."""
        params = check(Params, self._written, "params.yaml")
        params._written = self._written
        return params

    def sections(self, *names: str) -> dict[str, Any]:
        """Plain values of the named sections; `dataset` and `model` are the selected entries without their `settings`, which
        are in the other sections.
        """
        values = self.model_dump() | {
            "dataset": self.selected_dataset.model_dump(exclude={"settings"}),
            "model": self.selected_model.model_dump(exclude={"settings"}),
        }
        found = {}
        for name in names:
            value: Any = values
            for part in name.split("."):
                value = value[part]
            found[name] = value
        return found

    @property
    def operands(self) -> Literal["cells", "literal"]:
        """How programs refer to numbers in this run."""
        if self.examples.operands == "auto":
            return self.selected_model.operands
        return self.examples.operands


def method_names(family: str) -> list[str]:
    """The methods of a family: the files in its folder `methods`."""
    files = (PACKAGE / family / "methods").glob("*.py")
    return sorted(file.stem for file in files if file.stem != "__init__")


def load_params(path: str | Path = "params.yaml") -> Params:
    """Read and check params.yaml; `UserError` names the first wrong key and the nearest valid one."""
    return check_params(read_yaml(path), str(path))


def check_params(values: Any, source: str = "params.yaml") -> Params:
    """Check a parsed params.yaml; `UserError` names the first wrong key and the nearest valid one.

    `core.methods` checks the sections of methods.
    """
    for key in ("datasets", "models"):
        _check_names(values, key, source)
    params = check(Params, values, source)
    for key, value, known in (
        ("dataset", params.dataset, params.datasets),
        ("model", params.model, params.models),
    ):
        if value not in known:
            raise UserError(
                f"{source}: {key}: {value!r} is not one of {key}s{nearest(value, known)}"
            )
    for name in params.datasets:
        _check_parts(params.of_part(name), source)
    for key, names in (
        ("seeds", params.seeds),
        ("selector.methods", params.selector.methods),
        ("generator.methods", params.generator.methods),
        ("selector.policies", params.selector.policies),
        ("generator.policies", params.generator.policies),
        ("generator.sample.variants", params.generator.sample.variants),
        ("tuning.seeds", params.tuning.seeds if params.tuning else []),
    ):
        if len(set(names)) < len(names):
            raise UserError(f"{source}: {key}: an entry is listed twice")
    if params.tuning is not None:
        both = sorted({*params.seeds} & {*params.tuning.seeds})
        if both:
            raise UserError(
                f"{source}: tuning.seeds: {both[0]} is one of `seeds` as well, so a training that is compared would be "
                "one that was chosen; take others"
            )
    for family in FAMILIES:
        _check_family(params.family(family), family, source)
    for kind in ("datasets", "models"):
        for name, entry in getattr(params, kind).items():
            _over(values, f"{kind}.{name}", entry.settings, source)
    over = _over(values, f"datasets.{params.dataset}", params.selected_dataset.settings, source)
    over = _over(over, f"models.{params.model}", params.selected_model.settings, source)
    found = check(Params, over, source)
    found._written = dict(values)
    return found


def _over(
    values: Mapping[str, Any], entry: str, settings: ModelSettings, source: str
) -> dict[str, Any]:
    """params.yaml with the settings of an entry; `UserError` if they do not fit the sections."""
    if settings == type(settings)():
        return dict(values)
    with blaming(entry, source):
        methods = {family: method_names(family) for family in FAMILIES}
        found = lay_over(values, settings, methods, source)
        params = check(Params, found, source)
        for family in FAMILIES:
            _check_family(params.family(family), family, source)
    return found


def _check_names(values: Any, key: str, source: str) -> None:
    entries = values.get(key) if isinstance(values, dict) else None
    for name in entries if isinstance(entries, dict) else ():
        if not isinstance(name, str):
            raise UserError(f"{source}: {key}.{name}: a name must be text; write it with a letter")
        if not name or set(name) & set("*?[]"):
            raise UserError(
                f"{source}: {key}.{name}: DVC takes *, ? and [] in a name for a pattern, so a name must not have any"
            )
        if "." in str(name):
            raise UserError(
                f"{source}: {key}.{name}: DVC splits keys at dots, so a name must not have any; "
                f"write {str(name).replace('.', '-')}"
            )


def _check_parts(params: Params, source: str) -> None:
    """The options `parts` and `weights` of a data set with parts: weights of other data sets, which have none."""
    options = params.selected_dataset.options
    for key in ("parts", "weights") if "parts" in options else ():
        where, weights = f"{source}: datasets.{params.dataset}.options.{key}", options.get(key)
        if key == "weights" and weights is None:
            continue
        if not isinstance(weights, dict) or not weights:
            raise UserError(
                f"{where}: expected data sets with their weights, such as {{a: 1, b: 2}}"
            )
        for name, weight in weights.items():
            if name not in params.datasets:
                raise UserError(
                    f"{where}.{name}: not one of datasets{nearest(name, params.datasets)}"
                )
            if "parts" in params.datasets[name].options:
                raise UserError(f"{where}.{name}: has parts itself, which a part must not")
            number = isinstance(weight, int | float) and not isinstance(weight, bool)
            if not (number and 0 < weight < 1e9):
                raise UserError(f"{where}.{name}: expected a weight above 0 (found {weight!r})")
        if weights.keys() != options["parts"].keys():
            raise UserError(f"{where}: expected the names of `parts`")


def _check_family(section: Family, family: str, source: str) -> None:
    known = method_names(family)
    rl = [name for name in known if name != FINE_TUNED]
    for name in section.methods:
        if name not in rl:
            raise UserError(
                f"{source}: {family}.methods: {name!r} is not one of {', '.join(rl)}{nearest(name, rl)}"
            )
    for name in section.sections:
        if name not in known:
            fields = [*known, *type(section).model_fields]
            raise UserError(f"{source}: {family}.{name}: unknown parameter{nearest(name, fields)}")
    for name in section.trained:
        if name not in section.sections:
            raise UserError(f"{source}: {family}.{name}: missing")
    if FINE_TUNED not in section.policies:
        raise UserError(
            f"{source}: {family}.policies: must contain {FINE_TUNED}, which the others are compared with"
        )
    for name in section.policies:
        if name not in (UNTRAINED, *section.trained):
            raise UserError(
                f"{source}: {family}.policies: {name!r} is not trained; add it to {family}.methods, or take it out"
            )


if __name__ == "__main__":
    try:
        load_params()
    except UserError as error:
        sys.exit(str(error))
