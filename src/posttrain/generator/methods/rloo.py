"""RLOO (Ahmadian et al. 2024) on whole completions: TRL's RLOOTrainer.

R_i = r_i - kl_coef sum_t (log policy(t) - log SFT(t));   A_i = R_i - mean_{j != i} R_j over the completions of one prompt
objective = min(ratio A, clip(ratio, 1 - eps, 1 + eps) A),   ratio = policy(completion) / old_policy(completion)

averaged over the completions of the rollout batch. On the first pass the ratio is 1 and the gradient REINFORCE's. A
completion that did not end is trained on like any other, its reward tells what it is worth.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase
from trl.trainer.rloo_config import RLOOConfig
from trl.trainer.rloo_trainer import RLOOTrainer

from posttrain.core.params import GeneratorRLOO
from posttrain.core.training import History
from posttrain.generator.data import Row
from posttrain.generator.trl import (
    Evaluate,
    Report,
    Rollouts,
    Watch,
    common_arguments,
    refer_to,
    reference_of,
    rollout_arguments,
    run,
)
from posttrain.rollouts.rewards import RewardFunction
from posttrain.rollouts.sampling import Sampler

BEST_BY = "reward"


class Trainer(Rollouts, RLOOTrainer):
    """TRL's, on our token ids, sampling and scoring."""

    def _generate_single_turn(self, prompt_ids: list[list[int]], *others: Any) -> list[list[int]]:
        return self.draw(prompt_ids)


def train(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Row],
    reward: RewardFunction,
    config: GeneratorRLOO,
    *,
    batch_size: int,
    max_completion_tokens: int,
    sample: Sampler,
    in_flight: int,
    seed: int,
    work: Path,
    evaluate: Evaluate,
    report: Report,
) -> History:
    """Train `model` in place on rows of `data.prompt_rows`; it ends with the weights of its best validation.

    batch_size: completions per pass. sample: draws them (`sampling.sampler`), `in_flight` at a time.
    work: folder of this run's checkpoints; the caller removes it when the result is in place.
    """
    watch = Watch(model, evaluate, BEST_BY, config.evaluations, report, config.inner_epochs)
    reference = reference_of(model, config.kl_coef)
    trainer = Trainer(
        model,
        reward,
        RLOOConfig(
            **common_arguments(config, model, seed, work),
            **rollout_arguments(
                min(config.prompts_per_step, len(rows)),
                config.samples,
                batch_size,
                config.inner_epochs,
                config.steps,
            ),
            temperature=config.temperature,
            max_completion_length=max_completion_tokens,
            beta=config.kl_coef if reference is None else 0.0,
            epsilon=config.clip_range,
            normalize_advantages=False,
            mask_truncated_completions=False,
            disable_dropout=True,
        ),
        train_dataset=Dataset.from_list(list(rows)),
        processing_class=tokenizer,
        callbacks=[watch],
    )
    trainer.sample, trainer.in_flight = sample, in_flight
    refer_to(trainer, reference, config.kl_coef)
    return run(trainer, watch, work)
