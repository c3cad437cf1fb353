"""The small base model: its tokenizer, its Llama architecture with a starting point of our own, its pretraining.

    tokenizer = train_tokenizer(texts, vocabulary=4096)
    model = build_model(llama_config(len(tokenizer), hidden_size=96, layers=4, ...), seed=0, newline=...)
    curve = pretrain(model, documents, tokens=20_000_000, ...)

A document is a page and many exercises on it. The page is read once, causally, without loss; the exercises follow
packed in one row, each seeing the page and itself only, with positions that continue from the page: what the model
meets later, a page and one question. The objective is the mean over the answers' tokens of w * -log p(token), with
w = 1 where the page decides the token and `EXTRA_WEIGHT` in copied or computed numbers.

Optimizers: Muon (Jordan et al. 2024; `torch.optim.Muon`) for the matrices, AdamW for embeddings and norms; linear
warm-up, cosine to a tenth, gradients clipped at norm 1. A run is a function of its arguments: the batches of a step
follow from the seed, so a training that was killed goes on from its last checkpoint to the same weights.

Left out: several processes.
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch.nn import functional as F
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    DynamicCache,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.masking_utils import sdpa_mask

from posttrain.checkpoint import CheckpointFile
from posttrain.errors import UserError

logger = logging.getLogger(__name__)

PAD, BOS, EOS = "<pad>", "<bos>", "<eos>"
WARMUP = 0.01
WINDOW = 96  # documents that are sorted by length and cut into batches together

# What is never merged across, first match wins: a newline; the space before a capital; a column
# letter or T; the number after it, and a row number at the start of a line, so that "B12" and row
# "12" share the token "12"; constants; words; years; single digits; punctuation; other spaces.
_SPLIT = (
    r"\n| (?=[A-Z])|[A-Z]{1,2}(?![A-Za-z])|(?<=[A-Z])\d{1,2}(?!\d)|^\d{1,2}(?= )"
    r"| ?const_\w+| ?[\p{L}_]+| ?(?<![\d.])(?:19|20)\d\d(?!\d)| ?\d| ?[^\s\p{L}\p{N}_]+|\s+"
)

# A user's words, a newline, the assistant's words and EOS: the form of the pretraining documents.
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}"
    "{% else %}{{ '\\n' }}{% endif %}{% endfor %}"
)


EXTRA_WEIGHT = 0.2
ROPE_THETA = 1.0e6  # half of the pairs turn slowly enough to compare words over hundreds of tokens


@dataclass(frozen=True, slots=True)
class PageTokens:
    """Token ids of a page (with BOS), and of each exercise: what is asked, the answer, the answer's weights."""

    page: list[int]
    asked: list[list[int]]
    answers: list[list[int]]
    weights: list[list[float]]

    @property
    def packed(self) -> int:
        """Tokens of all exercises."""
        return sum(map(len, self.asked)) + sum(map(len, self.answers))

    def __len__(self) -> int:
        return len(self.page) + self.packed


def train_tokenizer(
    texts: Sequence[str], vocabulary: int, max_length: int = 2048
) -> PreTrainedTokenizerFast:
    """A byte-level BPE of at most `vocabulary` tokens, trained on `texts`; any text round-trips
    through it.

    Digits are single tokens; years, column letters and row numbers up to 99 are one token each.
    """
    if not texts:
        raise UserError("the tokenizer needs at least one training text")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    # Row numbers that the texts hold seldom, or not at all, must be tokens too.
    rows = [" ".join(f"A{number}" for number in range(10, 100))] * len(texts)
    tokenizer.train_from_iterator([*texts, *rows], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        model_max_length=max_length,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def llama_config(
    vocabulary: int,
    hidden_size: int,
    layers: int,
    heads: int,
    intermediate_size: int,
    max_length: int = 2048,
    head_size: int | None = None,
) -> LlamaConfig:
    """The architecture: a Llama with tied embeddings, whose first tokens are pad, BOS and EOS."""
    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        head_dim=head_size or hidden_size // heads,
        intermediate_size=intermediate_size,
        max_position_embeddings=max_length,
        rope_parameters={"rope_type": "default", "rope_theta": ROPE_THETA},
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )


