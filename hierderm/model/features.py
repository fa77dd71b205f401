"""The forward pass of a frozen backbone over images, decoded beside it, by the engine that is fastest here."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing
from itertools import chain, islice
from threading import Event
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from hierderm.data.dataset import ImageDataset
from hierderm.errors import ModelError
from hierderm.model import onnx
from hierderm.model.backbone import Backbone
from hierderm.model.tail import Stem
from hierderm.progress import Progress
from hierderm.threads import in_order, n_threads, one_thread

logger = logging.getLogger(__name__)
READERS = 8  # threads that read image files for torch, at most
FIRST = 16  # images by whose time the engine is chosen
FEWEST = 300  # images; fewer stay with torch
TOGETHER = 16  # images that a thread reads before it computes, at most: each change of work finds cold caches
SHARE = 4  # parts, for each thread, of the images that are left: as much as a thread takes of them, at most
PAYS = 30.0  # seconds that torch must need for the rest before a graph is made, which takes about ten

Item = TypeVar("Item")
Result = TypeVar("Result")


def best_device() -> torch.device:
    """A GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def feature_batches(
    backbone: Backbone | Stem,
    images: ImageDataset,
    rows: Sequence[int] | None = None,
    epochs: Sequence[int] = (0,),
    *,
    batch_size: int = 64,
) -> Iterator[Tensor]:
    """The features of a data set's images, or of the `rows` among them: see `image_features`.

    With several `epochs` those of the first image in each of them come first, then those of the second one.
    """
    rows = range(len(images)) if rows is None else rows
    items = ((row, epoch) for row in rows for epoch in epochs)
    pixels, total = images.in_epochs(len(epochs)), len(rows) * len(epochs)
    return image_features(backbone, items, pixels, batch_size=batch_size, total=total, title="Embedding")


def image_features(
    backbone: Backbone | Stem,
    items: Iterable[Item],
    pixels: Callable[[Item], Tensor],
    *,
    batch_size: int,
    total: int | None = None,
    title: str = "Encoding",
    progress: bool | None = None,
) -> Iterator[Tensor]:
    """The backbone's vectors of a batch after another, shape (n, dim), float32, not normalised.

    `pixels`: an item's image as `Preprocessing.pixels` gives it; it is called on several threads. `total`: the
    number of items, where it is known. Few batches are read ahead. Which engine computes: see `Backbone.engine`.
    ModelError where a vector is not finite.
    """
    bar = Progress(title, total, unit="images", shown=progress)
    with bar, closing(_computed(backbone, iter(items), pixels, batch_size, total)) as batches:
        for vectors in batches:
            with _one_thread():
                finite = bool(torch.isfinite(vectors).all())
            if not finite:
                raise ModelError(
                    f"{backbone.architecture['name']} gives vectors that are not finite: its weights, configuration or "
                    "preprocessing are damaged, or it can't compute at this precision. Restore a copy."
                )
            yield vectors
            bar.update(len(vectors))


def _computed(
    backbone: Backbone | Stem,
    items: Iterator[Item],
    pixels: Callable[[Item], Tensor],
    batch_size: int,
    total: int | None,
) -> Generator[Tensor]:
    on_cpu = _device(backbone).type == "cpu" and backbone.architecture.get("precision", "32") == "32"
    if backbone.engine == "onnx" and not on_cpu:
        raise ModelError(
            "engine = 'onnx' computes on the CPU, in float32; the model is on "
            f"'{_device(backbone)}', its precision is {backbone.architecture.get('precision', '32')}: use 'torch'."
        )
    graph = onnx.known_graph(backbone) if on_cpu and backbone.engine != "torch" else None
    many = total is not None and total >= FEWEST
    if graph is None and on_cpu and (backbone.engine == "onnx" or (backbone.engine == "auto" and many)):
        first = list(map(pixels, islice(items, FIRST)))
        if not first:
            return
        vectors, pace = _paced(backbone, first)
        graph = _chosen_graph(backbone, first, vectors, pace, total)
        yield vectors
        total = None if total is None else total - len(first)
    yield from (
        _by_torch(backbone, items, pixels, batch_size, total)
        if graph is None
        else _by_graph(graph, items, pixels, batch_size, total)
    )


def _paced(backbone: Backbone | Stem, images: list[Tensor]) -> tuple[Tensor, float]:
    """The vectors of some images by torch, and its seconds an image: of the second half, as a first pass is slower."""
    middle = len(images) // 2
    before = [_forward(backbone, images[:middle])] if middle else []
    start = time.perf_counter()
    vectors = torch.cat([*before, _forward(backbone, images[middle:])])
    return vectors, (time.perf_counter() - start) / (len(images) - middle)


