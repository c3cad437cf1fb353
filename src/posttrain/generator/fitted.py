"""The temperature at which a generator gives gold answers the most likelihood (`measures.temperature`).

One pass over the answers sums the slope of their negative log-likelihood at each temperature of a grid, so that neither
logits nor states are kept. Of a token y with logits z at b = 1 / T, with means and variances under softmax(b z):

    d/d log T  -log p(y) = -b (E[z] - z_y),    d2/d(log T)2  -log p(y) = b (E[z] - z_y) + b^2 Var[z]
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from posttrain.core import processes
from posttrain.core.errors import DivergedError
from posttrain.core.loop import evaluating
from posttrain.core.params import Model
from posttrain.generator.batches import collate, forward, in_batches
from posttrain.generator.data import IGNORED, prompt_completion_rows
from posttrain.measures.temperature import GRID, Fit, fit_slopes
from posttrain.rollouts.episode import Row
from posttrain.rollouts.writer import Generator
from posttrain.tasks import Example

# Logits that are read at a time, for a CPU's cache and for the memory of a large vocabulary.
CHUNK = 2**20
FLOOR = -1e4  # below the target's logit; a model may give tokens that do not exist -inf


def gold_rows(
    examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, model: Model
) -> list[Row]:
    """The questions with their gold answers, end token included, as SFT trains on them."""
    limits = model.max_prompt_tokens, model.max_candidate_tokens
    found, _ = prompt_completion_rows(examples, tokenizer, *limits)
    return [Row.masked(row["input_ids"], [x != IGNORED for x in row["labels"]]) for row in found]


def fit_temperature(model: Generator, rows: Sequence[Row], batch_size: int) -> Fit:
    """The temperature that minimises the summed negative log-likelihood of the rows' actions.

    Several processes, called with the same rows, share them, and each gets the same fit.
    """
    device = next(model.parameters()).device
    sums = torch.zeros(2, len(GRID), dtype=torch.float64)
    # Not inference_mode, after which weights that FSDP gathers could not be trained.
    with evaluating(model), torch.no_grad():
        for batch, counts in processes.share(in_batches(model, rows, batch_size)):
            collated = collate(batch, device)
            for logits, tokens in forward(model, collated).chunks(collated.tokens):
                if counts:
                    sums += slopes(logits, tokens).cpu()
    slope, curvature = processes.total(sums).numpy()
    return fit_slopes(slope, curvature)


def slopes(logits: Tensor, tokens: Tensor) -> Tensor:
    """Both derivatives (2, G) at the grid's temperatures, summed over n tokens: (n, V) and (n,)."""
    inverse = torch.as_tensor(1 / GRID, dtype=torch.float32, device=logits.device)
    found = torch.zeros(2, len(GRID), dtype=torch.float64, device=logits.device)
    rows = max(1, CHUNK // logits.shape[-1])
    for start in range(0, len(tokens), rows):
        scores = logits[start : start + rows].float()
        targets = scores.gather(1, tokens[start : start + rows, None])
        if not bool(torch.isfinite(targets).all()):
            raise DivergedError("the generator's logits are not finite")
        above = (scores - targets).clamp_(min=FLOOR)
        squares = above.square()
        for place, each in enumerate(inverse):
            policy = (above * each).softmax(dim=-1)
            mean, square = (torch.linalg.vecdot(policy, x).double() for x in (above, squares))
            first = float(each) * mean
            second = first + float(each) ** 2 * (square - mean.square())
            found[:, place] += torch.stack([-first.sum(), second.sum()])
    return found
