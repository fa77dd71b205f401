"""What settings there are: each with its value, its meaning, and when it is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from typing import Any, get_args, get_type_hints

import tomli_w

from hierderm.config.conditions import OnlyIf
from hierderm.config.methods import DEFAULT_METHOD, METHODS
from hierderm.config.settings import Comparison, Config
from hierderm.errors import ConfigError, suggest


@dataclass(frozen=True)
class Setting:
    """One setting: its dotted name, type or choices, value, description, and whether and when it is read."""

    name: str
    kind: str
    value: Any
    text: str
    condition: str = ""
    read: bool = True


def settings_of(settings: Config | Comparison) -> list[Setting]:
    """Every setting with its value; a comparison's `training` is a table of its own and not listed."""
    return list(_described(settings, ""))


@cache
def described(method: str = DEFAULT_METHOD) -> tuple[Setting, ...]:
    """Every setting of a model made by `method`, with its default, for help and docs."""
    require_method(method)
    return tuple(settings_of(Config(training=METHODS[method]())))


@cache
def every_setting() -> tuple[Setting, ...]:
    """Every setting of every method and of comparisons."""
    return (*(row for method in METHODS for row in described(method)), *settings_of(Comparison()))


def reads(settings: Config | Comparison, name: str) -> bool:
    """Whether these settings have one of that dotted name, and read it."""
    return any(row.read for row in _described(settings, "") if row.name == name)


def not_default(section: Any, name: str) -> list[str]:
    """Which settings of a section called `name` have another value than their default, by dotted name."""
    default = section.__class__()
    return [f"{name}.{one.name}" for one in fields(section) if getattr(section, one.name) != getattr(default, one.name)]


def known_names() -> frozenset[str]:
    """The dotted names of all settings."""
    return frozenset({row.name for row in every_setting()} | {"training.method"})


def _described(section: Any, prefix: str, condition: str = "", read: bool = True) -> Iterator[Setting]:
    for key, only, text, choices in _fields(section.__class__):
        name, value = f"{prefix}{key}", getattr(section, key)
        needs = " and ".join(filter(None, [condition, only.text.replace("{}", prefix) if only else ""]))
        is_read = read and (only is None or only.holds(section))
        if is_dataclass(value):
            yield from _described(value, f"{name}.", needs, is_read)
        elif text:
            yield Setting(name, choices or type(value).__name__, value, text, needs, is_read)


@cache
def _fields(section: type[Any]) -> list[tuple[str, OnlyIf | None, str, str]]:
    """Of each field of a section its name, when it is read, its description and its choices."""
    hints, found = get_type_hints(section, include_extras=True), []
    for setting in fields(section):
        hint = hints[setting.name]
        extra = getattr(hint, "__metadata__", ())
        only = next((m for m in extra if isinstance(m, OnlyIf)), None)
        texts = [m.description for m in extra if getattr(m, "description", None)]
        inner = get_args(hint)[:1]  # of several choices the type of each
        parts = (*inner, *(part for one in inner for part in get_args(one)))
        choices = [a for part in parts for a in get_args(part) if isinstance(a, str)]
        found.append((setting.name, only, texts[-1] if texts else "", "|".join(choices)))
    return found


def require_method(method: str) -> None:
    if method not in METHODS:
        raise ConfigError(f"training.method must be one of {list(METHODS)}, got '{method}'.{suggest(method, METHODS)}")


def describe_toml(method: str = "") -> str:
    """Every setting of a model made by a method, its default and meaning, as TOML; unread ones as comments."""
    method = method or DEFAULT_METHOD
    sections: dict[str, list[str]] = {}
    for row in described(method):
        section, _, key = row.name.rpartition(".")
        choices = f" ({row.kind})" if "|" in row.kind else ""
        condition = f"; only if {row.condition}" if row.condition else ""
        line = f"{key} = {as_toml(row.value)}  # {row.text}{choices}{condition}"
        sections.setdefault(section, []).append(line if row.read else f"# {line}")
    sections.setdefault("training", []).insert(0, f"method = '{method}'  # {', '.join(METHODS)}")
    blocks = ["\n".join([f"[{name}]", *lines] if name else lines) for name, lines in sections.items()]
    return "\n\n".join(blocks)


def as_toml(value: Any) -> str:
    """A setting's value as TOML, in one line."""
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{key} = {as_toml(inner)}' for key, inner in value.items())} }}"
    if isinstance(value, tuple):
        return f"[{', '.join(map(as_toml, value))}]"
    return tomli_w.dumps({"value": value}).removeprefix("value = ").strip()
