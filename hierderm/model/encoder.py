"""The Encoder: a trained model or a backbone, from images and texts to vectors and probabilities."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from dataclasses import dataclass, replace
from itertools import islice
from os import PathLike
from pathlib import Path
from threading import Lock
from typing import get_args

import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import normalize

from hierderm.config.settings import BackboneConfig, ForwardEngine
from hierderm.data.dataset import ImageDataset
from hierderm.data.image_io import ImageLike, as_image, each_image
from hierderm.data.seen import Seen
from hierderm.data.table import CaseTable
from hierderm.embeddings import EmbeddingTable, Provenance
from hierderm.errors import CheckpointError, ModelError
from hierderm.files import os_faults
from hierderm.model.backbone import load_backbone
from hierderm.model.checkpoint import load_model, require_taxonomy, save_model
from hierderm.model.features import best_device, feature_batches, image_features
from hierderm.model.network import Network
from hierderm.model.text import TextTower, load_text_tower
from hierderm.model.weights import LOADING, weights_hash
from hierderm.taxonomy.tree import Taxonomy
from hierderm.types import Vectors

ROWS = 4096  # of cached features that pass the heads together
TEXTS = 256  # that pass the text tower together


@dataclass(frozen=True)
class Encoded:
    """What one pass gives.

    Attributes:
        embeddings: Unit length, shape (n_images, dim), float32.
        probabilities: Of the conditions, shape (n_images, n_fine), float32, rows summing to 1; None where the model
            does not classify conditions.
    """

    embeddings: Vectors
    probabilities: Vectors | None = None


class Encoder:
    """A model that embeds images. Make one with `hierderm.load`. Threads may share it.

    Attributes:
        network: The torch module, in evaluation mode.
        provenance: Name of the model, and hashes of its weights, preprocessing, taxonomy and training split ('' where
            a model has none).
        seen: Hashes and fingerprints of its training and validation images; None of a backbone.
        device: The device it computes on.
    """

    def __init__(
        self,
        network: Network,
        provenance: Provenance,
        *,
        device: str = "auto",
        card: str = "",
        seen: Seen | None = None,
    ) -> None:
        self.network, self.provenance, self._card, self.seen = network.eval(), provenance, card, seen
        try:
            self.device = best_device() if device == "auto" else torch.device(device)
            network.to(self.device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ModelError(f"device must be 'auto' or one that torch has, got '{device}' ({reason}).") from None
        self._text: list[TextTower | None] = []  # the text tower, once it has been looked for
        self._loading = Lock()

    @property
    def name(self) -> str:
        """The folder or the name it was loaded by."""
        return self.provenance.model

    @property
    def dim(self) -> int:
        """Length of the vectors."""
        return self.network.dim

    @property
    def taxonomy(self) -> Taxonomy | None:
        """The tree a trained model was trained on; None of a backbone."""
        return self.network.taxonomy

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
        return self._pass(self._features(images, batch_size, progress), self._fine_level)

    @property
    def _fine_level(self) -> int | None:
        tree = self.taxonomy
        return tree.fine_level if tree is not None and self.network.probability_level == tree.fine_level else None

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
        many = iter([texts] if isinstance(texts, str) else texts)
        vectors = [torch.zeros(0, self.dim)]
        with torch.inference_mode():
            while batch := list(islice(many, TEXTS)):
                vectors.append(normalize(tower(batch).float(), dim=1).cpu())
            return torch.cat(vectors).numpy()

    @property
    def text_tower(self) -> TextTower | None:
        """The text tower of the backbone, loaded on first use; None where none embeds in the model's space."""
        with self._loading:
            if not self._text:
                self._text.append(self._load_text_tower())
            return self._text[0]

    def _load_text_tower(self) -> TextTower | None:
        backbone = self.network.backbone
        if backbone.features != "output" or self.network.shape.neck not in ("identity", "residual"):
            return None
        tower = load_text_tower(backbone.architecture["name"], self.dim)
        return None if tower is None else tower.eval().to(self.device)

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
        found = self._pass(self._features(named(), batch_size, progress, total), number)
        index = pd.RangeIndex(len(names)) if None in names else pd.Index(names, dtype=str)
        return pd.DataFrame(found.probabilities, index=index, columns=list(tree.names(number)))

    def _level_number(self, level: str) -> tuple[int, Taxonomy]:
        tree, finest = self.taxonomy, self.network.probability_level
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
            backbone = self.network.backbone
            images = ImageDataset(table.paths, backbone.preprocessing)
            found = self._pass(feature_batches(backbone, images, batch_size=batch_size), self._fine_level)
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
        parts = (torch.tensor(features[start : start + ROWS]) for start in range(0, len(features), ROWS))
        return self._pass(parts, self._fine_level)

    def save(self, folder: Path | str, *, replace: bool = False) -> None:
        """Write a model folder that `hierderm.load` reads.

        Args:
            folder: Where it shall be; nothing, or an empty folder, must be there.
            replace: Replace a model folder that lies there.

        Raises:
            OutputError: `folder` holds something that would be lost, or can't be written.
        """
        split_hash = self.provenance.split_hash
        save_model(self.network, Path(folder), split_hash=split_hash, card=self._card, seen=self.seen, replace=replace)

    # --- the one forward pass ------------------------------------------------------------------------------------

    def _pass(self, batches: Iterator[Tensor], level: int | None) -> Encoded:
        """Batches of features through the heads; with the probabilities of a level unless it is None."""
        embeddings = [torch.zeros(0, self.dim)]
        probabilities = [] if level is None else [torch.zeros(0, self._n_classes(level))]
        for features in batches:
            with torch.inference_mode():
                outputs = self.network.heads(features.to(self.device))
                embeddings.append(outputs.embedding.float().cpu())
                if level is not None and outputs.logits is not None:
                    probabilities.append(self.network.probabilities(outputs.logits.float(), level).cpu())
        return Encoded(torch.cat(embeddings).numpy(), torch.cat(probabilities).numpy() if probabilities else None)

    def _n_classes(self, level: int) -> int:
        assert self.taxonomy is not None  # else there is no level
        return self.taxonomy.size(level)

    def _features(
        self,
        images: ImageLike | Iterable[ImageLike],
        batch_size: int,
        progress: bool | None,
        total: int | None = None,
    ) -> Iterator[Tensor]:
        """The backbone's features of a batch after another."""
        if batch_size < 1:
            raise ModelError(f"batch_size must be 1 or more, got {batch_size}.")
        many = each_image(images)
        total = len(many) if isinstance(many, Sized) else total
        # Files are decoded side by side; a PIL image is not safe for threads, and may occur twice.
        safe = (image if isinstance(image, str | PathLike) else as_image(image) for image in many)
        return image_features(
            self.network.backbone, safe, self._pixels, batch_size=batch_size, total=total, progress=progress
        )

    def _pixels(self, image: ImageLike) -> Tensor:
        return self.network.backbone.preprocessing.pixels(as_image(image))


