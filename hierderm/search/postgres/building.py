"""An index in PostgreSQL from a folder of embeddings that need not fit into memory."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from hierderm.engines import Kind
from hierderm.search.building import learn
from hierderm.search.case_index import About, CaseIndex
from hierderm.search.postgres.loading import FolderSource
from hierderm.search.postgres.place import PostgresPlace, kind_for
from hierderm.search.postgres.schema import Precision
from hierderm.taxonomy.tree import Taxonomy


def load_folder(
    folder: Path,
    place: PostgresPlace,
    taxonomy: Taxonomy,
    *,
    model: str = "",
    image_root: Path | str = "",
    kind: Kind | Literal["auto"] = "auto",
    precision: Precision = "single",
    accuracy: float = 0.8,
    k: int = 10,
    replace: bool = False,
) -> CaseIndex:
    """Stream a folder of embeddings into a database, index it, and calibrate answers on its validation cases.

    A load that was broken off goes on where it stopped, when it is begun again with the same folder.

    Args:
        folder: What `EmbeddingTable.save` or `hierderm embed` wrote.
        place: The database.
        taxonomy: The tree of the conditions.
        model: Folder or name of the model that made the embeddings; '' where queries will be vectors.
        image_root: Folder that relative image paths start at.
        kind: 'flat' is exact, 'hnsw' a graph; 'auto' chooses by size.
        precision: Of the vectors: 'single' has 4 bytes a number, 'half' 2, and similarities that are exact to 1e-3.
        accuracy: The accuracy that answers must keep to on validation cases, in (0, 1).
        k: Nearest cases that an answer is read from, >= 1.
        replace: Replace the index that is there.

    Returns:
        The index.

    Raises:
        EmbeddingError: The folder is damaged.
        SearchError: Its rows do not fit the tree.
        DatabaseError: The server can't be reached, or refuses.
        OutputError: The database has an index, an unfinished load of other images, or no space left.
    """
    source = FolderSource.open(folder)
    trained_on = source.provenance.split_hash
    about = About(kind_for(kind, source.n_images), model=model, image_root=str(image_root), trained=bool(trained_on))
    with place.building(source, taxonomy, about, precision=precision, replace=replace) as index:
        learn(index, learns=not trained_on or trained_on == source.split_hash, accuracy=accuracy, k=k)
    return place.opened()
