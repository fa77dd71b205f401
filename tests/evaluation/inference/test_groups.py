from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from hierderm.evaluation.inference.bootstrap import case_draws
from hierderm.evaluation.inference.groups import gaps, group_scores, groups_of, neighbour_shares
from hierderm.evaluation.scores import Scores, Statistic

CASES = np.arange(90).astype(str)
TONES = np.repeat([1, 4, 6], 30)
FRAME = pd.DataFrame({"fitzpatrick": TONES, "body_site": ["arm", "leg", ""] * 30, "source": "clinic"})
GROUPS = groups_of(FRAME)
DRAWS = case_draws(CASES, 300, 0)


def test_which_groups_there_are() -> None:
    assert set(GROUPS) == {"fitzpatrick", "body_site"}  # one source is no grouping
    assert sorted(set(GROUPS["fitzpatrick"])) == ["I-II", "III-IV", "V-VI"]
    published = pd.DataFrame({"skin_tone": ["I-II", "V-VI", "III-IV"] * 30})
    assert sorted(set(groups_of(published)["skin_tone"])) == ["I-II", "III-IV", "V-VI"]
    many = pd.DataFrame({"body_site": [f"site {k}" for k in range(14) for _ in range(20 - k)], "monk": None})
    names = groups_of(many)
    assert set(names) == {"body_site"}
    assert {"site 11", "others"} <= set(names["body_site"]) and "site 12" not in set(names["body_site"])


def test_each_metric_of_each_group() -> None:
    values = (TONES == 1).astype(float)
    share = Statistic((("coarse", "share"),), lambda weights, _: (weights @ values)[:, None])
    rows = group_scores(Scores({("coarse", "recall_at_1"): values}, statistics=(share,)), GROUPS, CASES, DRAWS, 0.95)
    found = {(row.column, row.group, row.name): row for row in rows}
    light, dark = (found["fitzpatrick", group, "recall_at_1"] for group in ("I-II", "V-VI"))
    assert (light.value, light.low, light.high, light.n_images, light.n_cases) == (1, 1, 1, 30, 30)
    assert dark.value == 0
    arm = found["body_site", "arm", "recall_at_1"]
    assert arm.value == pytest.approx(1 / 3) and arm.low < 1 / 3 < arm.high
    assert found["fitzpatrick", "I-II", "share"].value == 30 and found["fitzpatrick", "V-VI", "share"].value == 0


def test_a_planted_gap_is_found_and_chance_is_not() -> None:
    rng = np.random.default_rng(0)
    planted = (rng.uniform(size=90) < np.repeat([0.8, 0.75, 0.2], 30)).astype(float)
    chance = (rng.uniform(size=90) < 0.5).astype(float)
    scores = Scores({("coarse", "recall_at_1"): planted, ("coarse", "brier"): chance, ("fine", "answer_rate"): chance})
    found = {(gap.column, gap.name): gap for gap in gaps(scores, GROUPS, CASES, DRAWS, 0.95, 500, 0)}
    gap = found["fitzpatrick", "recall_at_1"]
    assert gap.worst == "V-VI" and gap.p_value < 0.01 and gap.low > 0
    assert found["fitzpatrick", "brier"].p_value > 0.05  # lower is better there
    assert chance[{"I-II": 1, "III-IV": 4, "V-VI": 6}[found["fitzpatrick", "brier"].worst] == TONES].mean() == max(
        chance[tone == TONES].mean() for tone in (1, 4, 6)
    )
    assert ("fitzpatrick", "answer_rate") not in found  # neither way is better


def test_p_values_of_gaps_are_honest() -> None:
    """Where there is no gap, a p-value below 0.2 comes in a fifth of the tests."""
    small = 0
    for seed in range(100):
        values = np.random.default_rng(seed).normal(size=90)
        small += (
            gaps(
                Scores({("c", "map_at_r"): values}),
                {"fitzpatrick": GROUPS["fitzpatrick"]},
                CASES,
                DRAWS[:2],
                0.95,
                99,
                seed,
            )[0].p_value
            <= 0.2
        )
    assert 8 <= small <= 34


def test_small_groups_are_not_called_worst() -> None:
    few = {"body_site": np.array(["a"] * 5 + ["b"] * 40 + ["c"] * 45)}
    values = np.r_[np.zeros(5), np.ones(40), np.full(45, 0.5)]
    (gap,) = gaps(Scores({("coarse", "map_at_r"): values}), few, CASES, DRAWS, 0.95, 50, 0)
    assert (gap.worst, gap.best, gap.value) == ("c", "b", 0.5)
    assert (
        gaps(
            Scores({("coarse", "map_at_r"): values}), {"x": np.array(["a"] * 85 + ["b"] * 5)}, CASES, DRAWS, 0.95, 5, 0
        )
        == []
    )


def test_tones_of_the_neighbours() -> None:
    groups = {"fitzpatrick": np.array(["I-II", "I-II", "V-VI", ""])}
    nearest = np.array([[1, 2], [2, 3], [0, -1], [0, 1]])
    light, dark = neighbour_shares(groups, nearest)
    assert light["neighbours"] == {"I-II": pytest.approx(1 / 3), "V-VI": pytest.approx(2 / 3)}
    assert light["in_test"] == {"I-II": pytest.approx(2 / 3), "V-VI": pytest.approx(1 / 3)}
    assert dark["neighbours"] == {"I-II": 1.0, "V-VI": 0.0}


def test_a_site_called_others_is_not_joined_with_the_rest() -> None:
    sites = ["others"] * 30 + [f"site {k}" for k in range(20) for _ in range(20 - k)]
    names = groups_of(pd.DataFrame({"body_site": sites}))["body_site"]
    assert (names == "others").sum() == 30 and (names == "all others").sum() == sum(20 - k for k in range(11, 20))
