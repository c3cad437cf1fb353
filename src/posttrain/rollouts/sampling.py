"""Sampling completions from a generator; the completions of one prompt share its prefill.

    y_t ~ top_p(softmax(logits(x, y_<t) / temperature))      nucleus sampling, Holtzman et al. 2020

Each prompt is read once. A decoding step then reads one token of each of its completions, side by side in one row. A
mask lets a token see the real prompt tokens and the earlier tokens of its own completion, and positions continue from
the row's own prompt length. So the prompt's keys and values are neither computed nor stored per completion, and the
logits equal those of prompt + completion alone, up to rounding. A prompt whose completions have all ended leaves the
batch.

A token is sampled by inverting the distribution's cumulative sum at a uniform number. Each prompt has its own numbers,
from a generator seeded by (seed, key of the prompt), by default its index, so completions depend neither on the batch
size nor on the global random state.

Where the prefix cannot be shared (architectures not in `SHARED_PREFIX`, a sliding window shorter than prompt and
completion), `generate` of transformers decodes every completion on a left-padded copy of its prompt, with the same
uniform numbers.

Left out: beam search, penalties, stop strings, constrained decoding. For the same function on another engine see
`rollouts.engines`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
    TopPLogitsWarper,
)
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from posttrain.core import processes
from posttrain.core.errors import DivergedError, UserError
from posttrain.core.loop import evaluating
from posttrain.models.architecture import SHARED_PREFIX, sliding_window
from posttrain.models.load import max_positions
from posttrain.models.lora import merged
from posttrain.models.tokens import decode_answer, pad, special_ids
from posttrain.rollouts.writer import Generator

Engine = Literal["transformers", "vllm"]
BatchSize = int | Literal["auto"]

# Tokens of prompts that are read in one pass: what a CPU's cache holds of a small model, and what keeps a GPU busy.
PREFILL_TOKENS = {"cpu": 4096}
MAX_PREFILL_TOKENS = 32768

# Completions in flight where params.yaml leaves it to the memory: more make a CPU no faster, nor a GPU much.
ON_A_CPU, MOST = 128, 1024


@dataclass(frozen=True, slots=True)
class Completion:
    """Token ids, with EOS if there is one; the text, without separator and EOS; and whether it has an EOS.

    In a chat EOS is the end of the turn, and the text is without the thoughts before the answer. The text is empty if
    there is another special token among the ids, so that no scorer reads an answer around it. Its name written in
    ordinary tokens (`<pad>`) is text.
    """

    ids: list[int]
    text: str
    finished: bool


class Sampler(Protocol):
    """`sample` of this module, or of another engine."""

    def __call__(
        self,
        model: Generator,
        tokenizer: PreTrainedTokenizerBase,
        prompt_ids: Sequence[list[int]],
        *,
        temperatures: Sequence[float],
        max_new_tokens: int,
        top_p: float,
        seed: int,
        batch_size: BatchSize,
        keys: Sequence[str] | None = None,
    ) -> list[list[Completion]]: ...


# From logits (B, K, V) of the next token, the rows of the batch that they belong to (B,), and the step, to ids (B, K).
Choose = Callable[[Tensor, Tensor, int], Tensor]


def sample(
    model: Generator,
    tokenizer: PreTrainedTokenizerBase,
    prompt_ids: Sequence[list[int]],
    *,
    temperatures: Sequence[float],
    max_new_tokens: int,
    top_p: float,
    seed: int,
    batch_size: BatchSize,
    keys: Sequence[str] | None = None,
) -> list[list[Completion]]:
    """A completion of each prompt at each of the temperatures, in the order of both.

    Temperature 0 takes the most likely token at every step. At most `batch_size` completions are in flight at a time, but
    always all of one prompt; auto: as many as `affordable` says. keys: one for each prompt, from which and `seed` its random
    numbers derive; by default its index. The model is in evaluation mode meanwhile, without gradients. Several processes,
    called with the same prompts, share them, and each gets all completions. `UserError` if a prompt with its completion
    exceeds the model's positions.
    """
    ends = end_tokens(model, tokenizer)
    count = len(temperatures)
    check_request(model.config, prompt_ids, count, max_new_tokens)
    order = sorted(range(len(prompt_ids)), key=lambda index: (len(prompt_ids[index]), index))
    if batch_size == "auto":
        longest = max(map(len, prompt_ids), default=0)
        batch_size = affordable(model, longest, count, max_new_tokens, _free_memory(_device(model)))
    size = max(1, batch_size // count)
    own: list[tuple[int, list[Completion]]] = []
    share_prefill = can_share(model.config, max(map(len, prompt_ids), default=0) + max_new_tokens)
    decode = decode_shared if share_prefill else decode_apart
    # Weights that FSDP gathers in inference mode could not be trained afterwards.
    without_gradients = torch.no_grad() if processes.sharded() else torch.inference_mode()
    # Sharded weights are whole only while their layer computes.
    adapters = nullcontext() if processes.sharded() else merged(model)
    with evaluating(model), without_gradients, adapters:
        for batch, counts in processes.share(processes.batches(order, size)):
            prompts = [prompt_ids[index] for index in batch]
            own_keys = [index if keys is None else keys[index] for index in batch]
            choose = chooser(temperatures, top_p, seed, own_keys, max_new_tokens, _device(model))
            drawn = decode(model, prompts, count, max_new_tokens, ends, choose).tolist()
            if not counts:
                continue
            for index, rows in zip(batch, drawn, strict=True):
                own.append((index, [complete(row, ends, tokenizer) for row in rows]))
    return [completions for _, completions in sorted(processes.collect(own), key=itemgetter(0))]


def greedy(
    model: Generator,
    tokenizer: PreTrainedTokenizerBase,
    prompt_ids: Sequence[list[int]],
    *,
    max_new_tokens: int,
    batch_size: BatchSize,
    sample: Sampler = sample,
) -> list[Completion]:
    """The completion of each prompt that takes the most likely token at every step."""
    groups = sample(
        model,
        tokenizer,
        prompt_ids,
        temperatures=[0.0],
        max_new_tokens=max_new_tokens,
        top_p=1.0,
        seed=0,
        batch_size=batch_size,
    )
    return [completion for (completion,) in groups]


def can_share(config: PreTrainedConfig, length: int) -> bool:
    """Whether completions can share a prefill, where prompt and completion have at most `length` tokens."""
    window = sliding_window(config)
    return config.model_type in SHARED_PREFIX and (window is None or length <= window)


def affordable(
    model: Generator, prompt: int, count: int, max_new_tokens: int, free: int | None
) -> int:
    """Completions in flight that take half of `free` bytes of a GPU's memory; without a GPU, `ON_A_CPU`.

    A completion takes the keys and values of its tokens and of its part of a prompt, and what choosing a token takes. With
    `prompt` tokens, and `count` completions of each.
    """
    if free is None:
        return ON_A_CPU
    config, dtype = model.config, next(model.parameters()).dtype
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    per_token = 2 * config.num_hidden_layers * heads * size * dtype.itemsize
    columns = max_new_tokens + -(-prompt // count)
    # The mask, and logits in float32 twice, probabilities, and their sums in float64.
    per_completion = columns * per_token + count * columns * dtype.itemsize
    per_completion += 5 * 4 * config.vocab_size
    return max(1, min(MOST, int(free // 2 // per_completion)))


def _free_memory(device: torch.device) -> int | None:
    """Bytes that this process can still take of a GPU; None for a CPU."""
    if device.type != "cuda":
        return None
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0]) + unused


def decode_shared(
    model: Generator,
    prompts: Sequence[list[int]],
    count: int,
    max_new_tokens: int,
    ends: Sequence[int],
    choose: Choose,
) -> Tensor:
    """Ids (B, K, T) of `count` completions per prompt, each filled up with the first of `ends` after any of them."""
    device = _device(model)
    end, all_ends = ends[0], torch.tensor(ends, device=device)
    # The prompt's last token is the first one read in decoding, once per completion, so that all steps are alike
    # whatever the prompts' lengths.
    ids, real = (tensor.to(device) for tensor in pad([prompt[:-1] for prompt in prompts]))
    last = torch.tensor([prompt[-1:] for prompt in prompts], device=device)
    width = ids.shape[1]
    capacity = width + count * max_new_tokens
    cache = _prefill(model, ids, real, capacity)
    mask = _block_mask(real, count, max_new_tokens, next(model.parameters()).dtype)
    positions = real.sum(dim=1, keepdim=True).expand(-1, count)
    rows = torch.arange(len(prompts), device=device)
    drawn = torch.full((len(prompts), count, max_new_tokens), end, device=device)
    fed = last.expand(-1, count)
    ended = torch.zeros_like(fed, dtype=torch.bool)
    for step in range(max_new_tokens):
        logits = model(
            input_ids=fed,
            attention_mask=mask[..., : width + (step + 1) * count],
            position_ids=positions + step,
            past_key_values=cache,
            use_cache=True,
        ).logits
        fed = choose(logits.float(), rows, step).masked_fill(ended, end)
        drawn[rows, :, step] = fed
        ended = ended | torch.isin(fed, all_ends)
        running = (~ended).any(dim=1)
        left = int(running.sum())
        if processes.all_agree(left == 0):
            break
        # Dropping rows copies the cache, so it waits until it halves the work.
        if 0 < 2 * left <= len(rows):
            fed, ended, positions = fed[running], ended[running], positions[running]
            mask, rows = mask[running], rows[running]
            for layer in cache.layers:
                layer.batch_select_indices(running)
    return drawn


def decode_apart(
    model: Generator,
    prompts: Sequence[list[int]],
    count: int,
    max_new_tokens: int,
    ends: Sequence[int],
    choose: Choose,
) -> Tensor:
    """Like `decode_shared`, but with a copy of the prompt for every completion, by `model.generate`."""
    reversed_ids, reversed_real = pad([prompt[::-1] for prompt in prompts])
    ids = reversed_ids.flip(1).repeat_interleave(count, dim=0).to(_device(model))
    real = reversed_real.flip(1).repeat_interleave(count, dim=0).to(_device(model))
    config = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,  # `choose` leaves one token
        num_beams=1,
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
        eos_token_id=list(ends),
        pad_token_id=ends[0],
    )
    chosen = model.generate(
        input_ids=ids,
        attention_mask=real.long(),
        generation_config=config,
        synced_gpus=processes.sharded(),
        logits_processor=LogitsProcessorList([_Chosen(choose, len(prompts), ids.shape[1])]),
    )[:, ids.shape[1] :]
    drawn = torch.full((len(ids), max_new_tokens), ends[0], device=ids.device)
    drawn[:, : chosen.shape[1]] = chosen
    return drawn.view(len(prompts), count, max_new_tokens)


def draw_uniforms(seed: int, keys: Sequence[int | str], count: int, steps: int) -> Tensor:
    """Uniform random numbers (B, K, T) in [0, 1), from a seed of its own for each key."""
    rows = []
    for key in keys:
        generator = torch.Generator()
        generator.manual_seed(random.Random(f"{seed}/{key}").getrandbits(63))
        rows.append(torch.rand((count, steps), generator=generator, dtype=torch.float64))
    return torch.stack(rows)


def end_tokens(model: Generator, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The ids that end a completion: first the one that training teaches, then the others.

    These are the tokenizer's EOS and those that the model's own settings name, as a chat model may end an answer by the
    end of a turn or of a text. They count where the tokenizer has an added token for them. `UserError` if the tokenizer
    has no EOS.
    """
    end = special_ids(tokenizer).end
    if not end:
        raise UserError("the tokenizer has no EOS token, so no completion could end")
    own = model.generation_config.eos_token_id
    others = [tokenizer.eos_token_id, *(own if isinstance(own, list) else [own])]
    added = tokenizer.added_tokens_decoder
    return list(dict.fromkeys([*end, *(id for id in others if id in added)]))


