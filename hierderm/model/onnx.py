"""A frozen backbone as a graph of ONNX Runtime: the same vectors, on a CPU often several times as fast as torch."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from hierderm.data.preprocessing import Preprocessing
from hierderm.errors import HierdermError, MissingExtraError
from hierderm.model.backbone import Backbone, mean_vectors
from hierderm.model.onnx_encoder import open_session
from hierderm.model.tail import Stem
from hierderm.model.weights import LOADING

PACKAGES = ("onnx", "onnxruntime", "onnxscript")  # of the extra hierderm[onnx]
TOLERANCE = 1e-4  # largest difference from torch's values, relative to the largest of the image
_graphs: WeakKeyDictionary[nn.Module, tuple[object, OnnxGraph]] = WeakKeyDictionary()
_LOOKING = Lock()


class NotExportedError(HierdermError):
    """A backbone can't become a graph, or its graph gives other vectors."""


class OnnxGraph:
    """uint8 pixels, as `Backbone.forward` takes images, to the vectors of a backbone, shape (n, dim), float32.

    By default a call computes on its caller's thread alone, and threads may call at the same time: on one core each,
    they are faster than one call that shares its work among them. Its memory is that of the weights once more.
    """

    def __init__(self, backbone: Backbone | Stem, *, threads: int = 1) -> None:
        with TemporaryDirectory(prefix="hierderm-onnx-") as folder:
            path = Path(folder) / "backbone.onnx"
            graph = FromPixels(_Vectors(backbone), backbone.preprocessing)
            program = export_program(graph, backbone.preprocessing.size, ("vectors",))
            program.save(path, external_data=True)
            self._session = open_session(path, threads=threads)
        self._mirrors = backbone.mirrors  # apart from the graph, which would hold the backbone four times

    def __call__(self, pixels: Tensor) -> Tensor:
        return mean_vectors(self._run, pixels, mirrors=self._mirrors)

    def _run(self, pixels: Tensor) -> Tensor:
        (vectors,) = self._session.run(None, {"pixels": pixels.numpy()})
        return torch.from_numpy(vectors)

    def require_equal(self, pixels: Tensor, expected: Tensor) -> float:
        """The largest difference from torch's vectors of the same pixels, relative to the largest value of an image.

        NotExportedError where it is above `TOLERANCE`.
        """
        found = torch.cat([self(image[None]) for image in pixels])
        differences = (found - expected).abs().amax(dim=1) / expected.abs().amax(dim=1).clamp_min(1e-12)
        if not differences.max() <= TOLERANCE:  # nan too
            raise NotExportedError(f"its vectors differ from torch's by {differences.max():.1e}")
        return float(differences.max())


def installed() -> bool:
    """Whether the packages of the extra are there."""
    return all(find_spec(name) for name in PACKAGES)


def known_graph(backbone: Backbone | Stem) -> OnnxGraph | None:
    """The graph of a backbone that was made in this process, where its weights are still the same."""
    with _LOOKING:
        state, graph = _graphs.get(backbone, (None, None))
    return graph if state == _state(backbone) else None


def make_graph(backbone: Backbone | Stem) -> OnnxGraph:
    """The graph of a backbone, made once. MissingExtraError without the packages; NotExportedError where it fails."""
    if not installed():
        raise MissingExtraError("engine = 'onnx'", "onnx")
    with LOADING:  # the exporter patches torch while it works
        if (known := known_graph(backbone)) is not None:
            return known
        try:
            graph = OnnxGraph(backbone)
        except Exception as error:  # the exporter and its passes raise all kinds
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise NotExportedError(f"it can't be exported ({reason[0][:200]})") from error
        with _LOOKING:
            _graphs[backbone] = _state(backbone), graph
        return graph


class FromPixels(nn.Module):
    """What follows the resizing of an image: normalisation of uint8 pixels, then a module, in float32."""

    def __init__(self, module: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.module = module
        colours = (preprocessing.mean, preprocessing.std)
        mean, std = (torch.tensor(values, dtype=torch.float64)[:, None, None] for values in colours)
        self.factor, self.shift = (1 / (255 * std)).float(), (-mean / std).float()

    def forward(self, pixels: Tensor) -> Any:
        return self.module(pixels.float() * self.factor + self.shift)


class _Vectors(nn.Module):
    """A backbone without mirror images."""

    def __init__(self, backbone: Backbone | Stem) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> Tensor:
        return self.backbone.vectors(images).float()


def export_program(module: nn.Module, side: int, outputs: Sequence[str]) -> Any:
    """A module on uint8 images, shape (n, 3, side, side) with any n, as an ONNX program; its outputs are named."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    pixels = torch.zeros(2, 3, side, side, dtype=torch.uint8)
    with (
        torch.inference_mode(False),
        torch.no_grad(),
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            return torch.onnx.export(
                module.eval(), (pixels,), dynamo=True, verbose=False, optimize=True,
                input_names=["pixels"], output_names=list(outputs), dynamic_shapes=({0: torch.export.Dim("n")},),
            )  # fmt: skip
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def _state(backbone: Backbone | Stem) -> object:
    """What changes when weights do: where each tensor lies, and how often it was written to."""
    tensors = (*backbone.parameters(), *backbone.buffers())
    return [(tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version) for tensor in tensors]
