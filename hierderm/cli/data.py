"""The commands of tables: data csv, synthetic and one for each loader; split."""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import typer

from hierderm.cli.output import JsonFlag, OutFile, Replace, TaxonomyName, Unknown, Unreadable, say, show
from hierderm.cli.settings import one_path, parse_arguments, require_read
from hierderm.data.loaders.published import Published
from hierderm.data.loaders.registry import LOADERS
from hierderm.errors import some_of
from hierderm.files import require_free, write_atomically

if TYPE_CHECKING:
    from hierderm.data.dry_run import Understood
    from hierderm.data.table import CaseTable
    from hierderm.taxonomy.tree import Taxonomy

TABLES = (".csv", ".parquet")
data_app = typer.Typer(
    help="Make a checked table of cases from your data.", no_args_is_help=True, rich_markup_mode=None
)


def _finish(
    table: CaseTable, out: Path, as_json: bool, replace: bool, left_out: Mapping[str, list[str]], **more: Any
) -> None:
    table.write(out, replace=replace)
    left_out = {reason: names for reason, names in left_out.items() if names}
    for reason, names in left_out.items():
        say(f"left out: {len(names)} {reason}: {some_of(names)}")
    n_cases, n_conditions = len(set(table.case_ids)), len(table.image_counts())
    result = {
        "table": str(out),
        "images": len(table),
        "cases": n_cases,
        "conditions": n_conditions,
        "excluded": [str(fault) for fault in table.excluded],
        "left_out": left_out,
        "notes": list(table.notes),
        **more,
    }
    more |= {"left_out": sum(map(len, left_out.values())) + len(table.excluded)}
    extra = "".join(f", {key.replace('_', ' ')} {value}" for key, value in more.items() if value)
    show(result, as_json, f"{out}: {len(table)} images of {n_cases} cases, {n_conditions} conditions{extra}")


@data_app.command("csv")
def data_csv(
    table: Annotated[Path, typer.Argument(help="A CSV or Parquet file, a row an image.")],
    taxonomy: TaxonomyName,
    out: OutFile,
    column: Annotated[
        list[str] | None, typer.Option(help="Our column = yours, e.g. condition=diagnosis; repeat for several.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder that images lie in, at their paths or anywhere; the table's by default.")
    ] = None,
    names: Annotated[
        Path | None, typer.Option(help="A table with the columns name and condition: your names and the taxonomy's.")
    ] = None,
    encoding: Annotated[str, typer.Option(help="The file's encoding, e.g. mac-roman, where it is not found.")] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what is understood, propose the rest, and write no table.")
    ] = False,
    unreadable: Unreadable = "error",
    unknown: Unknown = "error",
    replace: Replace = False,
    as_json: JsonFlag = False,
) -> None:
    """Any table with a row an image: image_path, image_id, case_id, condition, and more if you have it.

    A dry run first says how the file was read, proposes columns, and writes the nearest conditions of unknown names
    beside the output, as a table to edit and to give back with --names.

    Example: `hierderm data csv mine.csv -t scin --images photos -o cases.csv --dry-run`
    """
    import dataclasses

    from hierderm.data.checks import check_cases, take_columns
    from hierderm.data.column_names import named_columns
    from hierderm.data.dry_run import understand
    from hierderm.data.numbers import without_decimal_commas
    from hierderm.data.table import read_described

    names_file = out.with_name(f"{out.stem}-names.csv")
    if names is None or not dry_run:
        goal = names_file if dry_run else out
        require_free(goal, replace=replace, suffixes=TABLES, inputs=[table, taxonomy, names])
    tree, given = _named_tree(taxonomy, names), named_columns(column)
    frame, found = read_described(table, encoding=encoding)
    root = images if images is not None else table.absolute().parent
    if dry_run:
        understood = understand(frame, given, tree, root, table.name, anywhere=images is not None)
        understood.lines.insert(0, f"{table.name}: {found}, {len(frame)} rows, {len(frame.columns)} columns")
        options = {"-t": taxonomy, "--images": images, "--names": names, "--encoding": encoding, "-o": out}
        again = [str(word) for option in options.items() if option[1] for word in option]
        _show_understood(understood, tree, names_file, [str(table), *again], replace, as_json)
        return
    frame, notes = without_decimal_commas(take_columns(frame, given, table.name))
    for note in notes:
        say(f"{table.name}: {note}")
    done = check_cases(
        frame, tree, root, source=table.name, anywhere=images is not None, unreadable=unreadable, unknown=unknown
    )
    _finish(dataclasses.replace(done, notes=(*notes, *done.notes)), out, as_json, replace, {})


def _named_tree(taxonomy: str, names: Path | None) -> Taxonomy:
    """A taxonomy, with the user's names for its conditions."""
    from hierderm.data.condition_names import read_names, with_synonyms
    from hierderm.taxonomy.file import load_taxonomy

    tree = load_taxonomy(taxonomy)
    return tree if names is None else with_synonyms(tree, read_names(names, tree))


