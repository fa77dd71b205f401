"""Every file of experiments/ is read and checked; those with weights of the hub up to the download."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hierderm.config.loading import load_comparison, model_config
from hierderm.errors import CheckpointError

FILES = sorted((Path(__file__).parents[1] / "experiments").glob("*.toml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_experiment_is_whole(path: Path) -> None:
    comparison = load_comparison(path)
    names = {entry.name for entry in comparison.models}
    wanted = {"cross-entropy", "supcon-both"} if path.stem == "losses" else {"flat-fine", "hierarchical"}
    if path.stem not in ("ablation", "losses"):
        wanted |= {"vanilla", "linear-probe", "lda", "flat-coarse"}
    assert wanted <= names
    for entry in comparison.models:
        model_config(comparison, entry)
    assert comparison.focus in names
    head = path.read_text().split("\n\n")[0]
    assert "question" in head and "hierderm compare" in head


@pytest.mark.parametrize("name", ["scin_timm", "scin_siglip2"])
def test_the_backbones_of_scin_load_up_to_the_download(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from hierderm.model.backbone import load_backbone

    config = load_comparison(Path(__file__).parents[1] / "experiments" / f"{name}.toml")
    if config.backbone.name.startswith("timm:"):
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
            load_backbone(config.backbone)
        assert called == [("vit_base_patch16_siglip_224", True)]
    else:
        with pytest.raises(
            CheckpointError, match="siglip2-base-patch16-224: could not be loaded .* give local weights"
        ):
            load_backbone(config.backbone)
