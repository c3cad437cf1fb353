"""The parts of the environment BabyAI, as offered by `posttrain.tasks.get_task("babyai")`; see `Task` there."""

from posttrain.environments.babyai.baselines import baselines
from posttrain.environments.babyai.describe import describe
from posttrain.environments.babyai.fetch import fetch
from posttrain.environments.babyai.game import open
from posttrain.environments.babyai.prompt import prompt
from posttrain.environments.starts import examples, measure

__all__ = ["baselines", "describe", "examples", "fetch", "measure", "open", "prompt"]
