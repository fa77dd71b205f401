"""The commands of taxonomies: list, show, find, from-csv."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hierderm.cli.output import JsonFlag, Replace, show
from hierderm.errors import CaseTableError, ConfigError, suggest
from hierderm.files import require_free

if TYPE_CHECKING:
    from hierderm.taxonomy.tree import Taxonomy

taxonomy_app = typer.Typer(help="Look at, check and make taxonomies.", no_args_is_help=True, rich_markup_mode=None)
OwnTaxonomy = Annotated[
    str, typer.Option("--taxonomy", "-t", help="The table's tree; a trained model's own by default.")
]


def tree_for(model: str, taxonomy: str) -> Taxonomy:
    """The tree that a table's conditions belong to: the one that is named, or the trained model's own."""
    from hierderm.model.loading import tree_of_model
    from hierderm.taxonomy.file import load_taxonomy

    named = load_taxonomy(taxonomy) if taxonomy else None
    tree = (tree_of_model(model, named) if model else None) or named
    if tree is None:
        raise ConfigError("a backbone without labels needs --taxonomy: the tree that the table's conditions belong to.")
    return tree


@taxonomy_app.command("list")
def taxonomy_list() -> None:
    """The taxonomies that come with hierderm."""
    from hierderm.taxonomy.file import read_taxonomy, shipped_taxonomies

    for path in shipped_taxonomies().values():
        typer.echo(read_taxonomy(path).summary())


@taxonomy_app.command("show")
def taxonomy_show(
    name: Annotated[str, typer.Argument(help="A shipped taxonomy's id, or a file.")], as_json: JsonFlag = False
) -> None:
    """The tree as text. A faulty file is listed fault by fault.

    Example: `hierderm taxonomy show scin`
    """
    from hierderm.taxonomy.file import load_taxonomy

    tree = load_taxonomy(name)
    nodes = [
        {
            "level": tree.level_names[level],
            "name": node.name,
            "parent": tree.names(level - 1)[node.parent] if level else None,
        }
        for level, level_nodes in enumerate(tree.levels)
        for node in level_nodes
    ]
    show({"summary": tree.summary(), "nodes": nodes}, as_json, f"{tree.summary()}\n\n{tree.render()}")


@taxonomy_app.command("find")
def taxonomy_find(
    taxonomy: Annotated[str, typer.Argument(help="A shipped taxonomy's id, or a file.")],
    condition: Annotated[str, typer.Argument(help="A condition, or a synonym of it.")],
) -> None:
    """Where a condition stands. An unknown name answers with the closest ones.

    Example: `hierderm taxonomy find scin shingles`
    """
    from hierderm.taxonomy.file import load_taxonomy

    tree = load_taxonomy(taxonomy)
    path = tree.ancestors[tree.index(condition)]
    typer.echo(" > ".join(tree.names(level)[number] for level, number in enumerate(path)))


@taxonomy_app.command("from-csv")
def taxonomy_from_csv(
    table: Annotated[Path, typer.Argument(help="A CSV with a column a level.")],
    levels: Annotated[str, typer.Option(help="The columns, coarse to fine, e.g. category,condition.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The taxonomy file to write.")],
    taxonomy_id: Annotated[str, typer.Option("--id", help="Its id; the file's name by default.")] = "",
    replace: Replace = False,
) -> None:
    """A taxonomy from the columns of your own CSV.

    Example: `hierderm taxonomy from-csv mine.csv --levels category,condition -o tree.csv`
    """
    from hierderm.data.table import as_text, read_frame, row_numbers
    from hierderm.taxonomy.file import write_taxonomy
    from hierderm.taxonomy.tree import taxonomy_from_paths

    require_free(out, replace=replace, suffixes=(".csv",), inputs=[table])
    frame, columns = read_frame(table), [name.strip() for name in levels.split(",")]
    for name in columns:
        if name not in frame:
            raise CaseTableError(
                f"{table.name} has no column '{name}'.{suggest(name, frame.columns)} It has {list(frame)}."
            )
    cells = frame[columns].astype(object).map(as_text)
    named = cells != ""
    empty = ~named[columns[0]] | (named.astype(int).diff(axis=1) > 0).any(axis=1)  # the last levels may have none
    if empty.any() or cells.empty:
        rows = [str(number) for number in row_numbers(cells[empty])]
        where = f"row(s) {', '.join(rows[:10])} have an empty one" if rows else "the table has no rows"
        raise CaseTableError(f"{table.name}: every row must have a name in {columns}, the last may be empty; {where}.")
    tree = taxonomy_from_paths(cells.to_numpy().tolist(), columns, id=taxonomy_id or out.stem)
    write_taxonomy(tree, out, replace=replace)
    typer.echo(f"{out}: {tree.summary()}")
