"""The commands of tables: data csv, synthetic and one for each loader; split."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import typer

from hierderm.cli.output import JsonFlag, OutFile, Replace, TaxonomyName, Unknown, Unreadable, say, show
from hierderm.cli.settings import one_path, parse_arguments
from hierderm.data.loaders.published import Published
from hierderm.data.loaders.registry import LOADERS
from hierderm.errors import ConfigError, some_of
from hierderm.files import require_free

if TYPE_CHECKING:
    from hierderm.data.table import CaseTable

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
        Path | None, typer.Option(help="Folder that image paths start at; the table's by default.")
    ] = None,
    unreadable: Unreadable = "error",
    unknown: Unknown = "error",
    replace: Replace = False,
    as_json: JsonFlag = False,
) -> None:
    """Any table with a row an image: image_path, image_id, case_id, condition, and more if you have it.

    Example: `hierderm data csv mine.csv -t scin --column condition=diagnosis -o cases.csv`
    """
    from hierderm.data.checks import read_cases
    from hierderm.taxonomy.file import load_taxonomy

    require_free(out, replace=replace, suffixes=TABLES, inputs=[table, taxonomy])
    pairs = [pair.partition("=") for pair in column or []]
    if any(not sign or not ours or not theirs for ours, sign, theirs in pairs):
        raise ConfigError(f"--column must look like condition=diagnosis, got {column}.")
    if repeated := sorted({ours for ours, _, _ in pairs if [pair[0] for pair in pairs].count(ours) > 1}):
        raise ConfigError(f"--column must name each of our columns once, {repeated} come(s) several times.")
    rename = {ours: theirs for ours, _, theirs in pairs}
    done = read_cases(
        table, load_taxonomy(taxonomy), image_root=images, rename=rename, unreadable=unreadable, unknown=unknown
    )
    _finish(done, out, as_json, replace, {})


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
        from hierderm.data.checks import check_cases
        from hierderm.taxonomy.file import write_taxonomy

        tree_file = out.with_name(f"{out.stem}-taxonomy.csv")
        for path in (out,) if given["taxonomy"] else (out, tree_file):  # before the work
            require_free(path, replace=replace, suffixes=TABLES, inputs=map(str, given.values()))
        published = read(**given)
        table = check_cases(
            published.frame, published.taxonomy, published.root, source=published.source, unreadable=unreadable,
            unknown=unknown,
        )  # fmt: skip
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
