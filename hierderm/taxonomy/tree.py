"""An immutable tree of skin conditions with any number of levels, coarse to fine.

Levels are numbered from 0 (the coarsest) to `n_levels - 1` (the conditions). A condition that stands higher up repeats
itself on each level below (see `Taxonomy.repeats`), so that each level has a node for every image. Nodes of a level are
numbered in file order, and arrays of labels hold these numbers.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from html import escape

import numpy as np
import numpy.typing as npt

from hierderm.errors import TaxonomyError, some_of, suggest
from hierderm.files import text_hash
from hierderm.taxonomy.names import fold, joined_spellings
from hierderm.taxonomy.nodes import Node, wrong_head, wrong_nodes
from hierderm.types import FloatArray, Floats, IntArray, Mask

logger = logging.getLogger(__name__)


@dataclass(frozen=True, repr=False)
class Taxonomy:
    """The tree. Build one with `read_taxonomy`, `taxonomy_from_columns` or by hand from `levels` of nodes."""

    id: str
    version: str
    level_names: tuple[str, ...]
    levels: tuple[tuple[Node, ...], ...]

    def __repr__(self) -> str:
        return f"Taxonomy({self.summary()})"

    def __post_init__(self) -> None:
        if len(self.level_names) != len(self.levels) or not all(self.levels):
            raise TaxonomyError(
                f"taxonomy '{self.id}' must have at least one node on each of its levels {list(self.level_names)}, "
                f"got {[len(level) for level in self.levels]} nodes."
            )
        head = wrong_head(self.id, self.version, self.level_names)
        if wrong := [*head, *wrong_nodes(self.level_names, self.levels)]:
            raise TaxonomyError(f"taxonomy '{self.id}': {'; '.join(wrong[:20])}.")

    # --- names ---------------------------------------------------------------------------------------------------

    @property
    def n_levels(self) -> int:
        """How many levels there are."""
        return len(self.levels)

    @property
    def fine_level(self) -> int:
        """The number of the finest level."""
        return self.n_levels - 1

    def size(self, level: int) -> int:
        """How many nodes a level has.

        Args:
            level: Number of the level, 0 the coarsest, -1 that of the conditions.

        Returns:
            The number of its nodes.
        """
        return len(self.levels[level])

    def names(self, level: int = -1) -> tuple[str, ...]:
        """The names of a level's nodes; by default the conditions.

        Args:
            level: Number of the level, 0 the coarsest, -1 that of the conditions.

        Returns:
            The names, shape (n_level,).
        """
        return tuple(node.name for node in self.levels[level])

    def level_number(self, level: int | str) -> int:
        """The number of a level, 0 the coarsest.

        Args:
            level: Its number, from the end where negative, or its name; 'coarse' and 'fine' always name the ends.

        Returns:
            Its number, from 0.

        Raises:
            TaxonomyError: There is no level of that name.
        """
        if isinstance(level, int):
            return range(self.n_levels)[level]
        if level not in self.known_levels:
            raise TaxonomyError(f"taxonomy '{self.id}' has the levels {', '.join(self.known_levels)}, got '{level}'.")
        return self.known_levels[level]

    @cached_property
    def known_levels(self) -> Mapping[str, int]:
        """The number of each level by all names that it can be given: 'coarse' and 'fine' for the ends, and its own."""
        own = {name: number for number, name in enumerate(self.level_names)}
        return {"coarse": 0, "fine": self.fine_level} | own  # an own name 'coarse' or 'fine' is that of its end

    @cached_property
    def _lookup(self) -> tuple[dict[str, int], ...]:
        tables = []
        for nodes in self.levels:
            table = {fold(synonym): number for number, node in enumerate(nodes) for synonym in node.synonyms}
            tables.append(table | {fold(node.name): number for number, node in enumerate(nodes)})
        return tuple(tables)

    def find(self, name: str, level: int = -1) -> int | None:
        """The number of a node, where there is one of that name.

        Args:
            name: Its name or a synonym, in any case, with or without accents.
            level: Number of the level; by default that of the conditions.

        Returns:
            The number within the level; None for an unknown name.
        """
        return self._lookup[level].get(fold(name))

    def index(self, name: str, level: int = -1) -> int:
        """The number of a node that must be there.

        Args:
            name: As of `find`.
            level: As of `find`.

        Returns:
            The number within the level.

        Raises:
            TaxonomyError: The name is unknown; the closest are named.
        """
        number = self.find(name, level)
        if number is None:
            every_name = [other for node in self.levels[level] for other in (node.name, *node.synonyms)]
            raise TaxonomyError(
                f"{self.level_names[level]} '{name}' is not in taxonomy '{self.id}'.{suggest(name, every_name)}"
            )
        return number

    def encode(self, names: Iterable[str]) -> IntArray:
        """The numbers of conditions.

        Args:
            names: Their names or synonyms.

        Returns:
            The numbers, shape (n_names,), int64.

        Raises:
            TaxonomyError: A name is unknown; the closest are named.
        """
        names = list(names)
        numbers = {name: self.index(name) for name in dict.fromkeys(names)}
        return np.array([numbers[name] for name in names], dtype=np.int64)

    # --- structure -----------------------------------------------------------------------------------------------

    @cached_property
    def ancestors(self) -> IntArray:
        """The number of every condition's ancestor on each level, shape (n_fine, n_levels); last column: itself."""
        columns = [np.arange(self.size(-1), dtype=np.int64)]
        for level in range(self.fine_level, 0, -1):
            parents = np.array([node.parent for node in self.levels[level]], dtype=np.int64)
            columns.append(parents[columns[-1]])
        return np.stack(columns[::-1], axis=1)

    def to_level(self, fine: npt.ArrayLike, level: int) -> IntArray:
        """The numbers of the ancestors of conditions.

        Args:
            fine: Numbers of conditions, any shape.
            level: Number of the ancestors' level.

        Returns:
            The numbers, in the shape of `fine`, int64.
        """
        return np.asarray(self.ancestors[np.asarray(fine, dtype=np.int64), level])

    def repeats(self, level: int) -> Mask:
        """Which nodes of a level only repeat their parent: an only child with the parent's name.

        Args:
            level: Number of the level, 0 the coarsest, -1 that of the conditions.

        Returns:
            True for each such node, shape (n_level,).
        """
        level, parents = range(self.n_levels)[level], self.parents(level)
        above = self.names(level - 1) if level else [""]
        same = [fold(name) == fold(above[parent]) for name, parent in zip(self.names(level), parents, strict=True)]
        return np.asarray(np.array(same) & (np.bincount(parents)[parents] == 1))

    @cached_property
    def path_length(self) -> IntArray:
        """How many different nodes are on the path of each condition, itself included, shape (n_fine,)."""
        repeated = [self.repeats(level)[self.ancestors[:, level]] for level in range(self.n_levels)]
        return np.asarray(self.n_levels - np.sum(repeated, axis=0, dtype=np.int64))

    @cached_property
    def lca_height(self) -> IntArray:
        """Height of the lowest common ancestor of each pair of conditions, shape (n_fine, n_fine).

        0 for a condition with itself, 1 for siblings, `n_levels` where only the (unnamed) root is shared.
        """
        agree = self.ancestors[:, None, :] == self.ancestors[None, :, :]
        return np.asarray(self.n_levels - agree.sum(axis=2, dtype=np.int64))

    @cached_property
    def tree_distance(self) -> IntArray:
        """Edges between each pair of conditions, shape (n_fine, n_fine), even integers in [0, 2 * n_levels]."""
        return 2 * self.lca_height

    def sum_up(self, fine_probabilities: Floats, level: int = 0) -> Floats:
        """Probabilities of the nodes of a level: those of the conditions under each are added.

        Args:
            fine_probabilities: Of the conditions, shape (n, n_fine); given back as they are for the finest level.
            level: Number of the level.

        Returns:
            The probabilities, shape (n, n_level), of the type of those given.

        Raises:
            TaxonomyError: The probabilities have another shape.
        """
        if fine_probabilities.ndim != 2 or fine_probabilities.shape[1] != self.size(-1):
            raise TaxonomyError(
                f"fine_probabilities must have shape (n, {self.size(-1)}), got {fine_probabilities.shape}."
            )
        if level in (-1, self.fine_level):
            return fine_probabilities
        return fine_probabilities @ self.membership(level).astype(fine_probabilities.dtype)

    def parents(self, level: int) -> IntArray:
        """The number of each node's parent on the level above.

        Args:
            level: Number of the level, 0 the coarsest, -1 that of the conditions.

        Returns:
            The numbers, shape (n_level,), int64; 0, for the root, on the top level.
        """
        return np.array([max(node.parent, 0) for node in self.levels[level]], dtype=np.int64)

    def membership(self, level: int = 0, *, below: int = -1) -> FloatArray:
        """The matrix of 'is under' of two levels.

        Args:
            level: Number of the upper level.
            below: Number of the lower level; by default that of the conditions.

        Returns:
            1 where a node of the lower level is under one of the upper, else 0, shape (n_below, n_level), float64.
        """
        level, below = (range(self.n_levels)[number] for number in (level, below))
        numbers = np.arange(self.size(below), dtype=np.int64)
        for lower in range(below, level, -1):
            numbers = self.parents(lower)[numbers]
        return np.eye(self.size(level))[numbers]

    # --- new trees from this one ---------------------------------------------------------------------------------

    def keep(self, conditions: Iterable[str]) -> Taxonomy:
        """The tree with only some conditions and the categories that still have one; order is kept.

        Args:
            conditions: Their names or synonyms.

        Returns:
            The smaller tree.

        Raises:
            TaxonomyError: A name is unknown, or none is given.
        """
        kept = {self.index(name) for name in conditions}
        if not kept:
            raise TaxonomyError(f"taxonomy '{self.id}': at least one condition must be kept, got none.")
        levels: list[tuple[Node, ...]] = []
        for level in range(self.fine_level, -1, -1):
            nodes = self.levels[level]
            order = sorted(kept)
            kept = {nodes[number].parent for number in order}
            place = {parent: new for new, parent in enumerate(sorted(kept))}
            levels.append(tuple(replace(nodes[number], parent=place[nodes[number].parent]) for number in order))
        levels[-1] = tuple(replace(node, parent=-1) for node in levels[-1])
        return replace(self, levels=tuple(levels[::-1]))

    def levels_of_one_node(self, fine: IntArray) -> tuple[int, ...]:
        """Levels on which some conditions are all of the same node: no label can be wrong there.

        Args:
            fine: Numbers of the conditions, shape (n,).

        Returns:
            The numbers of these levels.
        """
        nodes = self.ancestors[np.unique(fine)]
        return tuple(level for level in range(self.n_levels) if len(np.unique(nodes[:, level])) == 1)

    # --- identity and text ---------------------------------------------------------------------------------------

    @cached_property
    def content_hash(self) -> str:
        """Twelve hex digits of a SHA-256 over levels, names and parents: what arrays of labels depend on."""
        content = [self.level_names, [[(node.name, node.parent) for node in nodes] for nodes in self.levels]]
        return text_hash(json.dumps(content))

    def render(self, image_counts: Mapping[str, int] | None = None) -> str:
        """The tree as indented text, with codes.

        Args:
            image_counts: Images of each condition, to be shown beside it.

        Returns:
            A line a node.
        """
        below: dict[int, list[str]] = {}  # the lines of each node's children
        for level in range(self.fine_level, -1, -1):
            lines: dict[int, list[str]] = {}
            for number, node in enumerate(self.levels[level]):
                extra = [node.kind] if level == self.fine_level and node.kind != "diagnosis" else []
                extra += [f"ICD-10 {code}" for code in node.icd10] + [f"SNOMED {code}" for code in node.snomed]
                if image_counts is not None and level == self.fine_level:
                    extra.append(f"{image_counts.get(node.name, 0)} images")
                own = "  " * level + node.name + (f"  [{', '.join(extra)}]" if extra else "")
                lines.setdefault(node.parent, []).extend([own, *below.get(number, [])])
            below = lines
        return "\n".join(below[-1])

    def _repr_html_(self) -> str:
        return f"<details><summary>{escape(repr(self))}</summary><pre>{escape(self.render())}</pre></details>"

    def summary(self) -> str:
        """The tree in one line: id, version, hash and the size of each level.

        Returns:
            The line.
        """
        sizes = ", ".join(f"{len(nodes)} x {name}" for name, nodes in zip(self.level_names, self.levels, strict=True))
        return f"{self.id} {self.version} ({self.content_hash}): {sizes}"


