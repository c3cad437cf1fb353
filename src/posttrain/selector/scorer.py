"""Score candidate answers with an exported selector; needs only torch, transformers and safetensors.

    score = Scorer(FOLDER)
    scores = score(prompt, [candidate, ...])     one float per candidate

    score_k = a l_k + w2 . tanh(W1 h_k + b1) + b2

    h_k                  mean hidden state of the tokens of candidate k after the prompt
    l_k                  log p(candidate k | prompt), the sum over its tokens in nats; an encoder has none
    a, W1, b1, w2, b2    weights in `head.safetensors`

A score is a logit: the softmax over the scores of one prompt's candidates gives the probability that the policy chooses
each, and the largest is its choice. Scores of different prompts cannot be compared, and a candidate's probability depends
on the others.

`posttrain.export` copies this file beside the weights, so it imports nothing else of the package. It reads each prompt +
candidate as a sequence of its own; `selector.model` reads the prompt once and gives the same scores up to rounding.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer


class Scorer:
    """The selector in a folder written by `python -m posttrain.export`."""

    def __init__(self, folder: str | Path, device: str = "cpu", batch_size: int = 8) -> None:
        """batch_size: candidates per forward pass; it affects the scores by rounding only."""
        self.format = json.loads((Path(folder) / "selector.json").read_text(encoding="utf-8"))
        kind: Any = AutoModelForCausalLM if self.format["likelihood"] else AutoModel
        self.model = kind.from_pretrained(str(folder), dtype="auto").to(device).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(str(folder))
        added = self.tokenizer.added_tokens_decoder
        self.special = {one for one, token in added.items() if token.special}
        self.special -= {self.tokenizer.unk_token_id}
        self.head = load_file(Path(folder) / "head.safetensors", device=device)
        self.device, self.batch_size = device, batch_size

    @torch.no_grad()
    def __call__(self, prompt: str, candidates: Sequence[str]) -> list[float]:
        """One score per candidate; `ValueError` if prompt and candidate exceed the model's positions."""
        start, answers = self._prompt(prompt), [self._answer(text) for text in candidates]
        limit = getattr(self.model.config, "max_position_embeddings", None)
        longest = len(start) + max(map(len, answers), default=0)
        if limit is not None and longest > limit:
            raise ValueError(f"prompt and candidate are {longest} tokens, the model has {limit}")
        return [
            score
            for first in range(0, len(answers), self.batch_size)
            for score in self._score(start, answers[first : first + self.batch_size])
        ]

    def _prompt(self, text: str) -> list[int]:
        if self.format["chat"]:
            return self._turns(text)
        start: list[int] = self.format["start"]
        return start + self._tokens(text)

    def _answer(self, text: str) -> list[int]:
        end: list[int] = self.format["end"]
        if self.format["chat"]:
            # The answer to a short question, of which the format has the ids.
            asked = self.format["start"]
            whole = self._turns(self.format["question"], text)
            ids = whole[len(asked) :]
            if whole[: len(asked)] == asked and end[0] in ids:
                return ids[: ids.index(end[0]) + 1]
        return self._tokens(self.format["separator"] + text + self.format["after"]) + end

    def _turns(self, *texts: str) -> list[int]:
        """Ids of a prompt, or of a prompt and its answer, by the tokenizer's chat template."""
        roles = zip(("user", "assistant"), texts, strict=False)
        ids: list[int] = self.tokenizer.apply_chat_template(
            [{"role": role, "content": text} for role, text in roles],
            add_generation_prompt=len(texts) == 1,
            return_dict=False,
            sanitize_control_tokens=True,
        )
        return ids

    def _tokens(self, text: str) -> list[int]:
        """Ids of the text; the name of a special token in it is characters like any other."""
        asked = {"add_special_tokens": False, "split_special_tokens": True}
        ids: list[int] = self.tokenizer(text, **asked)["input_ids"]
        if self.special.isdisjoint(ids):
            return ids
        # The vocabulary has the name itself; the text is cut behind its first character.
        offsets = self.tokenizer(text, **asked, return_offsets_mapping=True)["offset_mapping"]
        places = [place for one, place in zip(ids, offsets, strict=True) if one in self.special]
        cuts = [start + 1 for start, end in places if end - start > 1]
        if not cuts:
            return ids
        parts = zip([0, *cuts], [*cuts, len(text)], strict=True)
        return [one for start, end in parts for one in self._tokens(text[start:end])]

    def _score(self, start: list[int], answers: list[list[int]]) -> list[float]:
        sizes = torch.tensor([len(start) + len(answer) for answer in answers], device=self.device)
        place = torch.arange(int(sizes.max()), device=self.device)
        real = place < sizes[:, None]
        ids = torch.zeros_like(real, dtype=torch.long)
        ids[real] = torch.tensor([i for a in answers for i in start + a], device=self.device)
        own = real & (place >= len(start))
        states, logits = self._read(ids, real, own)
        pooled = (states.float() * own[:, :, None]).sum(dim=1) / own.sum(dim=1, keepdim=True)
        inner = torch.tanh(pooled @ self.head["inner.weight"].T + self.head["inner.bias"])
        scores = (inner @ self.head["outer.weight"].T + self.head["outer.bias"]).squeeze(-1)
        if self.format["likelihood"]:
            of_token = torch.zeros(own.shape, device=self.device)
            of_token[own] = -torch.nn.functional.cross_entropy(logits, ids[own], reduction="none")
            scores = scores + self.head["likelihood_weight"] * of_token.sum(dim=1)
        return [float(score) for score in scores]

    def _read(self, ids: Any, real: Any, own: Any) -> tuple[Any, Any]:
        """Last hidden states, and the logits of the tokens at `own`, which an encoder does not have."""
        inputs = {"input_ids": ids, "attention_mask": real.long()}
        if not self.format["likelihood"]:
            return self.model.base_model(**inputs).last_hidden_state, None
        read: list[Any] = []

        def before(module: Any, arguments: Any) -> Any:
            read.append(arguments[0])
            # A token is predicted from the state before it.
            return (arguments[0][:, :-1][own[:, 1:]][None],)

        # The whole model is called, as some scale their logits or cap them after the head.
        handle = self.model.get_output_embeddings().register_forward_pre_hook(before)
        try:
            logits = self.model(**inputs).logits[0].float()
        finally:
            handle.remove()
        return read[0], logits
