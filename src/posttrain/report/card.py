"""The model card of an exported policy: README.md of a Hugging Face folder."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from posttrain.report.findings import label

GENERATE = """\
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(".")
model = AutoModelForCausalLM.from_pretrained(".")
{prompt}
inputs = tokenizer.apply_chat_template(
    [{{"role": "user", "content": prompt}}],
    add_generation_prompt=True,
    return_tensors="pt",
    return_dict=True,
    sanitize_control_tokens=True,
)
ids = model.generate(**inputs, max_new_tokens={tokens}, do_sample=False)
print(tokenizer.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip())
"""
TEMPLATES = {
    "plain": "The chat template is the prompt as in training, one message of the user and nothing around it; a "
    "template of the base was not used. The answer begins with a line break.",
    "chat": "The chat template is that of the base, as in training: one message of the user. A model that can think "
    "before it answers was trained not to, and a date in the template is always the same.",
}
SCORE = """\
from scorer import Scorer

{prompt}
{candidates}
score = Scorer(".")
for candidate, one in zip(candidates, score(prompt, candidates)):
    print(f"{{one:8.3f}}  {{candidate}}")
"""


@dataclass(frozen=True, slots=True)
class Example:
    """A test question's prompt and gold answer, with a generator's greedy answer or a selector's candidates and scores."""

    prompt: str
    target: str
    answer: str = ""
    candidates: Sequence[str] = ()
    scores: Sequence[float] = ()


