"""Load a base model: backbone, language model, configuration or tokenizer.

A model is named in one of three ways, and `locate` turns each into a `Location`:

    models/base                a folder with `base.json`, written by stage `base`, which names one of the other two, or
                               says that the folder `models/base/converted` is the model (`models.gguf`)
    meta-llama/Llama-3.2-1B    a Hugging Face name, with the commit to load
    ./checkpoints/llama        a local folder with `config.json` and safetensors weights

Weights are read as safetensors; a hub model that has only `pytorch_model.bin` is read by torch's weights-only unpickler,
which runs no code. Code from a model repository is never run (`trust_remote_code=False`). Weights in 8 or 4 bits
(`quantization`) are quantized by bitsandbytes during loading and stay on this process's GPU. If the launcher asks for it
(`processes.sharded`), each process keeps only a part of the frozen weights (`models.sharding`).
"""

from __future__ import annotations

import codecs
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from huggingface_hub.errors import StrictDataclassError
from peft import PeftModel
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from posttrain.core import processes
from posttrain.core.cost import READ
from posttrain.core.errors import UserError
from posttrain.core.files import absent, read_json, read_text, write_json
from posttrain.core.inputs import WEIGHTS, Digest, hash_files, model_files
from posttrain.core.manifest import check_files
from posttrain.core.not_trained import why_not_trained
from posttrain.core.params import Lora, Model
from posttrain.models import chat
from posttrain.models.lora import add_lora
from posttrain.models.sharding import shard
from posttrain.models.tokens import special_ids

logger = logging.getLogger(__name__)

