"""Plant leaks of test images into training, and look at whether the package tells.

Copies of images under other cases must be joined by the split ("survived"), files in two splits, changed labels and
replaced images of a run, and external tests with training images in another form must be refused. What nobody notices
is "silent", with an example.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageOps

from benchmarks.look_alikes import CHANGES, Change
from benchmarks.soak.table import Row
from hierderm import columns as c
from hierderm.config.settings import SplitConfig
from hierderm.data.checks import check_cases, read_cases
from hierderm.data.seen import Seen, external
from hierderm.data.splits import split_cases
from hierderm.data.synthetic.recipe import PRESETS, Recipe, write_synthetic
from hierderm.data.table import CaseTable
from hierderm.errors import HierdermError
from hierderm.taxonomy.file import read_taxonomy


def attack(sample: Path, attempts: int, seed: int) -> list[Row]:
    """`attempts` leaks, spread over their kinds; `sample`: the folder of `readers.samples`, with a run of the toy."""
    rng, place = random.Random(seed), sample / "leaks"
    place.mkdir()
    share = attempts // (2 * len(CHANGES) + len(PLANTED))
    table = _images(place, share)
    rows = [*_joined(table, place, share, rng), *_external(table, place, share, rng)]
    for name, plant in PLANTED.items():
        row = Row("leak", name)
        for number in range(share):
            row.add(*_outcome(plant, sample, place, number, rng))
        rows.append(row)
    return rows


def _outcome(
    plant: Callable[[Path, Path, random.Random], str], sample: Path, place: Path, number: int, rng: random.Random
) -> tuple[str, str]:
    folder = place / f"{number}"
    try:
        return ("survived", "") if plant(sample, folder, rng) else ("silent", "nothing was said")
    except HierdermError:
        return "refused", ""
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# --- look-alikes -------------------------------------------------------------------------------------------------


def _images(place: Path, n: int) -> CaseTable:
    """Images of as many cases of the built-in data."""
    recipe = Recipe(n_cases=max(n, 40), n_conditions=20, size=PRESETS["demo"].size)
    path = write_synthetic(recipe, place / "images")
    table = read_cases(path, read_taxonomy(path.parent / "taxonomy.csv"))
    first = table.frame.groupby(c.CASE_ID).head(1).index.to_numpy()
    return table.select(first[:n])


def _copies(table: CaseTable, change: Change, folder: Path, rng: random.Random) -> pd.DataFrame:
    """Changed copies of a table's images, each a case of its own."""
    folder.mkdir()
    frame = table.frame.copy()
    for position, path in enumerate(table.paths):
        with Image.open(path) as image:
            change(image.convert("RGB"), rng).convert("RGB").save(folder / f"{position}.jpg", quality=88)
    frame[c.IMAGE_PATH] = [str(folder / f"{position}.jpg") for position in range(len(frame))]
    for name in (c.IMAGE_ID, c.CASE_ID):
        frame[name] = "copy-" + frame[name]
    return frame.drop(columns=c.IMAGE_HASH)


def _joined(table: CaseTable, place: Path, share: int, rng: random.Random) -> list[Row]:
    """Whether the split keeps each copy with its original, and joins no other cases."""
    rows = []
    for number, (name, change) in enumerate(CHANGES.items()):
        row = Row("leak", f"split, {name}")
        copies = _copies(table, change, place / f"joined-{number}", rng)
        frame = table.frame.assign(**{c.IMAGE_PATH: [str(path) for path in table.paths]})
        both = check_cases(pd.concat([frame, copies], ignore_index=True), table.taxonomy, place)
        once = split_cases(both, SplitConfig(seed=number, test_fraction=0.4, validation_fraction=0.2))[1]
        groups = _groups(both)
        for position in range(share):
            original, copy = groups[position], groups[len(table) + position]
            members = np.flatnonzero(groups == original)
            if original != copy:
                row.add("silent", f"image {table.frame[c.IMAGE_ID].iloc[position]} and its copy are not joined")
            elif len(members) > 2:
                row.add("wrong", f"a group of {len(members)}, at most {once.largest_group}")
            else:
                row.add("survived")
        rows.append(row)
    return rows


def _groups(table: CaseTable) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    from hierderm.data.look_alikes import fingerprints_of, look_alikes
    from hierderm.data.splits import join_cases

    cases = np.unique(table.case_ids, return_inverse=True)[1]
    return join_cases(cases, look_alikes(fingerprints_of(table.paths, table.image_hashes)))


def _external(table: CaseTable, place: Path, share: int, rng: random.Random) -> list[Row]:
    """Whether an external test with changed copies of training images is refused, naming each."""
    trained = replace(table, frame=table.frame.assign(**{c.SPLIT: c.TRAIN}))
    seen, rows = Seen.of(trained), []
    for number, (name, change) in enumerate(CHANGES.items()):
        row = Row("leak", f"external, {name}")
        copies = check_cases(_copies(table, change, place / f"external-{number}", rng), table.taxonomy, place)
        found = seen.found_in(copies)
        for position in range(share):
            image = table.frame[c.IMAGE_ID].iloc[position]
            row.add("refused") if position in found else row.add("silent", f"a copy of {image} was not found")
        rows.append(row)
    return rows


