"""Export of a trained policy as a plain Hugging Face folder.

    python -m posttrain.export models/generator/grpo/0 OUT [--base models/base]

Run it in the project's folder. OUT must not exist, or be empty; it is written completely or not at all.

    generator   config.json, generation_config.json, model.safetensors (adapters merged), the tokenizer with a chat
                template that gives the prompt as in training, README.md
    selector    the same for its backbone, with a template only if it was trained with `prompt: chat`; head.safetensors,
                selector.json and scorer.py, which scores candidates (`posttrain.selector.scorer`)

Weights keep their dtype from training. Adapters are added in float32 and rounded once, so the logits equal those of the
pipeline's own model up to rounding, and exactly where every weight was trained.

Left out: adapters of a quantised base; upload to a hub.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import copyfile
from typing import Any, Literal

import torch
from huggingface_hub import try_to_load_from_cache
from peft import PeftModel
from safetensors.torch import save_file
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from posttrain.core.errors import UserError
from posttrain.core.files import atomic_directory, hash_path, iterate_jsonl, read_json, write_json
from posttrain.core.manifest import MANIFEST, check_code
from posttrain.core.not_trained import why_not_trained
from posttrain.core.params import load_params
from posttrain.core.stage import quieten
from posttrain.models import chat
from posttrain.models.architecture import is_causal
from posttrain.models.load import (
    BASE_FILE,
    load_tokenizer,
    locate,
    read_base,
)
from posttrain.models.tokens import SEPARATOR, special_ids
from posttrain.report.card import Card, Example
from posttrain.rollouts.sampling import end_tokens
from posttrain.rollouts.writer import GENERATOR_FILE, load_generator
from posttrain.selector import scorer
from posttrain.selector.model import Selector, load_selector

Family = Literal["selector", "generator"]

# The paths of dvc.yaml.
BASE = Path("models/base")
FILES: dict[Family, str] = {"generator": GENERATOR_FILE, "selector": "selector.json"}
EXAMPLES: dict[Family, Path] = {
    "generator": Path("data/examples/test.jsonl"),
    "selector": Path("data/pools/test.jsonl"),
}
LICENCES = ("LICENSE", "LICENSE.md", "LICENSE.txt", "NOTICE", "NOTICE.txt", "USE_POLICY.md")


def evaluation(family: Family, policy: str, seed: int) -> tuple[Path, Path]:
    """The files with the metrics of a policy and with the manifest of their evaluation."""
    name = Path(f"{family}_evaluate") / policy
    return Path("metrics") / name / f"{seed}.json", Path("data") / name / str(seed) / MANIFEST


@dataclass(frozen=True, slots=True)
class Policy:
    """A folder that a training stage wrote."""

    directory: Path
    family: Family
    name: str
    seed: int
    manifest: Mapping[str, Any]

    @property
    def model(self) -> Mapping[str, Any]:
        """The entry of `models` with which it was trained."""
        found: Mapping[str, Any] = self.manifest["params"]["model"]
        return found


def read_policy(directory: Path) -> Policy:
    """The policy in a folder; `UserError` if there is none, or if its base was quantised."""
    if not directory.is_dir():
        raise UserError(
            f"{directory}: no such folder; dvc pull brings trained policies, or dvc repro"
        )
    if (reason := why_not_trained(directory)) is not None:
        raise UserError(f"{directory}: was not trained: {reason}")
    family = next((each for each, name in FILES.items() if (directory / name).is_file()), None)
    if family is None or not (directory / MANIFEST).is_file():
        raise UserError(
            f"{directory}: no policy of this pipeline, which has {MANIFEST} and "
            f"{' or '.join(FILES.values())}; give a folder such as models/generator/grpo/0"
        )
    manifest = read_json(directory / MANIFEST)
    try:
        policy = Policy(directory, family, manifest["policy"], int(manifest["seed"]), manifest)
        quantization = policy.model["quantization"]
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{directory / MANIFEST}: names no policy, seed or model") from error
    if quantization is not None:
        raise UserError(
            f"{directory}: its adapters were trained on a base in {quantization}, and merged into full weights they "
            f"would be another model; load the base with quantization: {quantization} and {directory}/adapter by "
            "peft.PeftModel, or set quantization: null and train it again"
        )
    return policy


def export(policy: Policy, base: Path, output: Path) -> Card:
    """Write the folder and return its card; `UserError` leaves nothing behind."""
    if output.is_file() or (output.is_dir() and any(output.iterdir())):
        raise UserError(f"{output}: exists and is not empty; name a new folder")
    check_base(base)
    with atomic_directory(output) as folder:
        write = {"generator": write_generator, "selector": write_selector}[policy.family]
        write(policy, base, folder)
        card = make_card(policy, base, folder)
        (folder / "README.md").write_text(card.text(), encoding="utf-8")
        for name in LICENCES:
            if (file := base_file(base, name)) is not None:
                copyfile(file, folder / name)
        mode = (folder / "README.md").stat().st_mode  # safetensors lets only the owner read
        for file in folder.iterdir():
            file.chmod(mode)
    return card


def check_base(base: Path) -> None:
    """`UserError` if the base model is missing, or its files are not those in base.json."""
    if not (base / BASE_FILE).is_file():
        raise UserError(f"{base / BASE_FILE}: no base model here; dvc repro base makes it again")
    locate(base)


def write_generator(policy: Policy, base: Path, folder: Path) -> None:
    loaded, _ = load_generator(policy.directory, base, policy.model["dtype"])
    model, tokenizer = merged(loaded), load_tokenizer(base)
    settings = model.generation_config
    ends = end_tokens(model, tokenizer)
    own = (
        settings.eos_token_id
        if isinstance(settings.eos_token_id, list)
        else [settings.eos_token_id]
    )
    if not {*ends} <= {*own}:
        settings.eos_token_id = ends if len(ends) > 1 else ends[0]
    if settings.pad_token_id is None:
        settings.pad_token_id = tokenizer.pad_token_id
    model.config.use_cache = True  # trainers switch it off
    if chat.turns(tokenizer) is None:
        tokenizer.chat_template = chat_template(tokenizer)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def write_selector(policy: Policy, base: Path, folder: Path) -> None:
    selector, _ = load_selector(policy.directory, base, policy.model["dtype"])
    tokenizer = load_tokenizer(base)
    specials, turns = special_ids(tokenizer), chat.turns(tokenizer)
    model = merged(selector.backbone)
    if turns is None:
        tokenizer.chat_template = None
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    save_file(scoring_head(selector), folder / "head.safetensors", metadata={"format": "pt"})
    content = {
        "likelihood": is_causal(model.config),
        "chat": turns is not None,
        "start": specials.start if turns is None else turns.asked,
        "question": chat.QUESTION,
        "separator": SEPARATOR if turns is None else turns.before,
        "after": "" if turns is None else turns.after,
        "end": specials.end,
    }
    write_json(folder / "selector.json", content)
    copyfile(scorer.__file__, folder / "scorer.py")


def merged(model: Any) -> PreTrainedModel:
    """The model with its adapters added to its weights."""
    plain = model.merge_and_unload() if isinstance(model, PeftModel) else model
    assert isinstance(plain, PreTrainedModel)
    return plain


def scoring_head(selector: Selector) -> dict[str, torch.Tensor]:
    """The tensors of the score, by the names that `selector.scorer` reads."""
    head = {name: tensor.contiguous() for name, tensor in selector.score.state_dict().items()}
    return {**head, "likelihood_weight": selector.likelihood_weight.detach()}


def chat_template(tokenizer: PreTrainedTokenizerBase) -> str:
    """A template that turns the user's message into the ids of `tokenize_prompts`, for plain prompts."""
    specials = special_ids(tokenizer)
    names = {
        tokenizer.bos_token_id: "bos_token",
        tokenizer.cls_token_id: "cls_token",
        tokenizer.eos_token_id: "eos_token",
        tokenizer.sep_token_id: "sep_token",
    }
    start, end = (
        "".join(f"{{{{ {names[i]} }}}}" for i in ids) for ids in (specials.start, specials.end)
    )
    return (
        start + "{% for message in messages %}"
        "{% if message['role'] == 'user' %}{{ message['content'] }}"
        f"{{% elif message['role'] == 'assistant' %}}{{{{ {SEPARATOR!r} + message['content'] }}}}{end}"
        "{% else %}{{ raise_exception('trained with a message of the user alone, without ' + message['role']) }}"
        "{% endif %}{% endfor %}"
    )


