"""Settings as flags, `--section.setting VALUE`: named alike in every command and in TOML files."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hierderm.errors import ConfigError, suggest

if TYPE_CHECKING:
    from hierderm.config.describe import Setting

TAKES_SETTINGS = {"ignore_unknown_options": True}  # for click: they arrive among the command's arguments


def parse_arguments(
    arguments: Iterable[str] | None, sections: Collection[str] | None = None
) -> tuple[list[str], dict[str, Any]]:
    """The words among a command's arguments, and the settings by dotted name.

    `sections`: those that the command reads. Without them it reads all, and the loader checks the names, as it knows
    which method reads what.
    """
    from hierderm.config.describe import every_setting

    known: dict[str, list[Setting]] = {}  # of a name in each method that has it
    for row in every_setting():
        if sections is None or row.name.split(".")[0] in sections:
            known.setdefault(row.name, []).append(row)
    words: list[str] = []
    settings: dict[str, Any] = {}
    rest = list(arguments or [])
    while rest:
        flag, equals, value = rest.pop(0).partition("=")
        if not flag.startswith("-"):
            words.append(flag + equals + value)
            continue
        name = flag.removeprefix("--").replace("-", "_")
        if not flag.startswith("--") or (sections is not None and name not in known):
            in_section = [full for full in known if full.endswith(f".{name}")]
            closest = suggest(in_section[0] if in_section else name, known)
            raise ConfigError(f"unknown argument '{flag}'.{closest} List the settings with: hierderm config")
        if not equals:
            if not rest:
                raise ConfigError(f"'{flag}' must be followed by a value.")
            value = rest.pop(0)
        settings[name] = _value(flag, value, rest, known.get(name, []))
    return words, settings


def settings_from(arguments: Iterable[str] | None, sections: Collection[str]) -> dict[str, Any]:
    """The settings of a command whose arguments are nothing but settings of these `sections`, by dotted name."""
    words, settings = parse_arguments(arguments, sections)
    if words:
        raise ConfigError(f"unexpected argument '{words[0]}'.")
    return settings


def require_read(command: str, settings: Collection[str], unread: Collection[str], instead: str) -> None:
    """ConfigError where settings, or sections, are given that a command does not read."""
    if given := [name for name in settings if any(f"{name}.".startswith(f"{one}.") for one in unread)]:
        raise ConfigError(f"{command} does not read {given}. {instead}")


def file_and_settings(arguments: Iterable[str] | None) -> tuple[Path | None, dict[str, Any]]:
    """The TOML file or shipped experiment among a command's arguments, if any, and the settings that override it."""
    words, settings = parse_arguments(arguments)
    return (one_path(words, "TOML file or shipped experiment") if words else None), settings


def one_path(words: list[str], what: str) -> Path:
    """The only word among a command's arguments, as the path of what it must be."""
    if len(words) != 1:
        raise ConfigError(f"give one {what}, got {words or 'none'}.")
    return Path(words[0])


def _value(flag: str, text: str, rest: Iterable[str], rows: Iterable[Setting]) -> Any:
    """A setting's value; where it holds several: a TOML list, `one,two`, or `all` where the choices are known.

    `rest`: the words after it, which may be parts of it; `rows`: the setting in each method that has it. ConfigError
    where it must be a table or a list and the shell has taken it apart, with the form that it leaves whole.
    """
    from hierderm.config.loading import parse_value

    value, kinds = parse_value(text), {type(row.value): row for row in sorted(rows, key=lambda row: bool(row.value))}
    if str in kinds and not isinstance(value, str) and not (tuple in kinds and isinstance(value, list)):
        return text  # a name such as 007 or 1E5, and no number
    known = kinds.get(dict) or kinds.get(tuple)
    opened = text.startswith(("[", "{")) and (known is not None or not kinds)
    if isinstance(value, str) and (opened or dict in kinds):
        what = "list" if text.startswith("[") else "table"
        right = shlex.quote(_inline_form(text, rest, known.value if known else {}))
        raise ConfigError(
            f"'{flag}' must be a {what} of TOML in single quotes, which the shell leaves whole, got '{text}'. "
            f"Write: {flag} {right}"
        )
    if not isinstance(value, str) or tuple not in kinds or (str in kinds and "," not in value):
        return value
    if value == "all" and "|" in kinds[tuple].kind:
        return kinds[tuple].kind.split("|")
    return [part.strip() for part in value.split(",") if part.strip()]


def _inline_form(text: str, rest: Iterable[str], default: Any) -> str:
    """What was meant by `text` and the words after it, as TOML; the default where that can't be told."""
    from hierderm.config.describe import as_toml
    from hierderm.config.loading import parse_value

    words, opened = [text], text.startswith(("[", "{"))
    for word in rest:
        if word.startswith("--") or (words[-1].endswith(("]", "}")) if opened else "=" not in word):
            break
        words.append(word)
    content = " ".join(words)
    if text.startswith("["):
        items = [part.strip(" \"'") for part in content.strip("[]").split(",")]
        return as_toml(tuple(parse_value(item) for item in items if item))
    pairs = [] if "[" in content else re.findall(r"""["']?([\w.-]+)["']?\s*[=:]\s*["']?([^\s,"'{}]+)""", content)
    if pairs:
        return as_toml({key: parse_value(value) for key, value in pairs})
    return as_toml(default) if default else "{ name = value }"
