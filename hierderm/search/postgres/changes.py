"""Changes of the model that is searched, within the transaction of a writer: cases come and go whole."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from hierderm import columns as c
from hierderm.embeddings import EmbeddingTable
from hierderm.errors import SearchError
from hierderm.search.checks import say_same_files
from hierderm.search.postgres.cells import joined_kinds, kinds_of
from hierderm.search.postgres.gallery import PostgresGallery
from hierderm.search.postgres.loading import Filling
from hierderm.search.postgres.schema import MODELS, PARTS, SCHEMA
from hierderm.search.postgres.servers import Session

logger = logging.getLogger(__name__)


def add(gallery: PostgresGallery, new: EmbeddingTable) -> PostgresGallery:
    """With the images of checked cases more."""
    session, stored = _writer(gallery), gallery.stored
    _say_same_files(session, stored.model, new.frame)
    kinds, became_text = joined_kinds(stored.columns, kinds_of(new.frame))
    for name in became_text:
        logger.warning("Column '%s' held numbers, and is text now: added rows have text or larger ones.", name)
        _make_text(session, stored.model, name)
    filling = Filling(
        session, stored.model, stored.precision, gallery.taxonomy, kinds, stored.next_image, stored.next_case
    )
    filling.write(new, with_looks=stored.has_looks)
    grown = replace(
        stored,
        columns=kinds,
        n_images=stored.n_images + len(new),
        n_cases=stored.n_cases + filling.n_cases,
        next_image=filling.next_image,
        next_case=filling.next_case,
    )
    return replace(gallery, stored=grown)


def remove(gallery: PostgresGallery, case_ids: Sequence[str]) -> PostgresGallery:
    """Without some cases, which are gone from every model; a load that was not ended is given up."""
    session, stored = _writer(gallery), gallery.stored
    if session.rows(f"update {MODELS} set state = 'replaced' where state = 'loading' returning model"):
        logger.warning("A load that was not ended is given up, for it may hold the removed cases: begin it again.")
    find = f'select model, "case" from {SCHEMA}.cases where case_id = any(%s)'
    found = pd.DataFrame(session.rows(find, (list(case_ids),)), columns=["model", "case"])
    n_images = 0
    for model, cases in found.groupby("model")["case"]:
        for name in PARTS:
            delete = f'delete from {SCHEMA}.{name} where model = %s and "case" = any(%s) returning 1'
            gone = session.rows(delete, (int(str(model)), cases.tolist()))
            n_images += len(gone) * (name == "images" and model == stored.model)
    kept = replace(stored, n_images=stored.n_images - n_images, n_cases=stored.n_cases - len(case_ids))
    return replace(gallery, stored=kept)


def _writer(gallery: PostgresGallery) -> Session:
    if gallery.writes is None:
        raise SearchError(
            "an index in PostgreSQL is changed in a transaction: with CaseIndex.updating(address) as index: ..."
        )
    return gallery.writes


def _say_same_files(session: Session, model: int, new: pd.DataFrame) -> None:
    if c.IMAGE_HASH in new:
        statement = f"select cells ->> %s, image_id from {SCHEMA}.images_{model} where cells ->> %s = any(%s)"
        hashes = [name for name in new[c.IMAGE_HASH] if isinstance(name, str) and name]
        asked = (c.IMAGE_HASH, c.IMAGE_HASH, hashes)
        found = session.rows(statement, asked)
        say_same_files(new, pd.DataFrame(found, columns=[c.IMAGE_HASH, c.IMAGE_ID]))


def _make_text(session: Session, model: int, column: str) -> None:
    """Numbers of a column as the text that a person would write."""
    text = "jsonb_build_object(%s::text, trim_scale((cells ->> %s)::numeric)::text)"
    only = "where jsonb_typeof(cells -> %s) = 'number'"
    session.rows(f"update {SCHEMA}.images_{model} set cells = cells || {text} {only}", (column, column, column))
