"""What the attack counts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

# What an attempt can end in. The first two are as they should be.
OUTCOMES = ("survived", "refused", "lost", "wrong", "silent", "traceback", "hang")
FAILURES = ("lost", "wrong", "traceback", "hang")


@dataclass
class Row:
    """The attempts of one kind on one target; `notes`: one example of each failure, and what was silent."""

    part: str
    target: str
    counts: Counter[str] = field(default_factory=Counter)
    notes: dict[str, str] = field(default_factory=dict)

    def add(self, outcome: str, note: str = "") -> None:
        """Count an attempt; the first note of an outcome is kept."""
        assert outcome in OUTCOMES, outcome
        self.counts[outcome] += 1
        if note:
            self.notes.setdefault(outcome, note[:600])

    def join(self, other: Row) -> None:
        """Add the attempts of another row of the same target."""
        self.counts += other.counts
        self.notes = {**other.notes, **self.notes}

    def to_dict(self) -> dict[str, object]:
        attempts = sum(self.counts.values())
        counts = {outcome: self.counts[outcome] for outcome in OUTCOMES}
        return {"part": self.part, "target": self.target, "attempts": attempts, **counts, "notes": self.notes}


def printed(rows: list[Row]) -> str:
    """The table as text, with totals."""
    total = Row("total", "")
    for row in rows:
        total.counts += row.counts
    lines = [f"{'':32} {'attempts':>9}" + "".join(f"{name:>10}" for name in OUTCOMES)]
    for row in [*rows, total]:
        counts = "".join(f"{row.counts[name]:>10}" for name in OUTCOMES)
        lines.append(f"{f'{row.part} {row.target}':32} {sum(row.counts.values()):>9}{counts}")
    notes = [
        f"  {row.part} {row.target}, {outcome}: {note}" for row in rows for outcome, note in sorted(row.notes.items())
    ]
    return "\n".join([*lines, "", *notes])
