"""Claims about the generator's weights: those that are trained are saved and loaded again."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from pretrain.model import build_model, llama_config, save_pocket, train_tokenizer
from toys import PARAMS

from posttrain.core.errors import UserError
from posttrain.core.files import read_json
from posttrain.core.params import Lora
from posttrain.generator.run import load_policy
from posttrain.models.load import load_causal_lm, read_base, write_base
from posttrain.rollouts.writer import (
    Generator,
    load_generator,
    save_generator,
    save_untrained,
)

LORA = Lora(r=4, alpha=8, dropout=0.0, targets="auto")
IDS = torch.tensor([[3, 4, 5, 6]])


def make_base(directory: Path, seed: int) -> Path:
    """A folder as written by stage `base`, which points to a model; beside it `untrained`."""
    model, base = directory / "model", directory / "base"
    for folder in (model, base):
        folder.mkdir(parents=True)
    tokenizer = train_tokenizer(["revenue 2019 | 5829 | 5735"], 300)
    save_pocket(model, build_model(llama_config(len(tokenizer), 32, 2, 4, 48), seed), tokenizer)
    save_untrained(directory / "untrained", write_base(base, "path", str(model), None))
    return base


def untrained(base: Path, lora: Lora | None, trainable: bool = True) -> Generator:
    """The untrained generator, loaded as for SFT."""
    torch.manual_seed(0)
    folder = base.parent / "untrained"
    model, meta = load_generator(folder, base, trainable=trainable, lora=lora)
    assert meta == {}
    return model


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("generator"), 0)


def trained(base: Path, lora: Lora | None) -> Generator:
    """A generator after one large step on its trainable weights."""
    model = untrained(base, lora)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model


def logits(model: Generator) -> torch.Tensor:
    with torch.no_grad():
        found = model(input_ids=IDS).logits
    assert isinstance(found, torch.Tensor)
    return found


def files(directory: Path) -> dict[str, bytes]:
    found = sorted(path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in found}


@pytest.mark.parametrize("lora", [LORA, None])
def test_an_untrained_generator_writes_what_the_base_writes(base: Path, lora: Lora | None) -> None:
    model = untrained(base, lora)
    assert torch.equal(logits(model), logits(load_causal_lm(base)))
    trainable = {name for name, each in model.named_parameters() if each.requires_grad}
    assert all("lora_" in name for name in trainable) == (lora is not None)
    assert isinstance(model, PeftModel) == (lora is not None) and trainable
    assert not model.training


def test_an_untrained_generator_that_is_not_trained_has_no_adapter(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`load_policy` asks for one only if training follows."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(base, tmp_path / "models/base")
    shutil.copytree(base.parent / "untrained", tmp_path / "models/generator/base/0")
    entry = PARAMS.selected_model.model_copy(update={"lora": LORA})
    params = PARAMS.model_copy(update={"models": {PARAMS.model: entry}})
    model = load_policy(params, "base", 0)
    assert not isinstance(model, PeftModel)
    assert not any(each.requires_grad for each in model.parameters())
    assert torch.equal(logits(model).cpu(), logits(load_causal_lm(base)))
    assert isinstance(load_policy(params, "base", 0, trainable=True), PeftModel)


def test_the_folder_of_an_untrained_generator_names_the_base_and_holds_no_weights(
    base: Path,
) -> None:
    (name,) = files(base.parent / "untrained")
    assert name == "generator.json"
    saved = read_json(base.parent / "untrained" / name)
    assert saved == {"base": read_base(base), "weights": "base", "meta": {}}


@pytest.mark.parametrize("lora", [LORA, None])
@pytest.mark.parametrize("trainable", [True, False])
def test_a_saved_generator_comes_back(
    base: Path, lora: Lora | None, trainable: bool, tmp_path: Path
) -> None:
    model = trained(base, lora)
    save_generator(tmp_path / "saved", model, read_base(base), {"best_step": 3})
    loaded, meta = load_generator(tmp_path / "saved", base, trainable=trainable)
    assert torch.equal(logits(loaded), logits(model)) and meta == {"best_step": 3}
    assert not torch.allclose(logits(loaded), logits(load_causal_lm(base)), atol=1e-2)
    names = {name for name, each in model.named_parameters() if each.requires_grad}
    expected = names if trainable else set()
    assert {name for name, each in loaded.named_parameters() if each.requires_grad} == expected
    assert not loaded.training


@pytest.mark.parametrize("lora", [LORA, None])
def test_the_same_weights_give_the_same_bytes(
    base: Path, lora: Lora | None, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        save_generator(tmp_path / name, trained(base, lora), read_base(base), {})
    loaded, _ = load_generator(tmp_path / "one", base)
    save_generator(tmp_path / "three", loaded, read_base(base), {})
    first = files(tmp_path / "one")
    assert first == files(tmp_path / "two") == files(tmp_path / "three")
    assert str(tmp_path) not in str(first)
    assert not [name for name in first if not name.endswith((".json", ".safetensors"))]


def test_an_adapter_does_not_hold_the_base(base: Path, tmp_path: Path) -> None:
    save_generator(tmp_path / "saved", trained(base, LORA), read_base(base), {})
    assert files(tmp_path / "saved").keys() == {
        "generator.json",
        "adapter/adapter_config.json",
        "adapter/adapter_model.safetensors",
    }


@pytest.mark.parametrize("lora", [LORA, None])
def test_a_generator_of_another_base_is_refused(
    base: Path, lora: Lora | None, tmp_path: Path
) -> None:
    save_generator(tmp_path / "saved", trained(base, lora), read_base(base), {})
    other = make_base(tmp_path / "other", 1)
    with pytest.raises(
        UserError, match=r"saved: trained on .*model \w{12}, but .*other/base holds"
    ):
        load_generator(tmp_path / "saved", other)


@pytest.mark.parametrize(
    ("lora", "broken"), [(LORA, "adapter/adapter_model"), (None, "model/model")]
)
def test_broken_weights_are_named(
    base: Path, lora: Lora | None, broken: str, tmp_path: Path
) -> None:
    save_generator(tmp_path / "saved", trained(base, lora), read_base(base), {})
    path = tmp_path / "saved" / f"{broken}.safetensors"
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(UserError, match=r"saved.* cannot"):
        load_generator(tmp_path / "saved", base)


def test_a_missing_generator_is_named(base: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read .*generator\.json"):
        load_generator(tmp_path / "nothing", base)
