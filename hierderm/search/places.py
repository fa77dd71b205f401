"""Where an index is kept: in a folder, or in PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from hierderm.errors import MissingExtraError
from hierderm.search import persistence

if TYPE_CHECKING:
    from hierderm.search.case_index import CaseIndex
    from hierderm.search.postgres.place import PostgresPlace

ADDRESSES = ("postgresql://", "postgres://")


class Place(Protocol):
    """What can be done with an index where it is kept."""

    def opened(self) -> CaseIndex:
        """The index as it is now."""

    def updating(self) -> AbstractContextManager[CaseIndex]:
        """The index, changed in the block, whole or not at all; other writers wait meanwhile."""

    def generation(self) -> str:
        """What tells one state of the index from another; '' where there is no index."""

    def require_free(self, *, replace: bool) -> None:
        """OutputError where something is there that is not to be replaced."""

    def save(self, index: CaseIndex, *, replace: bool) -> None:
        """Write an index, whole or not at all."""

    def check(self) -> str:
        """What was found whole, in words; an error where something is not."""

    def forget(self, case_ids: Sequence[str]) -> list[str]:
        """Give up what is still kept of removed cases, and say where none is any more; an error where one is."""


class FolderPlace:
    """The index of a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __str__(self) -> str:
        return str(self.folder)

    def opened(self) -> CaseIndex:
        return persistence.open_index(self.folder)

    def updating(self) -> AbstractContextManager[CaseIndex]:
        return persistence.updating(self.folder)

    def generation(self) -> str:
        return persistence.generation(self.folder)

    def require_free(self, *, replace: bool) -> None:
        persistence.require_free_index(self.folder, replace=replace)

    def save(self, index: CaseIndex, *, replace: bool) -> None:
        persistence.save_index(index, self.folder, replace=replace)

    def check(self) -> str:
        self.opened()
        return "checksums: all files are whole"

    def forget(self, case_ids: Sequence[str]) -> list[str]:
        return persistence.forget(self.folder, case_ids)


def is_address(place: Path | str) -> bool:
    """Whether a place is a server, and not a folder."""
    return str(place).startswith(ADDRESSES)


def place_of(place: Path | str, *, partial: bool = False) -> Place:
    """Where an index is kept.

    Args:
        place: The path of a folder, or the address of a database, 'postgresql://...'; of several that hold a part each,
            with spaces between them.
        partial: Search what is left where one of several servers is down.
    """
    return postgres_place(str(place), partial=partial) if is_address(place) else FolderPlace(Path(place))


def postgres_place(address: str, *, partial: bool = False) -> PostgresPlace:
    """As `place_of`, of addresses; MissingExtraError where the packages are not installed."""
    try:
        from hierderm.search.postgres.place import PostgresPlace
    except ImportError:
        raise MissingExtraError("an index in PostgreSQL", "postgres") from None
    return PostgresPlace(address, partial=partial)
