"""Completions drawn from a generator; the `count` completions of one prompt share its prefill.

    y_t ~ top_p(softmax(logits(x, y_<t) / temperature))      nucleus sampling, Holtzman et al. 2020

Each prompt is read once. A decoding step then feeds one token of each of its completions as
neighbours in one row, under a mask that lets a token see the real prompt tokens and the earlier
tokens of its own completion, and positions continue from the row's own prompt length. So the
prompt's keys and values are neither computed nor stored per completion, and the logits equal those
of prompt + completion alone (up to rounding). A prompt whose completions have all ended leaves the
batch.

A token is found by inverting the distribution's cumulative sum at a uniform number. These numbers
are drawn per prompt, from a generator seeded by (seed, index of the prompt), so completions depend
neither on the batch size nor on the global random state.

Where the prefix cannot be shared (architectures not in `SHARED_PREFIX`, a sliding window shorter
than prompt and completion), `generate` of transformers decodes every completion on a copy of its
prompt, left-padded, with the same uniform numbers.

Left out: beam search, penalties, stop strings, constrained decoding. `sampler` gives the same
function on another engine.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from typing import Any, Literal, Protocol

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)
from transformers.cache_utils import Cache, DynamicLayer

from posttrain.core import processes
from posttrain.core.errors import UserError
from posttrain.core.training import evaluating
from posttrain.models.architecture import SHARED_PREFIX, sliding_window
from posttrain.models.load import max_positions
from posttrain.models.tokens import SEPARATOR, pad, special_ids
from posttrain.rollouts.writer import Generator

Engine = Literal["transformers", "vllm"]


@dataclass(frozen=True, slots=True)
class Completion:
    """One completion: its ids with EOS if it was written, its text without separator and specials,
    and whether it ended by itself.
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
        count: int,
        max_new_tokens: int,
        temperature: float,
        top_p: float,
        seed: int,
        batch_size: int,
    ) -> list[list[Completion]]: ...


# Logits (B, K, V) of the next token, the batch's rows that they belong to (B,), and the step, to
# ids (B, K).
Choose = Callable[[Tensor, Tensor, int], Tensor]


