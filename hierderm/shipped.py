"""What ships with hierderm: taxonomies, and experiments that commands take by name."""

from __future__ import annotations

from pathlib import Path

from hierderm.errors import ConfigError, suggest

_PACKAGE = Path(__file__).parent


def shipped(folder: str) -> Path:
    """A folder of data that lies at the top of the repository and inside the package of a wheel."""
    inside = _PACKAGE / "shipped" / folder
    return inside if inside.is_dir() else _PACKAGE.parent / folder


def shipped_experiments() -> dict[str, Path]:
    """The settings that come with hierderm, by the name that commands take."""
    return {path.stem: path for path in sorted(shipped("experiments").glob("*.toml"))}


def experiment_titles() -> dict[str, str]:
    """What each shipped experiment is, in the words of its file's first line."""
    return {name: _title(path) for name, path in shipped_experiments().items()}


def experiment_list() -> str:
    """Names and titles of the shipped experiments, a line each."""
    titles = experiment_titles()
    width = max(map(len, titles), default=0)
    return "\n".join(f"  {name:{width}}  {title}" for name, title in titles.items())


def settings_file(name_or_path: str | Path) -> Path:
    """The TOML file that a name means: a shipped experiment, or a path.

    ConfigError where it is neither, with all shipped ones.
    """
    files = shipped_experiments()
    path = files.get(str(name_or_path), Path(name_or_path))
    if not path.is_file():
        raise ConfigError(
            f"settings must be a TOML file or a shipped experiment, '{name_or_path}' is neither."
            f"{suggest(path.stem, files)} These are shipped:\n{experiment_list()}"
        )
    return path


def _title(path: Path) -> str:
    with path.open(encoding="utf-8") as handle:
        return handle.readline().lstrip("# ").rstrip()
