"""The parts of the environment TextCraft, as offered by `posttrain.tasks.get_task("textcraft")`; see `Task` there."""

from posttrain.environments.starts import examples, measure
from posttrain.environments.textcraft.baselines import baselines
from posttrain.environments.textcraft.describe import describe
from posttrain.environments.textcraft.fetch import fetch
from posttrain.environments.textcraft.game import open
from posttrain.environments.textcraft.prompt import prompt

__all__ = ["baselines", "describe", "examples", "fetch", "measure", "open", "prompt"]
