"""Toys shared by several tests: settings, tiny models, tasks learned in a few steps, and a project that runs in seconds.

colours   a Llama with a real tokenizer is asked for a colour; for TRL's trainers, sampling and data
tokens    a Llama over 16 tokens whose texts are its token numbers; for PPO
pools     candidates of noise, one of which contains a certain token; for the selector
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from pretrain.model import build_model, llama_config, save_pocket, train_tokenizer
from ruamel.yaml import YAML
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    GPT2Config,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from posttrain.core.code import write_digests
from posttrain.core.files import write_jsonl
from posttrain.core.loop import History
from posttrain.core.methods import load_method, settings_of
from posttrain.core.params import FAMILIES, load_params, method_names
from posttrain.generator.data import PairText, pair_rows, prompt_completion_rows, prompt_rows
from posttrain.generator.run import Run
from posttrain.models.load import BASE, load_config, read_base, write_base
from posttrain.models.lora import add_lora
from posttrain.rollouts import sampling
from posttrain.rollouts.rewards import RewardFunction
from posttrain.rollouts.sampling import Completion
from posttrain.selector.batch import TokenizedPool
from posttrain.selector.model import save_untrained
from posttrain.selector.train import Pools
from posttrain.tasks import Score, Task

ROOT = Path(__file__).resolve().parent.parent
PARAMS = load_params(ROOT / "params.yaml")
METHODS = {family: method_names(family) for family in FAMILIES}
VOCABULARY = 50
RIGHT = 7  # the token that makes a candidate, or a completion, right


class Killed(Exception):
    """Ends a training run from outside, like a kill."""


# ------------------------------------------------------------------------------ settings


def settings(family: str, method: str, **changes: Any) -> Any:
    """A method's settings in the project's params.yaml, with changes."""
    found = settings_of(PARAMS, family, method, load_method(family, method))
    assert changes.keys() <= type(found).model_fields.keys()
    return found.model_copy(update=changes)


# ------------------------------------------------------------------------------ models


def tiny_config(model_type: str = "llama", **changes: Any) -> PreTrainedConfig:
    """Two layers of width 16 over 50 tokens and 64 positions, without dropout."""
    if model_type == "gpt2":
        sizes = {
            "vocab_size": VOCABULARY,
            "n_embd": 16,
            "n_layer": 2,
            "n_head": 4,
            "n_positions": 64,
        }
        dropout = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
        return GPT2Config(**{**sizes, **dropout, **changes})
    sizes = {
        "vocab_size": VOCABULARY,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 64,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    if model_type == "bert":
        dropout = dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob"), 0.0)
        return BertConfig(**{**sizes, **dropout, **changes})
    return CONFIG_MAPPING[model_type](
        **{**sizes, "num_key_value_heads": 2, "head_dim": 4, **changes}
    )


def write_model(
    folder: Path, texts: Sequence[str], layers: int = 1, max_length: int = 160, seed: int = 0
) -> Path:
    """Write a small Llama and a tokenizer of these texts to folder/weights; returns folder/base, which points there like
    models/base.
    """
    base, weights = folder / "base", folder / "weights"
    for directory in (base, weights):
        directory.mkdir(parents=True)
    tokenizer = train_tokenizer(texts, 512, max_length)
    config = llama_config(len(tokenizer), 16, layers, 2, 32, max_length)
    save_pocket(weights, build_model(config, seed), tokenizer)
    write_base(base, "path", str(weights), None)
    return base


# ------------------------------------------------------------------------------ pools


def random_pools(count: int = 3, k: int = 4, seed: int = 0) -> list[TokenizedPool]:
    """Prompts of 3 to 20 tokens, each with k candidates of 1 to 7."""
    rng = random.Random(seed)

    def ids(low: int, high: int) -> list[int]:
        return [rng.randrange(3, VOCABULARY) for _ in range(rng.randint(low, high))]

    return [TokenizedPool(str(n), ids(3, 20), [ids(1, 7) for _ in range(k)]) for n in range(count)]


def learnable_pools(count: int, seed: int) -> Pools:
    """Prompts and four candidates of noise, one of which contains token 7 and has reward 1."""
    rng = random.Random(seed)
    pools, rewards = [], []
    for number in range(count):
        right = rng.randrange(4)
        prompt = [rng.randrange(10, 30) for _ in range(rng.randint(3, 8))]
        candidates = [[rng.randrange(10, 30) for _ in range(3)] for _ in range(4)]
        candidates[right][rng.randrange(3)] = RIGHT
        pools.append(TokenizedPool(str(number), prompt, candidates))
        rewards.append([float(slot == right) for slot in range(4)])
    return Pools(pools, torch.tensor(rewards), torch.full((count, 4), 0.25).log())


def pool_row(number: int) -> dict[str, Any]:
    """A row of data/pools: four candidates, the third of them gold."""
    kinds = ["plausible", "corrupted", "gold", "plausible"]
    reward = {"gold": 1.0, "plausible": 0.2, "corrupted": 0.0}
    return {
        "id": f"q{number}",
        "prompt": f"revenue was {number} and cost was {number + 3}",
        "candidates": [
            {
                "text": f'{{"program": ["add({number}, {k})"], "answer": "{number + k}"}}',
                "kind": kind,
                "edit": kind,
                "reward": reward[kind],
                "correct": kind == "gold",
            }
            for k, kind in enumerate(kinds)
        ],
    }


# ------------------------------------------------------------------------------ projects


def write_project(
    folder: Path, rows: Mapping[str, Sequence[Mapping[str, Any]]], **changes: Any
) -> Path:
    """Write a project in which stages of the selector run: params.yaml, data/code, data/pools, a tiny base model and the
    untrained selector of seed 0. changes: to the entry `pocket` in params.yaml.
    """
    values = YAML(typ="safe").load(ROOT / "params.yaml")
    values["evaluate"]["bootstrap"] = 50
    values["selector"]["sft"]["patience"] = None
    values["models"]["pocket"] |= {"max_prompt_tokens": 100, "max_candidate_tokens": 60, **changes}
    YAML().dump(values, folder / "params.yaml")
    for split, own in rows.items():
        write_jsonl(folder / f"data/pools/{split}.jsonl", map(dict, own))
    texts = [text for own in rows.values() for row in own for text in _texts(row)]
    base = write_model(folder / BASE.parent, texts)
    untrained = folder / "models/selector/base/0"
    save_untrained(untrained, load_config(base), read_base(base), seed=0)
    write_digests(folder / "data/code", load_params(folder / "params.yaml"))
    return folder


def _texts(row: Mapping[str, Any]) -> list[str]:
    return [row["prompt"], row["candidates"][0]["text"]]


def contents(folder: Path) -> dict[str, bytes]:
    """The bytes of all files below a folder, by name."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def same_weights(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


