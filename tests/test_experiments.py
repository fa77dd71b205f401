"""Every file of experiments/ is read and checked; the backbones of the hub load up to the download."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hierderm.config.loading import load_comparison, model_config
from hierderm.config.settings import BackboneConfig
from hierderm.errors import CheckpointError
from hierderm.model.backbone import load_backbone

FILES = sorted((Path(__file__).parents[1] / "experiments").glob("*.toml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_experiment_is_whole(path: Path) -> None:
    comparison = load_comparison(path)
    names = {entry.name for entry in comparison.models}
    wanted = {"vanilla", "flat-fine", "flat-coarse", "closed-form", "hierarchical"}
    assert wanted <= names
    for entry in comparison.models:
        model_config(comparison, entry)
    assert comparison.focus in names
    head = path.read_text().split("\n\n")[0]
    assert "question" in head and "hierderm compare" in head


def test_siglip_loads_up_to_the_download(monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    called: list[object] = []
    create = timm.create_model

    def no_download(model: str, *, pretrained: bool, **options: Any) -> object:
        called.append((model, pretrained))
        if pretrained:
            raise OSError("no internet")
        return create(model, pretrained=False, **options)

    monkeypatch.setattr(timm, "create_model", no_download)
    with pytest.raises(CheckpointError, match="no internet.*Without internet give local weights"):
        load_backbone(BackboneConfig.parse("timm:vit_base_patch16_siglip_224"))
    assert called == [("vit_base_patch16_siglip_224", True)]


def test_siglip2_loads_up_to_the_download() -> None:
    with pytest.raises(CheckpointError, match="siglip2-base-patch16-224: could not be loaded .* give local weights"):
        load_backbone(BackboneConfig.parse("hf:google/siglip2-base-patch16-224"))
