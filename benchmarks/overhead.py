"""What this project adds to a model's own forward and backward passes, where overhead is all there is.

    python benchmarks/overhead.py [--layers 30] [--width 48] [--tokens 64] [--rounds 5] [--threads 1]

In a deep and narrow Llama of random weights the arithmetic costs next to nothing, so that the time is that of launching
operations: on a CPU it shows what a larger model costs on a GPU. In one process, in turn:

    decode    a token of four answers to each of four prompts: `rollouts.sampling.sample`
              against bare forward passes with transformers' own cache, without choosing the tokens
    train     an optimizer step on eight rows: SFT as TRL's trainer runs it here
              against forward, cross-entropy, backward, clipping and AdamW of the bare model
    PPO       an optimizer step on a rollout of two prompts with four answers each
              against the same bare step on these eight rows

each with all weights trained, and with LoRA (r = 64 on every projection) against the same bare model without it. The
last lines are ratios of medians.
"""

from __future__ import annotations

import argparse
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import (
    AutoModelForCausalLM,
    DynamicCache,
    LlamaConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from posttrain.core.methods import load_method, settings_of
from posttrain.core.params import load_params
from posttrain.generator import on_policy, trl
from posttrain.generator.data import IGNORED
from posttrain.generator.methods import ppo
from posttrain.generator.run import Run
from posttrain.models.lora import add_lora
from posttrain.rollouts.critic import Critic
from posttrain.rollouts.episode import completion_episode
from posttrain.rollouts.sampling import sample
from posttrain.rollouts.writer import Generator

ROOT = Path(__file__).resolve().parent.parent
VOCABULARY = 512
END = 2
PROMPTS, COUNT, PROMPT = 4, 4, 32  # of decoding: prompts, answers to each, tokens of a prompt
ROWS, QUESTION, ANSWER = 4, 8, 8  # of training: rows, tokens of a question and of an answer
STEPS = 6  # of a training per round, the first of which does not count


def build_model(layers: int, width: int, rank: int = 0) -> Generator:
    """A Llama with random weights that never writes EOS."""
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=3,
        num_key_value_heads=3,
        head_dim=16,
        max_position_embeddings=1024,
        eos_token_id=END,
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()
    never = torch.zeros(VOCABULARY)
    never[END] = -1e4
    model.lm_head.bias = nn.Parameter(never)
    return add_lora(model, rank, 2 * rank, 0.0, "auto", "CAUSAL_LM").eval() if rank else model


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer with one word per id."""
    words = {f"<{index}>": index for index in range(VOCABULARY)}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(words, unk_token="<0>")),
        eos_token=f"<{END}>",
        pad_token="<0>",
    )


def random_ids(rows: int, length: int) -> list[list[int]]:
    generator = random.Random(0)
    return [[generator.randrange(3, VOCABULARY) for _ in range(length)] for _ in range(rows)]


def seconds(run: Callable[[], object]) -> float:
    """Processor time of one call: other processes of the machine do not count."""
    start = time.process_time()
    run()
    return time.process_time() - start


# ------------------------------------------------------------------------------ decoding


def decode_bare(model: PreTrainedModel, prompts: Sequence[list[int]], tokens: int) -> None:
    """Forward passes alone: the prompts, then one token of each row at a time."""
    cache, fed = DynamicCache(), torch.tensor(prompts).repeat_interleave(COUNT, dim=0)
    with torch.inference_mode():
        for _ in range(tokens):
            model(input_ids=fed, past_key_values=cache, use_cache=True, logits_to_keep=1)
            fed = fed[:, :1]


def decode(model: Generator, prompts: Sequence[list[int]], tokens: int) -> None:
    """The project's sampling."""
    groups = sample(
        model,
        build_tokenizer(),
        prompts,
        temperatures=[1.0] * COUNT,
        max_new_tokens=tokens,
        top_p=1.0,
        seed=0,
        batch_size=PROMPTS * COUNT,
    )
    assert all(len(each.ids) == tokens for group in groups for each in group)


# ------------------------------------------------------------------------------ training


def train_bare(model: PreTrainedModel) -> list[float]:
    """Seconds of each step on rows of one length."""
    model.requires_grad_(True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-9)
    ids = torch.tensor(random_ids(ROWS, QUESTION + ANSWER))

    def step() -> None:
        optimizer.zero_grad()
        logits = model(input_ids=ids, use_cache=False, logits_to_keep=ANSWER + 1).logits[:, :-1]
        loss: Tensor = cross_entropy(logits.flatten(0, 1), ids[:, QUESTION:].flatten())
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        float(loss.detach())

    return [seconds(step) for _ in range(STEPS)][1:]


def make_run(model: Generator, work: str, report: Callable[..., None]) -> Run:
    """A training on rows of one length, without validation."""
    rows = [
        {"input_ids": ids, "labels": [IGNORED] * QUESTION + ids[QUESTION:]}
        for ids in random_ids(ROWS * STEPS, QUESTION + ANSWER)
    ]
    return Run(
        model=model,
        seed=0,
        work=Path(work),
        evaluate=lambda model: {"execution_accuracy": 0.0},
        report=report,
        tokenizer=build_tokenizer(),
        data=SimpleNamespace(gold_answers=lambda: rows),  # type: ignore[arg-type]
        reward=None,  # type: ignore[arg-type]
        sample=sample,
        in_flight=PROMPTS * COUNT,
        max_new_tokens=ANSWER,
        batch_size=ROWS,
    )


def train_sft(model: Generator) -> list[float]:
    """Seconds of each optimizer step of the project's SFT, all that lies between two of them included."""
    times: list[float] = []

    def report(done: int, total: int, shown: object) -> None:
        times.append(time.process_time())

    params = load_params(ROOT / "params.yaml")
    method: Any = load_method("generator", "sft")
    settings = settings_of(params, "generator", "sft", method)
    small = {"epochs": 1, "learning_rate": 1e-9, "evaluations": 1}
    # The checkpoint of the last step, which is not written.
    trl.SAVES = 1  # type: ignore[attr-defined]
    with tempfile.TemporaryDirectory() as work:
        method.train(make_run(model, work, report), settings.model_copy(update=small))
    return [later - earlier for earlier, later in pairwise(times[1:])]


def train_ppo(model: Generator) -> list[float]:
    """Seconds of each of PPO's optimizer steps on one rollout."""
    params = load_params(ROOT / "params.yaml")
    settings = settings_of(params, "generator", "ppo", load_method("generator", "ppo"))
    settings = settings.model_copy(update={"inner_epochs": 1, "learning_rate": 1e-9, "steps": 9})
    count = ROWS // 2
    prompts, answers = random_ids(2, QUESTION), random_ids(ROWS, ANSWER)
    episodes = [
        completion_episode(prompts[row // count], ids, float(row % 3))
        for row, ids in enumerate(answers)
    ]
    parameters = [p for p in model.parameters() if p.requires_grad]
    reference = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
    critic = Critic(int(model.config.hidden_size), 2, torch.device("cpu"))
    credit = partial(ppo.credit, critic, settings)
    made, _ = on_policy.rollout(
        model, reference, episodes, settings, ROWS, credit, with_states=True
    )
    optimizer = torch.optim.AdamW(parameters)
    step = lambda: on_policy.take_steps(model, optimizer, made, settings, on_policy.Terms(), 0)  # noqa: E731
    return [seconds(step) for _ in range(STEPS)][1:]


# ------------------------------------------------------------------------------ table


def measure(layers: int, width: int, rank: int, tokens: int, rounds: int) -> dict[str, float]:
    """Median seconds of a decoded token and of a training step, by name."""
    prompts = random_ids(PROMPTS, PROMPT)

    def decoding(run: Callable[..., None], model: Generator) -> list[float]:
        run(model, prompts, 2)
        return [seconds(lambda: run(model, prompts, tokens)) / tokens]

    whole = partial(build_model, layers, width)
    lora = partial(build_model, layers, width, rank)
    kinds: dict[str, Callable[[], list[float]]] = {
        "bare decode": lambda: decoding(decode_bare, whole()),
        "decode": lambda: decoding(decode, whole()),
        "decode with LoRA": lambda: decoding(decode, lora()),
        "bare train": lambda: train_bare(whole()),
        "train": lambda: train_sft(whole()),
        "train with LoRA": lambda: train_sft(lora()),
        "PPO": lambda: train_ppo(whole()),
        "PPO with LoRA": lambda: train_ppo(lora()),
    }
    found: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(rounds):
        for name, kind in kinds.items():
            found[name] += kind()
    return {name: statistics.median(each) for name, each in found.items()}


def lines(found: dict[str, float]) -> list[str]:
    """Milliseconds of each, then the ratios."""
    bare = {"decode": found["bare decode"]}
    table = [f"{name:<18}{1e3 * value:8.1f} ms" for name, value in found.items()]
    ratios = [
        f"{name} {value / bare.get(name.split()[0], found['bare train']):.2f}x"
        for name, value in found.items()
        if not name.startswith("bare")
    ]
    return [*table, *ratios]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--layers", type=int, default=30)
    parser.add_argument("--width", type=int, default=48)
    parser.add_argument("--rank", type=int, default=8, help="of the adapters")
    parser.add_argument("--tokens", type=int, default=64, help="tokens of a decoded answer")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    found = measure(options.layers, options.width, options.rank, options.tokens, options.rounds)
    print(f"torch {torch.__version__}, {platform.machine()}, {options.threads} thread(s)")
    print("\n".join(lines(found)))


if __name__ == "__main__":
    main()
