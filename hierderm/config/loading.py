"""Reading a configuration from TOML and flags, and writing it."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

from pydantic import TypeAdapter, ValidationError

from hierderm.config.settings import Config
from hierderm.errors import ConfigError, suggest

_ADAPTER: TypeAdapter[Config] = TypeAdapter(Config)


def load_config(path: Path | None = None, overrides: Mapping[str, Any] | None = None) -> Config:
    """A Config from a TOML file (defaults without one) with dotted `overrides` laid over it."""
    content: dict[str, Any] = {}
    if path is not None:
        if not path.is_file():
            raise ConfigError(f"{path}: the configuration file does not exist.")
        try:
            content = tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} must be a TOML file: {error}.") from None
    source = str(path) if path is not None else "the command line"
    return build_config(_with(content, overrides or {}), source=source)


def build_config(content: Mapping[str, Any], *, source: str = "configuration") -> Config:
    """A Config from nested dicts; all faults in one ConfigError, unknown keys with the closest known one."""
    try:
        return _ADAPTER.validate_python(dict(content))
    except ValidationError as error:
        known = [name for name, *_ in describe_fields()]
        lines = []
        for fault in error.errors():
            key = ".".join(str(part) for part in fault["loc"])
            if fault["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
                lines.append(f"  unknown key '{key}'.{suggest(key, known)}")
            else:
                what = fault["msg"].removeprefix("Value error, ")
                lines.append(f"  {key or 'the settings together'}: {what}, got {_short(fault.get('input'))}.")
        raise ConfigError("\n".join([f"{source} has {len(lines)} fault(s):", *lines])) from None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def with_overrides(config: Config, overrides: Mapping[str, Any], *, source: str = "overrides") -> Config:
    """A copy with dotted settings changed: `with_overrides(config, {"training.epochs": 3})`."""
    return build_config(_with(asdict(config), overrides), source=source)


def parse_value(text: str) -> Any:
    """A flag's text as TOML would read it (numbers, true, lists), else the text itself."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _with(content: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    result = {key: dict(value) if isinstance(value, Mapping) else value for key, value in content.items()}
    for dotted, value in overrides.items():
        *path, last = dotted.split(".")
        place = result
        for key in path:
            place = place.setdefault(key, {})
            if not isinstance(place, dict):
                raise ConfigError(f"unknown key '{dotted}': '{key}' is no section.")
        place[last] = value
    return result


def describe_fields() -> Iterator[tuple[str, str, Any, str]]:
    """Every setting as (dotted name, type, default, description), for help and docs."""
    for section in fields(Config):
        if is_dataclass(section.default):
            hints = get_type_hints(type(section.default), include_extras=True)
            for setting in fields(section.default):
                described, value = hints[setting.name], getattr(section.default, setting.name)
                texts = [m.description for m in described.__metadata__ if getattr(m, "description", None)]
                inner = get_args(described)[0]
                choices = [a for part in (inner, *get_args(inner)) for a in get_args(part) if isinstance(a, str)]
                kind = "|".join(choices) if choices else type(value).__name__
                yield f"{section.name}.{setting.name}", kind, value, texts[-1]
    yield "name", "str", Config.name, "name of the run; part of folder names"
    yield "focus", "str", Config.focus, "model of a comparison that is set against all others; '' is the last"


def dump_config(config: Config) -> str:
    """The whole configuration as TOML, such that reading it gives the same Config."""
    import tomli_w

    return tomli_w.dumps(asdict(config))
