"""Condition names that a taxonomy lacks: the nearest ones as a table to edit, and that table read back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from hierderm import columns as c
from hierderm.data.checks import parse_weights
from hierderm.data.table import read_text_frame, row_numbers
from hierderm.errors import CaseTableError, Fault, TaxonomyError, closest, describe_faults, suggest
from hierderm.taxonomy.tree import Taxonomy

NAME = "name"
COLUMNS = (NAME, c.CONDITION, "images", "closest")  # of the table of names; only the first two are read


def unknown_names(frame: pd.DataFrame, taxonomy: Taxonomy) -> dict[str, int]:
    """The names of conditions, also in differentials, that the taxonomy lacks, with their images; most images first."""
    counts = Counter(str(name).strip() for name in frame[c.CONDITION])
    for text in frame.get(c.WEIGHTS, ()):
        try:
            counts.update(dict.fromkeys(parse_weights(text), 0) if text else {})
        except ValueError:
            continue  # the check of the table says what is wrong with it
    return {name: count for name, count in counts.most_common() if name and taxonomy.find(name) is None}


def proposed_names(unknown: dict[str, int], taxonomy: Taxonomy) -> list[Sequence[str]]:
    """A table for a person to edit: each unknown name, the nearest condition ('' where none is near), and others."""
    every_name = {name: node.name for node in taxonomy.levels[-1] for name in (node.name, *node.synonyms)}
    rows: list[Sequence[str]] = [COLUMNS]
    for name, count in unknown.items():
        near = list(dict.fromkeys(every_name[found] for found in closest(name, every_name)))
        rows.append((name, near[0] if near else "", str(count), "|".join(near)))
    return rows


def read_names(path: Path, taxonomy: Taxonomy) -> dict[str, str]:
    """Names and their conditions from an edited table, without those that were left empty.

    Raises:
        CaseTableError: All faults of the file: a column is missing, a condition is unknown, a name comes twice.
    """
    frame = read_text_frame(path)
    if lacking := [name for name in COLUMNS[:2] if name not in frame]:
        raise CaseTableError(f"{path.name} must have the columns {NAME} and {c.CONDITION}; {lacking} missing.")
    conditions = taxonomy.names()
    found: dict[str, str] = {}
    faults: list[Fault] = []
    for number, name, condition in zip(row_numbers(frame), frame[NAME], frame[c.CONDITION], strict=True):
        where, index = f"{path.name} row {number}", taxonomy.find(condition)
        if not condition:
            continue
        if index is None:
            what = f"condition '{condition}' is not in taxonomy '{taxonomy.id}'.{suggest(condition, conditions)}"
            faults.append(Fault(where, what))
        elif found.setdefault(name, conditions[index]) != conditions[index]:
            faults.append(Fault(where, f"'{name}' is already '{found[name]}'; a name must have one condition."))
    if faults:
        raise CaseTableError(describe_faults(f"{path.name} has {len(faults)} fault(s):", faults))
    return found


def with_synonyms(taxonomy: Taxonomy, names: Mapping[str, str]) -> Taxonomy:
    """The tree in which each key of `names` is a synonym of the condition that is its value."""
    gained: dict[int, tuple[str, ...]] = {}
    for name, condition in names.items():
        number, known = taxonomy.index(condition), taxonomy.find(name)
        if known not in (None, number):
            raise TaxonomyError(f"'{name}' must not stand for '{condition}': it is '{taxonomy.names()[known or 0]}'.")
        gained[number] = (*gained.get(number, ()), *([name] if known is None else []))
    nodes = tuple(
        replace(node, synonyms=(*node.synonyms, *gained.get(number, ())))
        for number, node in enumerate(taxonomy.levels[-1])
    )
    return replace(taxonomy, levels=(*taxonomy.levels[:-1], nodes))
