"""What a setting says of itself: the line beside it, and where it is read at all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import Field


def doc(text: str) -> Any:
    """The one line that `hierderm config` prints beside a setting."""
    return Field(description=text)


@dataclass(frozen=True)
class OnlyIf:
    """A setting is read only where `holds(its section)`; `text` says when, '{}' standing for the section's name."""

    holds: Callable[[Any], bool]
    text: str


def only_if(setting: str, *values: str) -> OnlyIf:
    """Read only where `setting` of the same section has one of these values."""
    return OnlyIf(lambda section: getattr(section, setting) in values, f"{{}}{setting} is {' or '.join(values)}")


def both(first: OnlyIf, second: OnlyIf) -> OnlyIf:
    """Read only where both hold."""
    return OnlyIf(lambda section: first.holds(section) and second.holds(section), f"{first.text} and {second.text}")
