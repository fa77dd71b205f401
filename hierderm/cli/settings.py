"""Settings as flags, `--section.setting VALUE`: named alike in every command and in TOML files."""

from __future__ import annotations

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

    known = {row.name: row for row in every_setting() if sections is None or row.name.split(".")[0] in sections}
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
        settings[name] = _value(value, known.get(name))
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
    """The TOML file among a command's arguments, if there is one, and the settings that override it."""
    words, settings = parse_arguments(arguments)
    return (one_path(words, "TOML file") if words else None), settings


def one_path(words: list[str], what: str) -> Path:
    """The only word among a command's arguments, as the path of what it must be."""
    if len(words) != 1:
        raise ConfigError(f"give one {what}, got {words or 'none'}.")
    return Path(words[0])


def _value(text: str, setting: Setting | None) -> Any:
    """A setting's value; where it holds several: a TOML list, `one,two`, or `all` where the choices are known."""
    from hierderm.config.loading import parse_value

    value = parse_value(text)
    if setting is not None and isinstance(setting.value, str) and not isinstance(value, str):
        return text  # a name such as 007 or 1E5, and no number
    if setting is None or not isinstance(setting.value, tuple) or not isinstance(value, str):
        return value
    if value == "all" and "|" in setting.kind:
        return setting.kind.split("|")
    return [part.strip() for part in value.split(",") if part.strip()]
