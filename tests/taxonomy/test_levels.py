from __future__ import annotations

import pytest

from hierderm.errors import TaxonomyError
from hierderm.taxonomy.levels import level_numbers
from hierderm.taxonomy.tree import taxonomy_from_paths


def test_several_levels_by_name() -> None:
    tree = taxonomy_from_paths([("A", "B", "C")], ("top", "middle", "leaf"), id="t")
    assert level_numbers(tree, ["fine", "top", "middle"]) == [2, 0, 1] and level_numbers(tree, []) == []
    for names in (["coarse", "top"], ["leaf", "fine"], ["middle", "middle"]):
        with pytest.raises(TaxonomyError, match=r"each level must be named once, .* Leave one name out\.$"):
            level_numbers(tree, names)
    assert level_numbers(taxonomy_from_paths([("A",)], ("leaf",), id="t"), ["coarse", "fine"]) == [0, 0]