def sample(
    model: Generator,
    tokenizer: PreTrainedTokenizerBase,
    prompt_ids: Sequence[list[int]],
    *,
    count: int,
    max_new_tokens: int,
    temperature: float,
    top_p: float,
    seed: int,
    batch_size: int,
) -> list[list[Completion]]:
    """`count` completions of each prompt, in the order of the prompts.

    `batch_size` completions are in flight at a time, though never fewer than one prompt's.
    Temperature 0 takes the most likely token. The model is in evaluation mode meanwhile, without
    gradients. Several processes, called with the same prompts, share them, and each gets all
    completions. `UserError` when a prompt and its completion exceed the model's positions.
    """
    end = end_token(tokenizer)
    check_request(model.config, prompt_ids, count, max_new_tokens)
    order = sorted(range(len(prompt_ids)), key=lambda index: (len(prompt_ids[index]), index))
    size = max(1, batch_size // count)
    own: list[tuple[int, list[Completion]]] = []
    share_prefill = can_share(model.config, max(map(len, prompt_ids), default=0) + max_new_tokens)
    decode = decode_shared if share_prefill else decode_apart
    # What FSDP puts together in inference mode could not be trained with afterwards.
    without_gradients = torch.no_grad() if processes.sharded() else torch.inference_mode()
    with evaluating(model), without_gradients:
        for batch, counts in processes.share(processes.batches(order, size)):
            prompts = [prompt_ids[index] for index in batch]
            choose = _greedy
            if temperature > 0:
                uniforms = draw_uniforms(seed, batch, count, max_new_tokens).to(_device(model))
                choose = partial(_sampled, uniforms, _warpers(temperature, top_p))
            drawn = decode(model, prompts, count, max_new_tokens, end, choose).tolist()
            if not counts:
                continue
            for index, rows in zip(batch, drawn, strict=True):
                own.append((index, [complete(row, end, tokenizer) for row in rows]))
    return [completions for _, completions in sorted(processes.collect(own), key=itemgetter(0))]


def greedy(
    model: Generator,
    tokenizer: PreTrainedTokenizerBase,
    prompt_ids: Sequence[list[int]],
    *,
    max_new_tokens: int,
    batch_size: int,
    sample: Sampler = sample,
) -> list[Completion]:
    """The completion of each prompt by its most likely token at every step."""
    groups = sample(
        model,
        tokenizer,
        prompt_ids,
        count=1,
        max_new_tokens=max_new_tokens,
        temperature=0.0,
        top_p=1.0,
        seed=0,
        batch_size=batch_size,
    )
    return [completion for (completion,) in groups]


def can_share(config: PreTrainedConfig, length: int) -> bool:
    """Whether completions can share a prefill when prompt and completion have `length` tokens."""
    window = sliding_window(config)
    return config.model_type in SHARED_PREFIX and (window is None or length <= window)


def decode_shared(
    model: Generator,
    prompts: Sequence[list[int]],
    count: int,
    max_new_tokens: int,
    end: int,
    choose: Choose,
) -> Tensor:
    """Ids (B, K, T) of `count` completions per prompt, filled with `end` behind the end."""
    device = _device(model)
    # The last prompt token is the first one that is decoded, once per completion, so that every
    # step is alike whatever the prompts' lengths.
    ids, real = (tensor.to(device) for tensor in pad([prompt[:-1] for prompt in prompts]))
    last = torch.tensor([prompt[-1:] for prompt in prompts], device=device)
    width = ids.shape[1]
    capacity = width + count * max_new_tokens
    cache = Cache(layer_class_to_replicate=partial(_BufferLayer, capacity))
    if width:
        # No mask is needed: pads are on the right, and the mask below hides them.
        model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
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
        ended = ended | (fed == end)
        running = (~ended).any(dim=1)
        left = int(running.sum())
        if processes.all_agree(left == 0):
            break
        # Dropping rows copies the cache, so it waits until that halves the work.
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
    end: int,
    choose: Choose,
) -> Tensor:
    """As `decode_shared`, with every completion on a copy of its prompt, by `model.generate`."""
    reversed_ids, reversed_real = pad([prompt[::-1] for prompt in prompts])
    ids = reversed_ids.flip(1).repeat_interleave(count, dim=0).to(_device(model))
    real = reversed_real.flip(1).repeat_interleave(count, dim=0).to(_device(model))
    config = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,  # `choose` leaves one token
        num_beams=1,
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
        eos_token_id=end,
        pad_token_id=end,
    )
    chosen = model.generate(
        input_ids=ids,
        attention_mask=real.long(),
        generation_config=config,
        synced_gpus=processes.sharded(),
        logits_processor=LogitsProcessorList([_Chosen(choose, len(prompts), ids.shape[1])]),
    )[:, ids.shape[1] :]
    drawn = torch.full((len(ids), max_new_tokens), end, device=ids.device)
    drawn[:, : chosen.shape[1]] = chosen
    return drawn.view(len(prompts), count, max_new_tokens)


def draw_uniforms(seed: int, indices: Sequence[int], count: int, steps: int) -> Tensor:
    """Uniform numbers (B, K, T) in [0, 1), each prompt's from its own seed."""
    rows = []
    for index in indices:
        generator = torch.Generator()
        generator.manual_seed(random.Random(f"{seed}/{index}").getrandbits(63))
        rows.append(torch.rand((count, steps), generator=generator, dtype=torch.float64))
    return torch.stack(rows)


def end_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """The id that ends a completion; `UserError` when the tokenizer has none."""
    end = special_ids(tokenizer).end
    if not end:
        raise UserError("the tokenizer has no EOS token, so no completion could end")
    return end[0]


def check_request(
    config: PreTrainedConfig, prompt_ids: Sequence[list[int]], count: int, max_new_tokens: int
) -> None:
    """`UserError` when a prompt is empty or a completion would not fit the model's positions."""
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


