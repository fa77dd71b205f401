"""truncate and push as they are typed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import ModelCard

from hierderm.artifacts import Card
from hierderm.config.settings import BackboneConfig
from hierderm.data.table import CaseTable
from hierderm.model.backbone import load_backbone
from hierderm.model.checkpoint import save_model
from hierderm.model.heads import NetworkShape
from hierderm.model.loading import load
from hierderm.model.network import Network
from tests.cli.commands import fails, run
from tests.model.fake_hub import fake_hub


@pytest.fixture(scope="module")
def place(small_siglip: Path, toy: CaseTable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model of the toy, its table with a split, and the embeddings of both."""
    folder = tmp_path_factory.mktemp("share")
    network = Network(
        load_backbone(BackboneConfig(f"hf:{small_siglip}")), NetworkShape(classifier="cosine"), toy.taxonomy, 1
    )
    save_model(network, folder / "run" / "model", card=Card("# Mine\n"))
    frame = toy.frame.assign(image_path=[str(path) for path in toy.paths])
    frame.to_csv(folder / "cases.csv", index=False)
    frame.drop(columns="split").to_csv(folder / "undivided.csv", index=False)
    for name in ("cases", "undivided"):
        run("embed", folder / f"{name}.csv", "-m", folder / "run", "-o", folder / name)
    return folder


def test_truncate(place: Path, toy: CaseTable, tmp_path: Path) -> None:
    shown = run("truncate", place / "run", place / "cases", "--dim", 8, "-o", tmp_path / "small")
    n_train = (toy.splits == "train").sum()
    assert shown == f"{tmp_path / 'small'}: 8 of 32 dimensions, axes of {n_train} training images\n"
    full = load(place / "run")
    expected = full.truncated(full.encode(toy.part("train").paths), 8).encode(toy.paths[:3])
    np.testing.assert_allclose(load(tmp_path / "small").encode(toy.paths[:3]), expected, atol=1e-5)
    wrong = ("--dim", 8, "-o", tmp_path / "other")
    assert "must be of a table whose column split has 'train' rows" in fails(
        "truncate", place / "run", place / "undivided", *wrong
    )
    assert f"must be of hierderm:tiny, its weights_hash is of another model ({place / 'run' / 'model'})" in fails(
        "truncate", "hierderm:tiny", place / "cases", *wrong
    )
    assert "dim must be from 1 to 32" in fails("truncate", place / "run", place / "cases", "--dim", 64, *wrong[2:])
    assert not (tmp_path / "other").exists()


def test_push(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_hub(monkeypatch, tmp_path / "cache") as hub:
        shown = run("push", place / "run", "me/skin", "--cases", place / "cases.csv", "--data", "My clinic")
        assert shown == (
            f"{hub.endpoint}/me/skin/commit/{hub.commit('me/skin')}\n"
            "Read it with: hierderm.load('me/skin'), or --model me/skin\n"
        )
        assert hub.private == {"me/skin": "private"}
        card: Any = ModelCard(hub.repositories["me/skin"]["README.md"].decode())
        (value,) = [
            one
            for one in card.data.eval_results
            if one.metric_args["level"] == "fine" and one.metric_type == "map_at_r"
        ]
        assert (value.dataset_name, value.dataset_split) == ("My clinic", "test")
        assert value.metric_args["low"] <= value.metric_value <= value.metric_args["high"]
        run("push", place / "run" / "model", "me/open", "--public")
        assert hub.private["me/open"] == "public"
        for arguments, message in (
            ((place / "run", "skin"), "a repository must be named 'user/name', got 'skin'"),
            (("hierderm:tiny", "me/x"), "push takes a model folder, or a run's, 'hierderm:tiny' does not exist"),
            ((place, "x"), f"push takes a model folder, or a run's, '{place}' is none"),
            ((place / "run", "me/x", "--data", "y"), "--data names the data set of --cases: give both"),
            ((place / "run", "me/x", "--cases", place / "undivided.csv"), "must have a column split with 'test' rows"),
        ):
            assert message in fails("push", *arguments)
        assert set(hub.repositories) == {"me/skin", "me/open"}
