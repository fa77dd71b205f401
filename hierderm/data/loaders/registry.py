"""The loaders by name: each is a command `hierderm data NAME`, made from the signature of its function.

A loader's parameters say in `Annotated` what they are; positional ones are arguments, the others options, with
`taxonomy` always among them. Its file imports pandas and the like inside the function, as the command line reads the
signatures before it needs them.
"""

from __future__ import annotations

from collections.abc import Callable

from hierderm.data.loaders.fitzpatrick17k import read_fitzpatrick17k
from hierderm.data.loaders.folder import read_folder
from hierderm.data.loaders.published import Published
from hierderm.data.loaders.scin import read_scin

LOADERS: dict[str, Callable[..., Published]] = {
    "folder": read_folder,
    "scin": read_scin,
    "fitzpatrick17k": read_fitzpatrick17k,
}
