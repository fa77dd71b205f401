"""Reading settings from TOML and flags, all faults at once, and writing them as TOML."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import tomli_w
from pydantic import TypeAdapter, ValidationError

from hierderm.config.describe import described, known_names, require_method, settings_of
from hierderm.config.methods import DEFAULT_METHOD, METHODS
from hierderm.config.settings import Comparison, Config, ModelEntry
from hierderm.errors import ConfigError, suggest
from hierderm.files import os_faults
from hierderm.shipped import settings_file

SHARED = ("data", "split", "evaluation", "protocol", "models", "name", "focus")  # alike for all models of a comparison
Settings = TypeVar("Settings", Config, Comparison)


def load_config(path: Path | str | None = None, overrides: Mapping[str, Any] | None = None) -> Config:
    """The settings of one model from a TOML file, by default the defaults, with dotted overrides.

    Args:
        path: A TOML file with the sections that `hierderm config` lists, or the name of a shipped experiment.
        overrides: Dotted names and values, e.g. `{"training.epochs": 5}`; they win over the file.

    Returns:
        The settings, complete and checked.

    Raises:
        ConfigError: Faults of the file or the overrides, all in one message; a setting that the chosen
            method does not read is one.
    """
    return build_config(_read(path, overrides), source=_source(path))


def load_comparison(path: Path | str | None = None, overrides: Mapping[str, Any] | None = None) -> Comparison:
    """The settings of a comparison from a TOML file, by default the defaults, with dotted overrides.

    Args:
        path: A TOML file with `[[models]]`, or the name of a shipped experiment such as 'three_way'.
        overrides: Dotted names and values of what the models share; they win over the file.

    Returns:
        The settings, complete and checked.

    Raises:
        ConfigError: Faults of the file or the overrides, all in one message.
    """
    return build_comparison(_read(path, overrides), source=_source(path))


def load_tuning(path: Path | str | None, overrides: Mapping[str, Any]) -> tuple[Config, dict[str, str]]:
    """As `load_config` from a file that may have a table `[tune]`, and its ranges as texts, by dotted name."""
    content = _read(path, overrides)
    ranges = dict(_leaves(content.pop("tune", {})))
    faults = [
        f"tune.{name}: a range must be a text such as '1e-4:1e-2:log', or a list, got {_short(value)}."
        for name, value in ranges.items()
        if not isinstance(value, str | list)
    ]
    if faults:
        raise _faulty(_source(path), faults)
    texts = {name: value if isinstance(value, str) else ",".join(map(str, value)) for name, value in ranges.items()}
    return build_config(content, source=_source(path)), texts


def load_record(path: Path) -> Config:
    """The settings of a run, which hierderm wrote beside it; one that is not read does no harm there."""
    return build_config(_without_unread(Config, _read(path, None), ()), source=str(path))


def load_settings(path: Path) -> Config | Comparison:
    """The settings of a TOML file: a comparison where it has `[[models]]`, else one model."""
    content = _read(path, None)
    build = build_comparison if "models" in content else build_config
    return build(content, source=str(path))


def build_config(content: Mapping[str, Any], *, source: str = "configuration") -> Config:
    """A Config from nested dicts; all faults in one ConfigError, unknown keys with the closest known one."""
    if "models" in content:
        raise ConfigError(f"{source} is a comparison of [[models]], one model is wanted. Use: hierderm compare")
    config = _validated(Config, content, source)
    _require_read(config, content, source)
    return config


def build_comparison(content: Mapping[str, Any], *, source: str = "configuration") -> Comparison:
    """A Comparison from nested dicts, each of its models checked; all faults of a part in one ConfigError."""
    comparison = _validated(Comparison, content, source)
    _require_read(comparison, content, source)
    configs = [model_config(comparison, entry) for entry in entries_of(comparison)]
    rows = [row for config in configs for row in settings_of(config)]
    read = {row.name for row in rows if row.read} | {"training.method"}
    given = dict.fromkeys(_named({"training": comparison.training}))
    unread = [name for name in given if not _overlaps(name, read)]
    conditions = {name: row.condition for row in rows for name in unread if _overlaps(name, [row.name])}
    if unread:
        methods = [config.training.method for config in configs]
        faults = [_unread(name, conditions[name]) if name in conditions else _unknown(name, methods) for name in unread]
        raise _faulty(source, faults)
    return comparison


def entries_of(comparison: Comparison) -> tuple[ModelEntry, ...]:
    """The models of a comparison; without any the one that its shared settings describe, under its name."""
    return comparison.models or (ModelEntry(name=comparison.name),)


def model_config(comparison: Comparison, entry: ModelEntry) -> Config:
    """The settings of one model of a comparison: shared ones that its method reads, overridden by its own."""
    source = f"model '{entry.name}'"
    if "training.method" in entry.set:
        raise ConfigError(f"{source} must give its method by method = '...', not in its set.")
    changed = [key for key in entry.set if key.split(".")[0] in SHARED]
    if changed:
        raise ConfigError(f"{source} must not change {changed}: all models share data, split and evaluation.")
    method = entry.method or str(comparison.training.get("method", DEFAULT_METHOD))
    known = {row.name.removeprefix("training.") for row in described(method)}
    training = {name: value for name, value in _leaves(comparison.training, known) if _overlaps(name, known)}
    whole = asdict(comparison)
    shared = {key: whole[key] for key in ("data", "split", "backbone", "evaluation")}
    shared |= {"name": entry.name, "training": _with({}, {**training, "method": method})}
    return build_config(_without_unread(Config, _with(shared, entry.set), entry.set), source=source)


def with_overrides(settings: Settings, overrides: Mapping[str, Any], *, source: str = "overrides") -> Settings:
    """A copy with dotted settings changed: `with_overrides(config, {"training.epochs": 3})`."""
    content = to_dict(settings)
    if isinstance(settings, Comparison):
        return build_comparison(_without_unread(Comparison, _with(content, overrides), overrides), source=source)
    if overrides.get("training.method", settings.training.method) != settings.training.method:
        content["training"] = {}  # another method's settings are not its own
    return build_config(_without_unread(Config, _with(content, overrides), overrides), source=source)


def to_dict(settings: Config | Comparison) -> dict[str, Any]:
    """The settings that are read, as nested dicts; building them again gives the same settings."""
    return _without(asdict(settings), [row.name for row in settings_of(settings) if not row.read])


def dump_config(settings: Config | Comparison) -> str:
    """The settings that are read, as TOML, such that reading it gives the same settings."""
    return tomli_w.dumps(to_dict(settings))


# --- reading and checking ----------------------------------------------------------------------------------------


def parse_value(text: str) -> Any:
    """A flag's text as TOML would read it (numbers, true, lists), else the text itself."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _source(path: Path | str | None) -> str:
    return str(path) if path is not None else "the command line"