def make_card(policy: Policy, base: Path, folder: Path) -> Card:
    return Card(
        family=policy.family,
        policy=policy.name,
        seed=policy.seed,
        base=read_base(base),
        licence=read_licence(base),
        manifest=policy.manifest,
        data=find_data(policy),
        figures=find_figures(policy),
        commit=find_commit(policy),
        example=make_example(policy, folder),
        max_new_tokens=policy.model["max_candidate_tokens"],
    )


def find_data(policy: Policy) -> dict[str, Any] | str:
    """The data set of params.yaml if the policy's training files are unchanged, else the reason why it is not known."""
    for name, sha in policy.manifest["inputs"].items():
        path = Path(name)
        if path.suffix == ".jsonl" and not (path.is_file() and hash_path(path) == sha):
            return f"{name} is not the file that it was trained on"
    params = load_params()
    return {"name": params.dataset, **params.selected_dataset.model_dump()}


def find_figures(policy: Policy) -> dict[str, Any] | str:
    """Metrics by split if the evaluation was of these very weights, else the reason why they are not known."""
    figures, manifest = evaluation(policy.family, policy.name, policy.seed)
    for path in (figures, manifest):
        if not path.is_file():
            return f"there is no {path}"
    if hash_path(policy.directory) not in read_json(manifest)["inputs"].values():
        return f"{figures} is of other weights"
    found: dict[str, Any] = read_json(figures)
    return found


