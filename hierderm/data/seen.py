"""What a trained model has seen, so that an external test can be checked: hashes and fingerprints, not images."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from hierderm import columns as c
from hierderm.data.look_alikes import Fingerprints, fingerprints_of, look_alikes
from hierderm.data.overlay import GRID, SHAPE
from hierderm.data.table import CaseTable, log_excluded
from hierderm.errors import CaseTableError, CheckpointError, Fault, describe_faults
from hierderm.files import text_hash

Choice = Literal["error", "exclude"]
HASH_BYTES = 6  # twelve hex digits
_SHAPES = {
    "cases": ((HASH_BYTES,), np.uint8),
    "files": ((HASH_BYTES,), np.uint8),
    "shapes": ((SHAPE, SHAPE), np.float16),
    "details": ((GRID * GRID // 8,), np.uint8),
}


@dataclass(frozen=True)
class Seen:
    """The training and validation images of a model.

    `cases`, `files`: hashes of the case ids and of the image files, shape (n_images,), text. `images`: fingerprints.
    """

    cases: npt.NDArray[np.str_]
    files: npt.NDArray[np.str_]
    images: Fingerprints

    @classmethod
    def of(cls, table: CaseTable) -> Seen:
        """Those of a table with a split."""
        rows = np.flatnonzero(table.splits != c.TEST)
        cases = np.array([text_hash(case) for case in table.case_ids[rows]])
        hashes = table.image_hashes
        return cls(cases, np.array(hashes)[rows], fingerprints_of(table.paths, hashes).select(rows))

    def save(self, path: Path) -> None:
        """Write one safetensors file."""
        hashes = {name: [list(bytes.fromhex(text)) for text in getattr(self, name)] for name in ("cases", "files")}
        arrays = {name: np.array(rows, dtype=np.uint8).reshape(-1, HASH_BYTES) for name, rows in hashes.items()}
        save_file({**arrays, "shapes": self.images.shapes, "details": self.images.details}, path)

    @classmethod
    def load(cls, path: Path) -> Seen:
        """Read what `save` wrote; CheckpointError where it is something else."""
        try:
            found = load_file(path)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path} is damaged ({error}). Train again.") from None
        kinds = {name: (array.shape[1:], array.dtype.type) for name, array in found.items()}
        finite = "shapes" in found and bool(np.isfinite(found["shapes"]).all())
        if kinds != _SHAPES or len({len(array) for array in found.values()}) != 1 or not finite:
            raise CheckpointError(f"{path} must hold what the model has seen, got {kinds}. Train again.")
        cases, files = (np.array([bytes(row).hex() for row in found[name]], dtype=str) for name in ("cases", "files"))
        return cls(cases, files, Fingerprints(found["shapes"], found["details"]))

    def found_in(self, table: CaseTable) -> dict[int, str]:
        """Which rows of a table the model has seen, and how that shows: by position."""
        cases, files, hashes = set(self.cases), set(self.files), table.image_hashes
        pairs = look_alikes(fingerprints_of(table.paths, hashes), self.images)
        found = {int(row): "it is the same photograph as a training image" for row in pairs[:, 0]}
        found |= {row: "its file is a training image" for row, name in enumerate(hashes) if name in files}
        seen = {case for case in set(table.case_ids.tolist()) if text_hash(case) in cases}
        return found | {
            row: f"case_id '{case}' is that of a training case"
            for row, case in enumerate(table.case_ids)
            if case in seen
        }


def external(table: CaseTable, seen: Seen | None, model: str, choice: Choice) -> CaseTable:
    """A table of another source than a model's training, without what the model has seen.

    Args:
        table: The cases.
        seen: What the model has seen.
        model: Its name, for messages.
        choice: Whether what it has seen is an 'error', or its cases are to 'exclude' and list.

    Raises:
        CaseTableError: The images and cases that the model has seen, if they are an error.
        CheckpointError: The model does not know what it has seen.
    """
    if seen is None:
        raise CheckpointError(
            f"{model} does not record what it was trained on, so that no test can be shown to be external: it is a "
            "backbone, an ONNX file, from the hub, or of an earlier version. Use the folder of its "
            "training, or train again."
        )
    found = seen.found_in(table)
    images = table.frame[c.IMAGE_ID]
    faults = tuple(Fault(f"image '{images.iloc[row]}'", f"{what}.") for row, what in sorted(found.items()))
    if faults and choice == "error":
        title = f"the test must have nothing that {model} has seen; {len(faults)} of {len(table)} images:"
        hint = (
            "\nThey can be left out by choice: --external exclude. Other cases of the same ids need ids of their own."
        )
        raise CaseTableError(describe_faults(title, faults) + hint)
    kept = ~np.isin(table.case_ids, table.case_ids[list(found)])
    if not kept.any():
        raise CaseTableError(f"no case is left: {model} has seen something of each.")
    log_excluded(f"seen by {model}", faults)
    return replace(table.select(kept), excluded=(*table.excluded, *faults))
