"""Removing cases with a proof: what each place where they could still be says of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hierderm.errors import SearchError, some_of
from hierderm.search.places import Place


def remove_and_prove(place: Place, case_ids: Sequence[str]) -> list[str]:
    """Remove the cases that are there, give up what is still kept of them, and look everywhere.

    Returns:
        What was looked at, a line each.

    Raises:
        SearchError: A case is found where none should be.
    """
    lines, vectors = [], None
    with place.updating() as index:
        before, gallery = len(index), index.gallery
        known = sorted(gallery.case_numbers(case_ids))
        if known:
            rows = np.array([row for case in known for row in gallery.case_rows(case)])
            vectors = np.array(gallery.vectors_at(rows))
            index.remove(known)
        lines.append(
            f"{place}: {before - len(index)} images of {len(known)} cases removed, {len(index)} images are left"
        )
    if absent := sorted(set(case_ids) - set(known)):
        lines.append(f"{len(absent)} case(s) were not in the index before: {some_of(absent)}")
    lines += place.forget(case_ids)
    opened = place.opened()
    if still := opened.gallery.case_numbers(case_ids):
        raise SearchError(f"{len(still)} case(s) are still in the index: {some_of(sorted(still))}. Remove them again.")
    lines.append("index: none of their ids")
    if vectors is not None:
        found = opened.search(vectors, k=min(10, opened.n_cases)).to_list()
        again = sorted({hit.case_id for hits in found for hit in hits} & set(case_ids))
        if again:
            raise SearchError(f"a search for their own vectors still finds {some_of(again)}. Build the index again.")
        lines.append(f"search: their {len(vectors)} vectors find other cases only")
    return lines