def _chosen_graph(
    backbone: Backbone | Stem, first: list[Tensor], expected: Tensor, pace: float, total: int | None
) -> onnx.OnnxGraph | None:
    """The graph that shall compute the rest, None for torch, which takes `pace` seconds an image."""
    forced, name, n = backbone.engine == "onnx", backbone.architecture["name"], len(first)
    if not forced and (total is None or (total - n) * pace < PAYS):
        return None
    if not forced and not onnx.installed():
        logger.info(
            "%s: %.3g images/s by torch; ONNX Runtime may be several times as fast: pip install 'hierderm[onnx]'",
            name, 1 / pace,
        )  # fmt: skip
        return None
    try:
        graph = onnx.make_graph(backbone)
        difference = graph.require_equal(torch.stack(first), expected)
    except onnx.NotExportedError as error:
        if forced:
            raise ModelError(f"{name}: engine = 'onnx' can't compute it: {error}. Use engine = 'torch'.") from None
        logger.info("%s: torch computes the vectors; as a graph of ONNX Runtime %s", name, error)
        return None
    start = time.perf_counter()
    list(_by_graph(graph, iter(first), lambda image: image, n, n))
    own = (time.perf_counter() - start) / n
    faster = forced or own < pace
    logger.info(
        "%s: %s computes the vectors; first images/s: ONNX Runtime %.3g, torch %.3g; largest difference %.0e",
        name, "ONNX Runtime" if faster else "torch", 1 / own, 1 / pace, difference,
    )  # fmt: skip
    return graph if faster else None


# --- the engines -------------------------------------------------------------------------------------------------


def _by_torch(
    backbone: Backbone | Stem,
    items: Iterator[Item],
    pixels: Callable[[Item], Tensor],
    batch_size: int,
    total: int | None,
) -> Iterator[Tensor]:
    """Threads read the next batch while one passes the backbone, which uses all threads of torch."""
    readers = min(READERS, n_threads())
    size = max(1, min(TOGETHER, batch_size // readers))
    images = _by_threads(readers, [pixels], _groups(items, size, total), batch_size // size)
    for batch in _batches(images, batch_size):
        yield _forward(backbone, batch)


@torch.inference_mode()
def _forward(backbone: Backbone | Stem, images: list[Tensor]) -> Tensor:
    batch = backbone.preprocessing.normalise(torch.stack(images).to(_device(backbone)))
    if batch.device.type == "cpu" and sum(isinstance(module, nn.Conv2d) for module in backbone.modules()) > 1:
        # Twice as fast; a transformer has one convolution.
        batch = batch.flatten(0, -4).contiguous(memory_format=torch.channels_last).view_as(batch)
    vectors: Tensor = backbone(batch)
    return vectors.float()


def _by_graph(
    graph: onnx.OnnxGraph, items: Iterator[Item], pixels: Callable[[Item], Tensor], batch_size: int, total: int | None
) -> Iterator[Tensor]:
    """Each thread reads a few images, then computes their vectors one by one: layers then stay in its core's cache."""
    threads = torch.get_num_threads()
    steps = [pixels, lambda image: graph(image[None])]
    groups = _groups(items, min(TOGETHER, batch_size), total)
    for batch in _batches(_by_threads(threads, steps, groups, 2 * threads), batch_size):
        with _one_thread():
            vectors = torch.cat(batch)
        yield vectors


def _by_threads(
    n_workers: int, steps: Sequence[Callable[[Any], Any]], groups: Iterator[list[Any]], ahead: int
) -> Iterator[Any]:
    """What comes of each item by all `steps`. A thread does a step for all items of a group before the next one."""
    ended = Event()

    def work(few: list[Any]) -> list[Any]:
        for step in steps:
            few = [step(item) for item in few if not ended.is_set()]
        return few

    with ThreadPoolExecutor(n_workers, initializer=_one_thread) as pool:
        try:
            yield from chain.from_iterable(in_order(pool, work, groups, ahead))
        finally:
            ended.set()  # Ctrl-C waits for one item of each thread


def _groups(items: Iterator[Item], size: int, total: int | None) -> Iterator[list[Item]]:
    """Up to `size` items at a time; fewer towards the end, so that no thread is left with much work."""
    left, parts = total, SHARE * n_threads()
    while group := list(islice(items, size if left is None else max(1, min(size, left // parts)))):
        left = None if left is None else left - len(group)
        yield group


def _batches(items: Iterator[Item], size: int) -> Iterator[list[Item]]:
    while batch := list(islice(items, size)):
        yield batch


def _one_thread() -> AbstractContextManager[object]:
    """Let the calling thread compute alone, from now on or in a `with` block: the cores are for the other threads.

    Threads of OpenMP take them even after an operation, for milliseconds, in case that another one follows.
    """
    torch.get_num_threads()  # torch sets its own number when a thread first asks for it
    return one_thread("openmp")


def _device(backbone: Backbone | Stem) -> torch.device:
    return next((weight.device for weight in backbone.parameters()), torch.device("cpu"))
