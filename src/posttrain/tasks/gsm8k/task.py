"""The parts of the GSM8K task, as offered by `posttrain.tasks.get_task("gsm8k")`; see `Task` there.

Each part has its own module, so that a stage depends only on the parts that it uses.
"""

from posttrain.tasks.gsm8k.audit import audit
from posttrain.tasks.gsm8k.calculate import calculate
from posttrain.tasks.gsm8k.candidates import candidates
from posttrain.tasks.gsm8k.describe import describe
from posttrain.tasks.gsm8k.examples import examples, measure
from posttrain.tasks.gsm8k.explain import explain
from posttrain.tasks.gsm8k.fetch import fetch
from posttrain.tasks.gsm8k.prompt import prompt, target
from posttrain.tasks.gsm8k.score import score

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
