"""The parts of the environment WebShop, as offered by `posttrain.tasks.get_task("webshop")`; see `Task` there."""

from posttrain.environments.starts import examples, measure
from posttrain.environments.webshop.baselines import baselines
from posttrain.environments.webshop.describe import describe
from posttrain.environments.webshop.fetch import fetch
from posttrain.environments.webshop.game import open
from posttrain.environments.webshop.prompt import prompt

__all__ = ["baselines", "describe", "examples", "fetch", "measure", "open", "prompt"]
