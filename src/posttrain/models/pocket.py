"""The small base model: its tokenizer, its Llama architecture, and its pretraining from scratch.

    tokenizer = train_tokenizer(texts, vocabulary=2048)
    model     = build_model(len(tokenizer), hidden_size=128, layers=4, heads=4,
    intermediate_size=384) curve     = pretrain(model, documents, tokens=2_000_000,
    batch_tokens=8192, ...) save_pocket(directory, model, tokenizer)

A document is a prompt and the answer that follows it. The objective is next-token prediction, the
mean over a batch's tokens of w * -log p(token), with w = 1 in the answer and `prompt_weight` in the
prompt: a prompt is mostly numbers that nothing foretells, while the answer is what the model is
for. Documents are never cut or joined: batches hold documents of similar length, so that position 0
is always the start of a page, as at inference. AdamW (betas 0.9, 0.95), linear warm-up, cosine to a
tenth, gradients clipped at norm 1.

A run is a function of its arguments: the batches of step i follow from the seed, so a training that
was killed goes on from its last checkpoint to the same weights. Left out: mixed precision, several
processes.
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch.nn import functional as F
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from posttrain.checkpoint import CheckpointFile
from posttrain.errors import UserError

logger = logging.getLogger(__name__)

PAD, BOS, EOS = "<pad>", "<bos>", "<eos>"
WARMUP = 0.05
WINDOW = 32

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


@dataclass(frozen=True, slots=True)
class Document:
    """Token ids of a prompt (with BOS) and of the answer after it (with EOS)."""

    prompt_ids: list[int]
    answer_ids: list[int]

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.answer_ids)


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
) -> LlamaConfig:
    """The architecture: a Llama with tied embeddings, whose first tokens are pad, BOS and EOS."""
    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        intermediate_size=intermediate_size,
        max_position_embeddings=max_length,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )


def build_model(config: LlamaConfig, seed: int) -> LlamaForCausalLM:
    """A model of this architecture with weights drawn from `seed`.

    Attention starts as mimetic initialisation has it (Trockman and Kolter, ICML 2023): queries and
    keys share a random matrix, so a token first attends to tokens like itself, and the output is
    near the transpose of the values. Finding the question's words on the page is then a matter of
    hundreds of examples, not tens of thousands.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM._from_config(config, attn_implementation="sdpa")
        size = config.hidden_size

        def draw() -> torch.Tensor:
            return torch.randn((size, size)).div_(size**0.5)

        with torch.no_grad():
            for layer in model.model.layers:
                attention, shared, values = layer.self_attn, draw(), draw()
                attention.q_proj.weight.copy_(shared + 0.3 * draw())
                attention.k_proj.weight.copy_(shared + 0.3 * draw())
                attention.v_proj.weight.copy_(values)
                attention.o_proj.weight.copy_(0.4 * values.T + 0.3 * draw())
        return model


def plan_batches(
    lengths: Sequence[int], batch_tokens: int, tokens: int, seed: int
) -> list[list[int]]:
    """Batches of document indices, enough epochs of them to see `tokens` tokens.

    Each epoch is shuffled, cut into windows, sorted by length inside a window and cut into batches
    of at most `batch_tokens` tokens with padding (a longer document is a batch of its own); then
    batches are shuffled.
    """
    if not lengths:
        raise UserError("pretraining needs at least one document")
    mean = sum(lengths) / len(lengths)
    window = max(1, round(WINDOW * batch_tokens / mean))
    plan: list[list[int]] = []
    seen = epoch = 0
    while True:
        generator = random.Random(f"{seed}/{epoch}")
        order = list(range(len(lengths)))
        generator.shuffle(order)
        batches: list[list[int]] = []
        for start in range(0, len(order), window):
            batch: list[int] = []
            for index in sorted(order[start : start + window], key=lambda i: lengths[i]):
                if batch and (len(batch) + 1) * lengths[index] > batch_tokens:
                    batches.append(batch)
                    batch = []
                batch.append(index)
            batches.append(batch)
        generator.shuffle(batches)
        for batch in batches:
            if seen >= tokens:
                return plan
            plan.append(batch)
            seen += sum(lengths[index] for index in batch)
        epoch += 1


