"""Embeddings of cases of another source than a model's training, once it is shown that the model has seen none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from hierderm.data.seen import Choice, external
from hierderm.data.table import CaseTable
from hierderm.embeddings import EmbeddingTable
from hierderm.model.encoder import Encoder


def embed_external(
    encoder: Encoder,
    table: CaseTable,
    choice: Choice = "error",
    embed: Callable[[CaseTable], EmbeddingTable] | None = None,
) -> EmbeddingTable:
    """Embed an external test set of a trained model.

    Args:
        encoder: The model, which records what it was trained on.
        table: Cases of its taxonomy; with a split of their own, or all are the test.
        choice: Whether training cases among them, and images that are the same photograph as a training image, are an
            'error', or are to 'exclude' and listed in the log.
        embed: What embeds the cases that are left; by default the model.

    Returns:
        Embeddings that `hierderm.evaluate` takes, whose provenance says that they are external.

    Raises:
        CaseTableError: The model has seen some of the images.
        CheckpointError: It has another taxonomy, or does not record what it was trained on.
    """
    found = (embed or encoder.embed)(external(table, encoder.seen, encoder.name, choice))
    return replace(found, provenance=replace(found.provenance, external=True))
