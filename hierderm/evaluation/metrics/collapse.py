"""Has the embedding collapsed? And are there twins between what was trained on and what is tested?"""

from __future__ import annotations

import numpy as np

from hierderm.types import Floats, IntArray

MOST_COSINE = 0.95
TWIN = 0.9999
CHUNK = 1024


def effective_rank(embeddings: Floats) -> float:
    """exp of the entropy of the normalised singular values of the centred embeddings, in [1, min(n, dim)].

    Roy and Vetterli 2007 (The effective rank, EUSIPCO), on the covariance's eigenvalues' square roots; 1 where all
    embeddings are equal. Worked example: two orthogonal directions of equal spread: 2.
    """
    mean, scatter = embeddings.mean(axis=0), np.zeros((embeddings.shape[1],) * 2)
    for start in range(0, len(embeddings), CHUNK):
        centred = embeddings[start : start + CHUNK].astype(np.float64) - mean
        scatter += centred.T @ centred
    eigenvalues = np.linalg.eigvalsh(scatter)
    singular = np.sqrt(np.maximum(eigenvalues, 0))
    if singular.max() < 1e-6 * np.sqrt(len(embeddings)):
        return 1.0
    share = singular[singular > 0] / singular.sum()
    return float(np.exp(-(share * np.log(share)).sum()))


def mean_cosine(embeddings: Floats) -> float:
    """Mean cosine of two different images, in [-1, 1], exact, from the length of the sum of the unit vectors."""
    n = len(embeddings)
    if n < 2:
        return float("nan")
    total = embeddings.sum(axis=0, dtype=np.float64)
    return float((total @ total - n) / (n * (n - 1)))


def collapse_warning(rank: float, cosine: float, n_coarse: int) -> str:
    """The warning where the embedding has collapsed, else ''.

    To separate `n_coarse` categories linearly takes n_coarse - 1 directions: half of them or fewer is a collapse, and
    so is a mean cosine above 0.95.
    """
    if rank <= (n_coarse - 1) / 2:
        return (
            f"The embedding has collapsed: its effective rank is {rank:.1f}, and {n_coarse} categories need "
            f"{n_coarse - 1} directions. Tight clusters are no gain here; read AMI and MAP@R instead."
        )
    if cosine > MOST_COSINE:
        return (
            f"The embedding has nearly collapsed: two images have a cosine of {cosine:.3f} on average, so that "
            "similarities hardly distinguish cases. Centre the embeddings, or train with a contrastive loss."
        )
    return ""


def twin_distance(test: Floats, nearest: IntArray) -> float:
    """From which cosine distance on two images of different cases are no twins, in [1e-6, 1e-4].

    1e-4, or where the embedding is tight a thousandth of the typical distance of a far neighbour: in an embedding that
    draws a category together, different images lie closer than two copies of one lie elsewhere.

    `nearest`: positions of each image's neighbours, nearest first, shape (n_images, k), -1 for none.
    """
    found = nearest >= 0
    some = np.flatnonzero(found.any(axis=1))
    if not len(some):
        return 1 - TWIN
    last = nearest[some, found[some].sum(axis=1) - 1]
    typical = float(np.median(1 - np.einsum("ij,ij->i", test[some], test[last])))
    return min(1 - TWIN, max(1e-6, typical / 1000))


def twins(test: Floats, others: Floats, nearest: IntArray, distance: float) -> IntArray:
    """For each test image its nearest among `others`, -1 where it is not within `distance`, shape (n_test,).

    `nearest`: which of the others of another case is nearest to each test image, shape (n_test,), -1 for none.
    """
    found, some = np.full(len(test), -1), np.flatnonzero(nearest >= 0)
    for rows in np.array_split(some, len(some) // CHUNK + 1):
        close = np.einsum("ij,ij->i", test[rows], others[nearest[rows]]) > 1 - distance
        found[rows[close]] = nearest[rows[close]]
    return found
