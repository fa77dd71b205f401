"""The leaderboard of a benchmark as a page of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hierderm.report.page import render


def leaderboard_page(
    title: str, titles: Sequence[str], rows: Sequence[Sequence[str]], warnings: Mapping[str, Sequence[str]]
) -> str:
    """HTML of a table that sorts, and of what must be known before believing it."""
    return render("leaderboard.html.j2", title=title, titles=titles, rows=rows, warnings=warnings)