BASE = Path("models/base")  # output of stage base
BASE_FILE = "base.json"
CONVERTED = "converted"  # in models/base, the model of a GGUF file
JSON_FILES = (  # of a model, each an object
    "config.json",
    "generation_config.json",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
Dtype = Literal["float32", "bfloat16", "float16"]
Quantization = Literal["8bit", "4bit"]
Prompt = Literal["plain", "chat"]
T = TypeVar("T")

# What remains of a model's own generation settings: the ends of a text, and what changes no token.
KEPT_SETTINGS = (
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "output_attentions",
    "output_hidden_states",
    "use_cache",
    "_from_model_config",
)

# Raised by transformers for files that are missing, broken, or do not fit each other.
UNLOADABLE = (
    OSError,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    RuntimeError,
    ImportError,
    SafetensorError,
    StrictDataclassError,
)

_GGUF = (
    "stage base converts a GGUF file that an entry of params.yaml names; see docs/adding-a-model.md"
)


@dataclass(frozen=True, slots=True)
class Location:
    """A model as transformers loads it: a folder, or a hub name and the commit to load; and how it is asked."""

    name_or_path: str
    revision: str | None = None
    prompt: Prompt = "plain"

    def __str__(self) -> str:
        at = f" at revision {self.revision}" if self.revision else ""
        return f"model {self.name_or_path}{at}"


def place(entry: Model) -> tuple[str | Path, str | None]:
    """The model of an entry of params.yaml as the functions below take it: a hub name or a folder, and the revision.

    A GGUF file's is in models/base.
    """
    if entry.is_gguf:
        return BASE, None
    name = Path(entry.name).expanduser() if entry.source == "path" else entry.name
    return name, entry.revision


def locate(model: str | Path, revision: str | None = None) -> Location:
    """The location that a `base.json`, a local folder or a hub name stands for; `UserError` for a missing folder."""
    path = Path(model)
    if path.is_dir():
        if (path / BASE_FILE).is_file():
            return _follow(path)
        if (path / "adapter_config.json").is_file():
            raise UserError(
                f"{path}: holds an adapter (adapter_config.json); merge it into its base, or take the file away"
            )
        if (path / "config.json").is_file():
            return Location(str(path))
        raise UserError(
            f"{path}: holds neither {BASE_FILE} nor config.json, so it is no model{_gguf(path)}"
        )
    if path.suffix == ".gguf":
        raise UserError(f"{path}: {_GGUF}")
    name = str(model)
    if isinstance(model, Path) or name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise UserError(f"{name}: no such folder{absent(name)}")
    return Location(name, revision)


def _gguf(directory: Path) -> str:
    return f"; {_GGUF}" if any(directory.glob("*.gguf")) else ""


def _follow(directory: Path) -> Location:
    base = read_json(directory / BASE_FILE)
    match base:
        case {"gguf": {}}:
            _check_unchanged(directory, base, directory / CONVERTED)
            return Location(str(directory / CONVERTED), prompt=base.get("prompt", "plain"))
        case {"source": "path", "name_or_path": str(name)}:
            location = locate(Path(name))
            _check_unchanged(directory, base, Path(name))
            return replace(location, prompt=base.get("prompt", "plain"))
        case {"source": "hub", "name_or_path": str(name), "revision": str(revision)}:
            return Location(name, revision, base.get("prompt", "plain"))
    raise UserError(f"{directory / BASE_FILE}: must name a source (path or hub) and its model")


def _check_unchanged(directory: Path, base: Mapping[str, Any], folder: Path) -> None:
    """`UserError` if a local model's files are not those that `base.json` tells of."""
    for kind, now in hash_model(folder).items():
        if now != base.get(kind):
            noun = "weights" if kind == "sha256" else kind
            raise UserError(
                f"{folder}: its {noun} are not those that {directory / BASE_FILE} tells of "
                f"({_changed(base.get(kind, {}), now)}); run dvc repro"
            )


def _changed(one: Digest, other: Digest) -> str:
    """The first file in which two digests differ."""
    return min(name for name, _ in one.items() ^ other.items())


def write_base(
    directory: Path,
    source: str,
    name_or_path: str,
    revision: str | None,
    prompt: Prompt = "plain",
    gguf: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Write and return `base.json`: the source, how the model is asked, and for a local model `hash_model`.

    The hashes let `read_saved` refuse a policy of another base. A hub model is identified by its revision. gguf: name and
    SHA-256 of the file from which the model in `CONVERTED` was made.
    """
    folder = Path(name_or_path) if source == "path" else None
    if gguf is not None:
        folder = directory / CONVERTED
    base = {
        "source": source,
        "name_or_path": name_or_path,
        "revision": revision,
        "prompt": prompt,
        **({} if gguf is None else {"gguf": dict(gguf)}),
        **({"sha256": {}, "settings": {}} if folder is None else hash_model(folder)),
    }
    write_json(directory / BASE_FILE, base)
    return base


def read_base(directory: Path) -> dict[str, Any]:
    """The content of `base.json`."""
    base = read_json(directory / BASE_FILE)
    if not isinstance(base, dict) or not isinstance(base.get("sha256"), dict):
        raise UserError(
            f"{directory / BASE_FILE}: is no description of a base model; run dvc repro"
        )
    return base


def read_saved(file: Path, base_directory: Path) -> dict[str, Any]:
    """The JSON object that describes a saved policy.

    `UserError` if it was not trained, its files are not those of its manifest, or its base is not the one in
    `base_directory`.
    """
    if (reason := why_not_trained(file.parent)) is not None:
        raise UserError(f"{file.parent}: was not trained: {reason}")
    check_files(file.parent)
    saved, base = read_json(file), read_base(base_directory)
    if not isinstance(saved, dict) or not {"base", "weights", "meta"} <= saved.keys():
        raise UserError(f"{file}: is no description of a policy; run dvc repro")
    if saved["base"] != base:
        was, now = describe_base(saved["base"]), describe_base(base)
        if saved["base"].get("prompt") != base.get("prompt"):
            raise UserError(
                f"{file.parent}: trained with prompt: {saved['base'].get('prompt')}, but {base_directory} holds "
                f"prompt: {base.get('prompt')}; run dvc repro"
            )
        if was == now:  # their weights are equal
            file_name = _changed(saved["base"].get("settings", {}), base.get("settings", {}))
            now = f"the same with another {file_name}"
        raise UserError(f"{file.parent}: trained on {was}, but {base_directory} holds {now}")
    return saved


def load_saved(
    file: Path,
    base_directory: Path,
    load: Callable[..., PreTrainedModel],
    whole: str,
    *,
    dtype: Dtype,
    quantization: Quantization | None,
    trainable: bool,
    lora: Lora | None,
    task_type: str | None = None,
) -> tuple[PreTrainedModel | PeftModel, dict[str, Any]]:
    """The model of the policy that `file` describes, and its `meta`.

    load: reads a base (`load_causal_lm`, ...). whole: the folder beside `file` of a model whose every weight was trained.
    trainable: whether a saved adapter is left ready for more training. lora: the adapter that an untrained policy gets,
    initialised from the global random state. `UserError` if something is missing or broken, or of another base.
    """
    saved, directory = read_saved(file, base_directory), file.parent
    try:
        if saved["weights"] == "whole":
            return load(directory / whole, dtype=dtype), saved["meta"]
        model = load(base_directory, dtype=dtype, quantization=quantization)
        if saved["weights"] == "adapter":
            adapter = directory / "adapter"
            model = PeftModel.from_pretrained(model, adapter, is_trainable=trainable)
        elif lora is not None:
            model = add_lora(model, **lora.model_dump(), task_type=task_type)
    except UNLOADABLE as error:
        raise UserError(f"{directory}: cannot load the {file.stem}: {first_line(error)}") from error
    return model, saved["meta"]


def describe_base(base: Mapping[str, Any]) -> str:
    """Name, revision and the first digits of the weights' hashes, for a message."""
    hashes = [sha[:12] for sha in base["sha256"].values()]
    return " ".join(filter(None, [base["name_or_path"], base["revision"], *hashes]))


def hash_weights(directory: Path) -> Digest:
    """SHA-256 of a local model's safetensors files, by name; `UserError` if there are none."""
    return hash_model(directory)["sha256"]


def hash_model(directory: Path) -> dict[str, Digest]:
    """SHA-256 of a local model's files, by name: `sha256` of its weights, `settings` of its configuration and tokenizer.

    `UserError` if it has no safetensors weights.
    """
    found = hash_files(model_files(directory))
    weights = {name: sha for name, sha in found.items() if name.endswith(WEIGHTS)}
    if not weights:
        raise UserError(f"{directory}: no safetensors weights in this folder{_gguf(directory)}")
    return {
        "sha256": weights,
        "settings": {name: sha for name, sha in found.items() if name not in weights},
    }


def load_config(
    model: str | Path, revision: str | None = None, cached_only: bool = False
) -> PreTrainedConfig:
    """The model's configuration. cached_only: do not contact the hub."""
    location = locate(model, revision)
    arguments = _arguments(location) | {"local_files_only": cached_only}
    return _reach(location, lambda: AutoConfig.from_pretrained(**arguments))


def load_backbone(
    model: str | Path,
    revision: str | None = None,
    dtype: Dtype = "float32",
    device: torch.device | str = "cpu",
    quantization: Quantization | None = None,
) -> PreTrainedModel:
    """The model without a language-model head (`AutoModel`), in evaluation mode."""
    return _load(AutoModel, locate(model, revision), dtype, device, quantization)


def load_causal_lm(
    model: str | Path,
    revision: str | None = None,
    dtype: Dtype = "float32",
    device: torch.device | str = "cpu",
    quantization: Quantization | None = None,
) -> PreTrainedModel:
    """The model with its language-model head (`AutoModelForCausalLM`), in evaluation mode."""
    return _load(AutoModelForCausalLM, locate(model, revision), dtype, device, quantization)


def load_tokenizer(
    model: str | Path,
    revision: str | None = None,
    cached_only: bool = False,
    prompt: Prompt | None = None,
) -> PreTrainedTokenizerBase:
    """The model's tokenizer; if it has no pad token (GPT-2, Llama), it pads with EOS.

    Masks always tell which tokens are real, so the choice of pad token has no effect. cached_only: do not contact the hub.
    prompt: how prompts and answers are tokenised; None as `base.json` says, for a folder that has it. `UserError` if the
    tokenizer has no template for a chat.
    """
    location = locate(model, revision)
    arguments = _arguments(location) | {"local_files_only": cached_only}
    tokenizer: PreTrainedTokenizerBase = _reach(
        location, lambda: AutoTokenizer.from_pretrained(**arguments)
    )
    # Without files transformers makes up an empty one for some architectures.
    if len(tokenizer) <= len(tokenizer.added_tokens_decoder):
        raise UserError(f"{location}: its tokenizer knows no words; tokenizer.json is missing")
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise UserError(f"{location}: its tokenizer has neither a pad nor an EOS token")
        tokenizer.pad_token = tokenizer.eos_token
    if (prompt or location.prompt) == "chat":
        chat.use_template(tokenizer, location.name_or_path, special_ids(tokenizer).start)
    return tokenizer


def max_positions(config: PreTrainedConfig) -> int | None:
    """The longest sequence that the model's positions allow; None if the config sets no limit (or -1, as XLNet's)."""
    limit = getattr(config, "max_position_embeddings", None)
    return None if limit is None or limit < 1 else int(limit)


def check_lengths(
    config: PreTrainedConfig, max_prompt_tokens: int, max_candidate_tokens: int
) -> None:
    """`UserError` if a prompt and an answer of these lengths exceed the model's positions."""
    limit = max_positions(config)
    total = max_prompt_tokens + max_candidate_tokens
    if limit is not None and total > limit:
        raise UserError(
            f"max_prompt_tokens + max_candidate_tokens = {total}, but {config.model_type} has "
            f"{limit} positions; lower max_prompt_tokens to {limit - max_candidate_tokens}"
        )


def quantization_arguments(quantization: Quantization, dtype: Dtype) -> dict[str, Any]:
    """Arguments of `from_pretrained` for weights in 8 bits (Dettmers et al. 2022) or 4 (NF4, Dettmers et al. 2023).

    Computation stays in `dtype`. Raises `UserError` without a GPU or bitsandbytes.
    """
    if not torch.cuda.is_available():
        raise UserError(
            f"quantization: {quantization} needs a GPU, and there is none; set it to null"
        )
    if find_spec("bitsandbytes") is None:
        raise UserError(f"quantization: {quantization} needs a package: pip install bitsandbytes")
    config = BitsAndBytesConfig(
        load_in_8bit=quantization == "8bit",
        load_in_4bit=quantization == "4bit",
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=DTYPES[dtype],
    )
    return {"quantization_config": config, "device_map": {"": torch.cuda.current_device()}}


def _load(
    kind: Any,
    location: Location,
    dtype: Dtype,
    device: torch.device | str,
    quantization: Quantization | None,
) -> PreTrainedModel:
    arguments = _arguments(location) | {"dtype": DTYPES[dtype]}
    own = processes.state().device  # the call makes it the current device
    if quantization is not None:
        if processes.sharded():
            raise UserError(
                f"launch: FSDP cannot shard weights of quantization: {quantization}; set it to null"
            )
        arguments |= quantization_arguments(quantization, dtype)

    def read() -> PreTrainedModel:
        try:
            return kind.from_pretrained(use_safetensors=True, **arguments)
        except OSError as error:
            if "safetensors" not in str(error):
                raise
            logger.warning("%s has no safetensors; reading its weights-only .bin", location)
            return kind.from_pretrained(use_safetensors=False, **arguments)

    model: PreTrainedModel = _reach(location, read)
    _reset_generation(model)
    model.base_model.register_forward_pre_hook(_count_tokens, with_kwargs=True)
    if processes.sharded() and processes.count() > 1:
        shard(model)
        device = own
    return (model if quantization is not None else model.to(device)).eval()


def _reset_generation(model: PreTrainedModel) -> None:
    """Drop the model's own temperature, penalties, suppressed tokens, lengths, ...: `rollouts.sampling` sets them all.

    They would otherwise also change what `generate` draws, as it takes what a call does not set from the model.
    """
    own = getattr(model, "generation_config", None)
    if own is not None:
        kept = {key: value for key, value in vars(own).items() if key in KEPT_SETTINGS}
        model.generation_config = GenerationConfig(**kept)


def _count_tokens(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    ids = args[0] if args else kwargs.get("input_ids")
    READ["tokens"] += 0 if ids is None else ids.numel()


def _arguments(location: Location) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "pretrained_model_name_or_path": location.name_or_path,
        "trust_remote_code": False,
    }
    if location.revision is not None:
        arguments["revision"] = location.revision
    return arguments


def first_line(error: Exception) -> str:
    """The first line of an error's text, with those that a colon announces."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    shown = lines[: 1 + next((i for i, line in enumerate(lines) if not line.endswith(":")), 0)]
    return " ".join(shown) or type(error).__name__


def _reach(location: Location, read: Callable[[], T]) -> T:
    try:
        return read()
    # Libraries raise anything on a file that is not what they expect; tokenizers raises Exception itself.
    except Exception as error:
        known = isinstance(error, OSError | ValueError)
        reason = first_line(error) if known else f"{type(error).__name__}: {first_line(error)}"
        local = Path(location.name_or_path).is_dir()
        if local:
            _check_files(Path(location.name_or_path))
        if local or not known:
            raise UserError(f"{location} cannot be loaded: {reason}") from error
        raise UserError(
            f"{location} cannot be reached: {reason}; set HF_HOME to a cache that has it, "
            "or use source: path with a local folder"
        ) from error


def _check_files(directory: Path) -> None:
    """`UserError` that names the first of a model's text files that is broken."""
    for file in (directory / name for name in JSON_FILES):
        if not file.is_file():
            continue
        if not isinstance(content := read_json(file), dict):
            raise UserError(f"{file}: expected a JSON object, found {type(content).__name__}")
        if file.read_bytes().startswith(codecs.BOM_UTF8):
            raise UserError(
                f"{file}: starts with a byte order mark, which transformers cannot read"
            )
    if (template := directory / "chat_template.jinja").is_file():
        read_text(template)
