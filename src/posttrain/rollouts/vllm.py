"""Sampling completions with vLLM (0.22 or later), with the signature of `sampling.sample`.

vLLM reads weights from a folder. With LoRA the engine is started once, on the base; each state of the adapter is
written to a temporary folder and named in a `LoRARequest`. Without LoRA the whole model is written, and the engine
starts anew, whenever the weights have changed. Prompts go in and completions come out as ids, so both engines agree on
special tokens, and vLLM's prefix cache lets the completions of one prompt share its prefill.

A seed fixes vLLM's samples on one machine and version as far as its kernels are deterministic; they differ from those
of the transformers engine.

Left out: several processes, tensor parallelism, servers, passing weights without a disk.
"""

from __future__ import annotations

import gc
import hashlib
import importlib
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from peft import PeftModel, get_peft_model_state_dict
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from posttrain.core.errors import UserError
from posttrain.models.lora import save_adapter
from posttrain.rollouts.sampling import BatchSize, Completion, check_request, complete, end_tokens
from posttrain.rollouts.writer import Generator

# The model that is being trained or evaluated needs the rest of the same GPU.
GPU_MEMORY = 0.5
SEQUENCES = 256  # in flight, where params.yaml leaves it to the engine
LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)


class VllmSampler:
    """A `Sampler` that keeps its engine between calls."""

    def __init__(self) -> None:
        self.vllm = _import("vllm")
        self.requests = _import("vllm.lora.request")
        self.folder = tempfile.TemporaryDirectory(prefix="vllm-")
        self.engine: Any = None
        self.running: tuple[Any, ...] = ()
        self.adapter: Any = None
        self.adapter_key = ""
        self.whole = Path()
        self.whole_key = ""
        self.written = 0

    def __call__(
        self,
        model: Generator,
        tokenizer: PreTrainedTokenizerBase,
        prompt_ids: Sequence[list[int]],
        *,
        temperatures: Sequence[float],
        max_new_tokens: int,
        top_p: float,
        seed: int,
        batch_size: BatchSize,
        keys: Sequence[str] | None = None,
    ) -> list[list[Completion]]:
        """The same as `sampling.sample`."""
        batch_size = SEQUENCES if batch_size == "auto" else batch_size
        ends = end_tokens(model, tokenizer)
        check_request(model.config, prompt_ids, len(temperatures), max_new_tokens)
        if not prompt_ids:
            return []
        longest = max(map(len, prompt_ids)) + max_new_tokens
        if isinstance(model, PeftModel):
            self._start(_base(model), longest, batch_size, _lora_rank(model))
            adapter = self._adapter(model)
        else:
            self._start(self._whole(model), longest, batch_size, None)
            adapter = None
        # One request for each temperature: its completions share a number `n`. All greedy completions of a prompt are
        # the same, and vLLM refuses to sample several.
        counts = Counter(temperatures)
        requests = [
            (
                {"prompt_token_ids": list(ids)},
                self.vllm.SamplingParams(
                    n=number if temperature > 0 else 1,
                    temperature=temperature,
                    top_p=top_p,
                    max_tokens=max_new_tokens,
                    stop_token_ids=ends,
                    ignore_eos=True,  # ours are above
                    seed=random.Random(f"{seed}/{key}").getrandbits(31),
                    detokenize=False,
                ),
            )
            for key, ids in zip(keys or range(len(prompt_ids)), prompt_ids, strict=True)
            for temperature, number in counts.items()
        ]
        outputs = iter(
            self.engine.generate(
                [prompt for prompt, _ in requests],
                [parameters for _, parameters in requests],
                lora_request=adapter,
                use_tqdm=False,
            )
        )
        groups = []
        for _ in prompt_ids:
            written = {
                temperature: cycle(
                    complete(list(each.token_ids), ends, tokenizer)
                    for each in next(outputs).outputs
                )
                for temperature in counts
            }
            groups.append([next(written[temperature]) for temperature in temperatures])
        return groups

    def _start(
        self, source: dict[str, Any], length: int, batch_size: int, rank: int | None
    ) -> None:
        """Start an engine on these weights for sequences of `length` tokens, unless such a one is running."""
        wanted = (*source.items(), batch_size, rank)
        if self.engine is not None and self.running[1:] == wanted and self.running[0] >= length:
            return
        if self.engine is not None:
            self.engine = None
            gc.collect()
            torch.cuda.empty_cache()
        lora = {} if rank is None else {"enable_lora": True, "max_lora_rank": rank}
        self.engine = self.vllm.LLM(
            **source,
            **lora,
            max_model_len=length,
            max_num_seqs=batch_size,
            gpu_memory_utilization=GPU_MEMORY,
            enable_prefix_caching=True,
            skip_tokenizer_init=True,
            generation_config="vllm",
            trust_remote_code=False,
        )
        self.running = (length, *wanted)

    def _adapter(self, model: PeftModel) -> Any:
        """The `LoRARequest` for the adapter's present weights; the same one until they change."""
        key = fingerprint(get_peft_model_state_dict(model, save_embedding_layers=False))
        if key != self.adapter_key:
            folder = self._new_folder()
            save_adapter(folder, model, model.name_or_path, None)
            # vLLM caches adapters by their number, so that must be new as well.
            self.adapter = self.requests.LoRARequest(folder.name, self.written, str(folder))
            self.adapter_key = key
        return self.adapter

    def _whole(self, model: Generator) -> dict[str, Any]:
        """The engine's arguments for a folder with the model's present weights; the same one until they change."""
        key = fingerprint(model.state_dict())
        if key != self.whole_key:
            self.whole = self._new_folder()
            model.save_pretrained(self.whole)
            self.whole_key = key
        return {"model": str(self.whole), "dtype": _dtype(model)}

    def _new_folder(self) -> Path:
        """An empty folder for weights; the previous one is deleted."""
        for old in Path(self.folder.name).iterdir():
            shutil.rmtree(old)
        self.written += 1
        folder = Path(self.folder.name) / f"weights-{self.written}"
        folder.mkdir()
        return folder


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of the tensors' names and bytes."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        flat = tensors[name].detach().cpu().contiguous().reshape(-1)
        total.update(name.encode() + b"\0" + flat.view(torch.uint8).numpy().tobytes())
    return total.hexdigest()[:16]


def _base(model: PeftModel) -> dict[str, Any]:
    """The engine's arguments for the frozen base: the folder or the hub name that it was loaded from."""
    base = model.get_base_model()
    source: dict[str, Any] = {"model": base.name_or_path, "dtype": _dtype(base)}
    if not Path(base.name_or_path).is_dir():
        source["revision"] = base.config._commit_hash
    return source


def _lora_rank(model: PeftModel) -> int:
    """The smallest rank that vLLM offers and that holds this adapter; `UserError` if there is none."""
    rank = model.peft_config["default"].r
    fitting = [size for size in LORA_RANKS if size >= rank]
    if not fitting:
        raise UserError(f"lora.r: {rank} is more than vLLM's largest rank, {LORA_RANKS[-1]}")
    return fitting[0]


def _dtype(model: Generator) -> str:
    return str(model.dtype).removeprefix("torch.")


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(
            "sampling.engine: vllm cannot be imported; "
            f"pip install 'vllm>=0.22', or use transformers ({error})"
        ) from error
