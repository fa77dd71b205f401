"""A model in one ONNX file: it embeds and classifies with ONNX Runtime and numpy, without torch."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hierderm.data.image_io import ImageLike
from hierderm.data.preprocessing import Preprocessing
from hierderm.embeddings import Encoded, Provenance
from hierderm.errors import CheckpointError, MissingExtraError
from hierderm.files import os_faults, require_regular
from hierderm.json_files import checked
from hierderm.model.encoder import Encoder
from hierderm.progress import Progress
from hierderm.taxonomy.file import parse_taxonomy
from hierderm.taxonomy.tree import Taxonomy
from hierderm.threads import in_order, n_threads
from hierderm.types import Vectors

KEY, VERSION = "hierderm", 1  # of the metadata in the file
INPUT, OUTPUTS = "pixels", ("image_embedding", "class_probabilities")  # an exporter names inner values "embedding"


@dataclass(frozen=True)
class OnnxContent:
    """What the file says of itself, as JSON under the key 'hierderm' of its metadata.

    `taxonomy`: the text of its file; '' of a model without classes. `classified_level`: whose nodes the probabilities
    are of. `input`: in words, what a program must do before the graph.
    """

    version: int
    provenance: Provenance
    preprocessing: Preprocessing
    dim: int
    taxonomy: str
    classified_level: int | None
    input: str


def open_session(path: Path, *, threads: int = 1) -> Any:
    """A graph of a file in ONNX Runtime. On one thread each, images side by side are faster than one on all cores."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3  # errors
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


class OnnxEncoder(Encoder):
    """A model that `Encoder.export` has written. It can't be trained, saved or searched by words.

    Args:
        path: The .onnx file.

    Raises:
        CheckpointError: The file is damaged, or hierderm did not write it.
        MissingExtraError: ONNX Runtime is not installed.
    """

    @os_faults(CheckpointError)
    def __init__(self, path: Path) -> None:
        require_regular(path)
        try:
            import onnxruntime  # noqa: F401
        except ImportError:
            raise MissingExtraError("a model in an ONNX file", package="onnxruntime") from None
        try:
            self._session = open_session(path)
        except Exception as error:  # of the runtime, all kinds
            reason = " ".join(str(error).split())[:200]
            raise CheckpointError(f"{path} is not a whole ONNX file ({reason}). Export it again.") from None
        text = self._session.get_modelmeta().custom_metadata_map.get(KEY)
        if text is None:
            raise CheckpointError(f"{path} must be a file that `hierderm export` wrote, it has no metadata of it.")
        self._content = checked(json.loads(text), OnnxContent, f"the metadata of {path}", CheckpointError)
        if self._content.version != VERSION:
            raise CheckpointError(f"{path} has version {self._content.version}, {VERSION} is read. Export it again.")
        self._tree = parse_taxonomy(self._content.taxonomy, source=str(path)) if self._content.taxonomy else None
        self._network = self.seen = None
        self.provenance = replace(self._content.provenance, model=str(path))

    @property
    def dim(self) -> int:
        return self._content.dim

    @property
    def taxonomy(self) -> Taxonomy | None:
        return self._tree

    @property
    def text_tower(self) -> None:
        return None

    @property
    def _finest_level(self) -> int | None:
        return self._content.classified_level

    def _pass(
        self,
        images: Iterable[ImageLike],
        level: int | None,
        batch_size: int,
        progress: bool | None,
        total: int | None,
        title: str,
    ) -> Encoded:
        tree, classified = self._tree, self._finest_level
        n_classes = 0 if level is None or tree is None or classified is None else tree.size(classified)
        embeddings, probabilities = [np.zeros((0, self.dim), np.float32)], [np.zeros((0, n_classes), np.float32)]
        with Progress(title, total, unit="images", shown=progress) as bar:
            for found in self._outputs(images, OUTPUTS[: 2 if n_classes else 1]):
                embeddings.append(found[0])
                probabilities += found[1:]
                bar.update(1)
        classes = None
        if n_classes and tree is not None and level is not None and classified is not None:
            classes = np.concatenate(probabilities)
            if level != classified:
                classes = classes @ tree.membership(level, below=classified).astype(np.float32)
        return Encoded(np.concatenate(embeddings), classes)

    def _outputs(self, images: Iterable[ImageLike], names: tuple[str, ...]) -> Iterator[list[Vectors]]:
        def outputs(image: ImageLike) -> list[Vectors]:
            pixels = self._content.preprocessing.array(image)
            found: list[Vectors] = self._session.run(names, {INPUT: pixels[None]})
            return found

        with ThreadPoolExecutor(n_threads()) as pool:
            yield from in_order(pool, outputs, images, 2 * n_threads())
