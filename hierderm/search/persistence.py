"""A CaseIndex as a folder: vectors, table of cases, tree and FAISS file, each checked against its hash on opening.

A write makes new files next to the old ones, under names that no earlier write had, and then replaces the header in one
step. So a killed writer leaves a whole index behind, and readers that have the old files open keep them.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from hierderm import columns as c
from hierderm.artifacts import HEADER, Header, read_folder, read_header, require_free_folder
from hierderm.data.look import N_LOOK
from hierderm.embeddings import EmbeddingTable, Provenance, read_vectors, require_rows
from hierderm.engines import Engine
from hierderm.errors import IndexFolderError, OutputError
from hierderm.files import PATIENCE, faults_named, file_hash, is_temporary, locked, os_faults, sync
from hierderm.parquet import read_parquet, write_parquet
from hierderm.search.answer import Calibration
from hierderm.search.case_index import About, CaseIndex
from hierderm.search.checks import check_conditions
from hierderm.search.memory import MemoryGallery
from hierderm.taxonomy.file import read_taxonomy, write_taxonomy

KIND, VERSION = "case index", 5
_OURS = re.compile(r"(vectors|looks|cases|taxonomy|neighbours|ids)-[0-9a-f]{8}\.(npy|parquet|csv|faiss)")


class FolderPlace:
    """The index of a folder.

    Args:
        folder: Where it is, or shall be.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __str__(self) -> str:
        return str(self.folder)

    @os_faults(OutputError)
    def save(self, index: CaseIndex, *, replace: bool) -> None:
        """Write an index, whole or not at all. An index that is there is kept unless `replace`."""
        self.require_free(replace=replace)
        with faults_named(self.folder), writing(self.folder), index.lock.reading():
            self.require_free(replace=replace)  # another process may have been quicker
            _write(index, self.folder)

    def require_free(self, *, replace: bool) -> None:
        """OutputError where the folder holds foreign files, or an index that is not to be replaced."""
        require_free_folder(self.folder.resolve(), KIND, replace=replace, own=_is_ours)

    def opened(self, *, writable: bool = False) -> CaseIndex:
        """The index as it is now; its vectors stay on disk, memory-mapped, unless `writable`.

        Every file is checked against its hash first: IndexFolderError names what is damaged, missing or foreign.
        """
        _require_index(self.folder)
        return read_folder(
            self.folder, KIND, lambda header: _read(header, writable), version=VERSION, error=IndexFolderError
        )

    def generation(self) -> str:
        """What tells one state of the index from another: the hash of its header; '' where there is no index."""
        try:
            return file_hash(self.folder / HEADER)
        except (FileNotFoundError, NotADirectoryError):
            return ""

    @contextmanager
    def updating(self) -> Iterator[CaseIndex]:
        """Open the index, change it in the block, and write it when the block ends well; other writers wait."""
        _require_index(self.folder)  # a folder that is none must not get a lock file
        with writing(self.folder):
            index = self.opened(writable=True)
            yield index
            with faults_named(self.folder):
                _write(index, self.folder)

    def check(self) -> str:
        """What was found whole, in words; an error where something is not."""
        self.opened()
        return "checksums: all files are whole"

    def forget(self, case_ids: Sequence[str]) -> list[str]:
        """Build a graph anew that still has nodes of removed cases; what the folder has of these cases, in words.

        IndexFolderError where a file has one of them, or is not one of the index.
        """
        folder = self.folder
        with self.updating() as index:
            gallery = index.gallery
            assert isinstance(gallery, MemoryGallery)
            if gallery.n_removed:
                index.gallery = gallery.built_anew()
                index.tune()
        files = read_header(folder, KIND, version=VERSION, error=IndexFolderError).files
        table = read_parquet(folder / next(name for name in files if name.startswith("cases-")), IndexFolderError)
        if found := sorted(set(table[c.CASE_ID].astype(str)) & set(case_ids)):
            raise IndexFolderError(f"{folder} still has {found[:5]} in its table. Remove them again.")
        if left := sorted(name for name in _names(folder) if _OURS.fullmatch(name) and name not in files):
            raise IndexFolderError(f"{folder} has files of an earlier index: {left}. Delete them.")
        return [
            f"table: none of {len(table)} rows is theirs",
            f"vectors and graph: {len(table)} vectors, one for each row, and no node without a row",
            f"files: only the {len(files)} of the index as it is",
        ]


@contextmanager
def writing(folder: Path, *, timeout: float = PATIENCE) -> Iterator[None]:
    """Only one process writes at a time; others wait up to `timeout` seconds."""
    with locked(folder / HEADER, timeout=timeout, error=IndexFolderError):
        yield


