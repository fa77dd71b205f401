"""Reading and writing a taxonomy: one CSV file, a row a node, that a person can review line by line.

    # id: toy
    # version: 1.0.0
    # levels: category, condition
    level,name,parent,kind,synonyms,snomed,icd10,note
    category,Eczemas,,,,,,
    condition,Atopic dermatitis,Eczemas,diagnosis,Atopic eczema,24079001,L20,

Only `level`, `name` and `parent` are required. Several synonyms or codes are separated by `|`. A condition that stands
higher up repeats itself on the levels below: `condition,Scabies,Scabies` under `category,Scabies,`.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hierderm.delimited import PLAIN, decode_text, format_delimited, parse_delimited
from hierderm.errors import Fault, TaxonomyError, describe_faults, suggest
from hierderm.files import os_faults, read_regular, write_atomically
from hierderm.shipped import shipped
from hierderm.taxonomy.names import fold
from hierderm.taxonomy.nodes import KINDS, Node
from hierderm.taxonomy.tree import Taxonomy

COLUMNS = ("level", "name", "parent", "kind", "synonyms", "snomed", "icd10", "note")
HEADS = ("id", "version", "levels")
_HEAD = re.compile(r'(?:"?#[^\r\n]*(?:\r\n|\n|\r|\Z))*')  # lines of comment, which a spreadsheet may quote
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Row:
    line: int
    level: int
    name: str
    parent: str
    node: Node


def shipped_taxonomies() -> dict[str, Path]:
    """The trees that come with hierderm, by id."""
    return {path.stem: path for path in sorted(shipped("taxonomy").glob("*.csv"))}


@os_faults(TaxonomyError)
def load_taxonomy(name_or_path: str | Path) -> Taxonomy:
    """Read a taxonomy that ships with the package, or one of your own.

    Args:
        name_or_path: The id of a shipped one ('scin', 'isic', ...; `hierderm taxonomy list`), or a CSV file.

    Returns:
        The tree.

    Raises:
        TaxonomyError: It is neither, or all faults of the file, each with its line.
    """
    shipped = shipped_taxonomies()
    if str(name_or_path) in shipped:
        return read_taxonomy(shipped[str(name_or_path)])
    path = Path(name_or_path)
    if not path.is_file():
        hint = suggest(str(name_or_path), shipped)
        raise TaxonomyError(
            f"a taxonomy must be a file or one of {list(shipped)}; '{name_or_path}' is neither.{hint} "
            "Make one from your own table with: hierderm taxonomy from-csv TABLE.csv --levels COARSE,FINE"
        )
    return read_taxonomy(path)


@os_faults(TaxonomyError)
def read_taxonomy(path: Path | str) -> Taxonomy:
    """Read and check a taxonomy file.

    Args:
        path: A CSV file as docs/taxonomy.md describes it.

    Returns:
        The tree.

    Raises:
        TaxonomyError: All faults of the file, each with its line.
    """
    path = Path(path)
    text, encoding = decode_text(read_regular(path), path.name, TaxonomyError)
    if encoding not in PLAIN:
        logger.warning("%s: the file is %s", path.name, encoding)
    return parse_taxonomy(text, source=path.name)


def parse_taxonomy(text: str, *, source: str = "taxonomy") -> Taxonomy:
    """As `read_taxonomy`, from text."""
    faults: list[Fault] = []

    def fault(line: int, what: str) -> None:
        faults.append(Fault(f"{source} line {line}", what))

    start = _HEAD.match(text)[0]  # type: ignore[index]  # it matches any text
    head, n_head = _read_head(start, fault)
    level_names = tuple(name.strip() for name in head.get("levels", "").split(",") if name.strip())
    rows = list(_read_rows(text[len(start) :], n_head, level_names, source, fault)) if level_names else []
    if not rows and not faults:
        fault(n_head + 1, "a taxonomy must have at least one node, got an empty table.")
    by_level = [[row for row in rows if row.level == level] for level in range(len(level_names))]
    _check_names(by_level, fault)
    _check_parents(by_level, level_names, fault)
    _check_cycles(rows, fault)
    if faults:
        raise TaxonomyError(describe_faults(f"{source} has {len(faults)} fault(s):", faults))
    return _assemble(head, level_names, by_level)


def _read_head(start: str, fault: Callable[[int, str], None]) -> tuple[dict[str, str], int]:
    head: dict[str, str] = {}
    lines = [line for line in re.split(r"\r\n|\n|\r", start) if line]
    for line in lines:
        plain = line.replace('"', "") if line.startswith('"') else line
        key, colon, value = plain.lstrip("# ").partition(":")
        if colon and key.strip() in HEADS:
            head[key.strip()] = value.strip().rstrip(",;").strip().strip('"')  # spreadsheets pad and quote such lines
    for key in HEADS:
        if not head.get(key):
            fault(1, f"the file must begin with a line '# {key}: ...', it is missing.")
    return head, len(lines)


def _read_rows(
    text: str, n_head: int, level_names: Sequence[str], source: str, fault: Callable[[int, str], None]
) -> Iterator[_Row]:
    sheet = parse_delimited(text, source, TaxonomyError, first_line=n_head + 1)
    for note in sheet.notes:
        logger.warning("%s: %s", source, note)
    for column in sheet.header:
        if column not in COLUMNS:
            fault(n_head + 1, f"unknown column '{column}'.{suggest(column, COLUMNS)} Columns: {', '.join(COLUMNS)}.")
    for column in COLUMNS[:3]:
        if column not in sheet.header:
            fault(n_head + 1, f"the column '{column}' is missing.")
    if not set(COLUMNS[:3]) <= set(sheet.header):
        return
    for _, line, cells in sheet.records:
        row = {key: cell.strip() for key, cell in zip(sheet.header, cells, strict=True)}
        if not row["name"]:
            fault(line, "the name must not be empty.")
        elif row["level"] not in level_names:
            fault(line, f"level must be one of {list(level_names)}, got '{row['level']}'.")
        elif (kind := row.get("kind") or "diagnosis") not in KINDS:
            fault(line, f"kind must be one of {list(KINDS)}, got '{kind}'.{suggest(kind, KINDS)}")
        else:
            parts = {key: tuple(p.strip() for p in row.get(key, "").split("|") if p.strip()) for key in COLUMNS[4:7]}
            node = Node(row["name"], -1, kind, note=row.get("note", ""), **parts)
            yield _Row(line, level_names.index(row["level"]), row["name"], row["parent"], node)


def _check_names(by_level: Sequence[Sequence[_Row]], fault: Callable[[int, str], None]) -> None:
    for rows in by_level:
        named: dict[str, _Row] = {}
        for row in rows:
            first = named.setdefault(fold(row.name), row)
            if first is not row and fold(first.parent) != fold(row.parent):
                fault(row.line, f"'{row.name}' has two parents: '{first.parent}' (line {first.line}), '{row.parent}'.")
            elif first is not row:
                fault(row.line, f"'{row.name}' is a duplicate of line {first.line}.")
        owners: dict[str, _Row] = {}
        for row in rows:
            for synonym in row.node.synonyms:
                owner = named.get(fold(synonym)) or owners.get(fold(synonym))
                if owner is not None:
                    fault(row.line, f"the synonym '{synonym}' already belongs to '{owner.name}' (line {owner.line}).")
                owners[fold(synonym)] = row


def _check_parents(
    by_level: Sequence[Sequence[_Row]], level_names: Sequence[str], fault: Callable[[int, str], None]
) -> None:
    named = [{fold(row.name): row for row in rows} for rows in by_level]
    for level, rows in enumerate(by_level):
        for row in rows:
            key = fold(row.parent)
            elsewhere = next((table[key] for table in named if key in table), None)
            if level == 0 and row.parent:
                fault(row.line, f"'{row.name}' is on the top level '{level_names[0]}' and must have no parent.")
            elif level > 0 and not row.parent:
                fault(row.line, f"'{row.name}' must have a parent on level '{level_names[level - 1]}'.")
            elif level > 0 and key not in named[level - 1]:
                if elsewhere is None:
                    hint = suggest(row.parent, [other.name for other in by_level[level - 1]])
                    fault(row.line, f"unknown parent '{row.parent}' of '{row.name}'.{hint}")
                else:
                    fault(
                        row.line,
                        f"unequal depth: the parent '{row.parent}' of '{row.name}' is on level "
                        f"'{level_names[elsewhere.level]}' (line {elsewhere.line}), it must be on "
                        f"'{level_names[level - 1]}'.",
                    )
        if level + 1 < len(by_level):
            with_children = {fold(row.parent) for row in by_level[level + 1]}
            for row in rows:
                if fold(row.name) not in with_children:
                    below = f"'{level_names[level + 1]},{row.name},{row.name}'"
                    fault(
                        row.line,
                        f"unequal depth: '{row.name}' has no {level_names[level + 1]} under it. If it is a condition "
                        f"itself, let it repeat itself there: add the row {below}.",
                    )


def _check_cycles(rows: Sequence[_Row], fault: Callable[[int, str], None]) -> None:
    by_key = {(row.level, fold(row.name)): row for row in rows}
    n_levels = 1 + max((row.level for row in rows), default=0)

    def parent_of(row: _Row) -> _Row | None:
        # The level above first; then any, the row's own name on its own level included: that is a cycle of one.
        levels = [row.level - 1, *(level for level in range(n_levels) if level != row.level - 1)]
        return next((by_key[level, fold(row.parent)] for level in levels if (level, fold(row.parent)) in by_key), None)

    reported: set[int] = set()
    for start in rows:
        seen: dict[int, _Row] = {}
        row: _Row | None = start
        while row is not None and row.line not in seen:
            seen[row.line] = row
            row = parent_of(row) if row.parent else None
        if row is not None and row.line not in reported:
            ring = list(seen.values())[list(seen).index(row.line) :]
            reported.update(member.line for member in ring)
            fault(row.line, f"cycle: {' -> '.join(member.name for member in (*ring, row))}.")


def _assemble(head: dict[str, str], level_names: tuple[str, ...], by_level: Sequence[Sequence[_Row]]) -> Taxonomy:
    levels: list[tuple[Node, ...]] = []
    for level, rows in enumerate(by_level):
        above = {fold(row.name): number for number, row in enumerate(by_level[level - 1])} if level else {}
        levels.append(tuple(replace(row.node, parent=above.get(fold(row.parent), -1)) for row in rows))
    return Taxonomy(head["id"], head["version"], level_names, tuple(levels))


def format_taxonomy(taxonomy: Taxonomy) -> str:
    """The text of a taxonomy file, such that `parse_taxonomy(format_taxonomy(tree)) == tree`."""
    rows: list[Sequence[str]] = [COLUMNS]
    for level, nodes in enumerate(taxonomy.levels):
        for node in nodes:
            parent = taxonomy.levels[level - 1][node.parent].name if level else ""
            lists = ("|".join(node.synonyms), "|".join(node.snomed), "|".join(node.icd10))
            rows.append((taxonomy.level_names[level], node.name, parent, node.kind, *lists, node.note))
    head = f"# id: {taxonomy.id}\n# version: {taxonomy.version}\n# levels: {', '.join(taxonomy.level_names)}\n"
    return head + format_delimited(rows)


def write_taxonomy(taxonomy: Taxonomy, path: Path | str, *, replace: bool = False) -> None:
    """Write a taxonomy file, whole or not at all.

    Args:
        taxonomy: The tree.
        path: The CSV file to write.
        replace: Replace a file that lies there.

    Raises:
        OutputError: A file lies there, or can't be written.
    """
    write_atomically(Path(path), format_taxonomy(taxonomy), replace=replace)
