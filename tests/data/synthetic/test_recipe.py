from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hierderm.data.synthetic.painter import SITES
from hierderm.data.synthetic.recipe import (
    PRESETS,
    Recipe,
    generate,
    long_tail,
    make_conditions,
    make_taxonomy,
    write_synthetic,
)
from hierderm.errors import ConfigError, OutputError

SMALL = replace(PRESETS["toy"], n_cases=12)


def test_the_same_seed_gives_the_same_images() -> None:
    first, again = list(generate(SMALL)), list(generate(SMALL))
    other = next(iter(generate(replace(SMALL, seed=1))))
    assert all((a.pixels == b.pixels).all() and a.caption == b.caption for a, b in zip(first, again, strict=True))
    assert (first[0].pixels != other.pixels).any()


@pytest.mark.parametrize("name", ["demo", "scin-like"])
def test_the_long_tail_has_scins_proportions(name: str) -> None:
    recipe = PRESETS[name]
    counts = long_tail(recipe.n_cases, recipe.n_conditions)
    assert counts.sum() == recipe.n_cases
    assert (np.diff(counts) <= 0).all()
    assert counts[0] / recipe.n_cases == pytest.approx(1 / 6, abs=0.02)
    assert (counts <= 5).mean() > 0.45


def test_cases_have_one_to_three_images_of_one_patient() -> None:
    images = list(generate(replace(PRESETS["demo"], size=8, n_cases=200)))
    views = np.bincount([image.case for image in images])
    assert set(views.tolist()) == {1, 2, 3}
    by_case: dict[int, set[object]] = {}
    for image in images:
        by_case.setdefault(image.case, set()).add((image.patient, image.condition, image.shown))
    assert all(len(kinds) == 1 for kinds in by_case.values())


def test_nuisance_does_not_follow_the_labels() -> None:
    recipe = Recipe(n_cases=500, n_conditions=16, size=8, label_noise=0.1)
    images = [image for image in generate(recipe) if image.view == 0]
    tones = np.bincount([image.patient.monk for image in images], minlength=11)[1:]
    assert tones.min() > 30  # 50 expected of each of ten
    largest = [image.patient.monk for image in images if image.shown == images[0].shown]
    assert np.mean(largest) == pytest.approx(5.5, abs=0.9)
    assert {image.patient.body_site for image in images} == set(SITES)
    wrong = np.mean([image.condition != image.shown for image in images])
    assert wrong == pytest.approx(0.1 * 15 / 16, abs=0.03)


def test_captions_never_name_a_label() -> None:
    for image in generate(PRESETS["toy"]):
        assert "type" not in image.caption
        assert image.condition not in image.caption


def test_every_category_has_a_condition() -> None:
    recipe = PRESETS["demo"]
    tree = make_taxonomy(recipe)
    assert (tree.size(0), tree.size(1)) == (16, 64)
    assert len({condition.name for condition in make_conditions(recipe)}) == 64


def test_written_once(tmp_path: Path) -> None:
    toy, other = SMALL, replace(SMALL, seed=1)
    before = write_synthetic(toy, tmp_path).stat().st_ino
    assert write_synthetic(toy, tmp_path).stat().st_ino == before
    with pytest.raises(OutputError, match=r"holds a hierderm synthetic data folder. .* replace it \(--replace\)"):
        write_synthetic(other, tmp_path)
    assert write_synthetic(other, tmp_path, replace=True).stat().st_ino != before
    assert write_synthetic(other, tmp_path).read_text() != write_synthetic(toy, tmp_path, replace=True).read_text()


def test_foreign_files_are_kept(tmp_path: Path) -> None:
    write_synthetic(SMALL, tmp_path / "data")
    (tmp_path / "data" / "images" / "mine.jpg").write_bytes(b"jpeg")
    with pytest.raises(OutputError, match=r"besides those of its synthetic data \(images/mine.jpg\)"):
        write_synthetic(replace(SMALL, seed=1), tmp_path / "data", replace=True)


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="n_categories must lie between 1 and 16, got 17"):
        Recipe(n_cases=20, n_conditions=20, n_categories=17)
    with pytest.raises(ConfigError, match="n_categories <= n_conditions <= n_cases"):
        Recipe(n_cases=20, n_conditions=30)
