"""By which validation score a setting or an epoch is chosen, and whether the validation images can tell it at all."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar, cast

from hierderm import columns as c
from hierderm.config.methods import TreeLda
from hierderm.data.table import CaseTable
from hierderm.errors import ConfigError
from hierderm.evaluation.validation import level_queries
from hierderm.taxonomy.tree import Taxonomy

logger = logging.getLogger(__name__)
Settings = TypeVar("Settings")
LEVELS = {
    "fine_map_at_r": ("fine",),
    "coarse_map_at_r": ("coarse",),
    "mean_map_at_r": ("coarse", "fine"),
    "mean_retrieval": ("coarse", "fine"),
}


def with_usable_monitor(settings: Settings, table: CaseTable) -> Settings:
    """The settings with a score that these data can choose by: `monitor`, or that of the level that is left.

    A level's score is undefined where no image has another case of its node, and says nothing where all are of one
    node. What is chosen by instead is logged; ConfigError where nothing is left.
    """
    wanted = getattr(settings, "monitor", "")
    if not wanted:  # such as 'vanilla', which chooses nothing
        return settings
    validation = table.part(c.VALIDATION)
    parts = [validation]
    if isinstance(settings, TreeLda) and settings.folds > 1:
        parts.append(table.part(c.TRAIN))  # of which parts are left out in turn, and scored, too
    found = {level: [level_queries(part, level) for part in parts] for level in ("coarse", "fine")}
    _log_counts(found["coarse"][0][0], found["fine"][0][0], len(validation))
    defined = {level for level, counts in found.items() if any(n for n, _ in counts)}
    telling = {level for level, counts in found.items() if any(n and n_nodes > 1 for n, n_nodes in counts)}
    usable = [name for name, levels in LEVELS.items() if set(levels) <= defined and set(levels) & telling]
    if wanted in usable:
        return settings
    if not usable:
        raise ConfigError(
            f"validation must be able to choose, by {wanted}: of its {len(validation)} images none has another case of "
            "its condition or category, or all are of one. Make split.validation_fraction larger, or take "
            "training.method = 'vanilla', which chooses nothing."
        )
    logger.warning("Chosen by %s instead of %s, which these validation images can't tell.", usable[0], wanted)
    return cast(Settings, replace(cast(Any, settings), monitor=usable[0]))


def require_levels(settings: Mapping[str, Any], taxonomy: Taxonomy) -> None:
    """ConfigError, before anything slow, where settings of methods name levels that the tree has not: all at once.

    `settings`: by what they are called.
    """
    known = taxonomy.known_levels
    named = (one for place, own in settings.items() for one in _named_levels(own, place))
    unknown = [f"{place} names {level!r}" for place, level in named if level not in known]
    if unknown:
        raise ConfigError(f"levels must be of taxonomy '{taxonomy.id}', {', '.join(known)}: {'; '.join(unknown)}.")


def _named_levels(settings: Any, place: str) -> Iterator[tuple[str, str]]:
    """Each name of a level in the settings, with the setting's own."""
    for field in fields(settings):
        value, own = getattr(settings, field.name), f"{place}.{field.name}"
        if is_dataclass(value):
            yield from _named_levels(value, own)
        elif field.name.endswith("_level"):
            yield own, value
        elif field.name.endswith("_levels"):
            yield from ((own, level) for level in value)


def _log_counts(n_coarse: int, n_fine: int, n: int) -> None:
    if min(n_coarse, n_fine) < n:
        logger.info(
            "Validation scores are means over the images that have another case of their node: %d of %d for "
            "categories, %d for conditions.", n_coarse, n, n_fine,
        )  # fmt: skip