# --- loading -----------------------------------------------------------------------------------------------------


def load(name: str | Path, *, device: str = "auto", engine: ForwardEngine = "auto") -> Encoder:
    """Load a trained model, or a backbone by name.

    Args:
        name: The folder of a model, the folder of a run that holds one in `model`, or a backbone:
            'hierderm:tiny', 'hierderm:lite0', 'timm:<model>', 'hf:<repository or folder>', and with other weights
            than those of its name '<backbone>@random' (the same each time) or '<backbone>@<file>.safetensors' (timm).
        device: 'auto' is a GPU where there is one, else the CPU; or a device of torch such as 'cuda:1'.
        engine: What computes vectors on a CPU: 'torch', 'onnx' (ONNX Runtime, from hierderm[onnx]), or 'auto', the
            faster where there are many images. The vectors are the same, to about 1e-5.

    Returns:
        The encoder, ready to use.

    Raises:
        CheckpointError: There is no such model, or its files are damaged or do not fit.
        ModelError: The device or the engine can't be used.
    """
    if engine not in (known := get_args(ForwardEngine)):
        raise ModelError(f"engine must be of {list(known)}, got '{engine}'.")
    encoder = _load(name, device)
    encoder.network.backbone.engine = engine
    return encoder


def _load(name: str | Path, device: str) -> Encoder:
    folder = model_folder(str(name))
    if folder is None:
        return Encoder(*_load_backbone(BackboneConfig.parse(str(name))), device=device)
    network, own_hash, split_hash, card, seen = load_model(folder)
    tree_hash = network.taxonomy.content_hash if network.taxonomy else ""
    provenance = Provenance(str(folder), own_hash, network.backbone.preprocessing.hash, tree_hash, split_hash)
    return Encoder(network, provenance, device=device, card=card, seen=seen)


@os_faults(CheckpointError)
def model_folder(name: str) -> Path | None:
    """The folder of the trained model that `name` means; None where it means a backbone such as 'hierderm:tiny'."""
    folder = Path(name)
    if ":" in name and not folder.is_dir():
        return None
    if not folder.is_dir():
        raise CheckpointError(
            f"a model must be a model folder, or a backbone such as 'hierderm:tiny', got '{name}', which is neither."
        )
    return folder / "model" if (folder / "model").is_dir() else folder


def _load_backbone(config: BackboneConfig) -> tuple[Network, Provenance]:
    if config.weights == "random":
        with LOADING, torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            backbone = load_backbone(config)
    else:
        backbone = load_backbone(config)
    return Network(backbone), Provenance(str(config), weights_hash(backbone), backbone.preprocessing.hash)
