"""Queries to vectors: pictures in memory, and text where the backbone has a text tower of the same space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import normalize

from hierderm.embeddings import Provenance
from hierderm.errors import SearchError
from hierderm.model.backbone import Backbone, load_vanilla, weights_hash
from hierderm.model.checkpoint import load_model, read_header
from hierderm.model.embed import best_device, is_model_folder
from hierderm.model.network import Network
from hierderm.model.text import TextTower, load_text_tower
from hierderm.taxonomy.tree import Taxonomy
from hierderm.types import Vectors


@dataclass(frozen=True)
class Encoded:
    """`embeddings`: unit length, shape (n_pictures, dim), float32; `probabilities`: of conditions, or None."""

    embeddings: Vectors
    probabilities: Vectors | None = None


class Encoder:
    """A model, or a vanilla backbone, that embeds queries. Make one with `load_encoder`. Safe to use from threads."""

    def __init__(self, name: str, model: Backbone | Network, provenance: Provenance) -> None:
        self.name, self.model, self.provenance = name, model, provenance
        self.device = best_device()
        model.eval().to(self.device)
        self._text: list[TextTower | None] = []  # the text tower, once it has been looked for
        self._loading = Lock()

    @property
    def text(self) -> TextTower | None:
        """The text tower of the backbone, loaded on first use; None where there is none of the embedding's space.

        A trained model keeps it where its vectors are the backbone's output and its neck starts as the identity: its
        pictures have moved since, so how well words still find them must be looked at (docs/search.md has figures).
        """
        with self._loading:
            if not self._text:
                self._text.append(self._load_text())
            return self._text[0]

    def _load_text(self) -> TextTower | None:
        backbone = self.model.backbone if isinstance(self.model, Network) else self.model
        if backbone.architecture["features"] != "output":
            return None
        if isinstance(self.model, Network) and self.model.shape.neck not in ("identity", "residual"):
            return None
        name, dim = backbone.architecture["name"], self.model.dim
        tower = load_text_tower(name, dim)
        return None if tower is None else tower.eval().to(self.device)

    @property
    def taxonomy(self) -> Taxonomy | None:
        """The tree a trained model classifies; None of a vanilla backbone."""
        return self.model.taxonomy if isinstance(self.model, Network) else None

    @torch.inference_mode()
    def pictures(self, pictures: Sequence[Image.Image]) -> Encoded:
        """Embed RGB pictures, with the probabilities of conditions where the model classifies them."""
        backbone = self.model.backbone if isinstance(self.model, Network) else self.model
        images = torch.stack([backbone.preprocessing(picture) for picture in pictures]).to(self.device)
        if isinstance(self.model, Backbone):
            return Encoded(normalize(self.model(images).float(), dim=1).cpu().numpy())
        outputs = self.model(images)
        probabilities = None
        if self.model.classifies_conditions and self.model.taxonomy is not None:
            level = self.model.taxonomy.fine_level
            probabilities = self.model.probabilities(outputs.logits.float(), level).cpu().numpy()
        return Encoded(outputs.embedding.float().cpu().numpy(), probabilities)

    @torch.inference_mode()
    def words(self, texts: Sequence[str]) -> Vectors:
        """Embed texts, shape (n_texts, dim), unit length. SearchError where the model has no text side."""
        if self.text is None:
            raise SearchError(
                f"{self.name} can't embed text: that takes a SigLIP of transformers with its text tower and tokenizer, "
                "such as hierderm:tiny, and for a trained model training.features = 'output' and "
                "training.neck 'identity' or 'residual'."
            )
        return np.asarray(normalize(self.text(texts).float(), dim=1).cpu().numpy())


def load_encoder(name: str) -> Encoder:
    """The encoder of a trained model's folder, or of a backbone by name such as 'hierderm:tiny'."""
    if not is_model_folder(name):
        backbone = load_vanilla(name)
        provenance = Provenance(name, weights_hash(backbone), backbone.preprocessing.hash)
        return Encoder(name, backbone, provenance)
    header = read_header(Path(name))
    network = load_model(Path(name))
    provenance = Provenance(
        name,
        str(header["weights_hash"]),
        network.backbone.preprocessing.hash,
        network.taxonomy.content_hash if network.taxonomy else "",
        str(header["split_hash"]),
    )
    return Encoder(name, network, provenance)
