"""RLOO (Ahmadian et al. 2024) on whole completions: TRL's RLOOTrainer; on episodes, the loop of `generator.on_policy`.

    R_i = r_i - kl_coef sum_t (log policy(t) - log SFT(t));   A_i = R_i - mean_{j != i} R_j over a prompt's completions
    objective = min(ratio A, clip(ratio, 1 - eps, 1 + eps) A),   ratio = policy(completion) / old_policy(completion)

The objective is averaged over the completions of the rollout batch. On the first pass the ratio is 1 and the gradient
that of REINFORCE. An unfinished completion is trained on like any other, with the reward of its text.

For an episode, r is its return and t counts all tokens that the policy wrote in it. The ratio there is that of a token,
and the mean is over tokens: the ratio of hundreds of tokens together would leave the range after one update. TRL's
trainer stays for tasks of one turn: it reads a question once for all its completions with a fused head, and is tested
against the formulas here; it knows no turns with rewards of their own, and no curriculum.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from datasets import Dataset
from torch import Tensor
from trl.trainer.rloo_config import RLOOConfig
from trl.trainer.rloo_trainer import RLOOTrainer

from posttrain.core.loop import History, Stats
from posttrain.generator import on_policy, trl
from posttrain.generator.on_policy import Acted
from posttrain.generator.run import Run
from posttrain.generator.settings import OnPolicy
from posttrain.rollouts.credit import rloo_advantages
from posttrain.rollouts.groups import ROUNDING


class Settings(OnPolicy):
    """Settings of RLOO."""


class Trainer(trl.Rollouts, RLOOTrainer):
    """TRL's trainer, with our token ids, sampling and scoring."""

    rounding = ROUNDING

    def _generate_single_turn(self, prompt_ids: list[list[int]], *others: Any) -> list[list[int]]:
        return self.draw(prompt_ids)


def credit(settings: Settings, acted: Acted) -> tuple[Tensor, Stats]:
    """The advantage of each action, which is that of its episode, (M,)."""
    paid = settings.kl_coef * (acted.log_probs - acted.reference_log_probs)
    returns = [
        episode.score - float(acted.of(number, paid).sum())
        for number, episode in enumerate(acted.episodes)
    ]
    found = rloo_advantages(returns, [episode.id for episode in acted.episodes])
    return acted.of_episodes(found), {}


def train(run: Run, settings: Settings) -> History:
    """Train `run.model` in place; it ends with the weights of its best validation."""
    if run.plays or settings.curriculum.by:
        return on_policy.train(run, settings, partial(credit, settings))
    rows = run.data.prompts(settings.prompts)
    watch = trl.Watch(run, "reward", settings.evaluations, settings.inner_epochs)
    reference = trl.reference_of(run.model, settings.kl_coef)
    trainer = Trainer(
        run.model,
        trl.reward_of(run),
        RLOOConfig(
            **trl.common_arguments(run, settings),
            **trl.rollout_arguments(run, settings, len(rows)),
            beta=settings.kl_coef if reference is None else 0.0,
            epsilon=settings.clip_range,
            normalize_advantages=False,
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
