"""Smaller embeddings, and what they lose: fewer dimensions along principal axes, and numbers of 8 bits."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from hierderm import columns as c
from hierderm.config.settings import EvaluationConfig
from hierderm.embeddings import EmbeddingTable, by_blocks, unit_length
from hierderm.errors import EmbeddingError, EvaluationWarning
from hierderm.evaluation.catalogue import Key
from hierderm.evaluation.evaluation import evaluate
from hierderm.evaluation.inference.differences import paired_difference
from hierderm.taxonomy.tree import Taxonomy
from hierderm.types import Vectors

KEYS: tuple[Key, ...] = tuple((level, name) for level in ("coarse", "fine") for name in ("recall_at_1", "map_at_r"))
ENDS = {"loss": "value", "low": "low", "high": "high"}  # of a difference, by the name of its column


def principal_axes(vectors: Vectors, dim: int) -> Vectors:
    """The axes on which scalar products of vectors lose least: the first right singular vectors, not centred.

    Args:
        vectors: Shape (n_images, full_dim), of images that are not tested with.
        dim: Number of axes, in [1, full_dim].

    Returns:
        Orthonormal columns, the strongest first, shape (full_dim, dim), float32.

    Raises:
        EmbeddingError: `dim` is out of range.
    """
    if not 1 <= dim <= vectors.shape[1]:
        raise EmbeddingError(f"dim must be from 1 to {vectors.shape[1]}, the length of the embeddings, got {dim}.")
    moments = by_blocks(vectors, lambda block: (block.T.astype(np.float64) @ block)[None]).sum(axis=0)
    return np.ascontiguousarray(np.linalg.eigh(moments)[1][:, : -dim - 1 : -1], dtype=np.float32)


def truncated(vectors: Vectors, axes: Vectors) -> Vectors:
    """Project vectors on axes.

    Args:
        vectors: Shape (n_images, full_dim).
        axes: Orthonormal columns, shape (full_dim, dim).

    Returns:
        Vectors of unit length, shape (n_images, dim), float32.
    """
    return unit_length(vectors @ axes)


def to_int8(vectors: Vectors) -> npt.NDArray[np.int8]:
    """Vectors as whole numbers of 8 bits, a quarter of the memory: 127 is the largest value of each vector.

    Only directions are kept, which is all that a cosine needs, so there is no scale to store.

    Args:
        vectors: Shape (n_images, dim).

    Returns:
        Whole numbers in [-127, 127], same shape.
    """
    largest = np.abs(vectors).max(axis=1, keepdims=True)
    return np.rint(127 * vectors / np.where(largest > 0, largest, 1)).astype(np.int8)


def from_int8(codes: npt.NDArray[np.int8]) -> Vectors:
    """Vectors from whole numbers of 8 bits.

    Args:
        codes: What `to_int8` gave.

    Returns:
        Vectors of unit length, same shape, float32.
    """
    return unit_length(codes.astype(np.float32))


def compression_losses(
    table: EmbeddingTable,
    taxonomy: Taxonomy,
    dims: Sequence[int] = (64, 128, 256),
    config: EvaluationConfig | None = None,
) -> pd.DataFrame:
    """Retrieval on test images with full, truncated and 8-bit embeddings; queries and gallery are compressed alike.

    Args:
        table: Embeddings with a split: axes are learnt from 'train', values are of 'test'.
        taxonomy: The tree of the table's conditions.
        dims: Numbers of dimensions to try; those not below the full one are left out.
        config: How many bootstrap rounds, and of what confidence.

    Returns:
        A row a variant: `dim`, `type` ('float32' or 'int8'), `bytes` of a vector, and for recall@1 and MAP@R of both
        levels the value and, as 'LEVEL METRIC loss', 'low' and 'high', full minus compressed with its interval.

    Raises:
        EmbeddingError: The table has no training images, or no test images.
    """
    config = config or EvaluationConfig()
    splits = table.frame[c.SPLIT].to_numpy(dtype=str) if c.SPLIT in table.frame else np.array([], dtype=str)
    if not ((splits == c.TRAIN).any() and (splits == c.TEST).any()):
        raise EmbeddingError("the embeddings must be of a table whose column split has 'train' and 'test' rows.")
    full = table.embeddings.shape[1]
    learnt = principal_axes(table.embeddings[splits == c.TRAIN], full)
    sizes = [full, *sorted((dim for dim in dims if dim < full), reverse=True)]
    floats = {dim: truncated(table.embeddings, learnt[:, :dim]) if dim < full else table.embeddings for dim in sizes}
    variants = {(dim, "float32"): vectors for dim, vectors in floats.items()}
    variants |= {(dim, "int8"): from_int8(to_int8(vectors)) for dim, vectors in floats.items()}
    options: dict[str, Any] = {"tasks": ["retrieval"], "config": replace(config, groups=False), "progress": False}
    reference, rows = None, []
    for (dim, kind), vectors in variants.items():
        own, name = replace(table, embeddings=vectors, probabilities=None), f"{dim} {kind}"
        with warnings.catch_warnings():
            if reference is not None:  # what is wrong with the embeddings is reported
                warnings.simplefilter("ignore", EvaluationWarning)
            found = evaluate(own, table.frame, taxonomy, name=name, **options)
        reference = reference or found
        row: dict[str, Any] = {"dim": dim, "type": kind, "bytes": dim * (4 if kind == "float32" else 1)}
        for key in KEYS:
            row[" ".join(key)] = found[key].value
            if found is not reference and (lost := paired_difference(reference, found, key, config.confidence)):
                row |= {f"{' '.join(key)} {name}": getattr(lost, at) for name, at in ENDS.items()}
        rows.append(row)
    return pd.DataFrame(rows).sort_values(["bytes", "dim"], ascending=False, ignore_index=True)
