"""Labels that any embedding agrees with: a score of 1.000 on them is no result."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from hierderm.errors import some_of
from hierderm.evaluation.subject import Subject
from hierderm.types import IntArray

CROWDED = 0.5  # labels an image, above which agreement that is not adjusted for chance is high by chance


def partition_warnings(subject: Subject) -> tuple[str, ...]:
    """What a reader must know of levels on which the test images are all of one node, or hardly two of any."""
    return tuple(text for level, name in subject.levels if (text := _warning(subject, level, name)))


def gallery_warnings(subject: Subject, gallery_fine: IntArray) -> tuple[str, ...]:
    """The same of levels on which all that can be found is of one node, though the queries are of several.

    `gallery_fine`: conditions of the images that an index and its filters leave, shape (n_gallery,).
    """
    tree = subject.taxonomy
    return tuple(
        f"All {len(gallery_fine)} images that can be found are of one node at the {name} level, "
        f"'{tree.names(level)[tree.to_level(gallery_fine[0], level)]}': a query finds nothing else, and each value "
        "there that is defined is 1.000. These values show nothing."
        for level, name in subject.levels
        if level in tree.levels_of_one_node(gallery_fine) and len(np.unique(subject.labels(level))) > 1
    )


def group_warnings(subject: Subject, groups: Mapping[str, npt.NDArray[np.str_]]) -> tuple[str, ...]:
    """The same of groups whose images are all of one category, though the test has several.

    `groups`: by column the group of each test image, shape (n_images,), '' where it is not known.
    """
    labels, (_, name) = subject.labels(0), subject.levels[0]
    if len(np.unique(labels)) == 1:
        return ()
    alike = [
        f"{column} '{group}' ({int((names == group).sum())} image(s))"
        for column, names in groups.items()
        for group in sorted(set(names.tolist()) - {""})
        if len(np.unique(labels[names == group])) == 1
    ]
    if not alike:
        return ()
    return (
        f"{len(alike)} group(s) have images of one node at the {name} level: {some_of(alike)}. Purity and agreement "
        "are 1.000 there for any embedding, and show nothing.",
    )


def _warning(subject: Subject, level: int, name: str) -> str:
    labels, n_images = subject.labels(level), len(subject.test)
    nodes, node_numbers = np.unique(labels, return_inverse=True)
    cases = np.unique(subject.test.case_ids, return_inverse=True)[1]
    n_pairs = np.unique(np.stack([node_numbers, cases]), axis=1).shape[1]  # of a node and a case
    if len(nodes) == 1:
        only = subject.taxonomy.names(level)[nodes[0]]
        one_case = n_pairs == 1
        of = f"{'of one case, ' if one_case else ''}of one node at the {name} level,"
        scores = "purity and agreement; retrieval is undefined" if one_case else "retrieval, purity and agreement"
        return (
            f"All {n_images} test images are {of} '{only}': any embedding scores 1.000 there in {scores}. These values "
            "show nothing."
        )
    if n_pairs == len(nodes):
        own = "image" if len(nodes) == n_images else "case"
        return (
            f"Each of the {len(nodes)} nodes at the {name} level has one test {own}: retrieval is undefined there, and "
            f"clusters that {'hold one image each' if own == 'image' else 'find the images of a case again'} score "
            "1.000. These values show nothing."
        )
    if len(nodes) > CROWDED * n_images:
        return (
            f"The {n_images} test images are of {len(nodes)} nodes at the {name} level, fewer than two of each: NMI, "
            "homogeneity and purity are near 1 by chance there. Read AMI and ARI."
        )
    return ""
