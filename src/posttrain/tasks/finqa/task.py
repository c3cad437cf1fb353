"""The parts of the FinQA task, as offered by `posttrain.tasks.get_task("finqa")`; see `Task` there.

Each part has its own module, so that a stage depends only on the parts that it uses.
"""

from posttrain.tasks.finqa.audit import audit
from posttrain.tasks.finqa.calculate import calculate
from posttrain.tasks.finqa.candidates import candidates
from posttrain.tasks.finqa.describe import describe
from posttrain.tasks.finqa.examples import examples, measure
from posttrain.tasks.finqa.explain import explain
from posttrain.tasks.finqa.fetch import fetch
from posttrain.tasks.finqa.prompt import prompt, target
from posttrain.tasks.finqa.score import score

__all__ = [
    "audit",
    "calculate",
    "candidates",
    "describe",
    "examples",
    "explain",
    "fetch",
    "measure",
    "prompt",
    "score",
    "target",
]
