"""PPO with a second set of settings: those of a published guide to training on Affine's and AgentGym's environments.

It is `ppo` by another name, so that both can be trained and compared in one run. Its settings are in `generator.ppo_affine`:
four passes over a rollout, clipping at 0.2, a value head with coefficient 0.5, entropy 0.01, lambda 0.95, gamma 0.99.
"""

from posttrain.generator.methods.ppo import Settings, train

__all__ = ["Settings", "train"]
