"""What hierderm raises, and how faults of the user's input are reported.

Every message says what must hold, what came (file, row, value) and what to do. Faults of one file are collected
and raised together, so that a table is mended in one pass.
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


class HierdermError(Exception):
    """The base of all errors a user can mend; the command line prints its text without a traceback."""


class ConfigError(HierdermError):
    """A configuration file or flag is wrong."""


class TaxonomyError(HierdermError):
    """A taxonomy file is faulty, or a name is not in the tree."""


class CaseTableError(HierdermError):
    """A table of images and cases is faulty, or does not fit its split."""


class CheckpointError(HierdermError):
    """Weights, preprocessing, taxonomy or split of a saved model are damaged or do not fit."""


class ModelError(HierdermError):
    """A model is asked for what it does not have: text, classes, a level, or a device."""


class EmbeddingError(HierdermError):
    """Arrays of embeddings or labels do not have the shape or the content they must have."""


class IndexFolderError(HierdermError):
    """The folder of a case index is damaged, foreign or half-written, or does not fit the query."""


class SearchError(HierdermError):
    """A query or a filter asks for what an index does not have."""


class DatabaseError(HierdermError):
    """A PostgreSQL server can't be reached, refuses, has no space left, or holds something else than an index."""


class BenchmarkError(HierdermError):
    """A benchmark names a task or a model that is not there, or its results do not fit together."""


class OutputError(HierdermError):
    """An output path can't be written, or holds something that would be lost."""


class EvaluationWarning(UserWarning):
    """Values that are correct but misleading: of a collapsed embedding, or with test images that occur twice."""


class MissingExtraError(HierdermError):
    """An optional part is used and its package is not installed; `extra` or `package` says what to install."""

    def __init__(self, purpose: str, extra: str = "", *, package: str = "") -> None:
        wanted = package or f"'hierderm[{extra}]'"
        super().__init__(f"{purpose} needs an optional package. Install it with: pip install {wanted}")

    def __reduce__(self) -> tuple[type[HierdermError], tuple[object, ...]]:
        return HierdermError, self.args  # from another process, with the whole message


@dataclass(frozen=True)
class Fault:
    """One thing wrong with an input: where it is and what is wrong with it."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


def describe_faults(title: str, faults: Sequence[Fault], *, shown: int = 50) -> str:
    """All faults as one message: `title`, then one line a fault, at most `shown` of them and a count of the rest."""
    lines = [title, *(f"  {fault}" for fault in faults[:shown])]
    if len(faults) > shown:
        lines.append(f"  ... and {len(faults) - shown} more")
    return "\n".join(lines)


def some_of(names: Sequence[str]) -> str:
    """The first three names, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def closest(name: str, known: Iterable[str]) -> list[str]:
    """Up to three names in `known` that resemble `name`, the closest first."""
    by_fold = {candidate.casefold(): candidate for candidate in known}
    return [by_fold[fold] for fold in difflib.get_close_matches(name.casefold(), list(by_fold), n=3, cutoff=0.6)]


def suggest(name: str, known: Iterable[str]) -> str:
    """' Closest: ...' with the names in `known` that resemble `name`, or '' where none does."""
    names = closest(name, known)
    return f" Closest: {', '.join(map(repr, names))}." if names else ""


_WHAT_TO_DO = {
    errno.ENOSPC: "Free some space, or choose a folder on another disk.",
    errno.EDQUOT: "Free some space, or choose a folder on another disk.",
    errno.EROFS: "Choose a folder that can be written.",
    errno.EACCES: "Choose another place, or ask for permission.",
    errno.EPERM: "Choose another place, or ask for permission.",
    errno.ENOTDIR: "A part of the path is a file: choose another place.",
    errno.EEXIST: "A file is in the way: choose another place.",
    errno.EISDIR: "It is a folder: name a file.",
    errno.ENOENT: "Check the path.",
    errno.ENAMETOOLONG: "Choose a shorter name.",
    errno.EMFILE: "Too many files are open: use fewer workers, or raise the limit (ulimit -n).",
}


def describe_os_error(error: OSError) -> str:
    """What the operating system refused, where, and what to do."""
    paths = [str(path) for path in (error.filename, error.filename2) if path]
    reason = error.strerror or str(error) or type(error).__name__
    advice = _WHAT_TO_DO.get(error.errno or 0, "")
    return f"{' -> '.join(paths)}{': ' if paths else ''}{reason}. {advice}".rstrip()
