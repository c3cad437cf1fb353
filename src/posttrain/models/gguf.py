"""Models in GGUF files, converted once to a plain folder that transformers loads as any other.

    file = find(entry)                  the GGUF file of an entry of params.yaml, got and checked
    folder = converted(entry)           its folder in `DOWNLOADS`: safetensors, configuration and tokenizer

The reader is that of transformers. Weights that were rounded to fewer bits stay as rounded: only their form changes. Of
text-only decoders, all architectures and roundings that transformers reads are converted; the rest is refused.

A tokenizer of byte pairs splits text before it merges bytes, by a rule that a GGUF file only names (`tokenizer.ggml.pre`).
transformers takes GPT-2's for a name that it does not know; here such a name is refused, as tokens would be others than in
training (with GPT-2's rule SmolLM2 reads two line breaks before a digit as two tokens; it was trained on one).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from gguf import GGUFReader
from huggingface_hub import hf_hub_download
from tokenizers import pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GgufConfig,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
)
from transformers.integrations.gguf import read_gguf_metadata
from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

from posttrain.core.errors import UserError
from posttrain.core.files import atomic_directory, read_json, write_json
from posttrain.core.inputs import DOWNLOADS, hash_files, named_file
from posttrain.core.params import Model
from posttrain.models import hub
from posttrain.models.load import DTYPES, Dtype, first_line, hash_model
from posttrain.models.package import package_file

T = TypeVar("T")

RECORD = "converted.json"  # beside the folder `model`: what it was made from, and its digests
GPT_2 = ("gpt-2", "mpt", "olmo", "phi-2")  # names in llama.cpp of GPT-2's rule
DIGITS = ("refact", "smollm", "starcoder")  # of GPT-2's rule with each digit apart
_PROBE = "a\n\n12 +  3.45 = <b>'s</b>"


def find(entry: Model) -> Path:
    """The GGUF file of an entry; `UserError` if it cannot be had or has another SHA-256 than the entry says."""
    if entry.source == "package":
        assert entry.file is not None
        return package_file(entry.name, entry.file, entry.sha256)
    local = entry.source == "path"
    file = named_file(entry.name, "models.*.name") if local else _hub_file(entry)
    if entry.sha256 is not None and (found := sha256_of(file)) != entry.sha256:
        raise UserError(f"{file}: has SHA-256 {found}, expected {entry.sha256}")
    return file


def _hub_file(entry: Model) -> Path:
    assert entry.file is not None
    cached_only = hub.check(entry.name, entry.revision, entry.file)
    try:
        return Path(
            hf_hub_download(
                entry.name, entry.file, revision=entry.revision, local_files_only=cached_only
            )
        )
    except (OSError, ValueError) as error:
        raise UserError(
            f"model {entry.name}: {entry.file} cannot be reached: {first_line(error)}"
        ) from error


def sha256_of(file: Path) -> str:
    """The file's SHA-256, computed once."""
    return hash_files({file.name: file})[file.name]


def converted(entry: Model) -> Path:
    """The folder with the converted model of an entry, which is converted if it is not there yet."""
    file = find(entry)
    made_from = {"gguf": sha256_of(file), "dtype": entry.dtype}
    cached = DOWNLOADS / f"{made_from['gguf'][:16]}-{entry.dtype}"
    if _is_whole(cached, made_from):
        return cached / "model"
    print(f"converting {file.name} to safetensors, once", flush=True)
    with atomic_directory(cached) as directory:
        (directory / "model").mkdir()
        convert(file, directory / "model", entry.dtype)
        write_json(directory / RECORD, made_from | hash_model(directory / "model"))
    return cached / "model"


def _is_whole(cached: Path, made_from: dict[str, str]) -> bool:
    if not (cached / RECORD).is_file():
        return False
    return bool(read_json(cached / RECORD) == made_from | hash_model(cached / "model"))


def read_config(file: Path) -> PreTrainedConfig:
    """The configuration of the model in a GGUF file; `UserError` if it is none that transformers reads."""
    return _read(file, lambda named: AutoConfig.from_pretrained(**named))


def convert(file: Path, directory: Path, dtype: Dtype) -> None:
    """Write the model and the tokenizer of a GGUF file into a folder, in the form of `save_pretrained`."""
    tokenizer = read_tokenizer(file)

    def load(named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        read: tuple[Any, dict[str, Any]] = AutoModelForCausalLM.from_pretrained(
            **named,
            dtype=DTYPES[dtype],
            quantization_config=GgufConfig(dequantize=True),  # else it cannot be saved
            output_loading_info=True,
        )
        return read

    model, told = _read(file, load)
    for kind, names in told.items():  # weights of the model that the file lacks would be random
        if names:
            raise UserError(f"{file}: cannot be converted: {kind}: {min(map(str, names))}")
    tensors = _read(file, lambda named: GGUFReader(file).tensors)
    unread = sum(int(each.n_elements) for each in tensors) - model.num_parameters()
    if (
        unread
    ):  # such as the factors of Llama 3's positions, without which its long texts are others
        raise UserError(
            f"{file}: cannot be converted: holds {unread:,} numbers that transformers does not read"
        )
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    again = AutoTokenizer.from_pretrained(directory)
    assert again(_PROBE)["input_ids"] == tokenizer(_PROBE)["input_ids"]


def read_tokenizer(file: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a GGUF file, which splits text as the file says."""
    tokenizer: PreTrainedTokenizerBase = _read(
        file, lambda named: AutoTokenizer.from_pretrained(**named)
    )
    metadata, _ = _read(file, lambda named: read_gguf_metadata(str(file)))
    rule = metadata.get("tokenizer.ggml.pre")
    if metadata.get("tokenizer.ggml.model") != "gpt2" or rule in (
        *GGUF_PRE_TOKENIZER_SPLITS,
        *GPT_2,
    ):
        return tokenizer
    if rule not in DIGITS:
        raise UserError(
            f"{file}: cannot be converted: how its tokenizer splits text is not known (tokenizer.ggml.pre: {rule}); take "
            "a folder with the model's safetensors, config.json and tokenizer.json"
        )
    backend: Any = tokenizer
    backend.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    return tokenizer


def _read(file: Path, read: Callable[[dict[str, Any]], T]) -> T:
    """What `read` makes of the arguments that name the file for transformers; `UserError` for any failure."""
    with file.open("rb") as opened:
        if opened.read(4) != b"GGUF":
            raise UserError(f"{file}: is not a GGUF file")
    try:
        return read({"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name})
    # The readers raise anything on a file that is not what they expect.
    except Exception as error:
        raise UserError(
            f"{file}: cannot be converted: {type(error).__name__}: {first_line(error)}"
        ) from error
