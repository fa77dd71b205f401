"""Images that are the same photograph: copies that were turned, mirrored, cropped, bordered, scaled or compressed.

Each image is kept as a fingerprint of 416 bytes: its coarse grey shape, and the signs of its detail. Pairs are proposed
by their coarse shapes, in all eight positions and under crops of the one, then laid over each other, and judged by how
well shape and detail agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.fft import dctn, idctn

from hierderm.data.image_io import open_image
from hierderm.data.overlay import GRID, SHAPE, likeness, middles, turned, turned_points, values
from hierderm.engines import import_faiss
from hierderm.progress import track
from hierderm.types import Floats, IntArray, Vectors

LIKE = 0.33  # likeness from which on two images are the same photograph; docs/data.md says what it finds
SIDE, LEAST_SIDE = 64, 256  # pixels a side that fingerprints are made from; of a large image that is read in part
DETAIL_FROM = 10  # the first frequency of detail
FLAT, MOST_FLAT = 14, 0.02  # grey values that a border may differ in, and the share of its pixels that may differ more
STEP = 0.3  # share of the pixels next to a border that differ twice as much
COARSE = 6  # frequencies a side that are searched
NEIGHBOURS, LEAST_COSINE = 4, 0.85  # candidates of an image in each position
LISTS = 16  # of an inverted file that are searched; few images have no more
CROP, INNER = 0.92, 0.9  # sides of the crops that are searched: in the corners, and in the middle
CORNER = (1 - CROP) / 2  # from the middle of an image to that of a crop in its corner
CHUNK = 1024

_STARTS = np.array(
    [
        (0, 0, 0, 0),
        *((CROP - 1, x, CROP - 1, y) for x in (-CORNER, CORNER) for y in (-CORNER, CORNER)),
        (INNER - 1, 0, INNER - 1, 0),
    ],
    dtype=np.float32,
)  # the whole image and its crops, as `likeness` takes them

_LAST: dict[tuple[str, ...], Fingerprints] = {}  # of the table that came last, by the hashes of its files


@dataclass(frozen=True)
class Fingerprints:
    """What is kept of images to know them again.

    `shapes`: the first 12 x 12 frequencies (DCT) of the grey image, shape (n_images, 12, 12), float16. `details`: the
    signs of the detail at 32 x 32 points as bits, shape (n_images, 128), uint8.
    """

    shapes: npt.NDArray[np.float16]
    details: npt.NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.shapes)

    @classmethod
    def of(cls, paths: Sequence[str | PathLike[str]]) -> Fingerprints:
        """Read image files; ImageError names one that can't be read."""
        with ThreadPoolExecutor() as pool:
            views = list(track(pool.map(_small_view, paths), "Comparing images", len(paths), unit="images"))
        parts = [_described(np.stack(views[start : start + CHUNK])) for start in range(0, len(views), CHUNK)]
        none = cls(np.zeros((0, SHAPE, SHAPE), np.float16), np.zeros((0, GRID * GRID // 8), np.uint8))
        shapes, details = zip(*((part.shapes, part.details) for part in (none, *parts)), strict=True)
        return cls(np.concatenate(shapes), np.concatenate(details))

    def select(self, rows: IntArray) -> Fingerprints:
        """Those of some rows."""
        return Fingerprints(self.shapes[rows], self.details[rows])


def fingerprints_of(paths: Sequence[Path], hashes: Sequence[str]) -> Fingerprints:
    """Fingerprints of the files of a table, whose folds and models share them. `hashes`: of the files as they are."""
    key = tuple(hashes)
    if key not in _LAST:
        made = Fingerprints.of(paths)
        _LAST.clear()
        _LAST[key] = made
    return _LAST[key]


def look_alikes(images: Fingerprints, others: Fingerprints | None = None) -> IntArray:
    """Pairs of images that are the same photograph, by fingerprints.

    Args:
        images: Some images.
        others: Other images to compare them with; without, the images are compared among themselves.

    Returns:
        Positions among `images` and among `others`, shape (n_pairs, 2), each pair once; the lower first where images
        are compared among themselves.
    """
    if others is None:
        pairs = np.sort(_found(images, images, among_themselves=True), axis=1)
    else:  # a crop is found in the whole image, whichever of the two it is
        pairs = np.concatenate([_found(images, others), _found(others, images)[:, ::-1]])
    return np.unique(pairs, axis=0)


# --- fingerprints ------------------------------------------------------------------------------------------------


def _small_view(path: str | PathLike[str]) -> npt.NDArray[np.uint8]:
    """An image without its border as grey pixels, shape (64, 64), whatever its sides were."""
    grey = open_image(path, least_side=LEAST_SIDE).convert("L")
    grey = grey.reduce(max(1, min(grey.size) // LEAST_SIDE))
    pixels = np.asarray(grey)
    (top, bottom), (left, right) = _inside(pixels), _inside(pixels.T)
    resized = grey.resize((SIDE, SIDE), Image.Resampling.BILINEAR, box=(left, top, right, bottom))
    return np.asarray(resized)


def _inside(lines: npt.NDArray[np.uint8]) -> tuple[int, int]:
    """From which line to which an image is more than a border of one colour, of at most a third on either side."""
    return _border(lines), len(lines) - _border(lines[::-1])


def _border(lines: npt.NDArray[np.uint8]) -> int:
    """How many lines the border has: it is of one colour, and ends with a step, unlike smooth skin or a vignette."""
    colour, step = int(lines[0, len(lines[0]) // 2]), max(2, len(lines) // 16)
    for number, line in enumerate(lines[: len(lines) // 3]):  # most images have no border, and end at once
        if _other_share(line, colour, FLAT) > MOST_FLAT:
            return number if _other_share(lines[number : number + step], colour, 2 * FLAT) > STEP else 0
    return 0


def _other_share(pixels: npt.NDArray[np.uint8], colour: int, most: int) -> float:
    return float(np.count_nonzero((pixels > colour + most) | (pixels < colour - most)) / pixels.size)


def _described(pixels: npt.NDArray[np.uint8]) -> Fingerprints:
    """`pixels`: grey, shape (n_images, 64, 64)."""
    spectrum = dctn(pixels.astype(np.float32), axes=(1, 2), norm="ortho")[:, :GRID, :GRID] / SIDE
    shapes = spectrum[:, :SHAPE, :SHAPE].astype(np.float16)
    spectrum[:, :DETAIL_FROM, :DETAIL_FROM] = 0
    detail = idctn(spectrum, axes=(1, 2), norm="ortho").reshape(len(pixels), -1)
    return Fingerprints(shapes, np.packbits(detail > 0, axis=1))


# --- pairs -------------------------------------------------------------------------------------------------------


def _found(queries: Fingerprints, gallery: Fingerprints, *, among_themselves: bool = False) -> IntArray:
    """Pairs of a query and an image of the gallery that are the same photograph, shape (n_pairs, 2)."""
    if not len(queries) or not len(gallery):
        return np.zeros((0, 2), dtype=np.int64)
    proposed = _proposed(queries.shapes.astype(np.float32), gallery.shapes.astype(np.float32), among_themselves)
    kept = [proposed[:0, :2]]
    for start in track(range(0, len(proposed), CHUNK), "Comparing pairs of images", unit="blocks"):
        some = proposed[start : start + CHUNK]
        kept.append(some[_likeness(queries, gallery, some) >= LIKE, :2])
    return np.concatenate(kept)


def _proposed(queries: Floats, gallery: Floats, among_themselves: bool) -> IntArray:
    """Pairs that are worth a look, each once: query, image of the gallery, position of the query, crop of the image."""
    whole = [_searched(gallery), *(_searched(_cropped(gallery, start)) for start in _STARTS[1:])]
    vectors = np.concatenate(whole)
    faiss, n_lists = import_faiss(), round(2 * len(vectors) ** 0.5)
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(COARSE**2 - 1), COARSE**2 - 1, n_lists, faiss.METRIC_INNER_PRODUCT)
    index.cp.min_points_per_centroid = 1  # FAISS warns on the terminal below 39
    index.nprobe = LISTS
    index.train(vectors)
    index.add(vectors)
    n_neighbours = min(NEIGHBOURS + among_themselves, index.ntotal)
    found, cosines = [], []
    for position in track(range(8), "Searching look-alikes", unit="positions"):
        cosine, row = index.search(_searched(turned(queries, position)), n_neighbours)
        query, rank = np.nonzero(cosine >= LEAST_COSINE)
        crop, image = np.divmod(row[query, rank], len(gallery))
        found.append(np.stack([query, image, np.full(len(query), position), crop], axis=1))
        cosines.append(cosine[query, rank])
    pairs, order = np.concatenate(found), np.argsort(-np.concatenate(cosines), kind="stable")
    pairs = pairs[order]  # best first, so that the first of a pair is the best
    if among_themselves:
        pairs = pairs[pairs[:, 0] != pairs[:, 1]]
        ends = np.sort(pairs[:, :2], axis=1)
    else:
        ends = pairs[:, :2]
    return pairs[np.sort(np.unique(ends, axis=0, return_index=True)[1])]


def _searched(shapes: Floats) -> Vectors:
    """Shapes as vectors of unit length, without brightness and contrast, shape (n_images, 35); higher weighs more."""
    squares = np.arange(COARSE, dtype=np.float32) ** 2
    weighed = shapes[:, :COARSE, :COARSE] * (squares[:, None] + squares) ** 0.25
    flat = weighed.reshape(len(shapes), -1)[:, 1:]
    return np.ascontiguousarray(flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6), dtype=np.float32)


def _cropped(shapes: Floats, start: Floats) -> Floats:
    """The shapes of crops, as `start` says where they lie."""
    points = middles(16)
    x, y = (0.5 + (1 + start[n]) * (points - 0.5) + start[n + 1] for n in (0, 2))
    return np.asarray(dctn(values(shapes, x, y), axes=(1, 2), norm="ortho")[:, :SHAPE, :SHAPE] / 16)


def _likeness(queries: Fingerprints, gallery: Fingerprints, pairs: IntArray) -> Floats:
    query, image, position, crop = pairs.T
    shapes, details = queries.shapes[query].astype(np.float32), _points(queries.details[query])
    for number in np.unique(position):
        rows = position == number
        shapes[rows], details[rows] = turned(shapes[rows], number), turned_points(details[rows], number)
    own = gallery.shapes[image].astype(np.float32), _points(gallery.details[image])
    return likeness(*own, shapes, details, _STARTS[crop])


def _points(details: npt.NDArray[np.uint8]) -> Floats:
    """Bits as -1 and 1, shape (n, 32, 32)."""
    signs = np.unpackbits(details, axis=1).astype(np.float32) * 2 - 1
    return signs.reshape(-1, GRID, GRID)
