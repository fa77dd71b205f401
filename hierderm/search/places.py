"""Where an index is kept: in a folder, or in PostgreSQL; both do the same with it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from hierderm.errors import MissingExtraError
from hierderm.search.persistence import FolderPlace

if TYPE_CHECKING:
    from hierderm.search.postgres.place import PostgresPlace

Place: TypeAlias = "FolderPlace | PostgresPlace"
_SCHEME = re.compile(r"\s*[A-Za-z][A-Za-z0-9+.-]+:/|(.*\s)?(password|host|dbname|service)\s*=")  # also one with a slip


def is_address(place: Path | str) -> bool:
    """Whether a place is a server, and not a folder."""
    return _SCHEME.match(str(place)) is not None


def place_of(place: Path | str, *, partial: bool = False) -> Place:
    """Where an index is kept.

    Args:
        place: The path of a folder, or the address of a database, 'postgresql://...'; of several that hold a part each,
            with spaces between them.
        partial: Search what is left where one of several servers is down.

    Returns:
        The place, where there may be an index or none.

    Raises:
        DatabaseError: It is an address that can't be read.
        MissingExtraError: It is one, and the packages for PostgreSQL are not installed.
    """
    return postgres_place(str(place), partial=partial) if is_address(place) else FolderPlace(Path(place))


def postgres_place(address: str, *, partial: bool = False) -> PostgresPlace:
    """As `place_of`, of addresses."""
    try:
        from hierderm.search.postgres.place import PostgresPlace
    except ImportError:
        raise MissingExtraError("an index in PostgreSQL", "postgres") from None
    return PostgresPlace(address, partial=partial)