def check_request(
    config: PreTrainedConfig, prompt_ids: Sequence[list[int]], count: int, max_new_tokens: int
) -> None:
    """`UserError` if a prompt is empty, or a completion would exceed the model's positions."""
    if count < 1 or max_new_tokens < 1:
        raise ValueError(f"count {count} and max_new_tokens {max_new_tokens} must be positive")
    limit = max_positions(config)
    for index, prompt in enumerate(prompt_ids):
        if not prompt:
            raise UserError(f"prompt {index} is empty, and this tokenizer starts with no special")
        if limit is not None and len(prompt) + max_new_tokens > limit:
            raise UserError(
                f"prompt {index} has {len(prompt)} tokens, with {max_new_tokens} new ones more "
                f"than the {limit} positions of {config.model_type}"
            )


def complete(
    ids: Sequence[int], ends: Sequence[int], tokenizer: PreTrainedTokenizerBase
) -> Completion:
    """The completion in `ids`: all up to the first of `ends`, which belongs to it."""
    length = next((place for place, id in enumerate(ids) if id in ends), None)
    finished = length is not None
    written = list(ids[:length])
    own = list(ids[: length + 1]) if length is not None else written
    return Completion(own, decode_answer(written, tokenizer), finished)


class _BufferLayer(DynamicLayer):  # type: ignore[misc]
    """Keys and values of one layer in a buffer of their final size.

    A step writes its own tokens and copies nothing, where `DynamicLayer` copies the whole prompt.
    """

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity = capacity

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        super().lazy_initialization(key_states, value_states)
        self.key_buffer = self._empty(key_states, len(key_states))
        self.value_buffer = self._empty(value_states, len(value_states))
        self._show(0)

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.keys.shape[2]
        stop = start + key_states.shape[2]
        self.key_buffer[:, :, start:stop] = key_states
        self.value_buffer[:, :, start:stop] = value_states
        self._show(stop)
        return self.keys, self.values

    def put(self, keys: Tensor, values: Tensor, part: slice, rows: int, width: int) -> None:
        """Take over the first tokens of some of the rows, with zeros up to `width`."""
        if not self.is_initialized:
            super().lazy_initialization(keys, values)
            self.key_buffer, self.value_buffer = self._empty(keys, rows), self._empty(values, rows)
            self._show(width)
        missing = (0, 0, 0, width - keys.shape[2])
        self.keys[part] = nn.functional.pad(keys, missing)
        self.values[part] = nn.functional.pad(values, missing)

    def batch_select_indices(self, indices: Tensor) -> None:
        self.key_buffer = self.key_buffer[indices]
        self.value_buffer = self.value_buffer[indices]
        self._show(self.keys.shape[2])

    def _empty(self, states: Tensor, rows: int) -> Tensor:
        _, heads, _, size = states.shape
        return states.new_empty((rows, heads, self.capacity, size))

    def _show(self, length: int) -> None:
        self.keys = self.key_buffer[:, :, :length]
        self.values = self.value_buffer[:, :, :length]