# --- tables and runs ---------------------------------------------------------------------------------------------


def _toy(sample: Path, folder: Path) -> tuple[pd.DataFrame, Path]:
    """A copy of the toy's table, with a split, whose images can be changed."""
    shutil.copytree(sample / "toy", folder)
    frame = pd.read_csv(folder / "cases.csv", dtype=str).drop(columns=c.IMAGE_HASH, errors="ignore")
    splits = pd.Series(c.SPLITS * len(frame))[: frame[c.CASE_ID].nunique()]
    return frame.assign(
        **{c.SPLIT: frame[c.CASE_ID].map(dict(zip(frame[c.CASE_ID].unique(), splits, strict=True)))}
    ), folder


def _same_file(sample: Path, folder: Path, rng: random.Random, *, one_split: bool) -> str:
    frame, folder = _toy(sample, folder)
    first = frame.iloc[rng.randrange(len(frame))]
    alike = (frame[c.SPLIT] == first[c.SPLIT]) == one_split
    second = frame[alike & (frame[c.CASE_ID] != first[c.CASE_ID])].sample(random_state=rng.randrange(2**31)).iloc[0]
    shutil.copy(folder / first[c.IMAGE_PATH], folder / second[c.IMAGE_PATH])
    notes = check_cases(frame, read_taxonomy(folder / "taxonomy.csv"), folder, decode=False).notes
    named = [note for note in notes if first[c.IMAGE_ID] in note and second[c.IMAGE_ID] in note]
    return named[0] if named else ""


def _opened_after(
    sample: Path, folder: Path, rng: random.Random, change: Callable[[Path, pd.DataFrame, int], None]
) -> str:
    """Change the table or an image of a run, and open it."""
    from hierderm.experiment.run import Run

    shutil.copytree(sample / "run", folder)
    frame = pd.read_csv(folder / "cases.csv", dtype=str, keep_default_na=False)
    images = folder / "own"
    images.mkdir()
    frame[c.IMAGE_PATH] = [str(shutil.copy(folder / path, images)) for path in frame[c.IMAGE_PATH]]
    frame.to_csv(folder / "cases.csv", index=False)
    _ = Run.open(folder).table  # moved images are the same images
    change(folder, frame, rng.randrange(len(frame)))
    _ = Run.open(folder).table
    return ""


def _relabelled(folder: Path, frame: pd.DataFrame, row: int) -> None:
    others = [name for name in frame[c.CONDITION].unique() if name != frame[c.CONDITION].iloc[row]]
    frame.loc[row, c.CONDITION] = others[row % len(others)]
    frame.to_csv(folder / "cases.csv", index=False)


def _moved_to_another_split(folder: Path, frame: pd.DataFrame, row: int) -> None:
    case = frame[c.CASE_ID] == frame[c.CASE_ID].iloc[row]
    frame.loc[case, c.SPLIT] = next(name for name in c.SPLITS if name != frame[c.SPLIT].iloc[row])
    frame.to_csv(folder / "cases.csv", index=False)


def _repainted(folder: Path, frame: pd.DataFrame, row: int) -> None:
    path = Path(frame[c.IMAGE_PATH].iloc[row])
    with Image.open(path) as image:
        ImageOps.mirror(image.convert("RGB")).save(path, quality=90)


def _repainted_and_rehashed(folder: Path, frame: pd.DataFrame, row: int) -> None:
    _repainted(folder, frame, row)
    frame.drop(columns=c.IMAGE_HASH).to_csv(folder / "cases.csv", index=False)


def _of_run(change: Callable[[Path, pd.DataFrame, int], None]) -> Callable[[Path, Path, random.Random], str]:
    return lambda sample, folder, rng: _opened_after(sample, folder, rng, change)


def _training_cases(sample: Path, folder: Path, rng: random.Random) -> str:
    """An external test with one of the training cases."""
    import hierderm

    encoder = hierderm.load(sample / "run")
    assert encoder.taxonomy is not None  # it is trained
    table = read_cases(sample / "toy" / "cases.csv", encoder.taxonomy, decode=False)
    row = rng.randrange(len(table))
    some = table.select(np.array([row]))
    found = external(some, encoder.seen, encoder.name, "error")
    splits = pd.read_csv(sample / "run" / "cases.csv", dtype=str).set_index(c.IMAGE_ID)[c.SPLIT]
    return "a test case" if splits[found.frame[c.IMAGE_ID].iloc[0]] == c.TEST else ""


PLANTED: dict[str, Callable[[Path, Path, random.Random], str]] = {
    "one file in two splits": lambda sample, folder, rng: _same_file(sample, folder, rng, one_split=False),
    "one file, two cases": lambda sample, folder, rng: _same_file(sample, folder, rng, one_split=True),
    "run, label changed": _of_run(_relabelled),
    "run, split changed": _of_run(_moved_to_another_split),
    "run, image replaced": _of_run(_repainted),
    "run, image and hash replaced": _of_run(_repainted_and_rehashed),
    "external, training case": _training_cases,
}
