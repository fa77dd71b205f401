"""Batches that hold positives, see every image each epoch and do not starve rare conditions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

from hierderm.config.methods import BatchSampling
from hierderm.errors import ConfigError
from hierderm.types import IntArray


class TreeBatchSampler(Sampler[list[int]]):
    """Batches of whole chunks: `images_per_class` images of one coarse class, siblings and twins side by side.

    `labels`: the labels of the levels to respect, coarse first, each shape (n_images,). Within a class the images are
    ordered so that each finer level's images come in pairs where they can, then cut into chunks. So every image of a
    chunk has positives at the coarse level, and most have one at the fine level.

    An epoch holds every image at least once. With `balance` b in [0, 1] a class of n images is drawn for
    n^(1 - b) * n_max^b images: the rest are repeats, spread over the fine classes evenly. Incomplete last chunks are
    filled with repeats; a class with one image meets its own other augmentation.

    Batches of epoch e depend on `seed` and e alone. Distributed: every process yields its part of the chunks of each
    batch, so that all take the same number of steps, on the batches that one process would have.
    """

    def __init__(
        self,
        labels: Sequence[IntArray],
        batch_size: int,
        *,
        images_per_class: int = 4,
        balance: float = 0.0,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if not 2 <= images_per_class <= batch_size:
            raise ConfigError(
                "2 <= sampler.images_per_class <= training.batch_size must hold, "
                f"got images_per_class {images_per_class}, batch_size {batch_size}."
            )
        if batch_size // images_per_class < world_size:
            raise ConfigError(
                f"training.batch_size must be at least {world_size * images_per_class}, "
                f"sampler.images_per_class for each of the {world_size} processes, got {batch_size}."
            )
        self.labels = [np.asarray(level) for level in labels]
        self.images_per_class, self.chunks_per_batch = images_per_class, batch_size // images_per_class
        self.seed, self.epoch, self.rank, self.world_size = seed, 0, rank, world_size
        counts = np.bincount(self.labels[0])
        self.classes = np.flatnonzero(counts)
        n = counts[self.classes]
        drawn = n ** (1 - balance) * n.max() ** balance
        self.chunks_of_class = np.ceil(np.maximum(n, drawn) / images_per_class).astype(int)

    def __len__(self) -> int:
        return -(-int(self.chunks_of_class.sum()) // self.chunks_per_batch)

    def __iter__(self) -> Iterator[list[int]]:
        rng = np.random.default_rng([self.seed, self.epoch])
        chunks: list[IntArray] = []
        for label, n_chunks in zip(self.classes, self.chunks_of_class, strict=True):
            images = np.flatnonzero(self.labels[0] == label)
            order = self._extended(images, n_chunks * self.images_per_class, rng)
            chunks += list(order.reshape(n_chunks, self.images_per_class))
        order_of_chunks = rng.permutation(len(chunks))
        # the last batch is filled from the first chunks
        batches = np.resize(order_of_chunks, (len(self), self.chunks_per_batch))
        for batch in batches:
            yield [int(image) for chunk in part_of(batch, self.rank, self.world_size) for image in chunks[chunk]]

    def _extended(self, images: IntArray, n_wanted: int, rng: np.random.Generator) -> IntArray:
        """`n_wanted` of `images`, each at least once, in pairs by the finer levels."""
        once = _paired(images, self.labels[1:], rng)
        n_more = n_wanted - len(images)
        if n_more == 0:
            return once
        finest = self.labels[-1][images]
        share = 1 / np.bincount(finest)[finest]
        more = rng.choice(images, n_more, p=share / share.sum())
        return _paired(np.concatenate([once, more]), self.labels[1:], rng)


def _paired(images: IntArray, finer: Sequence[IntArray], rng: np.random.Generator) -> IntArray:
    """A random order in which images of the same finest class, where there are several, follow each other in twos."""
    shuffled = rng.permutation(images)
    if not finer:
        return shuffled
    groups: list[IntArray] = []
    for label in np.unique(finer[-1][shuffled]):
        members = shuffled[finer[-1][shuffled] == label]
        groups += [members[start : start + 2] for start in range(0, len(members), 2)]
    # Pairs first, so that they are not cut by the chunks; the odd ones out fill the end.
    pairs = [group for group in groups if len(group) == 2]
    singles = [group for group in groups if len(group) == 1]
    pairs = [pairs[i] for i in rng.permutation(len(pairs))]
    singles = [singles[i] for i in rng.permutation(len(singles))]
    return np.concatenate([*pairs, *singles])


class ShuffledBatchSampler(Sampler[list[int]]):
    """Every image in random order; the last batch is filled from the first images. Interface of TreeBatchSampler."""

    def __init__(self, n_images: int, batch_size: int, *, seed: int = 0, rank: int = 0, world_size: int = 1) -> None:
        self.n_images, self.batch_size = n_images, min(batch_size, n_images)
        if self.batch_size < world_size:
            raise ConfigError(
                f"a batch must have an image for each of the {world_size} processes, training.batch_size is "
                f"{batch_size} and there are {n_images} training images."
            )
        self.seed, self.epoch, self.rank, self.world_size = seed, 0, rank, world_size

    def __len__(self) -> int:
        return -(-self.n_images // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        order: IntArray = np.random.default_rng([self.seed, self.epoch]).permutation(self.n_images)
        for batch in np.resize(order, (len(self), self.batch_size)):
            yield part_of(batch, self.rank, self.world_size).tolist()


def part_of(rows: IntArray, rank: int, world_size: int) -> IntArray:
    """What process `rank` of `world_size` takes of some rows: one after the other they are all rows, in their order."""
    return np.array_split(rows, world_size)[rank]


def make_sampler(
    config: BatchSampling,
    coarse: IntArray,
    fine: IntArray,
    batch_size: int,
    *,
    seed: int,
    rank: int = 0,
    world_size: int = 1,
) -> TreeBatchSampler | ShuffledBatchSampler:
    """The sampler of a configuration. `coarse` and `fine` are the labels of the two losses, shape (n_images,)."""
    if config.kind == "shuffle":
        return ShuffledBatchSampler(len(fine), batch_size, seed=seed, rank=rank, world_size=world_size)
    return TreeBatchSampler(
        [coarse, fine] if config.kind == "hierarchical" else [coarse],
        batch_size,
        images_per_class=config.images_per_class,
        balance=config.balance if config.kind == "hierarchical" else 1.0,
        seed=seed,
        rank=rank,
        world_size=world_size,
    )
