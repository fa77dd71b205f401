from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hierderm.config.methods import BatchSampling
from hierderm.data.sampler import ShuffledBatchSampler, TreeBatchSampler, make_sampler
from hierderm.errors import ConfigError

FINE = np.repeat(np.arange(9), [60, 20, 12, 8, 5, 3, 2, 1, 1])
COARSE = np.array([0, 0, 1, 1, 1, 2, 2, 2, 3])[FINE]


def batches(balance: float = 0.0, seed: int = 0, epoch: int = 0) -> list[list[int]]:
    sampler = TreeBatchSampler([COARSE, FINE], 16, images_per_class=4, balance=balance, seed=seed)
    sampler.epoch = epoch
    assert len(list(sampler)) == len(sampler)
    return list(sampler)


@pytest.mark.parametrize("balance", [0.0, 0.5, 1.0])
def test_an_epoch_sees_every_image_and_every_image_has_a_positive(balance: float) -> None:
    drawn = batches(balance)
    assert set(np.concatenate(drawn).tolist()) == set(range(len(FINE)))
    for batch in drawn:
        assert len(batch) == 16
        counts = np.bincount(COARSE[batch])
        assert (counts[counts > 0] >= 4).all()


def test_most_images_have_a_positive_of_their_own_condition() -> None:
    drawn = batches()
    alone = [
        image
        for batch in drawn
        for image in batch
        if (FINE[batch] == FINE[image]).sum() < 2 and (FINE[image] == FINE).sum() > 1
    ]
    assert len(alone) <= 0.1 * sum(map(len, drawn))


def test_balance_draws_rare_classes_more() -> None:
    share = [np.bincount(COARSE[np.concatenate(batches(balance))], minlength=4) for balance in (0.0, 0.5, 1.0)]
    rare = [counts[3] / counts.sum() for counts in share]
    assert rare[0] < rare[1] < rare[2]
    assert share[2].min() / share[2].max() > 0.8


def test_epochs_and_seeds_differ_and_repeat() -> None:
    assert batches() == batches()
    assert batches(epoch=1) != batches()
    assert batches(seed=1) != batches()


@pytest.mark.parametrize("kind", ["hierarchical", "class_balanced", "shuffle"])
@pytest.mark.parametrize(("batch_size", "world_size"), [(16, 2), (16, 3), (20, 4), (23, 5), (16, 1)])
def test_processes_divide_each_batch_of_the_epoch(kind: Any, batch_size: int, world_size: int) -> None:
    """112 images, 115 of them or more by the tree: the last batch of one process is not full by itself."""

    def drawn(rank: int, world_size: int) -> list[list[int]]:
        sampler = make_sampler(
            BatchSampling(kind=kind), COARSE, FINE, batch_size, seed=1, rank=rank, world_size=world_size
        )
        sampler.epoch = 3
        found = list(sampler)
        assert len(found) == len(sampler) > 1
        return found

    whole = drawn(0, 1)
    parts = [drawn(rank, world_size) for rank in range(world_size)]
    assert {len(part) for part in parts} == {len(whole)}  # as many steps in every process, or they would wait for ever
    assert all(batch for part in parts for batch in part)
    for number, batch in enumerate(whole):  # nothing lost, nothing repeated that one process would not repeat
        assert [image for part in parts for image in part[number]] == batch
    assert {image for batch in whole for image in batch} == set(range(len(FINE)))


def test_chunks_stay_whole_in_each_process() -> None:
    for rank in range(3):
        for batch in TreeBatchSampler([COARSE, FINE], 16, rank=rank, world_size=3):
            counts = np.bincount(COARSE[batch])
            assert (counts[counts > 0] >= 4).all()


def test_shuffle_sees_everything() -> None:
    sampler = ShuffledBatchSampler(10, 4)
    drawn = list(sampler)
    assert len(drawn) == len(sampler) == 3
    assert set(np.concatenate(drawn).tolist()) == set(range(10))


def test_by_name() -> None:
    kinds = {
        kind: make_sampler(BatchSampling(kind=kind), COARSE, FINE, 16, seed=0)
        for kind in ("shuffle", "class_balanced", "hierarchical")
    }
    assert isinstance(kinds["shuffle"], ShuffledBatchSampler)
    tree = kinds["hierarchical"]
    assert isinstance(tree, TreeBatchSampler) and len(tree.labels) == 2


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="got images_per_class 8, batch_size 4"):
        TreeBatchSampler([COARSE], 4, images_per_class=8)
    with pytest.raises(
        ConfigError, match="must be at least 20, sampler.images_per_class for each of the 5 proc.* got 16"
    ):
        TreeBatchSampler([COARSE], 16, world_size=5)
    with pytest.raises(
        ConfigError, match="each of the 3 processes, training.batch_size is 9 and there are 2 training im"
    ):
        ShuffledBatchSampler(2, 9, world_size=3)