class _Chosen(LogitsProcessor):  # type: ignore[misc]
    """Leaves the chosen token as the only possible one."""

    def __init__(self, choose: Choose, prompts: int, width: int) -> None:
        self.choose = choose
        self.prompts = prompts
        self.width = width

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        rows = torch.arange(self.prompts, device=scores.device)
        grouped = scores.float().view(self.prompts, -1, scores.shape[-1])
        chosen = self.choose(grouped, rows, input_ids.shape[1] - self.width)
        return torch.full_like(scores, -torch.inf).scatter(1, chosen.reshape(-1, 1), 0.0)


def _prefill(model: Generator, ids: Tensor, real: Tensor, capacity: int) -> Cache:
    """Keys and values of prompts `ids`, of which `real` tells the pads, in buffers for `capacity` tokens of each."""
    cache = Cache(layer_class_to_replicate=partial(_BufferLayer, capacity))
    rows, width = ids.shape
    if not width:
        return cache
    # Where weights are sharded, all processes must make as many passes.
    tokens = PREFILL_TOKENS.get(ids.device.type, MAX_PREFILL_TOKENS)
    size = rows if processes.sharded() else max(1, tokens // width)
    for start in range(0, rows, size):
        part = slice(start, start + size)
        widest = max(1, int(real[part].sum(dim=1).max()))
        read = DynamicCache()
        # No mask is needed: pads are on the right, and the mask of the decoding hides them.
        some = ids[part, :widest]
        model(input_ids=some, past_key_values=read, use_cache=True, logits_to_keep=1)
        for number, layer in enumerate(read.layers):
            if number == len(cache.layers):
                cache.layers.append(_BufferLayer(capacity))
            cache.layers[number].put(layer.keys, layer.values, part, rows, width)
    return cache


def _block_mask(real: Tensor, count: int, steps: int, dtype: torch.dtype) -> Tensor:
    """Additive mask (B, 1, K, P + T K) of all steps: a token sees the real prompt tokens and its own completion.

    Step t needs only the first P + (t + 1) K columns.
    """
    own = torch.eye(count, dtype=torch.bool, device=real.device).repeat(1, steps)
    allowed = torch.cat(
        [real[:, None].expand(-1, count, -1), own[None].expand(len(real), -1, -1)], dim=-1
    )[:, None]
    mask = torch.zeros(allowed.shape, dtype=dtype, device=real.device)
    return mask.masked_fill(~allowed, torch.finfo(dtype).min)


def chooser(
    temperatures: Sequence[float],
    top_p: float,
    seed: int,
    keys: Sequence[int | str],
    steps: int,
    device: torch.device,
) -> Choose:
    """Chooses the tokens of the prompts with these keys at the temperature of each of their completions."""
    sampled = [column for column, each in enumerate(temperatures) if each > 0]
    uniforms = draw_uniforms(seed, keys, len(sampled), steps).to(device)
    scale = torch.tensor([temperatures[column] for column in sampled], device=device)

    def choose(logits: Tensor, rows: Tensor, step: int) -> Tensor:
        largest, ids = logits.max(dim=-1)
        if not bool(torch.isfinite(largest).all()):
            raise DivergedError("the generator's logits are not finite")
        if sampled:
            tempered = logits[:, sampled] / scale[:, None]
            ids[:, sampled] = _inverted(tempered, uniforms[rows, :, step], top_p)
        return ids

    return choose


def _inverted(logits: Tensor, uniforms: Tensor, top_p: float) -> Tensor:
    """The token (B, K) of logits (B, K, V) at which the cumulative sum reaches the uniform number (B, K)."""
    flat = logits.flatten(0, 1)
    if top_p < 1.0:
        flat = TopPLogitsWarper(top_p)(flat, flat)
    cumulative = flat.softmax(dim=-1).double().cumsum(dim=-1)
    threshold = uniforms.reshape(-1, 1) * cumulative[:, -1:]
    # `right` passes over tokens of probability 0, which add nothing to the sum.
    ids = torch.searchsorted(cumulative, threshold, right=True).clamp(max=flat.shape[-1] - 1)
    return ids.view(logits.shape[:2])


def _device(model: Generator) -> torch.device:
    device: torch.device = next(model.parameters()).device
    return device
