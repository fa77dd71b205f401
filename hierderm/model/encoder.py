"""The Encoder: a model or a backbone, from images to vectors and probabilities. torch is imported where it is used."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from dataclasses import replace
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import TYPE_CHECKING

import pandas as pd

from hierderm.artifacts import Card
from hierderm.data.image_io import ImageLike, as_image, each_image
from hierderm.data.seen import Seen
from hierderm.data.table import CaseTable
from hierderm.embeddings import EmbeddingTable, Encoded, Provenance
from hierderm.errors import ModelError
from hierderm.model.hub import require_repository, upload
from hierderm.model.loading import require_taxonomy
from hierderm.taxonomy.tree import Taxonomy
from hierderm.types import Vectors

if TYPE_CHECKING:
    from hierderm.evaluation.evaluation import Evaluation
    from hierderm.model.network import Network
    from hierderm.model.text import TextTower

ROWS = 4096  # of cached features that pass the heads together


class Encoder:
    """A model that embeds images. Make one with `hierderm.load`. Threads may share it.

    Args:
        network: Backbone, neck and heads.
        provenance: Name of the model, and hashes of its weights, preprocessing, taxonomy and training split ('' where
            a model has none).
        device: The device it computes on; 'auto' is a GPU where there is one.
        card: What its folder says to people.
        seen: Hashes and fingerprints of its training and validation images; None where they are not recorded.
    """

    def __init__(
        self,
        network: Network,
        provenance: Provenance,
        *,
        device: str = "auto",
        card: Card = Card(),  # noqa: B008  # immutable
        seen: Seen | None = None,
    ) -> None:
        from hierderm.model.forward import chosen_device

        self._network: Network | None = network.eval()
        self.provenance, self._card, self.seen = provenance, card, seen
        self.device = chosen_device(device)
        network.to(self.device)
        self._text: list[TextTower | None] = []  # the text tower, once it has been looked for
        self._loading = Lock()

    @property
    def name(self) -> str:
        """The folder or the name it was loaded by."""
        return self.provenance.model

    @property
    def network(self) -> Network:
        """The torch module, in evaluation mode; ModelError where the model is a graph in an ONNX file."""
        if self._network is None:
            raise ModelError(f"{self.name} is a graph without weights that could change. Load the model's folder.")
        return self._network

    @property
    def dim(self) -> int:
        """Length of the vectors."""
        return self.network.dim

    @property
    def taxonomy(self) -> Taxonomy | None:
        """The tree a trained model was trained on; None of a backbone."""
        return self.network.taxonomy

    @property
    def _finest_level(self) -> int | None:
        """The finest level that has probabilities; None where there are none."""
        return self.network.probability_level

    def encode(
        self, images: ImageLike | Iterable[ImageLike], *, batch_size: int = 64, progress: bool | None = None
    ) -> Vectors:
        """Embed images.

        Args:
            images: One image or many: paths, PIL images, or arrays of uint8 or uint16, shape (height, width, 3), 4
                with alpha, or (height, width) for grey; an array of four dimensions is many. All are read as a browser
                shows them: upright, in sRGB, on white. An iterator is read a batch at a time.
            batch_size: Images that are read and pass the network together, >= 1.
            progress: Show a progress bar; None shows one on a terminal after two seconds.

        Returns:
            Vectors of unit length, shape (n_images, dim), float32, also of one image. Their scalar product is the
            cosine similarity.

        Raises:
            ImageError: A file is missing or damaged, or an array has another type or shape.
        """
        return self.encode_all(images, batch_size=batch_size, progress=progress).embeddings

    def encode_all(
        self, images: ImageLike | Iterable[ImageLike], *, batch_size: int = 64, progress: bool | None = None
    ) -> Encoded:
        """Embed images and, where the model classifies conditions, classify them, in one pass.

        Args:
            images: One image or many, as `encode` takes them.
            batch_size: Images that are read and pass the network together, >= 1.
            progress: Show a progress bar; None shows one on a terminal after two seconds.

        Returns:
            Vectors and probabilities.

        Raises:
            ImageError: A file is missing or damaged, or an array has another type or shape.
        """
        return self._checked_pass(images, self._fine_level, batch_size, progress)

    @property
    def _fine_level(self) -> int | None:
        tree = self.taxonomy
        return tree.fine_level if tree is not None and self._finest_level == tree.fine_level else None

    def encode_text(self, texts: str | Iterable[str]) -> Vectors:
        """Embed texts in the space of the images, so that images can be searched by words.

        A trained model keeps the text tower of its backbone where its vectors are the backbone's output and its neck
        starts as the identity. Its images have moved since: docs/search.md says how well words still find them.

        Args:
            texts: One text or many; longer ones are cut to the length the tower was trained with.

        Returns:
            Vectors of unit length, shape (n_texts, dim), float32.

        Raises:
            ModelError: The model has no text tower of the same space.
        """
        tower = self.text_tower
        if tower is None:
            raise ModelError(
                f"{self.name} can't embed text: that takes a SigLIP of transformers with its text tower and tokenizer, "
                "such as hierderm:tiny, and for a trained model training.features = 'output' and training.neck "
                "'identity' or 'residual'."
            )
        return tower.embed([texts] if isinstance(texts, str) else texts)

    @property
    def text_tower(self) -> TextTower | None:
        """The text tower of the backbone, loaded on first use; None where none embeds in the model's space."""
        from hierderm.model.text import text_tower_of

        with self._loading:
            if not self._text:
                self._text.append(text_tower_of(self.network, self.device))
            return self._text[0]

    def predict_proba(
        self,
        images: ImageLike | Iterable[ImageLike],
        level: str = "fine",
        *,
        batch_size: int = 64,
        progress: bool | None = None,
    ) -> pd.DataFrame:
        """Classify images on a level of the taxonomy.

        Probabilities of a coarser level are those of the classified one summed up the tree, so levels can't
        contradict each other.

        Args:
            images: One image or many, as `encode` takes them.
            level: 'fine', 'coarse', or the name of a level.
            batch_size: Images that are read and pass the network together, >= 1.
            progress: Show a progress bar; None shows one on a terminal after two seconds.

        Returns:
            A row an image, a column a node of the level, float32 in [0, 1]; rows sum to 1. The index is the paths as
            they were given, or 0 to n - 1 where not all images are paths.

        Raises:
            ModelError: The model does not classify, or only coarser levels.
            TaxonomyError: The taxonomy has no such level.
            ImageError: A file is missing or damaged, or an array has another type or shape.
        """
        number, tree = self._level_number(level)
        many, names = each_image(images), list[str | None]()

        def named() -> Iterator[ImageLike]:
            for image in many:
                names.append(str(image) if isinstance(image, str | PathLike) else None)
                yield image

        total = len(many) if isinstance(many, Sized) else None
        found = self._checked_pass(named(), number, batch_size, progress, total)
        index = pd.RangeIndex(len(names)) if None in names else pd.Index(names, dtype=str)
        return pd.DataFrame(found.probabilities, index=index, columns=list(tree.names(number)))

    def _level_number(self, level: str) -> tuple[int, Taxonomy]:
        tree, finest = self.taxonomy, self._finest_level
        if tree is None or finest is None:
            raise ModelError(f"{self.name} has no classes. Train a model with a classifier on a taxonomy.")
        if not isinstance(level, str):
            raise ModelError(f"level must be the name of a level, got {level!r}.")
        number = tree.level_number(level)
        if number > finest:
            known = ", ".join(f"'{name}'" for name in tree.level_names[: finest + 1])
            raise ModelError(f"{self.name} has probabilities of the level(s) {known}, got '{level}', which is finer.")
        return number, tree

    def embed(self, table: CaseTable, *, batch_size: int = 64, features: Vectors | None = None) -> EmbeddingTable:
        """Embed the images of a case table.

        Args:
            table: The cases; a trained model takes only a table of its own taxonomy.
            batch_size: Images that are read and pass the network together, >= 1.
            features: The backbone's vectors of the table's images, shape (n_images, n_features), where they are known.

        Returns:
            Vectors with the rows of the table and the provenance; with the probabilities of the conditions where the
            model classifies them.

        Raises:
            CheckpointError: The model was trained on another taxonomy.
            ImageError: A file is missing or damaged.
        """
        if self.taxonomy is not None:
            require_taxonomy(self.name, self.taxonomy, table.taxonomy)
        if features is None:
            found = self._pass(table.paths, self._fine_level, batch_size, None, len(table), "Embedding")
        else:
            found = self.heads(features)
        provenance = replace(self.provenance, taxonomy_hash=table.taxonomy.content_hash)
        return EmbeddingTable(found.embeddings, table.frame, provenance, found.probabilities)

    def heads(self, features: Vectors) -> Encoded:
        """The embeddings, and probabilities of the conditions, of features that the backbone has already given.

        Args:
            features: Not normalised, shape (n_images, n_features), float32.

        Returns:
            Vectors and probabilities.

        Raises:
            ModelError: The features are not of the model's backbone.
        """
        if features.ndim != 2 or features.shape[1] != self.network.backbone.dim:
            raise ModelError(
                f"features must have shape (n_images, {self.network.backbone.dim}), as the backbone of {self.name} "
                f"gives them, got {features.shape}."
            )
        from hierderm.model.forward import through_heads

        parts = (features[start : start + ROWS] for start in range(0, len(features), ROWS))
        return Encoded(*through_heads(self.network, self.device, parts, self._fine_level))

    def truncated(self, embeddings: Vectors, dim: int) -> Encoder:
        """A model whose embeddings have fewer dimensions: projected on principal axes, at unit length again.

        Probabilities stay as they are. `hierderm bench compression` measures what retrieval loses.

        Args:
            embeddings: The model's own of training images, shape (n_images, self.dim); the axes are learnt from them.
            dim: Length of the new embeddings, in [1, self.dim].

        Returns:
            The model, to be used, saved and exported as any.

        Raises:
            EmbeddingError: `dim` is out of range, or `embeddings` are not of the model's length.
            ModelError: The model is truncated already.
        """
        from hierderm.model.forward import truncated

        network, own_hash = truncated(self.network, embeddings, dim)
        provenance = replace(self.provenance, model=f"{self.name}, {dim} dimensions", weights_hash=own_hash)
        return Encoder(network, provenance, device=str(self.device), card=self._card, seen=self.seen)

    def save(self, folder: Path | str, *, replace: bool = False) -> None:
        """Write a model folder that `hierderm.load` reads.

        Args:
            folder: Where it shall be; nothing, or an empty folder, must be there.
            replace: Replace a model folder that lies there.

        Raises:
            OutputError: `folder` holds something that would be lost, or can't be written.
        """
        from hierderm.model.checkpoint import save_model

        split_hash = self.provenance.split_hash
        save_model(self.network, Path(folder), split_hash=split_hash, card=self._card, seen=self.seen, replace=replace)

    def export(self, path: Path | str, *, replace: bool = False) -> float:
        """Write backbone, neck and heads as one ONNX file, which `hierderm.load` reads without torch.

        The graph takes resized pixels of 8 bits and gives the embedding and, of a model that classifies, probabilities.
        Its metadata hold preprocessing, taxonomy and provenance as JSON.

        Args:
            path: The file, '.onnx'.
            replace: Replace a file that lies there.

        Returns:
            The largest difference of the outputs from torch's, on three random images; at most 0.0001.

        Raises:
            ModelError: The model can't be exported, or the outputs differ by more.
            OutputError: `path` can't be written, or holds something that would be lost.
        """
        from hierderm.model.onnx_export import export_onnx

        return export_onnx(self, Path(path), replace_file=replace)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool = True,
        token: str | None = None,
        evaluation: Evaluation | None = None,
        data: str = "",
    ) -> str:
        """Put the model into a repository of the Hugging Face hub, from where `hierderm.load(repo_id)` reads it.

        Its README.md is the model's card. A metadata block names taxonomy, data set and metrics, as the hub shows them.
        What it has `seen` stays here: a fingerprint tells something of an image.

        Args:
            repo_id: 'user/name'. It is made where there is none.
            private: Whether a repository that is made can be seen by you and your organisation only. One that is there
                stays as it is.
            token: Of the hub; by default that of HF_TOKEN or of `hf auth login`.
            evaluation: Of the model on test cases; its headline metrics, with intervals and a plot, go into the card.
            data: Name of the data set that the evaluation is of; by default that of the training.

        Returns:
            The address of the commit.

        Raises:
            ModelError: The hub refuses or can't be reached, or the evaluation is of a data set without a name.
        """
        from hierderm.model.card import completed
        from hierderm.model.checkpoint import save_model

        require_repository(repo_id)
        card = completed(self._card, repo_id.rpartition("/")[2], self.taxonomy, evaluation, data)
        with TemporaryDirectory(prefix="hierderm-hub-") as place:
            folder = Path(place) / "model"
            save_model(self.network, folder, split_hash=self.provenance.split_hash, card=card)
            return upload(folder, repo_id, private=private, token=token)

    def _checked_pass(
        self,
        images: ImageLike | Iterable[ImageLike],
        level: int | None,
        batch_size: int,
        progress: bool | None,
        total: int | None = None,
    ) -> Encoded:
        if batch_size < 1:
            raise ModelError(f"batch_size must be 1 or more, got {batch_size}.")
        many = each_image(images)
        total = len(many) if isinstance(many, Sized) else total
        # Files are decoded side by side; a PIL image is not safe for threads, and may occur twice.
        safe = (image if isinstance(image, str | PathLike) else as_image(image) for image in many)
        return self._pass(safe, level, batch_size, progress, total, "Encoding")

    def _pass(
        self,
        images: Iterable[ImageLike],
        level: int | None,
        batch_size: int,
        progress: bool | None,
        total: int | None,
        title: str,
    ) -> Encoded:
        """Images through backbone and heads; with the probabilities of a level unless it is None."""
        from hierderm.model.features import image_features
        from hierderm.model.forward import through_heads

        backbone = self.network.backbone
        batches = image_features(
            backbone, images, backbone.preprocessing.pixels,
            batch_size=batch_size, total=total, title=title, progress=progress,
        )  # fmt: skip
        return Encoded(*through_heads(self.network, self.device, batches, level))
