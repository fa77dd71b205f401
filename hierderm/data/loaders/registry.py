"""The loaders by name: each is a command `hierderm data NAME`, made from the signature of its function.

A loader's parameters say in `Annotated` what they are; positional ones are arguments, the others options, with
`taxonomy` always among them. Its file imports pandas and the like inside the function, as the command line reads the
signatures before it needs them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from hierderm.data.loaders.ddi import read_ddi
from hierderm.data.loaders.derm7pt import read_derm7pt
from hierderm.data.loaders.fitzpatrick17k import read_fitzpatrick17k
from hierderm.data.loaders.folder import read_folder
from hierderm.data.loaders.ham10000 import read_ham10000
from hierderm.data.loaders.huggingface import read_huggingface
from hierderm.data.loaders.isic import read_isic
from hierderm.data.loaders.isic_challenge import read_isic_challenge
from hierderm.data.loaders.pad_ufes import read_pad_ufes
from hierderm.data.loaders.published import Published
from hierderm.data.loaders.scin import read_scin
from hierderm.errors import ConfigError, suggest

LOADERS: dict[str, Callable[..., Published]] = {
    "folder": read_folder,
    "scin": read_scin,
    "fitzpatrick17k": read_fitzpatrick17k,
    "ham10000": read_ham10000,
    "isic": read_isic,
    "isic_challenge": read_isic_challenge,
    "pad_ufes": read_pad_ufes,
    "ddi": read_ddi,
    "derm7pt": read_derm7pt,
    "huggingface": read_huggingface,
}


def loader_of(text: str) -> tuple[str, str] | None:
    """The loader and the place of 'LOADER:PLACE'; None for the path of a table.

    Raises:
        ConfigError: Nothing lies at the path, and what is before its colon is no loader.
    """
    name, colon, place = text.partition(":")
    if not colon or (name not in LOADERS and Path(text).exists()):
        return None
    if name not in LOADERS or not place:
        raise ConfigError(
            f"'{text}' is no table; LOADER:FOLDER needs a loader of {list(LOADERS)}.{suggest(name, LOADERS)}"
        )
    return name, place


def read_from(name: str, place: str, *, taxonomy: str, root: Path | None, write_images: Path) -> Published:
    """What a loader reads from its only argument, by its defaults.

    Args:
        name: A name of `LOADERS`.
        place: The published folder or file.
        taxonomy: An id or a file; '' for the loader's own.
        root: Folder to look for images in, instead of the loader's own.
        write_images: Folder for images that the data set holds within its tables.

    Raises:
        ConfigError: The loader needs a taxonomy, or other options, that only its command takes.
        CaseTableError: What lies there is not as published.
    """
    read = LOADERS[name]
    parameters = list(inspect.signature(read, eval_str=True).parameters.values())
    given = ({"taxonomy": taxonomy} if taxonomy else {}) | {"write_images": write_images}
    given = {p.name: given[p.name] for p in parameters if p.name in given}
    if lacking := [p.name for p in parameters[1:] if p.default is p.empty and p.name not in given]:
        raise ConfigError(f"{name}:{place} needs {lacking}: give --data.taxonomy, or use: hierderm data {name} --help")
    published = read(Path(place) if name != "huggingface" else place, **given)
    return replace(published, root=root) if root and "write_images" not in given else published
