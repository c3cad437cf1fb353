"""Time saved by sharing the prefill when K completions of one prompt are sampled.

    python benchmarks/sampling.py [--prompt 1000] [--count 8] [--new 40] [--prompts 4] [--repeats 7]

Two ways of sampling K completions of exactly the same length run in turn in one process, on one thread:

    shared  posttrain.rollouts.sampling.sample
    copies  `model.generate(do_sample=True)` of transformers on K copies of each prompt

Prints the medians, their ratio, and the largest difference between the logits of shared decoding and of plain forward
passes.
"""

from __future__ import annotations

import argparse
import platform
import random
import statistics
import time
from collections.abc import Callable

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    LlamaConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from posttrain.rollouts.sampling import Choose, decode_shared, sample

VOCABULARY = 4096
END = 2


def build_model(positions: int) -> PreTrainedModel:
    """A Llama of the pocket model's size with random weights that never writes EOS."""
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=96,
        intermediate_size=288,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=48,
        max_position_embeddings=positions,
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()
    never = torch.zeros(VOCABULARY)
    never[END] = -torch.inf
    model.lm_head.bias = torch.nn.Parameter(never)
    return model


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer with one word per id."""
    words = {f"<{index}>": index for index in range(VOCABULARY)}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(words, unk_token="<0>")), eos_token=f"<{END}>"
    )


def generate_copies(model: PreTrainedModel, prompt: list[int], count: int, new: int) -> None:
    """Sample K completions with transformers' `generate`."""
    ids = torch.tensor([prompt]).repeat(count, 1)
    config = GenerationConfig(
        max_new_tokens=new, do_sample=True, top_k=0, eos_token_id=END, pad_token_id=0
    )
    with torch.inference_mode():
        drawn = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=config
        )
    assert drawn.shape == (count, len(prompt) + new)


def seconds(run: Callable[[], object]) -> float:
    """Wall time of one call, in seconds."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def logit_difference(model: PreTrainedModel, prompt: list[int], count: int, new: int) -> float:
    """Largest difference between the logits of shared decoding and of plain forward passes."""
    generator = random.Random(1)
    forced = torch.tensor(
        [[generator.randrange(3, VOCABULARY) for _ in range(new)] for _ in range(count)]
    )
    seen: list[torch.Tensor] = []

    def record(logits: torch.Tensor, rows: torch.Tensor, step: int) -> torch.Tensor:
        seen.append(logits[0])
        return forced[None, :, step]

    choose: Choose = record
    with torch.inference_mode():
        decode_shared(model, [prompt], count, new, [END], choose)
        ids = torch.cat([torch.tensor([prompt]).repeat(count, 1), forced], dim=1)
        plain = model(input_ids=ids).logits[:, len(prompt) - 1 : -1]
    known = [i for i in range(VOCABULARY) if i != END]
    return float((torch.stack(seen, dim=1)[..., known] - plain[..., known]).abs().max())


def main() -> None:
    """Print the comparison."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--prompt", type=int, default=1000, help="prompt tokens")
    parser.add_argument("--count", type=int, default=8, help="K, completions per prompt")
    parser.add_argument("--new", type=int, default=40, help="tokens per completion")
    parser.add_argument("--prompts", type=int, default=4, help="prompts per call")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = build_model(options.prompt + options.new)
    tokenizer = build_tokenizer()
    generator = random.Random(0)
    prompts = [
        [generator.randrange(3, VOCABULARY) for _ in range(options.prompt)]
        for _ in range(options.prompts)
    ]

    def shared() -> None:
        groups = sample(
            model, tokenizer, prompts, temperatures=[1.0] * options.count,
            max_new_tokens=options.new, top_p=1.0, seed=0, batch_size=options.count,
        )  # fmt: skip
        assert all(len(each.ids) == options.new for group in groups for each in group)

    def copies() -> None:
        for prompt in prompts:
            generate_copies(model, prompt, options.count, options.new)

    difference = logit_difference(model, prompts[0], options.count, options.new)
    times: dict[str, list[float]] = {"shared": [], "copies": []}
    for _ in range(options.repeats + 1):
        times["shared"].append(seconds(shared))
        times["copies"].append(seconds(copies))
    own, others = (statistics.median(each[1:]) / len(prompts) for each in times.values())
    print(f"torch {torch.__version__}, {platform.machine()}, {torch.get_num_threads()} thread")
    print(
        f"{options.count} completions of {options.new} tokens on a prompt of {options.prompt}: "
        f"shared {own * 1e3:.0f} ms  copies {others * 1e3:.0f} ms  ratio {others / own:.2f}x  "
        f"largest logit difference {difference:.1e}"
    )


if __name__ == "__main__":
    main()
