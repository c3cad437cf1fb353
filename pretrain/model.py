"""The small base model: its tokenizer, and a Llama architecture with an initialisation of our own.

    tokenizer = train_tokenizer(texts, vocabulary=4096)
    model = build_model(llama_config(len(tokenizer), hidden_size=96, layers=4, ...), seed=0, newline=...)

`pages.py` describes its training data and loss, `pretraining.py` the optimization.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from posttrain.core.errors import UserError

PAD, BOS, EOS = "<pad>", "<bos>", "<eos>"
ROPE_THETA = 1.0e6  # half of the rotary pairs can compare words hundreds of tokens apart

# Units that BPE never merges; the first match wins: a newline; the space before a capital; a column letter or T; the
# number after it, and a row number at the start of a line, so that "B12" and row "12" share the token "12"; constants;
# words; years; single digits; punctuation; other spaces.
_SPLIT = (
    r"\n| (?=[A-Z])|[A-Z]{1,2}(?![A-Za-z])|(?<=[A-Z])\d{1,2}(?!\d)|^\d{1,2}(?= )"
    r"| ?const_\w+| ?[\p{L}_]+| ?(?<![\d.])(?:19|20)\d\d(?!\d)| ?\d| ?[^\s\p{L}\p{N}_]+|\s+"
)

# The user's text, a newline, the assistant's text and EOS: the format of the pretraining documents.
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}"
    "{% else %}{{ '\\n' }}{% endif %}{% endfor %}"
)


def train_tokenizer(
    texts: Sequence[str], vocabulary: int, max_length: int = 2048
) -> PreTrainedTokenizerFast:
    """A byte-level BPE of at most `vocabulary` tokens, trained on `texts`; it can encode any text without loss.

    Digits are single tokens, and so are years, column letters and row numbers up to 99.
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
    # Row numbers must be tokens even if they are rare or missing in the texts.
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
    """A Llama with tied embeddings, whose first tokens are pad, BOS and EOS."""
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
    """A model with random weights from `seed`, initialised for reading a page; all weights are trained from there.

    Queries and keys of a head share a random matrix, as in mimetic initialisation (Trockman and Kolter, ICML 2023), so that
    a token attends to equal words wherever they are; the output matrix is near the transpose of the values. One embedding
    direction is constant over tokens, and rotary positions acting on it give heads that attend to a fixed distance. Half of
    the heads of layer 0 attend to the preceding token; one of layer 1 attends to the last token after a `newline` (if
    given), which is the row number of its line; all others attend away from the token itself.
    """
    size, width, heads = config.hidden_size, config.head_dim, config.num_attention_heads
    half = width // 2
    angle = ROPE_THETA ** (-torch.arange(half) / half)
    # A head compares words by the rotary pairs that turn slowly; the fast ones encode distances.
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
    """The direction (d,) that the first `heads` heads of layer 0 add when they attend to `token`."""
    state = model.model.embed_tokens.weight[token]
    attention = model.model.layers[0].self_attn
    read = attention.v_proj.weight @ (state / state.square().mean().sqrt())
    read[heads * model.config.head_dim :] = 0
    written = attention.o_proj.weight @ read
    direction: torch.Tensor = written / written.norm()
    return direction


def save_pocket(
    directory: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Write model.safetensors, config.json and the tokenizer's files into an existing folder."""
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