def build_model(config: LlamaConfig, seed: int, newline: int | None = None) -> LlamaForCausalLM:
    """A model of this architecture, weights drawn from `seed`, whose heads start where reading a page needs them.

    Queries and keys of a head share a random matrix, as in mimetic initialisation (Trockman and Kolter, ICML 2023),
    so that a token attends to tokens of the same words wherever they stand; outputs are near the transpose of the
    values. One embedding direction is constant over tokens, and rotary positions acting on it give heads that look
    at a fixed distance: all heads look away from the token itself, half of those of layer 0 at the token before,
    and one of layer 1 at the last token after a `newline` (if given), which is the row number of its line.
    From there everything is trained.
    """
    size, width, heads = config.hidden_size, config.head_dim, config.num_attention_heads
    half = width // 2
    angle = ROPE_THETA ** (-torch.arange(half) / half)
    # A head compares words by the pairs that turn slowly; the fast ones tell distances.
    slow = torch.where(angle < 1 / 60, 1.0, 0.1).repeat(2)[:, None]
    near, line = slice(0, min(8, half)), slice(half // 6, min(half, half // 6 + 5))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM._from_config(config, attn_implementation="sdpa")

        def draw() -> torch.Tensor:
            return torch.randn((width, size)).div_(size**0.5)

        with torch.no_grad():
            embeddings = model.model.embed_tokens.weight
            embeddings.normal_(0, 0.1)
            embeddings[:, 0] = 0.7
            for index, layer in enumerate(model.model.layers):
                queries, keys, values = [], [], torch.cat([draw() for _ in range(heads)])
                for head in range(heads):
                    shared = 1.5 * slow * draw()
                    query, key = shared + 0.2 * draw(), shared + 0.2 * draw()
                    looks_back = index == 0 and head < heads // 2
                    looks_at_line = index == 1 and head == 0 and newline is not None
                    if looks_back or looks_at_line:
                        query, key = 0.1 * query, 0.1 * key
                    query[:, 0] = key[:, 0] = 0
                    if looks_back:
                        query[near, 0] = torch.cos(angle[near])
                        query[half:, 0][near] = -torch.sin(angle[near])
                        key[near, 0] = 1
                    elif newline is not None and looks_at_line:
                        query[line, 0] = 0.5
                        key[line] += 1.5 * _trace(model, newline, heads // 2)
                    else:
                        query[:4, 0], key[:4, 0] = -0.5, 0.5
                    queries.append(query)
                    keys.append(key)
                values[:, 0] = 0
                outputs = 0.1 * values.T + 0.02 * torch.cat([draw() for _ in range(heads)]).T
                outputs[0] = 0
                attention = layer.self_attn
                attention.q_proj.weight.copy_(torch.cat(queries))
                attention.k_proj.weight.copy_(torch.cat(keys))
                attention.v_proj.weight.copy_(values)
                attention.o_proj.weight.copy_(outputs)
        return model


def _trace(model: LlamaForCausalLM, token: int, heads: int) -> torch.Tensor:
    """The direction (d,) that the first `heads` heads of layer 0 write when they read `token`."""
    state = model.model.embed_tokens.weight[token]
    attention = model.model.layers[0].self_attn
    read = attention.v_proj.weight @ (state / state.square().mean().sqrt())
    read[heads * model.config.head_dim :] = 0
    written = attention.o_proj.weight @ read
    direction: torch.Tensor = written / written.norm()
    return direction


def encode(
    tokenizer: PreTrainedTokenizerBase,
    page: str,
    exercises: Sequence[tuple[str, str, int, str]],
) -> PageTokens:
    """Token ids of a page and of its exercises: asked, answer, certain characters of the answer, context.

    An answer ends with EOS, except one that has a context: it is a word inside a text, tokenised as behind it.
    """

    def ids(texts: Sequence[str]) -> list[list[int]]:
        encoded = tokenizer(list(texts), add_special_tokens=False, return_attention_mask=False)
        return list(encoded["input_ids"])

    asked = ids([page, *(exercise[0] for exercise in exercises)])
    certain = ids([context + answer[:sure] for _, answer, sure, context in exercises])
    whole = ids([context + answer for _, answer, _, context in exercises])
    contexts = ids([context for *_, context in exercises])
    answers, weights = [], []
    for exercise, sure, full, before in zip(exercises, certain, whole, contexts, strict=True):
        ends = [] if exercise[3] else [tokenizer.eos_token_id]
        answer = full[len(before) :] + ends
        decided = len(sure) - len(before)
        answers.append(answer)
        weights.append([1.0] * decided + [EXTRA_WEIGHT] * (len(answer) - decided))
    start = [tokenizer.bos_token_id]
    return PageTokens([*start, *asked[0]], asked[1:], answers, weights)


@dataclass(frozen=True, slots=True)
class PageBatch:
    """B documents: pages (B, P), packed exercises (B, S), what they may see (B, 1, S, P + S), positions (B, S);
    targets, weights and the exercise's index (B, S), at the positions that predict an answer's token.
    """

    pages: torch.Tensor
    exercises: torch.Tensor
    mask: torch.Tensor
    positions: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor
    owner: torch.Tensor


def collate(documents: Sequence[PageTokens]) -> PageBatch:
    """Pad documents on the right into one batch."""
    rows, width = len(documents), max(len(document.page) for document in documents)
    length = max(document.packed for document in documents)
    pages, real = (
        torch.zeros((rows, width), dtype=torch.long),
        torch.zeros((rows, width), dtype=torch.bool),
    )
    exercises, targets = (torch.zeros((rows, length), dtype=torch.long) for _ in range(2))
    positions = torch.zeros((rows, length), dtype=torch.long)
    owner = torch.full((rows, length), -1)
    weights = torch.zeros((rows, length))
    for row, document in enumerate(documents):
        size = len(document.page)
        pages[row, :size] = torch.tensor(document.page)
        real[row, :size] = True
        start = 0
        for index, asked in enumerate(document.asked):
            answer = document.answers[index]
            text = torch.tensor(asked + answer)
            here = slice(start, start + len(text))
            predicts = slice(start + len(asked) - 1, start + len(text) - 1)
            exercises[row, here] = text
            owner[row, here] = index
            positions[row, here] = torch.arange(size, size + len(text))
            targets[row, predicts] = torch.tensor(answer)
            weights[row, predicts] = torch.tensor(document.weights[index])
            start += len(text)
    same = owner[:, :, None] == owner[:, None, :]
    own = same & (positions[:, :, None] >= positions[:, None, :])
    allowed = torch.cat([real[:, None].expand(-1, length, -1), own], dim=-1)[:, None]
    mask = torch.zeros(allowed.shape).masked_fill(~allowed, torch.finfo(torch.float32).min)
    return PageBatch(pages, exercises, mask, positions, targets, weights, owner)


def _float32_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention in float32 inside a bfloat16 autocast: on a CPU its backward pass is twice as fast so."""
    with torch.autocast(query.device.type, enabled=False):
        output = F.scaled_dot_product_attention(
            query.float(),
            key.float(),
            value.float(),
            attn_mask=attention_mask,
            scale=scaling,
            is_causal=attention_mask is None and query.shape[2] > 1,
        )
    return output.transpose(1, 2).contiguous(), None


AttentionInterface.register("float32_sdpa", _float32_attention)
AttentionMaskInterface.register("float32_sdpa", sdpa_mask)


def answer_logits(model: PreTrainedModel, batch: PageBatch, bfloat16: bool = False) -> torch.Tensor:
    """Logits (N, V), float32, at the N positions of the batch that predict a token of an answer."""
    with torch.autocast(model.device.type, torch.bfloat16, enabled=bfloat16):
        page = model.model(input_ids=batch.pages, past_key_values=DynamicCache(), use_cache=True)
        hidden = model.model(
            input_ids=batch.exercises,
            attention_mask=batch.mask,
            position_ids=batch.positions,
            past_key_values=page.past_key_values,
            use_cache=True,
        ).last_hidden_state
        logits: torch.Tensor = model.lm_head(hidden[batch.weights > 0])
    return logits.float()


def answer_loss(model: PreTrainedModel, batch: PageBatch, bfloat16: bool = False) -> torch.Tensor:
    """Weighted mean of -log p over the tokens of the batch's answers."""
    counted = batch.weights > 0
    weights = batch.weights[counted]
    losses = F.cross_entropy(
        answer_logits(model, batch, bfloat16), batch.targets[counted], reduction="none"
    )
    return (losses * weights).sum() / weights.sum()


@torch.no_grad()
def exact_answers(model: PreTrainedModel, document: PageTokens) -> list[list[bool]]:
    """For each exercise, which of the tokens that the page decides are the model's first choice.

    All of them are if and only if greedy decoding writes that part of the answer.
    """
    batch = collate([document])
    counted = batch.weights > 0
    right = answer_logits(model, batch).argmax(dim=-1) == batch.targets[counted]
    decided, owner = batch.weights[counted] == 1, batch.owner[counted]
    return [right[decided & (owner == index)].tolist() for index in range(len(document.answers))]


def window_batches(
    documents: Sequence[PageTokens], batch_tokens: int, seed: str
) -> list[list[PageTokens]]:
    """Documents of similar length together, at most `batch_tokens` with padding, in a shuffled order."""
    batches: list[list[PageTokens]] = [[]]
    for document in sorted(documents, key=len):
        if batches[-1] and (len(batches[-1]) + 1) * len(document) > batch_tokens:
            batches.append([])
        batches[-1].append(document)
    random.Random(seed).shuffle(batches)
    return batches


def learning_rate_at(progress: float) -> float:
    """Share of the peak: linear warm-up over the first 1 %, then cosine to a tenth; progress in [0, 1]."""
    if progress < WARMUP:
        return 0.02 + 0.98 * progress / WARMUP
    return 0.1 + 0.45 * (1 + math.cos(math.pi * (progress - WARMUP) / (1 - WARMUP)))


def pretrain(
    model: PreTrainedModel,
    draw: Callable[[int, float], PageTokens | None],
    *,
    tokens: int,
    batch_tokens: int,
    muon_learning_rate: float,
    adam_learning_rate: float,
    weight_decay: float,
    seed: int,
    bfloat16: bool = False,
    checkpoint: CheckpointFile | None = None,
    checkpoint_every: int = 500,
    report: Callable[[dict[str, float]], None] | None = None,
) -> list[dict[str, float]]:
    """Train `model` in place on about `tokens` tokens; return step, tokens, loss and learning rate of each step.

    `draw(index, progress)` makes document number `index`, given the share of the training that is done; None is
    skipped. `report` is called after every step. With a `checkpoint` the run saves its state every
    `checkpoint_every` steps and starts from the state it finds there; the caller removes it at the end.
    """
    if bfloat16:
        model.set_attn_implementation("float32_sdpa")
    optimizers = _optimizers(model, muon_learning_rate, adam_learning_rate, weight_decay)
    peaks = [group["lr"] for optimizer in optimizers for group in optimizer.param_groups]
    window, done, curve = _resume(checkpoint, model, optimizers)
    seen = int(curve[-1]["tokens"]) if curve else 0
    started = int(curve[-1 - done]["tokens"]) if len(curve) > done else 0
    model.train()
    while seen < tokens:
        batches = window_batches(
            _window(draw, window, started / tokens), batch_tokens, f"{seed}/{window}"
        )
        for batch in batches[done:]:
            rate = learning_rate_at(min(1.0, seen / tokens))
            groups = [group for optimizer in optimizers for group in optimizer.param_groups]
            for group, peak in zip(groups, peaks, strict=True):
                group["lr"] = rate * peak
            loss = answer_loss(model, collate(batch), bfloat16)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
            seen += sum(map(len, batch))
            done += 1
            row = {"step": len(curve) + 1, "tokens": seen, "loss": loss.item(), "rate": rate}
            curve.append(row)
            if not math.isfinite(row["loss"]):
                raise UserError(
                    f"pretraining diverged at step {len(curve)}; lower the learning rate"
                )
            if checkpoint is not None and len(curve) % checkpoint_every == 0:
                state = {"window": window, "done": done, "curve": curve}
                checkpoint.save(_tensors(model, optimizers), state)
            if report is not None:
                report(row)
        window, done, started = window + 1, 0, seen
    model.set_attn_implementation("sdpa")
    model.eval()
    return curve


def _window(
    draw: Callable[[int, float], PageTokens | None], window: int, progress: float
) -> list[PageTokens]:
    drawn = (draw(index, progress) for index in range(window * WINDOW, (window + 1) * WINDOW))
    return [document for document in drawn if document is not None]


def _optimizers(
    model: PreTrainedModel, muon: float, adam: float, weight_decay: float
) -> list[torch.optim.Optimizer]:
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    rest = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    return [
        torch.optim.Muon(
            matrices, lr=muon, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(rest, lr=adam, betas=(0.9, 0.95), weight_decay=0.0, fused=True),
    ]


def save_pocket(
    directory: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Write model.safetensors, config.json and the tokenizer's files into an existing folder."""
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def _states(
    model: PreTrainedModel, optimizers: Sequence[torch.optim.Optimizer]
) -> Iterator[tuple[str, torch.nn.Parameter, dict[str, torch.Tensor]]]:
    """Name, parameter and the state that its optimizer keeps of it."""
    held = {
        parameter: optimizer
        for optimizer in optimizers
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    for name, parameter in model.named_parameters():
        yield name, parameter, held[parameter].state[parameter]


def _tensors(
    model: PreTrainedModel, optimizers: Sequence[torch.optim.Optimizer]
) -> dict[str, torch.Tensor]:
    """Weights and optimizer states by name; tied weights once."""
    tensors: dict[str, torch.Tensor] = {}
    for name, parameter, state in _states(model, optimizers):
        tensors[f"model.{name}"] = parameter
        for key, value in state.items():
            tensors[f"optimizer.{key}.{name}"] = value
    return tensors


def _resume(
    checkpoint: CheckpointFile | None,
    model: PreTrainedModel,
    optimizers: Sequence[torch.optim.Optimizer],
) -> tuple[int, int, list[dict[str, Any]]]:
    """Window, batches of it that are done, and the curve so far."""
    saved = checkpoint.load() if checkpoint is not None else None
    if saved is None:
        return 0, 0, []
    with torch.no_grad():
        for name, parameter, state in _states(model, optimizers):
            parameter.copy_(saved.tensors[f"model.{name}"])
            for key in ("step", "exp_avg", "exp_avg_sq", "momentum_buffer"):
                tensor = saved.tensors.get(f"optimizer.{key}.{name}")
                if tensor is not None:
                    state[key] = tensor if key == "step" else tensor.to(parameter.device)
    logger.info("resuming at step %d", len(saved.state["curve"]))
    return int(saved.state["window"]), int(saved.state["done"]), list(saved.state["curve"])
