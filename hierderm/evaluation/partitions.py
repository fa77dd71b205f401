"""Labels that any embedding agrees with: a score of 1.000 on them is no result."""

from __future__ import annotations

import numpy as np

from hierderm.evaluation.subject import Subject

CROWDED = 0.5  # labels an image, above which agreement that is not adjusted for chance is high by chance


def partition_warnings(subject: Subject) -> tuple[str, ...]:
    """What a reader must know of levels on which the test images are all of one node, or hardly two of any."""
    return tuple(text for level, name in subject.levels if (text := _warning(subject, level, name)))


def _warning(subject: Subject, level: int, name: str) -> str:
    labels, n_images = subject.labels(level), len(subject.test)
    nodes, of_node = np.unique(labels, return_inverse=True)
    cases = np.unique(subject.test.case_ids, return_inverse=True)[1]
    n_pairs = np.unique(np.stack([of_node, cases]), axis=1).shape[1]  # of a node and a case
    if len(nodes) == 1:
        only = subject.taxonomy.names(level)[nodes[0]]
        return (
            f"All {n_images} test images are of one node at the {name} level, '{only}': any embedding scores 1.000 "
            "there in retrieval, purity and agreement. These values show nothing."
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