@dataclass(frozen=True, slots=True)
class Card:
    """The contents of a card. `data` and `figures` are a text where they are not known: the reason."""

    family: Literal["selector", "generator"]
    policy: str
    seed: int
    base: Mapping[str, Any]  # the content of base.json
    licence: Mapping[str, str]  # license, license_name, license_link of the base's own card
    manifest: Mapping[str, Any]
    data: Mapping[str, Any] | str
    figures: Mapping[str, Any] | str
    commit: str
    example: Example | None
    max_new_tokens: int

    def text(self) -> str:
        """The card as Markdown, with the front matter that the Hugging Face hub reads."""
        parts = [
            self._front_matter(),
            self._summary(),
            "## Use",
            self._use(),
            *self._example(),
            "## Figures",
            self._figures(),
            "## Training",
            self._training(),
            "## Licence",
            self._licence(),
        ]
        return "\n\n".join(parts) + "\n"

    @property
    def method(self) -> str:
        return label(self.policy)

    @property
    def base_name(self) -> str:
        """The name on the hub, or the last part of a local folder's path."""
        name = str(self.base["name_or_path"])
        return name if self.base["source"] == "hub" else name.rstrip("/").rsplit("/", 1)[-1]

    def _front_matter(self) -> str:
        fields: dict[str, Any] = {"library_name": "transformers"}
        if self.family == "generator":
            fields["pipeline_tag"] = "text-generation"
        fields |= self.licence
        if self.base["source"] == "hub":
            fields["base_model"] = self.base_name
        fields["tags"] = ["posttrain", self.family, self.policy]
        # JSON is YAML, and quotes everything that needs it.
        lines = [f"{key}: {json.dumps(value)}" for key, value in fields.items()]
        return "\n".join(["---", *lines, "---"])

    def _summary(self) -> str:
        what = {
            "generator": "writes the answer to a question",
            "selector": "scores candidate answers to a question",
        }[self.family]
        on = f" on {code(self.data['name'])}" if isinstance(self.data, Mapping) else ""
        return (
            f"# {self.base_name}: {self.family}, {self.method}, seed {self.seed}\n\n"
            f"A {self.family} that {what}, trained by {self.method} from {code(self.base_name)}{on}. It knows the "
            "prompts of that data set; other texts, and conversations, are not what it was trained for."
        )

    def _use(self) -> str:
        example = self.example or Example(prompt="...", target="", candidates=["...", "..."])
        written = f"transformers {self.manifest['packages']['transformers']}"
        before = f"In this folder, with transformers 5 or later (written by {written}):"
        prompt = python_text("prompt", example.prompt)
        if self.family == "generator":
            snippet = GENERATE.format(prompt=prompt, tokens=self.max_new_tokens)
            return (
                f"{before}\n\n{fenced(snippet, 'python')}\n\n"
                f"{TEMPLATES[self.manifest['params']['model'].get('prompt', 'plain')]}\n\n"
                f"{fenced('vllm serve . --served-model-name policy', 'sh')}\n\n"
                "Ask vLLM at `/v1/chat/completions`, with `temperature` 0 for the greedy answer. Adapters, if there were "
                "any, are part of the weights."
            )
        candidates = python_list("candidates", example.candidates)
        return (
            f"{before}\n\n{fenced(SCORE.format(prompt=prompt, candidates=candidates), 'python')}\n\n"
            "`scorer.py` is in this folder, and is `posttrain.selector.scorer` of the package.\n\n"
            "**A score is a logit.** The softmax over the scores of one prompt's candidates is the probability with "
            "which the policy chooses each; the largest is its choice. Scores of different prompts do not compare, and "
            "a probability depends on the other candidates. "
            "score = a · log p(candidate | prompt) + w₂ · tanh(W₁ h + b₁) + b₂, "
            "where h is the mean hidden state of the candidate's tokens after the prompt, log p the sum over its "
            "tokens in nats (an encoder has no such term), and the rest is in `head.safetensors`."
        )

    def _example(self) -> list[str]:
        example = self.example
        if example is None:
            return []
        parts = ["The prompt is a question of the test split. This is printed:"]
        if self.family == "generator":
            parts += [fenced(example.answer), "The gold answer:", fenced(example.target)]
        else:
            scored = zip(example.scores, example.candidates, strict=True)
            parts.append(fenced("\n".join(f"{one:8.3f}  {text}" for one, text in scored)))
            parts += ["The gold answer among them:", fenced(example.target)]
        return parts

    def _figures(self) -> str:
        if isinstance(self.figures, str):
            return f"None here: {self.figures}."
        splits = [split for split in ("val", "test") if split in self.figures]
        names = [
            name for split in splits for name, value in self.figures[split].items() if number(value)
        ]
        lines = [
            f"| {' | '.join(['measure', *splits])} |",
            f"|---|{'---:|' * len(splits)}",
        ]
        for name in dict.fromkeys(names):
            values = [self.figures[split].get(name) for split in splits]
            cells = [f"{value:g}" if number(value) else "" for value in values]
            lines.append(f"| {' | '.join([code(name), *cells])} |")
        return (
            "Of these very weights, by the evaluation of the pipeline (shares are from 0 to 1). Validation chose among "
            "the states of the training; test questions had no say.\n\n" + "\n".join(lines)
        )

    def _training(self) -> str:
        manifest = self.manifest
        inputs = "\n".join(f"{sha}  {path}" for path, sha in sorted(manifest["inputs"].items()))
        revision = self.base["revision"] or ", ".join(self.base["sha256"].values())
        packages = ", ".join(f"{name} {version}" for name, version in manifest["packages"].items())
        if isinstance(self.data, Mapping):
            values = {key: value for key, value in self.data.items() if key not in ("name", "path")}
            data = f"{code(self.data['name'])}\n\n{fenced(as_json(values), 'json')}"
        else:
            data = f"not known: {self.data}"
        return "\n\n".join(
            [
                f"- Method: {self.method}, seed {self.seed}, stage {code(manifest['stage'])}\n"
                f"- Base: {code(self.base_name)} ({code(revision)})\n"
                f"- Code: {self.commit}\n"
                f"- Packages: {packages}",
                f"Data set: {data}",
                f"Settings, by section of params.yaml:\n\n{fenced(as_json(manifest['params']), 'json')}",
                f"SHA-256 of the inputs:\n\n{fenced(inputs)}",
            ]
        )

    def _licence(self) -> str:
        base = code(self.base_name)
        named = self.licence.get("license_name") or self.licence.get("license")
        if named is None:
            where = (
                f": https://huggingface.co/{self.base_name}" if self.base["source"] == "hub" else ""
            )
            return (
                f"These weights derive from {base}, and its licence holds for them; it was not at hand here{where}. "
                "See to it before you pass them on, and to the licence of the data set."
            )
        return (
            f"These weights derive from {base}, whose licence ({code(named)}) holds for them. See to it before you "
            "pass them on, and to the licence of the data set."
        )


def code(text: object) -> str:
    """A code span, safe for text with backticks."""
    line = " ".join(str(text).split())
    ticks = "`" * (_longest_run(line) + 1)
    pad = " " if "`" in line else ""
    return f"{ticks}{pad}{line}{pad}{ticks}"


def fenced(text: str, language: str = "") -> str:
    """A code block, safe for text with backticks."""
    fence = "`" * max(3, _longest_run(text) + 1)
    return f"{fence}{language}\n{text.rstrip(chr(10))}\n{fence}"


def python_text(name: str, text: str) -> str:
    """Python code that assigns `text` to `name`, one line of the text per line of code."""
    lines = "".join(f"    {line!r}\n" for line in text.splitlines(keepends=True) or [""])
    return f"{name} = (\n{lines})"


def python_list(name: str, texts: Sequence[str]) -> str:
    """Python code that assigns a list of strings to `name`, one string per line."""
    return "".join([f"{name} = [\n", *(f"    {text!r},\n" for text in texts), "]"])


def number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def as_json(value: object) -> str:
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False)


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)
