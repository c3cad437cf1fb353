"""Claims about the generator's weights: what is trained is what is saved, and it comes back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from pretrain.model import build_model, llama_config, save_pocket, train_tokenizer

from posttrain.core.errors import UserError
from posttrain.core.params import Lora
from posttrain.models.load import load_causal_lm, read_base, write_base
from posttrain.rollouts.writer import Generator, load_generator, new_generator, save_generator

LORA = Lora(r=4, alpha=8, dropout=0.0, targets="auto")
IDS = torch.tensor([[3, 4, 5, 6]])


def make_base(directory: Path, seed: int) -> Path:
    """A folder as stage `base` leaves it, which points to a model."""
    model, base = directory / "model", directory / "base"
    for folder in (model, base):
        folder.mkdir(parents=True)
    tokenizer = train_tokenizer(["revenue 2019 | 5829 | 5735"], 300)
    save_pocket(model, build_model(llama_config(len(tokenizer), 32, 2, 4, 48), seed), tokenizer)
    write_base(base, "path", str(model), None)
    return base


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("generator"), 0)


def trained(base: Path, lora: Lora | None) -> Generator:
    """A generator after one large step on its trainable weights."""
    torch.manual_seed(0)
    model = new_generator(base, "float32", lora)
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
def test_a_new_generator_writes_what_the_base_writes(base: Path, lora: Lora | None) -> None:
    model = new_generator(base, "float32", lora)
    assert torch.equal(logits(model), logits(load_causal_lm(base)))
    trainable = {name for name, each in model.named_parameters() if each.requires_grad}
    assert all("lora_" in name for name in trainable) == (lora is not None)
    assert isinstance(model, PeftModel) == (lora is not None) and trainable


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
