"""Levels of a tree that settings name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from hierderm.errors import TaxonomyError
from hierderm.taxonomy.tree import Taxonomy


def level_weights(taxonomy: Taxonomy, weights: Mapping[str, float]) -> dict[int, float]:
    """The weights above 0 by number of the level, coarse first; those of two names of an only level are added up."""
    found: dict[int, float] = {}
    named = {name: weight for name, weight in weights.items() if weight > 0}
    for number, weight in sorted(zip(level_numbers(taxonomy, named), named.values(), strict=True)):
        found[number] = found.get(number, 0.0) + weight
    return found


def probability_weights(taxonomy: Taxonomy, weights: Mapping[str, float], finest: int = -1) -> dict[int, float]:
    """The levels whose node probabilities enter an embedding, with their weights; all to `finest` if none is named."""
    return level_weights(taxonomy, weights) or dict.fromkeys(range(taxonomy.level_number(finest) + 1), 1.0)


def level_numbers(taxonomy: Taxonomy, names: Iterable[str]) -> list[int]:
    """The numbers of several levels; TaxonomyError where two names, as 'coarse' and its own, mean one level."""
    names = list(names)
    numbers = [taxonomy.level_number(name) for name in names]
    ends = taxonomy.n_levels == 1 and set(names) <= {"coarse", "fine"}  # of a tree of one level both name it
    if len(set(numbers)) < len(numbers) and not ends:
        raise TaxonomyError(
            f"each level must be named once, got {names} of the levels {list(taxonomy.level_names)}, of which 'coarse' "
            "is the first and 'fine' the last. Leave one name out."
        )
    return numbers
