"""The parts of the environment ALFWorld, as offered by `posttrain.tasks.get_task("alfworld")`; see `Task` there."""

from posttrain.environments.alfworld.baselines import baselines
from posttrain.environments.alfworld.describe import describe
from posttrain.environments.alfworld.fetch import fetch
from posttrain.environments.alfworld.game import open
from posttrain.environments.alfworld.prompt import prompt
from posttrain.environments.starts import examples, measure

__all__ = ["baselines", "describe", "examples", "fetch", "measure", "open", "prompt"]