def _is_ours(name: str) -> bool:
    return _OURS.fullmatch(name) is not None or is_temporary(name)


@os_faults(IndexFolderError)
def _require_index(folder: Path) -> Header:
    if folder.is_dir() and not (folder / HEADER).exists() and any(map(_OURS.fullmatch, _names(folder))):
        raise IndexFolderError(f"{folder} has no {HEADER}: its build was killed. Build the index again.")
    return read_header(folder, KIND, version=VERSION, error=IndexFolderError)


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def _clear(folder: Path, keep: set[str]) -> None:
    """Remove our files that no header lists: of a replaced index, or of a killed writer."""
    for name in _names(folder):
        if _OURS.fullmatch(name) and name not in keep:
            (folder / name).unlink(missing_ok=True)


def _write(index: CaseIndex, folder: Path) -> None:
    gallery = index.gallery
    if not isinstance(gallery, MemoryGallery):
        raise IndexFolderError("an index in PostgreSQL is not copied into a folder: build it there from its table.")
    old = read_header(folder, KIND, version=None).files if (folder / HEADER).is_file() else {}
    _clear(folder, set(old))
    token = secrets.token_hex(4)
    names = ("vectors.npy", "cases.parquet", "taxonomy.csv", "looks.npy", "neighbours.faiss", "ids.npy")
    vectors, cases, tree, looks, neighbours, ids = (folder / name.replace(".", f"-{token}.") for name in names)
    paths = [vectors, cases, tree]
    np.save(vectors, gallery.vectors)
    write_parquet(gallery.frame, cases)
    write_taxonomy(gallery.taxonomy, tree)
    if gallery.looks is not None:
        np.save(looks, gallery.looks)
        paths.append(looks)
    if gallery.engine is not None:
        gallery.engine.save(neighbours)
        np.save(ids, gallery.engine.ids)
        paths += [neighbours, ids]
    for path in paths:
        sync(path)
    content = {
        "n_images": len(index),
        "n_cases": index.n_cases,
        "dim": gallery.dim,
        "about": asdict(index.about),
        "provenance": asdict(index.provenance),
        "taxonomy_hash": index.taxonomy.content_hash,
        "calibration": asdict(index.calibration) if index.calibration else None,
    }
    files = {path.name: file_hash(path) for path in paths}
    Header(KIND, VERSION, files, content).write(folder)
    _clear(folder, set(files))


@dataclass(frozen=True)
class _Content:
    """What the header of an index says."""

    n_images: int
    n_cases: int
    dim: int
    about: About
    provenance: Provenance
    taxonomy_hash: str
    calibration: Calibration | None


def _read(header: Header, writable: bool) -> CaseIndex:
    content = header.parsed(_Content)
    tree = read_taxonomy(header.file("taxonomy-*.csv"))
    frame = read_parquet(header.file("cases-*.parquet"), IndexFolderError)
    require_rows(frame)
    check_conditions(frame, tree)
    vectors = read_vectors(header.file("vectors-*.npy"), mapped=not writable)
    found = header.optional("looks-*.npy")
    looks = None if found is None else read_vectors(found)
    if looks is not None and looks.shape[1] != N_LOOK:
        raise IndexFolderError(
            f"{found} must have {N_LOOK} numbers an image, got {looks.shape}. Build the index again."
        )
    EmbeddingTable(vectors, frame, looks=looks)  # which refuses what is not finite, or not of unit length
    about, engine = content.about, None
    if about.kind != "flat":
        ids = np.load(header.file("ids-*.npy"), allow_pickle=False)
        engine = Engine.load(
            header.file("neighbours-*.faiss"), about.kind, about.effort, ids, shape=vectors.shape, mapped=not writable
        )
    gallery = MemoryGallery(vectors, frame, tree, about.image_root, looks, engine)
    index = CaseIndex(gallery, content.provenance, about, content.calibration)
    _require_agreement(index, content, header.folder)
    return index


def _require_agreement(index: CaseIndex, content: _Content, folder: Path) -> None:
    """IndexFolderError where the header says something else than the files."""
    said = (content.n_images, content.n_cases, content.dim, content.taxonomy_hash)
    found = (len(index), index.n_cases, index.gallery.dim, index.taxonomy.content_hash)
    if said != found:
        raise IndexFolderError(
            f"{folder / HEADER} is damaged: images, cases, length of vectors and taxonomy are {found}, it says {said}. "
            "Restore a copy, or build the index again."
        )
    if index.calibration is not None and (fault := index.calibration.fault(index.taxonomy.n_levels)):
        raise IndexFolderError(f"{folder / HEADER} is damaged: {fault} Restore a copy, or build the index again.")
