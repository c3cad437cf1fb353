"""The parts of the environment SciWorld, as offered by `posttrain.tasks.get_task("sciworld")`; see `Task` there."""

from posttrain.environments.sciworld.baselines import baselines
from posttrain.environments.sciworld.describe import describe
from posttrain.environments.sciworld.fetch import fetch
from posttrain.environments.sciworld.game import open
from posttrain.environments.sciworld.prompt import prompt
from posttrain.environments.starts import examples, measure

__all__ = ["baselines", "describe", "examples", "fetch", "measure", "open", "prompt"]
