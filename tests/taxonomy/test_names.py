"""Which spellings are one name."""

from __future__ import annotations

import unicodedata

from hypothesis import example, given
from hypothesis import strategies as st

from hierderm.taxonomy.names import fold

SIGNS = st.characters(exclude_categories=["Cs"])


@given(st.text(SIGNS, max_size=6), st.text(SIGNS, max_size=6))
def test_names_that_fold_alike_differ_in_case_accents_and_spaces_alone(first: str, second: str) -> None:
    """The slow oracle: what is left of a name once marks of Latin and Greek, case, and what has no ink are gone."""

    def bare(name: str) -> list[str]:
        letters = unicodedata.normalize("NFD", unicodedata.normalize("NFD", name).casefold())
        ink = [s for s in letters if not s.isspace() and unicodedata.category(s) not in ("Cf", "Mn", "Me", "Cc")]
        return list(unicodedata.normalize("NFD", "".join(ink).casefold()))

    if fold(first) == fold(second):
        assert [s for s in bare(first) if unicodedata.category(s) != "Mn"] == [
            s for s in bare(second) if unicodedata.category(s) != "Mn"
        ]


@given(st.text())
@example("µß")
def test_folding_twice_changes_nothing(name: str) -> None:
    assert fold(fold(name)) == fold(name)
