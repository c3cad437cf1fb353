"""The parts of the deduction task, as offered by `posttrain.tasks.get_task("ded")`; see `Task` there.

Each part has its own module, so that a stage depends only on the parts that it uses.
"""

from posttrain.tasks.ded.audit import audit
from posttrain.tasks.ded.baselines import baselines
from posttrain.tasks.ded.examples import examples, measure
from posttrain.tasks.ded.explain import explain
from posttrain.tasks.ded.fetch import fetch
from posttrain.tasks.ded.prompt import prompt, target
from posttrain.tasks.ded.score import score, score_all

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
