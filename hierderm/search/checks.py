"""What rows must be to come into an index."""

from __future__ import annotations

import logging
from typing import Any

import pandas as pd

from hierderm import columns as c
from hierderm.embeddings import Provenance
from hierderm.errors import SearchError, some_of
from hierderm.taxonomy.tree import Taxonomy

logger = logging.getLogger(__name__)


def require_tree(n_images: int, made_by: Provenance, taxonomy: Taxonomy) -> None:
    """SearchError where there are no images, or they were embedded with another tree."""
    if not n_images:
        raise SearchError("an index must have at least one image, got none.")
    if made_by.taxonomy_hash not in ("", taxonomy.content_hash):
        raise SearchError("the embeddings were made with another taxonomy than the one given. Embed again with it.")


def require_same_model(made_by: Provenance, index: Provenance) -> None:
    """SearchError where embeddings do not come from the weights and the preprocessing of an index."""
    for what, theirs, ours in (
        ("weights", made_by.weights_hash, index.weights_hash),
        ("preprocessing", made_by.preprocessing_hash, index.preprocessing_hash),
    ):
        if theirs != ours:
            raise SearchError(
                f"the embeddings must come from the model of the index ({index.model}): its {what} is "
                f"{ours or 'unknown'}, theirs {theirs or 'unknown'}. Embed with that model, or build another index."
            )


def check_conditions(frame: pd.DataFrame, taxonomy: Taxonomy) -> None:
    """SearchError where a condition is not in the tree."""
    unknown = sorted({name for name in map(str, frame[c.CONDITION].unique()) if taxonomy.find(name) is None})
    if unknown:
        raise SearchError(f"{len(unknown)} condition(s) are not in the taxonomy of the index: {unknown[:5]}.")


def check_ids(new: pd.DataFrame, known: pd.Index[Any]) -> None:
    """SearchError where an image would be in an index twice, or an id can't be seen. `known`: the ids that it has."""
    unseen = [value for name in (c.IMAGE_ID, c.CASE_ID) for value in new[name].astype(str) if not value.isprintable()]
    if unseen:
        raise SearchError(
            f"{len(unseen)} id(s) have characters that can't be seen: {some_of(list(map(ascii, unseen)))}."
        )
    ids = new[c.IMAGE_ID].astype(str)
    repeated = sorted(set(ids[ids.duplicated()]) | set(ids[ids.isin(known.astype(str))]))
    if repeated:
        raise SearchError(
            f"{len(repeated)} image(s) would be in the index twice: {repeated[:5]}. Leave them out, or remove their "
            "cases from the index first."
        )


def say_same_files(new: pd.DataFrame, known: pd.DataFrame) -> None:
    """Log which new images have the file of an image of the index, which has another id."""
    if c.IMAGE_HASH not in new or c.IMAGE_HASH not in known:
        return
    there = dict(zip(known[c.IMAGE_HASH], known[c.IMAGE_ID], strict=True))
    pairs = [
        f"'{image}' = '{there[name]}'"
        for image, name in zip(new[c.IMAGE_ID], new[c.IMAGE_HASH], strict=True)
        if name and name in there
    ]
    if pairs:
        logger.warning(
            "%d image(s) have the file of an image that is in the index under another id: %s. Each finds the other.",
            len(pairs),
            some_of(pairs),
        )
