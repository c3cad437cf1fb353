"""The parts of the abduction task, as offered by `posttrain.tasks.get_task("abd")`; see `Task` there.

Each part has its own module, so that a stage depends only on the parts that it uses.
"""

from posttrain.tasks.abd.audit import audit
from posttrain.tasks.abd.baselines import baselines
from posttrain.tasks.abd.examples import examples, measure
from posttrain.tasks.abd.explain import explain
from posttrain.tasks.abd.fetch import fetch
from posttrain.tasks.abd.prompt import prompt, target
from posttrain.tasks.abd.score import score, score_all

__all__ = [
    "audit",
    "baselines",
    "examples",
    "explain",
    "fetch",
    "measure",
    "prompt",
    "score",
    "score_all",
    "target",
]
