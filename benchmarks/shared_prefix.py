"""Time saved in training the selector by sharing the prompt, and by batches of similar length.

    python benchmarks/shared_prefix.py [--prompt 1000] [--candidates 8] [--answer 40] [--common 8] [--repeats 7]

Both comparisons time forward and backward passes in one process, the two ways in turn, and print medians and ratio.

    shared prefix   reading the prompt and the candidates' common beginning once, against K sequences of prompt and
                    candidate. The ratio in tokens is K (P + C) / (P + c + K (C - c)); the sample data has P = 204,
                    C = 30 and c = 9
    length buckets  one epoch of pools of mixed length in batches of similar length, against random batches
"""

from __future__ import annotations

import argparse
import platform
import random
import statistics
import time
from collections.abc import Callable, Sequence

import torch
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, PreTrainedConfig

from posttrain.models.tokens import length_buckets
from posttrain.selector.batch import PoolBatch, TokenizedPool, collate
from posttrain.selector.model import Encoding, Selector

VOCABULARY = 2048


def architectures(positions: int) -> dict[str, PreTrainedConfig]:
    """A pocket-sized Llama and GPT-2, without dropout."""
    llama = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=positions,
    )
    gpt2 = GPT2Config(
        vocab_size=VOCABULARY,
        n_embd=128,
        n_layer=4,
        n_head=4,
        n_positions=positions,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=1,
        eos_token_id=2,
    )
    return {"llama": llama, "gpt2": gpt2}


def make_pool(
    generator: random.Random, prompt: int, answers: Sequence[int], common: int
) -> TokenizedPool:
    """A pool of random tokens with these lengths, whose candidates share their first `common` tokens."""

    def ids(length: int) -> list[int]:
        return [generator.randrange(3, VOCABULARY) for _ in range(length)]

    start = ids(common)
    return TokenizedPool("random", ids(prompt), [start + ids(n - common) for n in answers])


def step(selector: Selector, batch: PoolBatch, encode: Callable[[PoolBatch], Encoding]) -> float:
    """Seconds of one forward and backward pass."""
    start = time.perf_counter()
    logits = selector.output(encode(batch)).logits
    loss = -logits.log_softmax(dim=1)[:, 0].mean()
    torch.autograd.backward(loss)
    selector.zero_grad()
    return time.perf_counter() - start


def compare_prefix(
    config: PreTrainedConfig, prompt: int, k: int, answer: int, common: int, repeats: int
) -> tuple[float, float, float]:
    """Median seconds with a shared prefix and separately, and the largest difference between the logits."""
    torch.manual_seed(0)
    selector = Selector(AutoModelForCausalLM.from_config(config, attn_implementation="sdpa"))
    batch = collate([make_pool(random.Random(0), prompt, [answer] * k, common)])
    with torch.no_grad():
        shared = selector.output(selector.encode_shared(batch)).logits
        separate = selector.output(selector.encode_separately(batch)).logits
    difference = float((shared - separate).abs().max())
    seconds: dict[str, list[float]] = {"shared": [], "separate": []}
    for _ in range(repeats + 1):
        seconds["shared"].append(step(selector, batch, selector.encode_shared))
        seconds["separate"].append(step(selector, batch, selector.encode_separately))
    return (
        statistics.median(seconds["shared"][1:]),
        statistics.median(seconds["separate"][1:]),
        difference,
    )


def compare_buckets(
    config: PreTrainedConfig, pools: int, k: int, common: int, batch_size: int, repeats: int
) -> tuple[float, float, float, float]:
    """Median seconds of an epoch in buckets and in random batches, and the share of padding in the prompts of each."""
    torch.manual_seed(0)
    selector = Selector(AutoModelForCausalLM.from_config(config, attn_implementation="sdpa"))
    generator = random.Random(0)
    rows = [
        make_pool(
            generator,
            min(1000, int(generator.lognormvariate(5.5, 0.6))),
            [generator.randint(20, 40)] * k,
            common,
        )
        for _ in range(pools)
    ]
    buckets = length_buckets([row.length for row in rows], batch_size, seed=0)
    order = generator.sample(range(pools), pools)
    at_random = [order[i : i + batch_size] for i in range(0, pools, batch_size)]
    batches = {
        name: [collate([rows[i] for i in indices]) for indices in plan]
        for name, plan in (("buckets", buckets), ("random", at_random))
    }
    seconds: dict[str, list[float]] = {"buckets": [], "random": []}
    for _ in range(repeats):
        for name, plan in batches.items():
            seconds[name].append(sum(step(selector, b, selector.encode_shared) for b in plan))
    padding = {
        name: 1
        - sum(int(b.prompt_mask.sum()) for b in plan) / sum(b.prompt_mask.numel() for b in plan)
        for name, plan in batches.items()
    }
    return (
        statistics.median(seconds["buckets"]),
        statistics.median(seconds["random"]),
        padding["buckets"],
        padding["random"],
    )


def main() -> None:
    """Print both comparisons."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--prompt", type=int, default=1000, help="prompt tokens")
    parser.add_argument("--candidates", type=int, default=8, help="K")
    parser.add_argument("--answer", type=int, default=40, help="tokens per candidate")
    parser.add_argument("--common", type=int, default=8, help="first tokens the candidates share")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    k, prompt = options.candidates, options.prompt
    answer, common = options.answer, options.common
    print(f"torch {torch.__version__}, {platform.machine()}, {torch.get_num_threads()} threads")
    ratio = k * (prompt + answer) / (prompt + common + k * (answer - common))
    print(
        f"shared prefix: {prompt} prompt tokens, K={k}, {answer} each of which {common} in common; "
        f"token ratio {ratio:.2f}"
    )
    for name, config in architectures(prompt + answer).items():
        shared, separate, difference = compare_prefix(
            config, prompt, k, answer, common, options.repeats
        )
        print(
            f"  {name:<6} shared {shared * 1e3:7.1f} ms  separate {separate * 1e3:7.1f} ms  "
            f"ratio {separate / shared:.2f}x  largest logit difference {difference:.1e}"
        )
    print("length buckets: 64 pools, prompts log-normal (median 245, at most 1000), batches of 8")
    config = architectures(1100)["llama"]
    bucketed, at_random, pad, random_pad = compare_buckets(config, 64, k, common, 8, 3)
    print(
        f"  llama  buckets {bucketed:.2f} s ({pad:.0%} padding)  random {at_random:.2f} s "
        f"({random_pad:.0%} padding)  ratio {at_random / bucketed:.2f}x"
    )


if __name__ == "__main__":
    main()
