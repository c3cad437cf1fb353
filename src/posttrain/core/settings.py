"""Settings that all methods of all policies share."""

from __future__ import annotations

from posttrain.core.schema import Fraction, NonNegative, Positive, Rate, Section


class Optimization(Section):
    """AdamW with gradients clipped at norm `max_grad_norm`, and evenly spaced validations.

    The learning rate rises linearly over the fraction `warmup` of the steps, then falls by a cosine to a tenth. There are
    `evaluations` validations, each on `evaluation_questions` questions.
    """

    learning_rate: Rate
    warmup: Fraction
    weight_decay: NonNegative
    max_grad_norm: Rate
    evaluations: Positive
    evaluation_questions: Positive


class SFT(Optimization):
    """At most `epochs` passes over the questions, over all of which learning rate and validations are spread.

    patience: the training ends once that many validations in a row were not better than the best before them; null: never.
    """

    epochs: Positive
    patience: Positive | None = None