def frozen_copy(model: Any) -> dict[str, torch.Tensor]:
    """Copies of the trainable weights, on the model's device."""
    return {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}


# ------------------------------------------------------------------------------------------ colours

COLOURS = ["red", "green", "blue", "white"]
COLOUR_TOKENIZER = train_tokenizer(
    [f"which colour has {colour} ?\n{colour}" for colour in COLOURS] * 4, 420
)
COLOUR_STEP = 8  # rows of an optimizer step


def colour_question(name: str, colour: str) -> dict[str, Any]:
    """An example as written by stage `examples`."""
    return {
        "id": name,
        "question": f"which colour has {colour} ?",
        "prompts": {"direct": f"which colour has {colour} ?"},
        "target": colour,
    }


def colour_task(letters: str = "e") -> Task:
    """Say the colour of the question: an answer earns the share of `letters` in it."""

    def score(text: str, example: Mapping[str, Any]) -> Score:
        status = "scored" if text else "unparseable"
        if example["target"] == "white":
            status = "unscorable"
        share = sum(map(text.count, letters)) / len(text) if status == "scored" else 0.0
        return Score(status == "scored" and text == example["target"], {"share": share}, status)

    return Task(
        examples=lambda params, split, source: [],
        prompt=lambda example, variant="direct": str(example["prompts"][variant]),
        score=score,
    )


