"""Images a second from JPEG files to vectors, beside the bare forward passes of the engines in the same run.

Goals: how much of the fastest forward pass is left when images are read from files, resized and embedded: the engines'
forward passes on pixels in memory (torch as it is and channels-last, ONNX Runtime on all cores and a core an image),
then files to vectors by `hierderm`, in turns with them; the largest difference of the vectors; the seconds that the
graph of ONNX Runtime takes to make. Views count as images: of each file the image itself and one or five augmented
copies, a vector each, or with `backbone.views = 6` seven images for one vector. Reading, resizing and changing need the
same cores: `allowed` is what two kinds of work one after the other leave of the fastest forward pass, from the rate at
which all cores do nothing but read; `of_allowed` is the share of that which is reached. Random weights: time does not
depend on them. Files have noise of all scales, and a short side of `--side` pixels: 160 as in the photographs of
derm-dev, or 1024 as from a camera.
Non-goals: GPUs, where torch computes; how good the vectors are.

    python benchmarks/embed.py --out benchmarks/embed.json
"""

from __future__ import annotations

import argparse
import atexit
import json
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hierderm.config.methods import Augmentation
from hierderm.config.settings import BackboneConfig, ForwardEngine
from hierderm.data.dataset import ImageDataset
from hierderm.files import write_json
from hierderm.model.backbone import Backbone, Features, load_backbone
from hierderm.model.features import feature_batches
from hierderm.model.onnx import OnnxGraph, make_graph
from hierderm.threads import one_thread

BACKBONES = {"timm:tf_efficientnet_lite0": 192, "timm:vit_base_patch16_siglip_224": 24}  # images of one measurement
ROUNDS, BATCH = 3, 16
DEFAULT_SIDES = (160, 1024)
VIEWS = (2, 6)  # of an image, the image itself among them
READING = "reading alone:"


