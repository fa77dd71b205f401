"""The nodes of a tree, and what must hold of their names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hierderm.taxonomy.names import fold

KINDS = ("diagnosis", "group", "finding")
RESERVED = ("coarse", "fine", "tree")  # how results name the ends of any tree, and all of it


@dataclass(frozen=True)
class Node:
    """One node: a category or a condition.

    `parent` is the node's number on the level above, -1 on the top level. `kind` says what the name stands for:
    a `diagnosis`, a `group` (a heading wider than one diagnosis) or a `finding` (a sign, not a disease).
    """

    name: str
    parent: int = -1
    kind: str = "diagnosis"
    synonyms: tuple[str, ...] = ()
    snomed: tuple[str, ...] = ()
    icd10: tuple[str, ...] = ()
    note: str = ""


def wrong_head(id: str, version: str, level_names: Sequence[str]) -> list[str]:
    """What of a tree's head could not be written to a file and read again."""
    faults = []
    for what, text in (("id", id), ("version", version), *(("level name", name) for name in level_names)):
        plain = text == text.strip().strip('",').strip() and len(f"{text} ".splitlines()) == 1
        if not text or not plain or (what == "level name" and "," in text):
            faults.append(
                f"the {what} must be one line, neither empty nor with quotes or commas around it, got {text!r}"
            )
    if len(set(level_names)) < len(level_names):
        faults.append(f"each level must have a name of its own, got {list(level_names)}")
    ends = {"coarse": 0, "fine": len(level_names) - 1}
    for level, name in enumerate(level_names):
        if name.casefold() in RESERVED and ends.get(name.casefold()) != level:
            faults.append(
                f"level {level + 1} of {len(level_names)} must not be called '{name}': results name the top level "
                "'coarse', the finest 'fine' and all of it 'tree'. Call it otherwise"
            )
    return faults


def wrong_nodes(level_names: Sequence[str], levels: Sequence[Sequence[Node]]) -> list[str]:
    """Parents and names that can not be, and names that two nodes of a level share."""
    faults = []
    for level, (level_name, nodes) in enumerate(zip(level_names, levels, strict=True)):
        owners: dict[str, str] = {}
        parents = range(len(levels[level - 1])) if level else range(-1, 0)
        if missing := set(parents) - {node.parent for node in nodes}:
            faults.append(f"each node above must have a {level_name}, number(s) {sorted(missing)[:5]} have none")
        for node in nodes:
            if node.parent not in parents or node.kind not in KINDS:
                faults.append(f"'{node.name}' must have a parent above and a kind of {list(KINDS)}, got {node}")
            for name in (node.name, *node.synonyms):
                if not fold(name) or name != name.strip() or any(sign in name for sign in "\r\n\0"):
                    faults.append(f"a name must be one line, not empty, with no space around it, got {name!r}")
                elif owners.setdefault(fold(name), node.name) != node.name:
                    faults.append(f"{level_name} '{name}' names both '{owners[fold(name)]}' and '{node.name}'")
            if any("|" in name for name in (*node.synonyms, *node.snomed, *node.icd10)):
                faults.append(f"synonyms and codes of '{node.name}' must not hold '|', which separates them")
    return faults
