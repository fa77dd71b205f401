"""The text side of a SigLIP: captions to vectors of the space its images lie in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from hierderm.model.backbone import TINY
from hierderm.model.network import Network
from hierderm.model.tiny import FOLDER as TINY_FOLDER
from hierderm.model.transformers import quiet
from hierderm.types import Vectors

TEXTS = 256  # that pass the tower together
SIGLIP_TYPES = ("siglip", "siglip2")
_TOKENIZING = Lock()  # a call sets padding and length of a tokenizer, which fails while another call uses it


class TextTower(nn.Module):
    """Tokenizer and text encoder of a SigLIP; texts are padded to the length it was trained with."""

    def __init__(self, encoder: nn.Module, tokenizer: Any, length: int, dim: int) -> None:
        super().__init__()
        self.encoder, self.tokenizer, self.length, self.dim = encoder, tokenizer, length, dim

    def forward(self, texts: Sequence[str]) -> Tensor:
        """Vectors of texts, shape (n_texts, dim), float32, not normalised."""
        with _TOKENIZING:
            tokens = self.tokenizer(
                list(texts), padding="max_length", truncation=True, max_length=self.length, return_tensors="pt"
            )
        device = next(self.encoder.parameters()).device
        output: Tensor = self.encoder(input_ids=tokens["input_ids"].to(device)).pooler_output
        return output

    @torch.inference_mode()
    def embed(self, texts: Iterable[str]) -> Vectors:
        """Vectors of any number of texts, shape (n_texts, dim), float32, unit length."""
        many, vectors = iter(texts), [torch.zeros(0, self.dim)]
        while batch := list(islice(many, TEXTS)):
            vectors.append(normalize(self(batch).float(), dim=1).cpu())
        return torch.cat(vectors).numpy()


def text_tower_of(network: Network, device: torch.device) -> TextTower | None:
    """The text tower of a network's backbone; None where it embeds in another space than the network."""
    backbone, shape = network.backbone, network.shape
    if backbone.features != "output" or shape.neck not in ("identity", "residual") or shape.truncated_dim:
        return None
    tower = load_text_tower(backbone.architecture["name"], network.dim)
    return None if tower is None else tower.eval().to(device)


def load_text_tower(name: str, dim: int) -> TextTower | None:
    """The text tower that belongs to a backbone, or None where it has none (timm, or no SigLIP) or is not at hand.

    `dim`: length of the backbone's output, which the text vectors must have to be compared with it.
    """
    library, _, source = name.partition(":")
    if name != TINY and library != "hf":
        return None
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    place = str(TINY_FOLDER) if name == TINY else source
    if library == "hf" and source.startswith((".", "/", "~")) and not Path(source).is_dir():
        return None  # a trained model outlives the folder its backbone came from
    try:
        with quiet():
            config = AutoConfig.from_pretrained(place)
            if config.model_type not in SIGLIP_TYPES or (Path(place).is_dir() and not _has_tokenizer(Path(place))):
                return None
            model = AutoModel.from_pretrained(place, use_safetensors=True, dtype=torch.float32).text_model
            length = config.text_config.max_position_embeddings
            tower = TextTower(model, AutoTokenizer.from_pretrained(place), length, dim)
    except OSError:
        return None  # not on this machine, and no internet
    with torch.inference_mode():
        return tower if tower.eval()(["a"]).shape[1] == dim else None


def _has_tokenizer(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json", "spiece.model"))
