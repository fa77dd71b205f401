"""Embeddings of a table in shards, each by a process of its own, and the table that they make together."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hierderm import columns as c
from hierderm.artifacts import holds, read_header
from hierderm.data.same_files import two_splits
from hierderm.data.shard import Shard
from hierderm.data.table import CaseTable
from hierderm.embeddings import KIND, EmbeddingTable, Provenance
from hierderm.errors import EmbeddingError, some_of
from hierderm.types import Vectors


@dataclass(frozen=True)
class Source:
    """What all shards must be of: the hash of the table's file, and the options that their rows depend on."""

    table: str
    options: dict[str, str]

    def key(self, shard: Shard) -> dict[str, Any]:
        """What the header of a shard keeps."""
        return {"shard": str(shard), "table": self.table, **self.options}


def finished(folder: Path, key: Mapping[str, Any]) -> int | None:
    """How many embeddings the shard of this key has in its folder, None where it is not there."""
    if not holds(folder, KIND):
        return None
    found = read_header(folder, KIND).content.get("key")
    if not isinstance(found, dict) or {**found, "left_out": 0} != {**key, "left_out": 0}:
        return None
    return len(EmbeddingTable.load(folder))


def save_shard(embedded: EmbeddingTable, n_left_out: int, folder: Path, key: Mapping[str, Any], replace: bool) -> None:
    """Write the embeddings of a shard, of whose rows some were left out by choice."""
    embedded.save(folder, key={**key, "left_out": n_left_out}, replace=replace)


def join_shards(out: Path, source: Source, cases: CaseTable, provenance: Provenance) -> EmbeddingTable:
    """The embeddings of all rows from the shards beside `out`, as one process would give them.

    Args:
        out: The folder that the shards were embedded for.
        source: The table and the options.
        cases: All rows of the table, whose images were not looked at.
        provenance: What the embeddings must be made by.

    Raises:
        EmbeddingError: Shards that are missing, damaged, of another table, model or option, or that do not have each
            row once: all of them in one message.
    """
    folders = _folders(out)
    count = next(iter(folders)).count
    whole, faults, parts = len(cases) + len(cases.excluded), list[str](), list[EmbeddingTable]()
    if missing := [str(shard) for number in range(1, count + 1) if (shard := Shard(number, count)) not in folders]:
        faults.append(
            f"shard(s) {', '.join(missing)} are missing: give the same command with --shard {missing[0]} in place of "
            "--join, and so on. What they had embedded when they were stopped is kept."
        )
    for shard, folder in sorted(folders.items(), key=lambda one: one[0].number):
        try:
            part = EmbeddingTable.load(folder)
        except EmbeddingError as fault:
            faults.append(f"shard {shard} is damaged: {fault} Delete the folder and embed it again.")
            continue
        key = read_header(folder, KIND).content["key"]
        rows = shard.rows(whole)
        faults += [f"shard {shard}: {what}" for what in _foreign(key, source.key(shard), part, provenance)]
        if len(part) + int(key.get("left_out", 0)) != rows.stop - rows.start:
            faults.append(f"shard {shard} must be of {rows.stop - rows.start} rows of the table, it is of {len(part)}.")
        parts.append(part)
    if not faults:
        frame = pd.concat([part.frame for part in parts], ignore_index=True)
        names = [f"row of {image}" for image in frame[c.IMAGE_ID]]
        faults += [*_row_faults(frame, cases), *map(str, two_splits(frame, names))]
    if faults:
        raise EmbeddingError("\n  ".join([f"{out} can't be joined:", *faults]))
    embeddings = np.concatenate([part.embeddings for part in parts])
    return EmbeddingTable(embeddings, frame, provenance, _probabilities(parts))


def _folders(out: Path) -> dict[Shard, Path]:
    """The shards that lie beside a folder."""
    names = re.compile(re.escape(out.name) + r"\.(\d+)-of-(\d+)")
    matches = [(names.fullmatch(path.name), path) for path in sorted(out.absolute().parent.glob(f"{out.name}.*"))]
    found = {Shard(int(match[1]), int(match[2])): path for match, path in matches if match}
    counts = sorted({shard.count for shard in found})
    if len(counts) != 1:
        what = (
            f"there are shards of {', '.join(map(str, counts))}: delete those of the other"
            if counts
            else "there are none"
        )
        raise EmbeddingError(f"{out} must have shards of one number beside it, {what}.")
    return found


def _foreign(key: Any, wanted: Mapping[str, Any], part: EmbeddingTable, provenance: Provenance) -> list[str]:
    """In what a shard differs from what was asked for."""
    found = dict(key) if isinstance(key, dict) else {}
    pairs = [(name, found.get(name), value) for name, value in wanted.items()]
    made_by, asked = asdict(part.provenance), asdict(provenance)
    pairs += [
        (name, made_by[name], value) for name, value in asked.items() if name != "model"
    ]  # a folder may have moved
    return [
        f"its {name} is {own!r}, not {value!r}. Embed it again, with --replace."
        for name, own, value in pairs
        if own != value
    ]


def _row_faults(frame: pd.DataFrame, cases: CaseTable) -> list[str]:
    """Rows of the shards that are not those of the table, in its order, each once."""
    place = {image: number for number, image in enumerate(cases.frame[c.IMAGE_ID])}
    found = np.array([place.get(image, -1) for image in frame[c.IMAGE_ID]])
    if (found < 0).any():
        return [
            f"{int((found < 0).sum())} image(s) are not in the table: {some_of(list(frame[c.IMAGE_ID][found < 0]))}."
        ]
    if (wrong := np.flatnonzero(np.diff(found) <= 0)).size:
        names = some_of(list(frame[c.IMAGE_ID].iloc[wrong + 1]))
        return [f"images are not there once, in the table's order: {names}."]
    return []


def _probabilities(parts: list[EmbeddingTable]) -> Vectors | None:
    known = [part.probabilities for part in parts if part.probabilities is not None]
    return np.concatenate(known) if known else None