def learning_rate_at(step: int, steps: int, peak: float) -> float:
    """Linear warm-up over the first 5 % of the steps, then cosine to a tenth of the peak."""
    warmup = max(1, round(WARMUP * steps))
    if step < warmup:
        return peak * (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return peak * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * done)))


def language_model_loss(
    model: PreTrainedModel, batch: Sequence[Document], prompt_weight: float
) -> torch.Tensor:
    """Weighted mean of -log p over the next tokens of a batch; see the module's docstring."""
    ids = torch.zeros((len(batch), max(map(len, batch))), dtype=torch.long)
    weights = torch.zeros(ids.shape)
    for row, document in enumerate(batch):
        start, end = len(document.prompt_ids), len(document)
        ids[row, :end] = torch.tensor(document.prompt_ids + document.answer_ids)
        weights[row, :start] = prompt_weight
        weights[row, start:end] = 1.0
    ids, weights = ids.to(model.device), weights.to(model.device)
    # Pads lie on the right, where a causal model's real tokens do not look: no mask is needed.
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
    target, weight = ids[:, 1:], weights[:, 1:]
    counted = weight > 0
    logits = model.lm_head(hidden[counted])
    losses = F.cross_entropy(logits, target[counted], reduction="none")
    return (losses * weight[counted]).sum() / weight.sum()


def pretrain(
    model: PreTrainedModel,
    documents: Sequence[Document],
    *,
    tokens: int,
    batch_tokens: int,
    learning_rate: float,
    weight_decay: float,
    seed: int,
    prompt_weight: float = 0.1,
    checkpoint: CheckpointFile | None = None,
    checkpoint_every: int = 50,
    report: Callable[[int, int, dict[str, float]], None] | None = None,
) -> list[dict[str, float]]:
    """Train `model` in place on about `tokens` tokens; return step, tokens, loss and learning rate
    of each step.

    `report(step, steps, row)` is called after every step. With a `checkpoint` the run saves its
    state every `checkpoint_every` steps and starts from the state it finds there; the caller
    removes it at the end.
    """
    lengths = [len(document) for document in documents]
    plan = plan_batches(lengths, batch_tokens, tokens, seed)
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=learning_rate,
        betas=(0.9, 0.95),
        weight_decay=weight_decay,
        fused=True,
    )
    start, curve = _resume(checkpoint, model, optimizer)
    seen = int(curve[-1]["tokens"]) if curve else 0
    model.train()
    for step in range(start, len(plan)):
        rate = learning_rate_at(step, len(plan), learning_rate)
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = language_model_loss(model, [documents[i] for i in plan[step]], prompt_weight)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        seen += sum(lengths[i] for i in plan[step])
        row = {"step": step + 1, "tokens": seen, "loss": loss.item(), "learning_rate": rate}
        curve.append(row)
        if not math.isfinite(row["loss"]):
            raise UserError(f"pretraining diverged at step {step + 1}; lower base.learning_rate")
        if checkpoint is not None and (step + 1) % checkpoint_every == 0:
            state = {"step": step + 1, "curve": curve}
            checkpoint.save(_tensors(model, optimizer), state)
        if report is not None:
            report(step + 1, len(plan), row)
    model.eval()
    return curve


def save_pocket(
    directory: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Write model.safetensors, config.json and the tokenizer's files into an existing folder."""
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def _tensors(model: PreTrainedModel, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Weights and optimizer moments by name; tied weights once."""
    tensors: dict[str, torch.Tensor] = {}
    for name, parameter in model.named_parameters():
        tensors[f"model.{name}"] = parameter
        for key, value in optimizer.state[parameter].items():
            tensors[f"optimizer.{key}.{name}"] = value
    return tensors


def _resume(
    checkpoint: CheckpointFile | None, model: PreTrainedModel, optimizer: torch.optim.Optimizer
) -> tuple[int, list[dict[str, Any]]]:
    saved = checkpoint.load() if checkpoint is not None else None
    if saved is None:
        return 0, []
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(saved.tensors[f"model.{name}"])
            optimizer.state[parameter] = {
                key: saved.tensors[f"optimizer.{key}.{name}"].to(parameter.device)
                for key in ("step", "exp_avg", "exp_avg_sq")
            }
    logger.info("resuming at step %d", saved.state["step"])
    return int(saved.state["step"]), list(saved.state["curve"])