def find_commit(policy: Policy) -> str:
    """A description of HEAD, which says whether its code trained the policy."""
    head = _git("rev-parse", "HEAD")
    if not head:
        return "not in a git repository"
    edited = (
        ", with changes not committed"
        if _git("status", "--porcelain", "--", "src", "stages")
        else ""
    )
    try:
        check_code(policy.directory)
    except UserError:
        return f"trained by other code than that of commit {head}{edited}, by which it was exported"
    return f"commit {head}{edited}"


def make_example(policy: Policy, folder: Path) -> Example | None:
    """The first test question, with the answer or the candidates' scores of the model in `folder`."""
    path = EXAMPLES[policy.family]
    row = next(iterate_jsonl(path), None) if path.is_file() else None
    if row is None:
        return None
    try:
        if policy.family == "generator":
            prompt = row["prompts"]["direct"]
            answer = greedy_answer(folder, prompt, policy.model["max_candidate_tokens"])
            return Example(prompt, row["target"], answer)
        texts = [candidate["text"] for candidate in row["candidates"]]
        gold = [each["text"] for each in row["candidates"] if each.get("kind") == "gold"]
        scores = scorer.Scorer(folder)(row["prompt"], texts)
        return Example(row["prompt"], "".join(gold[:1]), candidates=texts, scores=scores)
    except (KeyError, TypeError) as error:
        raise UserError(f"{path}:1: no {error} in this row; dvc repro makes it again") from error


def greedy_answer(folder: Path, prompt: str, max_new_tokens: int) -> str:
    """The greedy answer by transformers alone, with the code that the card shows."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    messages = [{"role": "user", "content": prompt}]
    inputs = tokenizer.apply_chat_template(
        messages,
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
        sanitize_control_tokens=True,
    )
    ids = model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
    text: str = tokenizer.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return text.strip()


def read_licence(base: Path) -> dict[str, str]:
    """The licence in the base's own card, by the hub's keys; empty if it has no card."""
    card = base_file(base, "README.md")
    if card is None:
        return {}
    lines = card.read_text(encoding="utf-8", errors="replace").splitlines()
    if not lines or lines[0] != "---" or "---" not in lines[1:]:
        return {}
    found = {}
    for line in lines[1 : lines.index("---", 1)]:
        key, _, value = line.partition(":")
        if key in ("license", "license_name", "license_link") and value.strip():
            found[key] = value.strip().strip("'\"")
    return found


def base_file(base: Path, name: str) -> Path | None:
    """The local path of a file of the base model, or None."""
    location = locate(base)
    if Path(location.name_or_path).is_dir():
        path = Path(location.name_or_path) / name
        return path if path.is_file() else None
    cached = try_to_load_from_cache(location.name_or_path, name, revision=location.revision)
    return Path(cached) if isinstance(cached, str) else None


def _git(*command: str) -> str:
    done = subprocess.run(["git", *command], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def main(arguments: Sequence[str] | None = None) -> None:
    """Export one policy."""
    parser = argparse.ArgumentParser(prog="posttrain.export")
    parser.add_argument("policy", type=Path, help="such as models/generator/grpo/0")
    parser.add_argument("output", type=Path, metavar="OUT", help="a new folder")
    parser.add_argument("--base", type=Path, default=BASE, help=f"default: {BASE}")
    options = parser.parse_args(arguments)
    quieten()
    try:
        policy = read_policy(options.policy)
        card = export(policy, options.base, options.output)
    except UserError as error:
        sys.exit(f"export: {error}")
    for name, value in (("data set", card.data), ("figures", card.figures)):
        if isinstance(value, str):
            print(f"The card tells no {name}: {value}.")
    print(
        f"{options.output}: {policy.family} {policy.name}, seed {policy.seed}; README.md there says how to use it"
    )


if __name__ == "__main__":
    main()
