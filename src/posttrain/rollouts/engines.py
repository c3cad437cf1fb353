"""The engines that sample completions, by their names in `sampling.engine`."""

from __future__ import annotations

from posttrain.core import processes
from posttrain.core.errors import UserError
from posttrain.rollouts.sampling import Engine, Sampler, sample


def sampler(engine: Engine) -> Sampler:
    """`sample` on an engine; `UserError` if it is not installed, or cannot run in several processes."""
    if engine == "transformers":
        return sample
    if processes.count() > 1:
        raise UserError(
            f"sampling.engine: vllm draws in one process, and the launcher started {processes.count()}; "
            "use transformers, or launch: python"
        )
    from posttrain.rollouts.vllm import VllmSampler

    return VllmSampler()