@os_faults(ConfigError)
def _read(path: Path | str | None, overrides: Mapping[str, Any] | None) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if path is not None:
        path = settings_file(path)
        try:
            content = tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} must be a TOML file: {error}.") from None
    return _with(content, overrides or {})


def _methods(content: Mapping[str, Any]) -> list[str]:
    """The methods that nested dicts of settings name, before they are checked."""

    def named(section: Any) -> str:
        return str(section.get("method") or "") if isinstance(section, Mapping) else ""

    shared = named(content.get("training")) or DEFAULT_METHOD
    entries = content.get("models")
    own = {named(entry) or shared for entry in entries} if isinstance(entries, list | tuple) else set()
    return sorted(own) or [shared]


def _faulty(source: str, faults: Sequence[str]) -> ConfigError:
    return ConfigError("\n".join([f"{source} has {len(faults)} fault(s):", *(f"  {fault}" for fault in faults)]))


def _validated(kind: type[Settings], content: Mapping[str, Any], source: str) -> Settings:
    content = dict(content)
    methods = _methods(content)
    if kind is Config and isinstance(content.get("training", {}), Mapping):
        require_method(methods[0])
        content["training"] = {**content.get("training", {}), "method": methods[0]}
    try:
        return TypeAdapter(kind).validate_python(content)
    except ValidationError as error:
        faults = []
        for fault in error.errors():
            place = [str(part) for part in fault["loc"]]
            if place[:1] == ["training"] and place[1:2] == methods:
                del place[1]  # pydantic names the member of the union
            key = ".".join(place)
            if fault["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
                given = dict.fromkeys(name for name in _named(content) if f"{name}.".startswith(f"{key}."))
                faults += [_unknown(name, methods) for name in given or [key]]
            else:
                value = fault.get("input")
                got = "" if isinstance(value, Mapping) else f", got {_short(value)}"
                choices = re.findall("'([^']+)'", str(fault.get("ctx", {}).get("expected", "")))
                closest = suggest(str(value), choices)
                faults.append(f"{key or 'settings'}: {fault['msg'].removeprefix('Value error, ')}{got}.{closest}")
        raise _faulty(source, faults) from None


def _require_read(settings: Config | Comparison, content: Mapping[str, Any], source: str) -> None:
    """ConfigError where `content`, of which the settings were made, names some that they do not read."""
    given = list(_named(content))
    unread = [row for row in settings_of(settings) if not row.read and _overlaps(row.name, given)]
    if unread:
        raise _faulty(source, [_unread(row.name, row.condition) for row in unread])


def _unread(name: str, condition: str) -> str:
    return f"'{name}' is read only where {condition}. Leave it out, or change that."


def _unknown(key: str, methods: Sequence[str]) -> str:
    """Why a key is none of these methods': which method reads it, or the closest that there is."""
    readers: dict[str, list[str]] = {}
    for method in METHODS:
        for row in described(method):
            readers.setdefault(row.name, []).append(method)
    alike = [name for name in readers if name.startswith("training.") and name.endswith(f".{key.rpartition('.')[2]}")]
    for full in (key, f"training.{key}", *alike):
        found = sorted({method for name in readers if _overlaps(full, [name]) for method in readers[name]})
        if found and not set(found) & set(methods):
            hint = "" if full == key else f" as '{full}'"
            return f"'{key}' is read{hint} by method {_listed(found)} only, training.method is {_listed(methods)}."
        if found and full != key:
            return f"unknown key '{key}'. It is '{full}'."
    if key in known_names():
        return f"'{key}' is a setting of a comparison, which has [[models]]."
    return f"unknown key '{key}'.{suggest(key, known_names())}"


def _listed(names: Iterable[str]) -> str:
    return " or ".join(f"'{name}'" for name in sorted(set(names)))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _leaves(content: Mapping[str, Any], whole: Collection[str] = (), prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names and values; a table that is one setting's value (options, levels) is split, too, unless `whole`."""
    for key, value in content.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value and name not in whole:
            yield from _leaves(value, whole, f"{name}.")
        else:
            yield name, value


def _named(content: Mapping[str, Any]) -> Iterator[str]:
    """Dotted names of the settings in nested dicts; of a setting that is a table, such as levels, its own name.

    A section without settings names none.
    """
    known = known_names()
    sections = {name[:end] for name in known for end, sign in enumerate(name) if sign == "."}
    for name, value in _leaves(content):
        if value == {} and name in sections:
            continue
        parts = name.split(".")
        starts = [".".join(parts[:length]) for length in range(1, len(parts))]
        yield next((start for start in starts if start in known or f"training.{start}" in known), name)


def _overlaps(name: str, names: Iterable[str]) -> bool:
    """Whether `name` is among `names`, or one of them a part of it or it a part of one."""
    return any(f"{name}.".startswith(f"{other}.") or f"{other}.".startswith(f"{name}.") for other in names)


def _without(content: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """A copy without these dotted names, and without sections that lose all theirs."""
    result = _with(content, {})
    for name in names:
        parts = name.split(".")
        places: list[Any] = [result]
        for key in parts[:-1]:
            places.append(places[-1].get(key, {}))
        for place, key in zip(places[::-1], parts[::-1], strict=True):
            if not place.get(key) or key == parts[-1]:
                place.pop(key, None)
    return result


def _without_unread(kind: type[Settings], content: Mapping[str, Any], wanted: Collection[str]) -> dict[str, Any]:
    """Without inherited settings that others of `content` make unread; those `wanted` stay, to be refused."""
    try:
        config = _validated(kind, content, "")
    except ConfigError:
        return dict(content)  # the faults are reported where they belong
    names = [row.name for row in settings_of(config) if not row.read and not _overlaps(row.name, wanted)]
    less = _without(content, names)
    return less if less == content else _without_unread(kind, less, wanted)  # what one setting left out decides, too


def _with(content: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """A copy with dotted names set; sections that are missing are made."""

    def copied(value: Any) -> Any:
        return {key: copied(inner) for key, inner in value.items()} if isinstance(value, Mapping) else value

    result: dict[str, Any] = copied(content)
    for dotted, value in overrides.items():
        *path, last = dotted.split(".")
        place = result
        for key in path:
            place = place.setdefault(key, {})
            if not isinstance(place, dict):
                raise ConfigError(f"unknown key '{dotted}': '{key}' is no section.")
        place[last] = copied(value)
    return result
