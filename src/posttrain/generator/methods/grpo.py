"""GRPO (Shao et al. 2024) on tokens: TRL's GRPOTrainer; on episodes, the loop of `generator.on_policy`.

    A_i = (r_i - mean_j r_j) / s over the completions of one prompt;   ratio_t = policy(t) / old_policy(t)
    objective = min(ratio_t A, clip(ratio_t, 1 - eps, 1 + eps) A) - kl_coef ratio_t (exp(d_t) - d_t - 1)

with d_t = log SFT(t) - log policy(t): the estimator of the KL that is never negative (Schulman 2020, "k3"), times the
ratio, so that its gradient is that of the KL (DeepSeek-V3.2, 2025). s is the deviation of the prompt's own rewards
(`scale_rewards: group`, the paper), that of all rewards of the batch (batch), or 1 (none, Liu et al. 2025). Rewards deviate
by less than 1, so a division makes `kl_coef` weaker against them.

The objective is averaged over all completion tokens of the rollout batch (loss_type "dapo", Yu et al. 2025). The paper
averages within each completion first ("grpo"), so the tokens of a long wrong answer count less than those of a short
one. An unfinished completion is trained on like any other, with the reward of its text.

For an episode, r is its return, the prompt's completions are the episodes of one start, and t counts all tokens that the
policy wrote in it. TRL's trainer stays for tasks of one turn: it reads a question once for all its completions with a
fused head, and is tested against the formulas here; it knows no turns with rewards of their own, and no curriculum.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from datasets import Dataset
from torch import Tensor
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from posttrain.core.loop import History, Stats
from posttrain.generator import on_policy, trl
from posttrain.generator.on_policy import Acted
from posttrain.generator.run import Run
from posttrain.generator.settings import OnPolicy
from posttrain.rollouts.credit import Scale, grpo_advantages
from posttrain.rollouts.groups import ROUNDING


class Settings(OnPolicy):
    """scale_rewards: which deviation divides an advantage."""

    scale_rewards: Scale = "group"


class Trainer(trl.Rollouts, GRPOTrainer):
    """TRL's trainer, with our token ids, sampling and scoring."""

    rounding = ROUNDING / 1e-4  # TRL divides by the deviation + 1e-4

    def _generate_single_turn(
        self, prompt_ids: list[list[int]], *others: Any
    ) -> tuple[list[list[int]], None]:
        return self.draw(prompt_ids), None


def credit(settings: Settings, acted: Acted) -> tuple[Tensor, Stats]:
    """The advantage of each action, which is that of its episode, (M,)."""
    returns = [episode.score for episode in acted.episodes]
    groups = [episode.id for episode in acted.episodes]
    return acted.of_episodes(grpo_advantages(returns, groups, settings.scale_rewards)), {}


def train(run: Run, settings: Settings) -> History:
    """Train `run.model` in place; it ends with the weights of its best validation."""
    if run.plays or settings.curriculum.by:
        terms = on_policy.Terms(kl=settings.kl_coef)
        return on_policy.train(run, settings, partial(credit, settings), terms=terms)
    rows = run.data.prompts(settings.prompts)
    watch = trl.Watch(run, "reward", settings.evaluations, settings.inner_epochs)
    reference = trl.reference_of(run.model, settings.kl_coef)
    trainer = Trainer(
        run.model,
        trl.reward_of(run),
        GRPOConfig(
            **trl.common_arguments(run, settings),
            **trl.rollout_arguments(run, settings, len(rows)),
            beta=settings.kl_coef if reference is None else 0.0,
            epsilon=settings.clip_range,
            scale_rewards=settings.scale_rewards,
            use_bias_correction_kl=True,
            loss_type="dapo",
            mask_truncated_completions=False,
            disable_dropout=True,
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=run.tokenizer,
        callbacks=[watch],
    )
    trainer.run = run
    trl.refer_to(trainer, reference, settings.kl_coef)
    return trl.train(trainer, watch)
