"""The cases that the settings of data name."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from hierderm.config.settings import DataConfig
from hierderm.data.checks import read_cases
from hierderm.data.image_files import SUFFIXES
from hierderm.data.loaders.registry import loader_of, read_from
from hierderm.data.synthetic.recipe import PRESETS, write_synthetic
from hierderm.data.table import CaseTable
from hierderm.errors import ConfigError, some_of, suggest
from hierderm.taxonomy.file import load_taxonomy

logger = logging.getLogger(__name__)


def tables(cases: str) -> list[str]:
    """The files that say what the cases are: the table, or all but the images of a published folder."""
    loader = None if cases.startswith("synthetic:") else loader_of(cases)
    place = Path(loader[1] if loader else cases)
    files = [*sorted(place.glob("[!.]*")), *sorted(place.glob("meta/[!.]*"))] if place.is_dir() else [place]
    return [str(path) for path in files if path.suffix.lower() not in SUFFIXES]


def load_cases(data: DataConfig, folder: Path) -> CaseTable:
    """The checked table that `data` names; built-in data are generated below `folder` first."""
    name, taxonomy, root = data.cases, data.taxonomy, Path(data.image_root) if data.image_root else None
    path = Path(name)
    if name.startswith("synthetic:"):
        preset = name.removeprefix("synthetic:")
        if preset not in PRESETS:
            raise ConfigError(f"unknown built-in data '{name}'.{suggest(preset, PRESETS)} Known: {list(PRESETS)}.")
        text = "Data: the built-in simulated images, %d cases. For your own give --data.cases and --data.taxonomy."
        logger.info(text, PRESETS[preset].n_cases)
        path = write_synthetic(PRESETS[preset], folder / "synthetic")
        taxonomy = taxonomy or str(path.parent / "taxonomy.csv")
    elif loader := loader_of(name):
        logger.info("Reading the published data, checking table and images ...")
        published = read_from(*loader, taxonomy=taxonomy, root=root, write_images=folder / "images")
        for reason, names in published.left_out.items():
            if names:
                logger.warning("%s: left out: %d %s: %s", name, len(names), reason, some_of(names))
        table = published.checked(unreadable=data.unreadable, unknown=data.unknown)
        return replace(table, excluded=(*published.exclusions, *table.excluded))
    elif not taxonomy:
        raise ConfigError("data.taxonomy must name a taxonomy for your own table: a shipped id or a file.")
    logger.info("Checking table and images ...")
    return read_cases(path, load_taxonomy(taxonomy), image_root=root, unreadable=data.unreadable, unknown=data.unknown)


def limited(data: DataConfig, table: CaseTable) -> CaseTable:
    """Leave out kinds of names and rare conditions by choice; what goes is listed in `excluded`."""
    nodes = table.taxonomy.levels[-1]
    counts = table.image_counts()
    kept = [node.name for node in nodes if node.kind in data.kinds and counts.get(node.name, 0) >= data.min_images]
    if not kept:
        raise ConfigError(
            f"no condition is left with data.kinds {list(data.kinds)} and data.min_images "
            f"{data.min_images}; the largest has {max(counts.values())} images."
        )
    return table.with_taxonomy(table.taxonomy.keep(kept))
