from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from hierderm import columns as c
from hierderm.config.settings import SplitConfig
from hierderm.data.splits import assign_splits, join_cases, split_cases
from hierderm.data.table import CaseTable

HOLD_OUT = SplitConfig(test_fraction=0.25, validation_fraction=0.15)


def long_tailed(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Groups of 1 to 3 images, conditions with 200, 60, 20, 8, 3, 2, 1 and 1 groups."""
    rng = np.random.default_rng(seed)
    condition_of_group = np.repeat(np.arange(8), [200, 60, 20, 8, 3, 2, 1, 1])
    images = rng.integers(1, 4, len(condition_of_group))
    groups = np.repeat(np.arange(len(images)), images)
    return groups, condition_of_group[groups]


def test_groups_stay_whole_and_fractions_hold() -> None:
    groups, fine = long_tailed()
    names, single = assign_splits(groups, fine, HOLD_OUT)
    assert all(len(set(names[groups == group])) == 1 for group in np.unique(groups))
    first = np.unique(groups, return_index=True)[1]
    shares = {part: float(np.mean(names[first] == part)) for part in c.SPLITS}
    assert shares["test"] == pytest.approx(0.25, abs=0.01)
    assert shares["validation"] == pytest.approx(0.15, abs=0.01)
    assert single == 2


def test_single_conditions_train_and_every_condition_is_trained() -> None:
    groups, fine = long_tailed()
    for config in (HOLD_OUT, SplitConfig(folds=3, fold=1), SplitConfig(test_fraction=0.8, validation_fraction=0.1)):
        names, _ = assign_splits(groups, fine, config)
        assert set(names[fine >= 6]) == {"train"}
        assert all("train" in names[fine == condition] for condition in range(8))


def test_each_condition_is_stratified() -> None:
    groups, fine = long_tailed()
    names, _ = assign_splits(groups, fine, HOLD_OUT)
    for condition in range(5):
        of = np.unique(groups[fine == condition])
        share = np.mean([names[groups == group][0] == "test" for group in of])
        assert abs(share * len(of) - 0.25 * len(of)) <= 1.01


def test_folds_divide_what_can_be_divided() -> None:
    groups, fine = long_tailed()
    tests = [set(groups[assign_splits(groups, fine, SplitConfig(folds=4, fold=f))[0] == "test"]) for f in range(4)]
    assert sum(map(len, tests)) == len(set.union(*tests)) == 293  # all groups but the two singles, each once
    assert max(map(len, tests)) - min(map(len, tests)) <= 1


def test_seeds_matter_and_repeat() -> None:
    groups, fine = long_tailed()
    first, again, other = (assign_splits(groups, fine, replace(HOLD_OUT, seed=seed))[0] for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


def test_pairs_of_images_join_chains_of_cases() -> None:
    cases = np.array([0, 0, 1, 2, 3, 4])
    pairs = np.array([[1, 2], [2, 3], [0, 1]])  # of cases 0 and 1, of 1 and 2, and of one case
    assert join_cases(cases, pairs).tolist() == [0, 0, 0, 0, 1, 2]
    assert join_cases(cases, pairs[:0]).tolist() == [0, 0, 1, 2, 3, 4]


def test_a_planted_leak_is_kept_out(toy: CaseTable, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The same image, recompressed and scaled, under another case: both must land in one split."""
    folder = tmp_path_factory.mktemp("leak")
    frame = toy.frame.drop(columns=c.SPLIT)
    frame[c.IMAGE_PATH] = [str(toy.root / path) for path in frame[c.IMAGE_PATH]]
    copies = frame.groupby(c.CASE_ID, as_index=False).first().iloc[:12].copy()
    for i, path in enumerate(copies[c.IMAGE_PATH]):
        with Image.open(path) as image:
            image.resize((48, 48)).save(folder / f"{i}.jpg", quality=90)
    copies[c.IMAGE_PATH] = [str(folder / f"{i}.jpg") for i in range(len(copies))]
    original = copies[c.CASE_ID].tolist()
    copies[c.CASE_ID] = [f"copy-{case}" for case in original]
    copies[c.IMAGE_ID] = [f"copy-{image}" for image in copies[c.IMAGE_ID]]
    import pandas as pd

    leaky = replace(toy, frame=pd.concat([frame, copies], ignore_index=True))

    def separated(near_duplicates: bool) -> int:
        config = SplitConfig(test_fraction=0.4, validation_fraction=0.2, near_duplicates=near_duplicates)
        done, report = split_cases(leaky, config)
        split_of = dict(zip(done.case_ids, done.splits, strict=True))
        assert (report.cases_joined >= 24) == near_duplicates
        return sum(split_of[case] != split_of[f"copy-{case}"] for case in original)

    assert separated(near_duplicates=False) > 0
    assert separated(near_duplicates=True) == 0


def test_the_hash_follows_the_division_only(toy: CaseTable) -> None:
    shuffled = toy.select(np.arange(len(toy))[::-1].copy())
    assert shuffled.split_hash == toy.split_hash
    other, _ = split_cases(toy, SplitConfig(seed=5))
    assert other.split_hash != toy.split_hash
