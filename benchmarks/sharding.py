"""Memory of a process that holds all frozen weights, or only its part of them.

    python benchmarks/sharding.py
    accelerate launch --config_file launch/gpus-fsdp2.yaml benchmarks/sharding.py

A random Llama of `--layers` layers of 64 MiB, with adapters and gradient checkpointing, is loaded as in the stages, and
makes two forward and backward passes and one forward pass on 16 tokens. Memory is torch's allocation on a GPU, or else the
private memory of the process. Without a GPU, set MALLOC_MMAP_THRESHOLD_=1000000, so that freed memory returns to the
system, and start no more processes than there are cores.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
from pathlib import Path

import torch
from accelerate.utils import broadcast_object_list
from transformers import LlamaConfig, LlamaForCausalLM

from posttrain.core import processes
from posttrain.core.loop import device
from posttrain.models.architecture import recompute_activations
from posttrain.models.load import load_causal_lm
from posttrain.models.lora import add_lora


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--layers", type=int, default=16)
    layers = parser.parse_args().layers
    processes.state()
    with tempfile.TemporaryDirectory() as own:
        (folder,) = broadcast_object_list([own])
        if processes.is_main():
            write_model(Path(folder), layers)
        processes.wait()
        start = held()
        model = load_causal_lm(Path(folder), device=device())
        weights = sum(parameter.numel() * parameter.itemsize for parameter in model.parameters())
        loaded = held() - start
        peak = peak_of_passes(add_lora(model, 4, 8, 0.0, "auto", "CAUSAL_LM")) - start
        told = f"process {processes.index()}: weights {weights >> 20} MiB"
        lines = processes.collect([f"{told}, after loading {loaded >> 20}, at most {peak >> 20}"])
    if processes.is_main():
        print("\n".join(lines))


def write_model(folder: Path, layers: int) -> None:
    sizes = {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 8}
    config = LlamaConfig(vocab_size=512, num_hidden_layers=layers, num_key_value_heads=8, **sizes)
    LlamaForCausalLM(config).save_pretrained(folder)


def peak_of_passes(model: torch.nn.Module) -> int:
    """Peak memory in bytes of two forward and backward passes, and of one without gradients."""
    recompute_activations(model)
    ids = torch.randint(0, 512, (1, 16), device=device())
    with Watch() as watch:
        for _ in range(2):
            model(input_ids=ids, labels=ids).loss.backward()
        with torch.no_grad():
            model(input_ids=ids)
    return watch.peak


def held() -> int:
    """Bytes allocated by this process on its GPU, or else its private memory."""
    if device().type == "cuda":
        return torch.cuda.memory_allocated()
    status = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    (line,) = (line for line in status if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024


class Watch:
    """Records in `peak` the maximum of `held` inside the block."""

    def __enter__(self) -> Watch:
        self.peak = held()
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.look)
        if device().type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        self.thread.start()
        return self

    def look(self) -> None:
        while not self.ended.wait(0.005):
            self.peak = max(self.peak, held())

    def __exit__(self, *error: object) -> None:
        self.ended.set()
        self.thread.join()
        if device().type == "cuda":
            self.peak = torch.cuda.max_memory_allocated()


if __name__ == "__main__":
    main()
