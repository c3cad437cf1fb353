"""The parts of the task SAT, as offered by `posttrain.tasks.get_task("sat")`; see `Task` there.

Each part has its own module, so that a stage depends only on the parts that it uses.
"""

from posttrain.tasks.sat.audit import audit
from posttrain.tasks.sat.baselines import baselines
from posttrain.tasks.sat.candidates import candidates
from posttrain.tasks.sat.describe import describe
from posttrain.tasks.sat.examples import examples, measure
from posttrain.tasks.sat.explain import explain
from posttrain.tasks.sat.fetch import fetch
from posttrain.tasks.sat.prompt import prompt
from posttrain.tasks.sat.score import score

__all__ = [
    "audit",
    "baselines",
    "candidates",
    "describe",
    "examples",
    "explain",
    "fetch",
    "measure",
    "prompt",
    "score",
]
