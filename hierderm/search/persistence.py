"""A CaseIndex as a folder: vectors, table of cases, tree and FAISS file, each checked against its hash on opening."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd

from hierderm.embeddings import Provenance
from hierderm.errors import IndexFolderError
from hierderm.search.answer import Calibration
from hierderm.search.case_index import About, CaseIndex
from hierderm.search.engines import Engine
from hierderm.search.storage import (
    HEADER,
    Header,
    check_files,
    commit,
    read_consistently,
    read_header,
    refuse_foreign,
    writing,
)
from hierderm.taxonomy.file import read_taxonomy, write_taxonomy

ID = "_id"  # column of the stored table: what the FAISS structure calls the row


def save_index(index: CaseIndex, folder: Path, *, replace: bool = False) -> None:
    """Write an index, whole or not at all. An index that lies there is kept, unless `replace` says otherwise."""
    refuse_existing(folder, replace=replace)
    with writing(folder), index.lock.reading():
        refuse_existing(folder, replace=replace)  # another process may have been quicker
        _write(index, folder, _generation(folder) + 1)


def refuse_existing(folder: Path, *, replace: bool) -> None:
    """IndexFolderError where `folder` holds foreign files, or an index that is not to be replaced."""
    refuse_foreign(folder)
    if (folder / HEADER).is_file() and not replace:
        raise IndexFolderError(f"{folder} holds an index already. Choose another folder, or replace it (--replace).")


def open_index(folder: Path, *, writable: bool = False) -> CaseIndex:
    """Read a folder that `save_index` wrote; vectors stay on disk, memory-mapped, unless `writable`.

    Every file is checked against its hash first: IndexFolderError names what is damaged, missing or foreign.
    """

    def read(header: Header) -> CaseIndex:
        check_files(folder, header)
        return _read(folder, header, writable)

    return read_consistently(folder, read)


@contextmanager
def updating(folder: Path) -> Iterator[CaseIndex]:
    """Open an index, change it in the block, and write it when the block ends well; other writers wait meanwhile."""
    read_header(folder)  # a folder that is none must not get a lock file
    with writing(folder):
        index = open_index(folder, writable=True)
        yield index
        _write(index, folder, _generation(folder) + 1)


def _generation(folder: Path) -> int:
    try:
        return read_header(folder).generation
    except IndexFolderError:
        return 0


def _paths(folder: Path, generation: int) -> tuple[Path, Path, Path, Path]:
    names = ("vectors-{}.npy", "cases-{}.parquet", "taxonomy-{}.csv", "neighbours-{}.faiss")
    vectors, cases, tree, neighbours = (folder / name.format(generation) for name in names)
    return vectors, cases, tree, neighbours


def _write(index: CaseIndex, folder: Path, generation: int) -> None:
    vectors, cases, tree, neighbours = _paths(folder, generation)

    def write_files() -> list[Path]:
        np.save(vectors, index.vectors)
        index.frame.assign(**{ID: index.ids}).to_parquet(cases, index=False)
        write_taxonomy(index.taxonomy, tree)
        if index.engine is None:
            return [vectors, cases, tree]
        index.engine.save(neighbours)
        return [vectors, cases, tree, neighbours]

    content = {
        "n_images": len(index),
        "n_cases": index.n_cases,
        "dim": index.vectors.shape[1],
        "about": asdict(index.about),
        "provenance": asdict(index.provenance),
        "taxonomy_hash": index.taxonomy.content_hash,
        "calibration": index.calibration.to_dict() if index.calibration else None,
    }
    commit(folder, generation, write_files, content)


def _read(folder: Path, header: Header, writable: bool) -> CaseIndex:
    vectors, cases, tree, neighbours = _paths(folder, header.generation)
    content = header.content
    about = About(**content["about"])
    frame, engine = pd.read_parquet(cases), None
    if about.kind != "flat":
        engine = Engine.load(neighbours, about.kind, about.effort, mapped=not writable)
    ids = frame.pop(ID).to_numpy(dtype=np.int64)
    return CaseIndex(
        np.load(vectors, mmap_mode=None if writable else "r", allow_pickle=False),
        frame,
        read_taxonomy(tree),
        Provenance(**content["provenance"]),
        about,
        Calibration.from_dict(content["calibration"]) if content["calibration"] else None,
        ids,
        engine,
    )
