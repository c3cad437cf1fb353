"""Log-probabilities of tokens from a language model's hidden states, without the logits of all positions at once.

Logits of n positions over a vocabulary of V are n V numbers, and their gradient, the softmax and its gradient as many each.
Beyond CHUNK of them, `TokenScores` computes them in chunks, and again in the backward pass, as TRL's fused head does for the
methods that it trains. It calls the model, not its head, since some scale or cap what the head gives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

CHUNK = 2**25  # logits at once: 128 MiB in float32


@dataclass(frozen=True, slots=True)
class TokenScores:
    """What a model says of the next token at n positions, from the hidden states (n, d) there.

    model: the language model without a wrapper. call: calls it. output: the type that its backbone returns.
    """

    states: Tensor
    model: Any
    call: Callable[..., Any]
    output: type[Any]

    @property
    def logits(self) -> Tensor:
        """Of all positions, (n, V)."""
        return self._logits(self.states)

    def chunks(self, tokens: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Logits (m, V) of m positions after the other, and their tokens (m,)."""
        for states, own in self._parts(tokens):
            yield self._logits(states), own

    def log_probs(self, tokens: Tensor, temperature: float = 1.0) -> Tensor:
        """log softmax(logits / temperature) of each token: (n,) to (n,) float32."""

        def score(states: Tensor, own: Tensor) -> Tensor:
            logits = self._logits(states).float() / temperature
            return -cross_entropy(logits, own, reduction="none")

        return self._in_chunks(score, tokens)

    def with_entropies(self, tokens: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        """`log_probs`, and the entropy of softmax(logits / temperature) at each position: (n,) float32 each."""

        def score(states: Tensor, own: Tensor) -> Tensor:
            logits = self._logits(states).float() / temperature
            log_policy = torch.log_softmax(logits, dim=-1)
            entropy = -(log_policy.exp() * log_policy).sum(dim=-1)
            return torch.stack([-cross_entropy(logits, own, reduction="none"), entropy], dim=1)

        log_probs, entropies = self._in_chunks(score, tokens).unbind(dim=1)
        return log_probs, entropies

    def _in_chunks(self, score: Callable[[Tensor, Tensor], Tensor], tokens: Tensor) -> Tensor:
        parts = self._parts(tokens)
        if len(parts) > 1 and torch.is_grad_enabled():
            return torch.cat([checkpoint(score, *part, use_reentrant=False) for part in parts])
        return torch.cat([score(*part) for part in parts])

    def _parts(self, tokens: Tensor) -> list[tuple[Tensor, Tensor]]:
        size = max(1, CHUNK // int(self.model.config.vocab_size))
        return [
            (self.states[start : start + size], tokens[start : start + size])
            for start in range(0, max(1, len(tokens)), size)
        ]

    def _logits(self, states: Tensor) -> Tensor:
        backbone, read = vars(self.model.get_decoder()), self.output(last_hidden_state=states[None])
        # What nn.Module calls in place of its forward and all hooks, as after `compile`: nothing is read here.
        name = "_compiled_call_impl"
        before = {name: backbone[name]} if name in backbone else {}
        backbone[name] = lambda *arguments, **others: read
        try:
            logits: Tensor = self.call(inputs_embeds=states[None], use_cache=False).logits[0]
        finally:
            del backbone[name]
            backbone.update(before)
        return logits


def read(
    model: Any,
    run: Callable[[], object],
    select: Callable[[Tensor], Tensor],
    call: Callable[..., Any] | None = None,
) -> tuple[Tensor, TokenScores]:
    """The last hidden states (B, L, d) of a forward pass, and the scores at the positions that `select` takes from them.

    model: the language model without a wrapper, with a head. run: the forward pass, whose own logits are not computed; of
    several the last one counts. call: calls the model, if not as it is.
    """
    seen: list[Tensor] = []
    outputs: list[type[Any]] = []

    def skip(module: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor]:
        seen.append(arguments[0])
        return (arguments[0][:, :0],)

    def note(module: nn.Module, arguments: object, output: object) -> None:
        outputs.append(type(output))

    handles = (
        model.get_output_embeddings().register_forward_pre_hook(skip),
        model.get_decoder().register_forward_hook(note),
    )
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    return seen[-1], TokenScores(select(seen[-1]), model, call or model, outputs[-1])
