"""A model as one ONNX file: backbone, neck and heads in one graph, which says what its input must be."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn, softmax

from hierderm.errors import MissingExtraError, ModelError
from hierderm.files import replacing
from hierderm.model import onnx
from hierderm.model.network import Network
from hierderm.model.onnx_encoder import INPUT, KEY, OUTPUTS, VERSION, OnnxContent, OnnxEncoder
from hierderm.model.weights import LOADING, reason_of
from hierderm.taxonomy.file import format_taxonomy

if TYPE_CHECKING:
    from hierderm.model.encoder import Encoder

TOLERANCE = 1e-4  # largest difference of an embedding's values and of probabilities from torch's
CHECKED = 3  # random images that are compared


def export_onnx(encoder: Encoder, path: Path, *, replace_file: bool = False) -> float:
    """Write the file, whole or not at all; the largest difference from torch's outputs on random images.

    ModelError where the exporter fails on the model, or where a difference is above 0.0001.
    """
    if not onnx.installed():
        raise MissingExtraError("the export to ONNX", "onnx")
    network = encoder.network
    if network.backbone.in_bf16:
        raise ModelError(
            f"{encoder.name} computes in bfloat16, which ONNX Runtime can't on a CPU, and in float32 its vectors would "
            "be others. Train with --backbone.precision 32 to export."
        )
    if network.backbone.preprocessing.views:
        raise ModelError(
            f"{encoder.name} looks at changed copies of an image, which a graph can't make of its pixels. Train with "
            "--backbone.views 0 to export; --backbone.mirrors true stays possible."
        )
    outputs = OUTPUTS[: 1 if network.probability_level is None else 2]
    preprocessing = network.backbone.preprocessing
    where = next(network.parameters(), torch.zeros(0)).device
    with replacing(path, replace=replace_file) as temporary, LOADING:
        try:
            network.cpu()
            graph = onnx.FromPixels(_Outputs(network), preprocessing)
            program = onnx.export_program(graph, preprocessing.size, outputs)
            program.model.metadata_props[KEY] = json.dumps(asdict(_content(encoder)))
            written = temporary.with_suffix(".onnx")
            program.save(written, external_data=False)
            written.replace(temporary)
            return _difference(graph, temporary, preprocessing.size)
        except (ModelError, OSError):
            raise
        except Exception as error:  # the exporter and its passes raise all kinds
            raise ModelError(f"{encoder.name} can't be exported ({reason_of(error)[:200]}).") from error
        finally:
            network.to(where)


class _Outputs(nn.Module):
    """The embedding, and the probabilities of the classified level where there is one."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        found = self.network(images)
        embedding: Tensor = found.embedding.float()
        return embedding if found.logits is None else (embedding, softmax(found.logits.float(), dim=1))


def _content(encoder: Encoder) -> OnnxContent:
    network, tree = encoder.network, encoder.taxonomy
    pixels = network.backbone.preprocessing
    fit = "squashed to it" if pixels.fit == "squash" else "its centre cropped to it after the short side is resized"
    words = (
        f"'{INPUT}': RGB, upright, sRGB, uint8, shape (n, 3, {pixels.size}, {pixels.size}); antialiased "
        f"{pixels.interpolation} resizing, {fit}. Normalisation is in the graph."
    )
    own = replace(encoder.provenance, model=Path(encoder.name).name)  # without the folders of this machine
    text = format_taxonomy(tree) if tree is not None else ""
    return OnnxContent(VERSION, own, pixels, network.dim, text, network.probability_level, words)


def _difference(graph: nn.Module, path: Path, side: int) -> float:
    session = OnnxEncoder(path)._session
    pixels = np.random.default_rng(0).integers(0, 256, (CHECKED, 3, side, side), dtype=np.uint8)
    with torch.inference_mode():
        expected = graph(torch.from_numpy(pixels))
    wanted = [expected] if isinstance(expected, Tensor) else expected
    found = session.run(None, {INPUT: pixels})
    difference = max(float(np.abs(own - other.numpy()).max()) for own, other in zip(found, wanted, strict=True))
    if not difference <= TOLERANCE:  # nan too
        raise ModelError(f"the graph's outputs differ from torch's by {difference:.1e}. Use the model's folder.")
    return difference
