"""JSON from a disk, under a schema: it holds what the code expects, or the fault names the key."""

from __future__ import annotations

import json
from collections.abc import Hashable
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast

from hierderm.errors import HierdermError, describe_os_error
from hierderm.files import read_regular

Schema = TypeVar("Schema")
Extra = Literal["forbid", "ignore"]
AGAIN = "Restore a copy, or make it again."
SHOWN = 5  # faults in a message


class _OrNull:
    """Lets null stand for nan, which JSON lacks."""

    def __get_pydantic_core_schema__(self, source: Any, number: Any) -> Any:
        from pydantic_core import core_schema

        def read(value: Any, finite: Any) -> Any:
            return float("nan") if value is None else finite(value)

        return core_schema.no_info_wrap_validator_function(read, number(source))


Known = Annotated[float, _OrNull()]  # nan where it is not defined


def read_json(
    path: Path, schema: type[Schema], error: type[HierdermError], *, extra: Extra = "forbid", again: str = AGAIN
) -> Schema:
    """The content of a JSON file as a value of `schema`, a dataclass or another type.

    Args:
        path: The file, in UTF-8.
        schema: What it must hold. Types are not converted, except whole numbers to floats; numbers must be finite.
        error: What is raised, with the file, each key, its value and `again`.
        extra: Whether keys that the schema lacks are faults or left out.
        again: What to do.
    """
    try:
        text = read_regular(path)
    except OSError as fault:
        raise error(f"{path} can't be read: {describe_os_error(fault)} {again}") from None
    return _parsed(text, schema, str(path), error, extra, again)


def checked(content: Any, schema: type[Schema], source: str, error: type[HierdermError]) -> Schema:
    """As `read_json`, of content that is parsed already; `source` names it."""
    return _parsed(json.dumps(content).encode(), schema, source, error, "forbid", AGAIN)


def _parsed(
    text: bytes, schema: type[Schema], source: str, error: type[HierdermError], extra: Extra, again: str
) -> Schema:
    from pydantic import ValidationError

    try:
        values = _adapter(cast(Hashable, schema), extra).validate_json(b"[" + text + b"\n]")
        if len(values) == 1:
            return cast(Schema, values[0])
        faults = [f"it must hold one value, it holds {len(values)}"]
    except ValidationError as fault:
        faults = [_in_words(one) for one in fault.errors()]
    more = f" and {len(faults) - SHOWN} more fault(s)" if len(faults) > SHOWN else ""
    raise error(f"{source} is damaged: {'; '.join(faults[:SHOWN])}{more}. {again}")


@cache
def _adapter(schema: Hashable, extra: Extra) -> Any:
    """Reads a list of one: the settings of a list hold for the dataclasses in it, which have none of their own."""
    from pydantic import ConfigDict, TypeAdapter  # slow to import

    settings = ConfigDict(strict=True, allow_inf_nan=False, extra=extra)
    return TypeAdapter(list[schema], config=settings)  # type: ignore[valid-type]


def _in_words(fault: Any) -> str:
    key = ".".join(map(str, fault["loc"][1:]))
    if fault["type"] == "json_invalid":
        return str(fault["msg"])
    if fault["type"] == "missing":
        return f"'{key}' is missing"
    if fault["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"'{key}' is not known"
    must = str(fault["msg"]).removeprefix("Value error, ").replace("Input should be", "must be", 1)
    got = repr(fault["input"])
    got = got if len(got) <= 80 else f"{got[:77]}..."
    return f"{key!r} {must}, got {got}" if key else f"it {must}, got {got}"
