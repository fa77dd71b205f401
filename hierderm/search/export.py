"""An index as one table for tools that explore embeddings, such as Embedding Atlas, Spotlight and FiftyOne."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from hierderm import columns as c
from hierderm.errors import OutputError
from hierderm.parquet import write_parquet
from hierderm.search.gallery import Gallery
from hierderm.search.result import level_columns
from hierderm.types import Floats

VECTOR, PLACE = "vector", ("x", "y")


def export(gallery: Gallery, path: Path, points: Floats | None = None) -> list[str]:
    """Write a row an image: the columns of its table, a column a level, and its vector; the names of the columns.

    `image_path` is absolute where the index knows where its images are; `condition` is the name in the tree; a level
    that is named as another column is 'NAME (level)'; `vector` holds lists of one length, float32.

    Args:
        gallery: The images of an index.
        path: The Parquet file.
        points: Places of the images in the plane, shape (n_images, 2), for the columns `x` and `y`.

    Raises:
        OutputError: The table has a column named as one that is added.
    """
    tree, nodes, table = gallery.taxonomy, gallery.taxonomy.ancestors[gallery.fine_at()], gallery.frame_at()
    places = {} if points is None else dict(zip(PLACE, np.asarray(points, dtype=np.float32).T, strict=True))
    if taken := sorted({VECTOR, *places} & set(table)):
        raise OutputError(
            f"the table of the index has columns {taken}, which the export adds. Rename them and build the index again."
        )
    own: dict[str, Any] = {
        c.CONDITION: np.array(tree.names(), dtype=object)[nodes[:, -1]],
        c.IMAGE_PATH: [str(place) for place in gallery.image_paths()],
    }
    levels = level_columns(tree, nodes, {*table, VECTOR, *places})
    frame = table.assign(**own, **levels, **places)
    write_parquet(frame, path, {VECTOR: gallery.vectors_at()})
    return [*map(str, frame), VECTOR]
