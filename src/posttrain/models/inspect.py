"""Show a model's architecture, the parameters that LoRA would train, and the memory that training needs.

    python -m posttrain.models.inspect NAME_OR_PATH [--revision COMMIT] [--rank 16] [--candidates 8] [--memory 24]
    python -m posttrain.models.inspect PACKAGE==VERSION --file FILE.gguf

NAME_OR_PATH is a key of `models` in params.yaml, a Hugging Face name (with --file for a GGUF file there), a local folder
or GGUF file, or `models/base`. Whether the hub can be reached is checked before torch is imported, which takes seconds.
"""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Container, Sequence
from itertools import chain, count
from pathlib import Path

from posttrain.core.errors import UserError
from posttrain.core.params import Model, Params, load_params
from posttrain.core.stage import quieten
from posttrain.models import hub


def _known(params: Params | None, model: str) -> str:
    names = list(params.models) if params is not None else []
    close = difflib.get_close_matches(model.lower(), names, n=3, cutoff=0.4)
    return f"; presets with a similar name: {', '.join(close)}" if close else ""


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the report for one model."""
    parser = argparse.ArgumentParser(prog="posttrain.models.inspect")
    parser.add_argument(
        "model",
        help="key of `models` in params.yaml, hub name, local folder or GGUF file, or PACKAGE==VERSION",
    )
    parser.add_argument("--revision", help="commit of a hub model (default: main, not pinned)")
    parser.add_argument("--file", help="GGUF file in the hub repository or Python package")
    parser.add_argument("--rank", type=int, default=16, help="LoRA rank of the proposed entry")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="bfloat16")
    parser.add_argument("--candidates", type=int, default=8, help="K, for the memory estimate")
    parser.add_argument(
        "--memory", type=float, help="GiB of a GPU: propose lengths and batches that fit it"
    )
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    options = parser.parse_args(arguments)
    quieten()
    try:
        print(inspect(options))
    except UserError as error:
        sys.exit(f"inspect: {error}")


def inspect(options: argparse.Namespace) -> str:
    """The report for parsed arguments; `UserError` if the model is not found."""
    params = load_params(options.params) if options.params.is_file() else None
    model: str = options.model
    entry = params.models.get(model) if params is not None else None
    source = entry or named(model, options.revision, options.file)
    try:
        cached_only = not source.is_gguf and hub.check(source.name, source.revision)

        from posttrain.models import check, description, gguf
        from posttrain.models.architecture import is_causal
        from posttrain.models.load import load_config, locate

        if source.is_gguf:
            file = gguf.find(source)
            config, name = gguf.read_config(file), Path(source.file or file).stem
            if source.source == "package":
                source = source.model_copy(update={"sha256": gguf.sha256_of(file)})
        else:
            config = load_config(source.name, source.revision, cached_only)
            name = Path(locate(source.name).name_or_path).name
    except UserError as error:
        if entry is not None:
            raise
        raise UserError(f"{error}{_known(params, model)}") from error
    key, title = model, f"{model} = {source.name}"
    is_causal(config)
    if entry is None:
        name = name.lower().replace(".", "-")
        key, title = free_key(name, params.models if params is not None else {}), model
        entry = description.propose_entry(config, source, options.rank, options.dtype)
    if options.memory is not None:
        entry = description.fit_memory(config, entry, options.candidates, options.memory)
    check.check_entry(config, entry)
    settings = entry.settings.sampling
    in_flight = settings.get("batch_size", params.plain().sampling.batch_size if params else 128)
    return description.describe(config, title, key, entry, options.candidates, in_flight)


def named(model: str, revision: str | None, file: str | None) -> Model:
    """An entry, not yet whole, for a folder, a GGUF file, a name on the hub, or a package and a file in it."""
    local = Path(model).exists() or model.endswith(".gguf")
    source = "path" if local else "package" if "==" in model else "hub"
    if (source == "package") > (file is not None):
        raise UserError(f"{model}: is a package; name a GGUF file in it by --file")
    return Model.model_construct(source=source, name=model, revision=revision, file=file)


def free_key(name: str, taken: Container[str]) -> str:
    """The name, with the first number from 2 on behind it that makes it a new key."""
    numbered = (f"{name}-{number}" for number in count(2))
    return next(key for key in chain([name], numbered) if key not in taken)


if __name__ == "__main__":
    main()
