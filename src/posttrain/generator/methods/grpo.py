"""GRPO (Shao et al. 2024) on tokens: TRL's GRPOTrainer.

A_i = (r_i - mean_j r_j) / std_j r_j over the completions of one prompt;   ratio_t = policy(t) / old_policy(t)
objective = min(ratio_t A, clip(ratio_t, 1 - eps, 1 + eps) A) - kl_coef (exp(d_t) - d_t - 1)
where d_t = log SFT(t) - log policy(t), the estimator of the KL that is never negative (Schulman 2020, "k3")

averaged over all completion tokens of the rollout batch (loss_type "dapo", Yu et al. 2025): the paper's mean per
completion first ("grpo") makes the tokens of a long wrong answer count less than those of a short one. A completion
that did not end is trained on like any other, its reward tells what it is worth.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from posttrain.core.params import GeneratorGRPO
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


class Trainer(Rollouts, GRPOTrainer):
    """TRL's, on our token ids, sampling and scoring."""

    def _generate_single_turn(
        self, prompt_ids: list[list[int]], *others: Any
    ) -> tuple[list[list[int]], None]:
        return self.draw(prompt_ids), None


def train(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Row],
    reward: RewardFunction,
    config: GeneratorGRPO,
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
        GRPOConfig(
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
            scale_rewards="group",
            loss_type="dapo",
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