COLOUR_TASK = colour_task()
COLOUR_QUESTIONS = [colour_question(str(n), COLOURS[n % 3]) for n in range(24)]


def colour_llama(lora: bool = False, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(COLOUR_TOKENIZER),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
        pad_token_id=COLOUR_TOKENIZER.pad_token_id,
        bos_token_id=COLOUR_TOKENIZER.bos_token_id,
        eos_token_id=COLOUR_TOKENIZER.eos_token_id,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config)
    return add_lora(model, 4, 8, 0.1, "auto", "CAUSAL_LM") if lora else model


def colour_reward(
    task: Task = COLOUR_TASK, kind: type[RewardFunction] = RewardFunction
) -> RewardFunction:
    return kind(task, COLOUR_QUESTIONS, {"share": 1.0})


def colour_pairs() -> list[dict[str, Any]]:
    """For each question, its colour is better than another one."""
    texts = [
        PairText(e["id"], e["prompts"]["direct"], e["target"], COLOURS[(n + 1) % 3])
        for n, e in enumerate(COLOUR_QUESTIONS)
    ]
    return pair_rows(texts, COLOUR_TOKENIZER, 32, 8)[0]


def colour_data(**others: Any) -> Any:
    """The rows of `generator.data.Data`: 16 gold answers, 24 prompts, 24 pairs and 4 of them held out."""
    gold = prompt_completion_rows(COLOUR_QUESTIONS[:16], COLOUR_TOKENIZER, 32, 8)[0]
    prompts = prompt_rows(COLOUR_QUESTIONS, COLOUR_TOKENIZER, 32)[0]
    pairs = {"train": colour_pairs(), "held_out": colour_pairs()[:4]}
    rows = {
        "gold_answers": lambda which="all": gold,
        "prompts": lambda which: prompts,
        "pairs": pairs.__getitem__,
    }
    return SimpleNamespace(**rows | others)


def train_on_colours(
    method: str,
    work: Path,
    model: Any,
    *,
    die_at: int | None = None,
    batch_size: int = COLOUR_STEP,
    accumulation: int = 1,
    evaluate: Any = None,
    report: Any = None,
    data: Any = None,
    task: Task = COLOUR_TASK,
    reward: type[RewardFunction] = RewardFunction,
    seed: int = 3,
    **changes: Any,
) -> History:
    """Train with 4 steps of `COLOUR_STEP` rows, validating at steps 2 and 4."""
    start = frozen_copy(model)

    def distance(model: Any) -> dict[str, float]:
        """The distance that the weights have moved, so that the last ones are the best."""
        torch.rand(7)  # a validation that takes random numbers changes nothing
        moved = float(sum((p - start[n]).abs().sum() for n, p in frozen_copy(model).items()))
        return {"reward": moved, "execution_accuracy": moved}

    def killing(done: int, total: int, shown: Any) -> None:
        if done == die_at and shown:
            raise Killed
        if report is not None:
            report(done, total, shown)

    small = {"learning_rate": 1e-2, "evaluations": 2, "epochs": 2, "steps": 4, "pairs_per_step": 8}
    small |= {"prompts_per_step": 4, "samples": 2, "kl_coef": 0.1}
    small |= {"minibatches": 1, "patience": None}
    run = Run(
        model=model,
        seed=seed,
        work=work,
        evaluate=evaluate or distance,
        report=killing,
        tokenizer=COLOUR_TOKENIZER,
        data=data or colour_data(),
        reward=colour_reward(task, reward),
        sample=sampling.sample,
        in_flight=8,
        max_new_tokens=6,
        batch_size=batch_size,
        accumulation=accumulation,
    )
    module = load_method("generator", method)
    known = {key: value for key, value in small.items() if key in module.Settings.model_fields}
    history: History = module.train(run, settings("generator", method, **known | changes))
    return history