def complete(ids: Sequence[int], end: int, tokenizer: PreTrainedTokenizerBase) -> Completion:
    """The completion that begins with `ids`: up to the first `end`, which belongs to it."""
    finished = end in ids
    own = list(ids[: ids.index(end) + 1]) if finished else list(ids)
    text = tokenizer.decode(own, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert isinstance(text, str)
    return Completion(own, text.removeprefix(SEPARATOR), finished)


class _BufferLayer(DynamicLayer):  # type: ignore[misc]
    """Keys and values of one layer in a buffer of the final size: a step writes its own tokens and
    copies nothing, where `DynamicLayer` copies the whole prompt.
    """

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity = capacity

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        super().lazy_initialization(key_states, value_states)
        self.key_buffer = self._empty(key_states)
        self.value_buffer = self._empty(value_states)
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

    def batch_select_indices(self, indices: Tensor) -> None:
        self.key_buffer = self.key_buffer[indices]
        self.value_buffer = self.value_buffer[indices]
        self._show(self.keys.shape[2])

    def _empty(self, states: Tensor) -> Tensor:
        batch, heads, _, size = states.shape
        return states.new_empty((batch, heads, self.capacity, size))

    def _show(self, length: int) -> None:
        self.keys = self.key_buffer[:, :, :length]
        self.values = self.value_buffer[:, :, :length]


class _Chosen(LogitsProcessor):  # type: ignore[misc]
    """Leaves the chosen token alone possible."""

    def __init__(self, choose: Choose, prompts: int, width: int) -> None:
        self.choose = choose
        self.prompts = prompts
        self.width = width

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        rows = torch.arange(self.prompts, device=scores.device)
        grouped = scores.float().view(self.prompts, -1, scores.shape[-1])
        chosen = self.choose(grouped, rows, input_ids.shape[1] - self.width)
        return torch.full_like(scores, -torch.inf).scatter(1, chosen.reshape(-1, 1), 0.0)


def _block_mask(real: Tensor, count: int, steps: int, dtype: torch.dtype) -> Tensor:
    """Additive mask (B, 1, K, P + T K) of all steps: real prompt tokens, and the columns of the own
    completion, of which step t sees the first t + 1.
    """
    own = torch.eye(count, dtype=torch.bool, device=real.device).repeat(1, steps)
    allowed = torch.cat(
        [real[:, None].expand(-1, count, -1), own[None].expand(len(real), -1, -1)], dim=-1
    )[:, None]
    mask = torch.zeros(allowed.shape, dtype=dtype, device=real.device)
    return mask.masked_fill(~allowed, torch.finfo(dtype).min)


def _greedy(logits: Tensor, rows: Tensor, step: int) -> Tensor:
    largest, ids = logits.max(dim=-1)
    _check_finite(largest)
    return ids


def _sampled(
    uniforms: Tensor, warpers: Sequence[LogitsProcessor], logits: Tensor, rows: Tensor, step: int
) -> Tensor:
    flat = logits.flatten(0, 1)
    for warper in warpers:
        flat = warper(rows, flat)
    cumulative = flat.softmax(dim=-1).double().cumsum(dim=-1)
    total = cumulative[:, -1:]
    _check_finite(total)
    threshold = uniforms[rows, :, step].reshape(-1, 1) * total
    # A token of probability 0 adds nothing to the sum, so `right` passes over it.
    ids = torch.searchsorted(cumulative, threshold, right=True).clamp(max=flat.shape[-1] - 1)
    return ids.view(logits.shape[:2])


def _warpers(temperature: float, top_p: float) -> list[LogitsProcessor]:
    warpers: list[LogitsProcessor] = []
    if temperature != 1.0:
        warpers.append(TemperatureLogitsWarper(temperature))
    if top_p < 1.0:
        warpers.append(TopPLogitsWarper(top_p))
    return warpers


def _check_finite(values: Tensor) -> None:
    if not bool(torch.isfinite(values).all()):
        raise UserError("the generator's logits are not finite: its training has diverged")


def _device(model: Generator) -> torch.device:
    device: torch.device = next(model.parameters()).device
    return device
