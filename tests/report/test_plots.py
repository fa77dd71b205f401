from __future__ import annotations

import numpy as np

from hierderm.report.plots import map_points


def test_points_of_the_map() -> None:
    where = np.array([[0.0, 5.0], [1.0, 5.0], [2.0, 5.0]])
    drawn = map_points(where, np.array([0, 1, 25]), ["x", "y", "z"], [f"c{k}" for k in range(26)])
    assert [point["x"] for point in drawn["points"]] == [10, 280, 550]
    assert [item["name"] for item in drawn["legend"]] == ["c0", "c1", "c25"]
    many = map_points(np.zeros((25, 2)), np.arange(25), [""] * 25, [str(k) for k in range(25)])
    assert many["legend"][0]["shape"] == "circle" and many["legend"][20]["shape"] == "square"