# ------------------------------------------------------------------------------------------- tokens

END = 1  # the token that ends a completion
_RNG = random.Random(0)
TOKEN_PROMPTS = [[_RNG.randrange(8, 16) for _ in range(_RNG.randint(1, 4))] for _ in range(24)]


def token_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer whose words are the token numbers."""
    words = WordLevel({str(number): number for number in range(16)}, unk_token="0")
    tokenizer = Tokenizer(words)
    tokenizer.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def token_model(model_type: str = "llama", **changes: Any) -> Any:
    sizes = {
        "vocab_size": 16,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 64,
        "initializer_range": 0.2,  # wide enough for a frozen head to say anything
    }
    if model_type != "gpt2":
        sizes |= {"num_key_value_heads": 1, "head_dim": 16}
    torch.manual_seed(0)
    config = CONFIG_MAPPING[model_type](**{**sizes, **changes})
    return AutoModelForCausalLM.from_config(config).eval()


def token_completion(ids: list[int]) -> Completion:
    finished = END in ids
    own = ids[: ids.index(END) + 1] if finished else ids
    return Completion(own, " ".join(str(i) for i in own if i != END), finished)


def sample_tokens(
    model: Any,
    tokenizer: Any,
    prompt_ids: Sequence[list[int]],
    *,
    temperatures: Sequence[float],
    max_new_tokens: int,
    top_p: float,
    seed: int,
    batch_size: int,
) -> list[list[Completion]]:
    """Plain sampling without a cache; a text is the token numbers before the end."""
    generator = torch.Generator().manual_seed(seed)
    groups = []
    for prompt in prompt_ids:
        ids = torch.tensor([prompt] * len(temperatures))
        for _ in range(max_new_tokens):
            with torch.no_grad():
                logits = model(input_ids=ids).logits[:, -1]
            chances = torch.softmax(logits / torch.tensor(temperatures)[:, None], dim=-1)
            ids = torch.cat([ids, torch.multinomial(chances, 1, generator=generator)], dim=1)
        groups.append([token_completion(row[len(prompt) :]) for row in ids.tolist()])
    return groups


def share_right(texts: Sequence[str], rows: Sequence[int]) -> list[float]:
    """Share of RIGHT among six tokens."""
    return [text.split().count(str(RIGHT)) / 6 for text in texts]


def right_at_once(model: Any) -> dict[str, float]:
    """The reward of the most likely first token alone."""
    with torch.no_grad():
        firsts = [
            model(input_ids=torch.tensor([p])).logits[0, -1].argmax() for p in TOKEN_PROMPTS[:8]
        ]
    return {"reward": sum(float(first == RIGHT) for first in firsts) / 8}


def token_settings(**changes: Any) -> Any:
    small = {"steps": 6, "prompts_per_step": 8, "samples": 4, "learning_rate": 5.0e-3}
    return settings("generator", "ppo", **small | changes)


def train_on_tokens(
    work: Path,
    *,
    model: Any = None,
    batch_size: int = 8,
    die_at: int | None = None,
    reward: Any = share_right,
    evaluate: Any = right_at_once,
    **changes: Any,
) -> tuple[Any, History]:
    """PPO, 6 steps of 8 prompts and 4 completions each."""
    model = model or token_model()
    rows = [
        {"prompt": " ".join(map(str, ids)), "example": place}
        for place, ids in enumerate(TOKEN_PROMPTS)
    ]

    def report(done: int, total: int, shown: Any) -> None:
        if done == die_at:
            raise Killed

    run = Run(
        model=model,
        seed=3,
        work=work,
        evaluate=evaluate,
        report=report,
        tokenizer=token_tokenizer(),
        data=colour_data(prompts=lambda which: rows),
        reward=SimpleNamespace(rewards=reward),  # type: ignore[arg-type]
        sample=sample_tokens,
        in_flight=32,
        max_new_tokens=6,
        batch_size=batch_size,
    )
    history: History = load_method("generator", "ppo").train(run, token_settings(**changes))
    return model, history
