"""Which spellings are one name."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from functools import lru_cache

_JOINERS = "\u200c\u200d"  # without width, but part of the spelling of Persian and Indian words


@lru_cache(maxsize=100_000)  # tables repeat their names
def fold(name: str) -> str:
    """`name` without case and accents of Latin and Greek letters, with single spaces: what two names of a node share.

    Nothing else is lost: letters of all scripts, signs and punctuation stay, so 'HPV+' is not 'HPV-'. Marks of other
    scripts are no accents but letters of their own. Characters without width or ink go, as nobody can see them.
    """
    folded = unicodedata.normalize("NFD", unicodedata.normalize("NFD", name).casefold())
    kept, plain = [], False
    for sign in folded:
        if "\u0300" <= sign <= "\u036f" and plain:
            continue
        plain = unicodedata.name(sign, "").startswith(("LATIN", "GREEK"))
        if unicodedata.category(sign) != "Cf" or sign in _JOINERS:
            kept.append(sign)
    folded = " ".join("".join(kept).split())
    return folded if folded == name else fold(folded)  # e.g. a sign without width between a letter and its accent


def joined_spellings(names: Iterable[str]) -> list[str]:
    """Which different spellings have the same fold, in words, for the user to see what counts as one."""
    spellings: dict[str, dict[str, None]] = {}
    for name in names:
        spellings.setdefault(fold(name), {})[name] = None
    return [" = ".join(f"'{name}'" for name in found) for found in spellings.values() if len(found) > 1]