def taxonomy_from_paths(
    paths: Sequence[Sequence[str]], level_names: Sequence[str], *, id: str, version: str = "1"
) -> Taxonomy:
    """Make a tree from the paths of its conditions.

    Spellings that differ in case, accents or spaces alone are one node, called as it is first spelt; which they are is
    logged. So are the paths that end early: their last node repeats itself on each level below.

    Args:
        paths: Names from the coarsest level to the finest; repeated paths are one. The last names may be empty.
        level_names: The names of the levels, coarsest first.
        id: Name of the tree.
        version: Its version.

    Returns:
        The tree; nodes are numbered as they first occur.

    Raises:
        TaxonomyError: A node has two parents.
    """
    numbers: list[dict[str, int]] = [{} for _ in level_names]
    levels: list[list[Node]] = [[] for _ in level_names]
    conflicts: set[str] = set()
    ends = [next((n for n in range(len(path), 0, -1) if path[n - 1]), len(path)) for path in paths]
    paths = [[*path[:end], *[path[end - 1]] * (len(path) - end)] for path, end in zip(paths, ends, strict=True)]
    if short := list(dict.fromkeys(path[-1] for path, end in zip(paths, ends, strict=True) if end < len(path))):
        text = "%s: %d path(s) end early; the last node repeats itself below: %s"
        logger.warning(text, id, len(short), some_of(short))
    for path in paths:
        parent = -1
        for level, name in enumerate(path):
            number = numbers[level].setdefault(fold(name), len(levels[level]))
            if number == len(levels[level]):
                levels[level].append(Node(name, parent))
            elif levels[level][number].parent != parent:
                first, second = (levels[level - 1][p].name for p in (levels[level][number].parent, parent))
                conflicts.add(f"{level_names[level]} '{name}' has two parents, '{first}' and '{second}'")
            parent = number
    if conflicts:
        raise TaxonomyError(f"every node must have one parent: {'; '.join(sorted(conflicts))}. Rename one of each.")
    for level, name in enumerate(level_names):
        if joined := joined_spellings(path[level] for path in paths):
            logger.warning("%s: %d spelling(s) of one %s joined: %s", id, len(joined), name, some_of(joined))
    return Taxonomy(id, version, tuple(level_names), tuple(tuple(nodes) for nodes in levels))