def photographs(folder: str, n: int, side: int) -> list[Path]:
    """JPEG files of `side` x 4/3 `side` pixels."""
    rng = np.random.default_rng(0)
    paths = [Path(folder) / f"{number}.jpg" for number in range(n)]
    for path in paths:
        image = np.zeros((side, side * 4 // 3, 3))
        for cell in (8, 32, 128):
            noise = rng.integers(0, 85, (cell, cell, 3), dtype=np.uint8)
            image += np.asarray(Image.fromarray(noise).resize((side * 4 // 3, side)))
        Image.fromarray(image.astype(np.uint8)).save(path, quality=80)
    return paths


def backbone_of(name: str, features: Features = "output", engine: ForwardEngine = "onnx", views: int = 0) -> Backbone:
    torch.manual_seed(0)
    backbone = load_backbone(BackboneConfig(name, "random", engine, views=views), features).eval()
    for module in backbone.modules():  # else all vectors of random weights are alike
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
    return backbone


class Pass(NamedTuple):
    """One pass over the files."""

    backbone: Backbone
    images: ImageDataset
    epochs: Sequence[int] = (0,)

    @property
    def n_looks(self) -> int:
        """Images that are looked at, of each file."""
        return len(self.epochs) * (1 if self.images.augment else 1 + self.images.preprocessing.views)


def embedded(backbone: Backbone, paths: list[Path]) -> Tensor:
    return torch.cat([*feature_batches(backbone, ImageDataset(paths, backbone.preprocessing))])


def ways(name: str, paths: list[Path]) -> dict[str, list[Pass]]:
    """From files to vectors, by name."""
    plain, layers = backbone_of(name), backbone_of(name, "layers")
    recipe = backbone_of(name, views=VIEWS[-1])
    images, changed, seven = (
        ImageDataset(paths, backbone.preprocessing, augmentation)
        for backbone, augmentation in ((plain, None), (plain, Augmentation()), (recipe, None))
    )
    return {
        "files to vectors": [Pass(plain, images)],
        "files to vectors of all layers": [Pass(layers, images)],
        "files to vectors of an augmented view": [Pass(plain, changed)],
        **{f"files to vectors, {n} views": [Pass(plain, images), Pass(plain, changed, range(1, n))] for n in VIEWS},
        f"files to vectors, backbone.views = {VIEWS[-1]}": [Pass(recipe, seven)],
    }


def embed(passes: list[Pass]) -> None:
    for backbone, images, epochs in passes:
        list(feature_batches(backbone, images, None, epochs))


def read(passes: list[Pass]) -> None:
    """Read, resize and change the images of some passes, on all cores."""
    for _, images, epochs in passes:
        items = [(row, epoch) for row in range(len(images)) for epoch in epochs]
        with ThreadPoolExecutor(torch.get_num_threads(), initializer=one_thread, initargs=("openmp",)) as pool:
            list(pool.map(images.in_epochs(len(epochs)), items))


def forwards(backbone: Backbone, graph: OnnxGraph, pixels: Tensor) -> dict[str, Callable[[], object]]:
    """The bare forward passes, by name: all `pixels` in batches."""
    batches = backbone.preprocessing.normalise(pixels).split(BATCH)
    last = [batch.contiguous(memory_format=torch.channels_last) for batch in batches]

    def by_torch(parts: list[Tensor]) -> None:
        with torch.inference_mode():
            for part in parts:
                backbone(part)

    def a_core_an_image() -> None:
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            list(pool.map(graph, pixels.split(1)))

    shared = OnnxGraph(backbone, threads=torch.get_num_threads())
    return {
        "torch": lambda: by_torch(list(batches)),
        "torch, channels-last": lambda: by_torch(last),
        "ONNX Runtime, all cores": lambda: [shared(part) for part in pixels.split(BATCH)],
        "ONNX Runtime, a core an image": a_core_an_image,
    }


def measure(name: str, side: int, n: int) -> list[dict[str, Any]]:
    """A row for each forward pass, each way from files to vectors, and its reading alone."""
    with TemporaryDirectory() as folder:
        paths = photographs(folder, n, side)
        by_way = ways(name, paths)
        plain, images, _ = by_way["files to vectors"][0]
        start = time.perf_counter()
        graph = make_graph(plain)
        export = time.perf_counter() - start
        for backbone in {passes[0].backbone for passes in by_way.values()}:
            make_graph(backbone)
        pixels = torch.stack([images.pixels(number) for number in range(n)])
        works = forwards(plain, graph, pixels)
        bare = list(works)
        works |= {f"{READING} {way}": partial(read, passes) for way, passes in by_way.items()}
        works |= {way: partial(embed, passes) for way, passes in by_way.items()}
        seconds: dict[str, list[float]] = {what: [] for what in works}
        for _ in range(ROUNDS):
            for what, work in works.items():
                start = time.perf_counter()
                work()
                seconds[what].append(time.perf_counter() - start)
        difference = _difference(plain, name, paths[:BATCH])
    looks = {way: sum(one.n_looks for one in passes) for way, passes in by_way.items()}
    rates = {
        what: looks.get(what.removeprefix(f"{READING} "), 1) * n / statistics.median(values)
        for what, values in seconds.items()
    }
    fastest = max(rates[what] for what in bare)
    shared = {"backbone": name, "side": side, "images": n, "cores": torch.get_num_threads()}
    rows: list[dict[str, Any]]
    rows = [{**shared, "what": what, "rate": rate, "of_fastest": rate / fastest} for what, rate in rates.items()]
    for row in rows:
        if row["what"] in by_way:
            row["allowed"] = 1 / (1 + fastest / rates[f"{READING} {row['what']}"])
            row["of_allowed"] = row["of_fastest"] / row["allowed"]
    return [*rows, {**shared, "what": "making the graph", "seconds": export, "largest_difference": difference}]


def _difference(plain: Backbone, name: str, paths: list[Path]) -> float:
    by_torch = backbone_of(name, engine="torch")
    own, theirs = (torch.nn.functional.normalize(embedded(b, paths)) for b in (plain, by_torch))
    return float((own - theirs).abs().max())


def rows() -> dict[str, Callable[[], object]]:
    """The work that `make bench` times."""
    name = "timm:tf_efficientnet_lite0"
    backbone, layers = backbone_of(name), backbone_of(name, "layers")
    folder = mkdtemp()  # the files must outlive this call
    atexit.register(rmtree, folder)
    paths = photographs(folder, 256, 160)
    embedded(backbone, paths[:4]), embedded(layers, paths[:4])
    work = {
        "files to vectors, 256 images": lambda: embedded(backbone, paths),
        "files to vectors of all layers, 256 images": lambda: embedded(layers, paths),
    }
    return {f"{what}, {name.removeprefix('timm:')}": one for what, one in work.items()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--backbones", nargs="+", default=list(BACKBONES))
    parser.add_argument("--sides", type=int, nargs="+", default=list(DEFAULT_SIDES))
    parser.add_argument("--images", type=int, default=0, help="of one measurement; 0: a number by backbone")
    parser.add_argument("--out", type=Path, help="where to write the rows as JSON")
    options = parser.parse_args()
    found = []
    for name in options.backbones:
        for side in options.sides:
            made = measure(name, side, options.images or BACKBONES.get(name, BATCH))
            for row in made:
                print(json.dumps(row), flush=True)
            found += made
    if options.out:
        write_json(options.out, found)


if __name__ == "__main__":
    main()