def _show_understood(
    found: Understood, tree: Taxonomy, names_file: Path, again: list[str], replace: bool, as_json: bool
) -> None:
    """What a dry run found, the names that are to be placed, and the command that makes the table."""
    from hierderm.data.column_names import in_words
    from hierderm.data.condition_names import proposed_names
    from hierderm.delimited import format_delimited

    lines = list(found.lines)
    if found.faults:
        lines.append(f"to be mended first: {found.faults}")
    if found.unknown and "--names" not in again:
        write_atomically(names_file, format_delimited(proposed_names(found.unknown, tree)), replace=replace)
        lines.append(f"{names_file}: correct or empty the nearest conditions there, and give it back with --names")
        again = [*again, "--names", str(names_file)]
    command = f"hierderm data csv {shlex.join(again)} {in_words(found.columns)}".rstrip()
    result = {"columns": found.columns, "unknown": found.unknown, "faults": found.faults, "command": command}
    show(result, as_json, "\n".join([*lines, f"then: {command}"]))


def _loader_command(read: Callable[..., Published]) -> Callable[..., None]:
    """A loader's function as a command: its own parameters, then those that all loaders share."""

    def command(
        out: OutFile,
        unreadable: Unreadable = "error",
        unknown: Unknown = "error",
        replace: Replace = False,
        as_json: JsonFlag = False,
        **given: Any,
    ) -> None:
        from hierderm.taxonomy.file import write_taxonomy

        tree_file = out.with_name(f"{out.stem}-taxonomy.csv")
        for path in (out,) if given["taxonomy"] else (out, tree_file):  # before the work
            require_free(path, replace=replace, suffixes=TABLES, inputs=map(str, given.values()))
        published = read(**given)
        table = published.checked(unreadable=unreadable, unknown=unknown)
        _finish(table, out, as_json, replace, published.left_out, **published.counts)
        if published.brings_tree:  # last: a fault of the images leaves nothing behind
            write_taxonomy(published.taxonomy, tree_file, replace=replace)
            say(f"{tree_file}: {published.taxonomy.summary()}")

    own = [_as_parameter(p) for p in inspect.signature(read, eval_str=True).parameters.values()]
    shared = list(inspect.signature(command, eval_str=True).parameters.values())[:-1]
    required = [p for p in (*own, *shared) if p.default is p.empty]
    optional = [p for p in (*own, *shared) if p.default is not p.empty]
    parameters = [p.replace(kind=p.POSITIONAL_OR_KEYWORD) for p in (*required, *optional)]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    command.__doc__ = read.__doc__
    return command


def _as_parameter(parameter: inspect.Parameter) -> inspect.Parameter:
    """A loader's parameter as typer takes it: an argument where it is positional, else an option."""
    kind, text = get_args(parameter.annotation)
    if parameter.kind is parameter.KEYWORD_ONLY:
        names = ("--taxonomy", "-t") if parameter.name == "taxonomy" else ()
        return parameter.replace(annotation=Annotated[kind, typer.Option(*names, help=text)])
    return parameter.replace(annotation=Annotated[kind, typer.Argument(help=text)])


for _name, _read in LOADERS.items():
    data_app.command(_name)(_loader_command(_read))


@data_app.command("synthetic")
def data_synthetic(
    folder: Annotated[Path, typer.Argument(help="Folder to write images, cases.csv and taxonomy.csv to.")],
    preset: Annotated[Literal["toy", "demo", "scin-like"], typer.Option(help="How much of it.")] = "demo",
    seed: Annotated[int, typer.Option(help="Seed; another one gives other conditions and images.")] = 0,
    replace: Replace = False,
) -> None:
    """The built-in simulated images, to look at or to use elsewhere.

    Example: `hierderm data synthetic images --preset toy`
    """
    import dataclasses

    from hierderm.data.synthetic.recipe import PRESETS, write_synthetic

    recipe = dataclasses.replace(PRESETS[preset], seed=seed)
    typer.echo(str(write_synthetic(recipe, folder, replace=replace)))


def split(
    taxonomy: TaxonomyName,
    out: OutFile,
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="CASES [--split.SETTING VALUE]...", help="A table of cases, and settings of the split."),
    ] = None,
    replace: Replace = False,
    as_json: JsonFlag = False,
) -> None:
    """Divide cases into train, validation and test.

    By case, stratified by condition, near-duplicates together. `hierderm config` lists the settings of the split.

    Example: `hierderm split cases.csv -t scin -o split.csv --split.folds 5 --split.fold 0`
    """
    from dataclasses import asdict

    from hierderm.config.loading import load_config
    from hierderm.data.checks import read_cases
    from hierderm.data.splits import split_cases
    from hierderm.taxonomy.file import load_taxonomy

    words, settings = parse_arguments(arguments, ["split"])
    require_read("split", settings, ["split.reuse"], "It always divides anew.")
    require_free(out, replace=replace, suffixes=TABLES, inputs=[*words, taxonomy])
    table = read_cases(one_path(words, "table of cases"), load_taxonomy(taxonomy))
    done, report = split_cases(table, load_config(None, settings).split)
    done.write(out, replace=replace)
    lines = [f"{part}: {report.images[part]} images of {report.cases[part]} cases" for part in report.images]
    lines += [
        f"conditions with a single case, kept in training: {report.single_group_conditions}",
        f"cases joined because of near-duplicates: {report.cases_joined}, at most {report.largest_group} in one group",
        f"hash: {report.hash}",
    ]
    show(asdict(report), as_json, "\n".join([f"{out}:", *lines]))
