"""The commands of tables: data csv, folder, scin, fitzpatrick17k, synthetic; split."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from hierderm.cli.output import JsonFlag, OutFile, TaxonomyName, Unknown, Unreadable, say, show
from hierderm.errors import ConfigError

if TYPE_CHECKING:
    from hierderm.data.table import CaseTable
    from hierderm.taxonomy.tree import Taxonomy

data_app = typer.Typer(
    help="Make a checked table of cases from your data.", no_args_is_help=True, rich_markup_mode=None
)


def _write_checked(
    frame: Any,
    tree: Taxonomy,
    root: Path,
    out: Path,
    source: str,
    unreadable: Any,
    unknown: Any,
    as_json: bool,
    **more: Any,
) -> None:
    from hierderm.data.checks import check_cases

    table = check_cases(frame, tree, root, source=source, unreadable=unreadable, unknown=unknown)
    _finish(table, out, as_json, **more)


def _finish(table: CaseTable, out: Path, as_json: bool, **more: Any) -> None:
    table.write(out)
    for fault in table.excluded[:20]:
        say(f"left out: {fault}")
    if len(table.excluded) > 20:
        say(f"... and {len(table.excluded) - 20} more left out")
    n_cases, n_conditions = len(set(table.case_ids)), len(table.image_counts())
    result = {
        "table": str(out),
        "images": len(table),
        "cases": n_cases,
        "conditions": n_conditions,
        "excluded": [str(fault) for fault in table.excluded],
        **more,
    }
    extra = "".join(f", {key.replace('_', ' ')} {value}" for key, value in more.items())
    show(result, as_json, f"{out}: {len(table)} pictures of {n_cases} cases, {n_conditions} conditions{extra}")


@data_app.command("csv")
def data_csv(
    table: Annotated[Path, typer.Argument(help="A CSV or Parquet file, a row a picture.")],
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
    as_json: JsonFlag = False,
) -> None:
    """Any table with a row a picture: image_path, image_id, case_id, condition, and more if you have it.

    Example: `hierderm data csv mine.csv -t scin --column condition=diagnosis -o cases.csv`
    """
    from hierderm.data.checks import read_cases
    from hierderm.taxonomy.file import load_taxonomy

    pairs = [pair.partition("=") for pair in column or []]
    if any(not sign or not ours or not theirs for ours, sign, theirs in pairs):
        raise ConfigError(f"--column must look like condition=diagnosis, got {column}.")
    rename = {ours: theirs for ours, _, theirs in pairs}
    done = read_cases(
        table, load_taxonomy(taxonomy), image_root=images, rename=rename, unreadable=unreadable, unknown=unknown
    )
    _finish(done, out, as_json)


@data_app.command("folder")
def data_folder(
    folder: Annotated[Path, typer.Argument(help="<category>/<condition>/*.jpg, or <condition>/*.jpg with --taxonomy.")],
    out: OutFile,
    taxonomy: Annotated[
        str, typer.Option("--taxonomy", "-t", help="A shipped id or a file; not needed with categories.")
    ] = "",
    case_pattern: Annotated[str, typer.Option(help="Regular expression that finds the case id in a file name.")] = "",
    unreadable: Unreadable = "error",
    unknown: Unknown = "error",
    as_json: JsonFlag = False,
) -> None:
    """Pictures in folders. The tree of <category>/<condition> folders is written beside the table.

    Example: `hierderm data folder photos -o cases.csv --case-pattern "^(p[0-9]+)_"`
    """
    from hierderm.data.loaders.folder import read_folder
    from hierderm.taxonomy.file import load_taxonomy, write_taxonomy

    frame, tree = read_folder(folder, load_taxonomy(taxonomy) if taxonomy else None, case_pattern=case_pattern)
    if not taxonomy:
        path = out.with_name(f"{out.stem}-taxonomy.csv")
        write_taxonomy(tree, path)
        say(f"{path}: {tree.summary()}")
    _write_checked(frame, tree, folder, out, str(folder), unreadable, unknown, as_json)


@data_app.command("scin")
def data_scin(
    folder: Annotated[Path, typer.Argument(help="The published 'dataset' folder: two CSV files and images/.")],
    out: OutFile,
    taxonomy: TaxonomyName = "scin",
    monk_pool: Annotated[Literal["us", "india"], typer.Option(help="Whose Monk skin-tone labels to use.")] = "us",
    unreadable: Unreadable = "error",
    unknown: Unknown = "error",
    as_json: JsonFlag = False,
) -> None:
    """SCIN as published: scin_cases.csv, scin_labels.csv and images/.

    Example: `hierderm data scin dx-scin-public-data/dataset -o scin.csv --unreadable exclude`
    """
    from hierderm.data.loaders.scin import read_scin
    from hierderm.taxonomy.file import load_taxonomy

    scin = read_scin(folder / "scin_cases.csv", folder / "scin_labels.csv", monk_pool=monk_pool)
    tree = load_taxonomy(taxonomy)
    _write_checked(scin.frame, tree, folder / "images", out, "SCIN", unreadable, unknown, as_json, scin=scin.counts)


@data_app.command("fitzpatrick17k")
def data_fitzpatrick17k(
    table: Annotated[Path, typer.Argument(help="The published fitzpatrick17k.csv.")],
    images: Annotated[Path, typer.Option(help="Folder of <md5hash>.jpg.")],
    out: OutFile,
    taxonomy: TaxonomyName = "fitzpatrick17k",
    keep_wrong: Annotated[bool, typer.Option(help="Keep rows that the authors mark as wrongly labelled.")] = False,
    unreadable: Unreadable = "error",
    unknown: Unknown = "error",
    as_json: JsonFlag = False,
) -> None:
    """The Fitzpatrick17k table and its pictures.

    Example: `hierderm data fitzpatrick17k fitzpatrick17k.csv --images pictures -o cases.csv --unreadable exclude`
    """
    from hierderm.data.loaders.fitzpatrick17k import read_fitzpatrick17k
    from hierderm.taxonomy.file import load_taxonomy

    frame = read_fitzpatrick17k(table, keep_wrong=keep_wrong)
    _write_checked(frame, load_taxonomy(taxonomy), images, out, table.name, unreadable, unknown, as_json)


@data_app.command("synthetic")
def data_synthetic(
    folder: Annotated[Path, typer.Argument(help="Folder to write pictures, cases.csv and taxonomy.csv to.")],
    preset: Annotated[Literal["toy", "demo", "scin-like"], typer.Option(help="How much of it.")] = "demo",
    seed: Annotated[int, typer.Option(help="Another seed, other conditions and pictures.")] = 0,
) -> None:
    """The built-in procedural pictures, to look at or to use elsewhere.

    Example: `hierderm data synthetic pictures --preset toy`
    """
    from dataclasses import replace

    from hierderm.data.synthetic.recipe import PRESETS, write_synthetic

    typer.echo(str(write_synthetic(replace(PRESETS[preset], seed=seed), folder)))


def split(
    table: Annotated[Path, typer.Argument(help="A table of cases.")],
    taxonomy: TaxonomyName,
    out: OutFile,
    test: Annotated[float, typer.Option(help="Share of the cases for the test.")] = 0.25,
    validation: Annotated[float, typer.Option(help="Share of the cases for validation.")] = 0.15,
    folds: Annotated[int, typer.Option(help="k of a k-fold split; 0 for hold-out.")] = 0,
    fold: Annotated[int, typer.Option(help="Which fold is the test.")] = 0,
    near_duplicates: Annotated[int, typer.Option(help="Bits of 256 that look-alikes may differ in; -1 off.")] = 24,
    seed: Annotated[int, typer.Option(help="Seed of the division.")] = 0,
    as_json: JsonFlag = False,
) -> None:
    """Divide cases into train, validation and test.

    By case, stratified by condition, near-duplicates together.

    Example: `hierderm split cases.csv -t scin -o split.csv --folds 5 --fold 0`
    """
    from dataclasses import asdict

    from hierderm.config.loading import load_config
    from hierderm.data.checks import read_cases
    from hierderm.data.splits import split_cases
    from hierderm.taxonomy.file import load_taxonomy

    settings = {
        "split.test_fraction": test,
        "split.validation_fraction": validation,
        "split.folds": folds,
        "split.fold": fold,
        "split.near_duplicates": near_duplicates,
        "split.seed": seed,
    }
    config = load_config(None, settings)
    done, report = split_cases(read_cases(table, load_taxonomy(taxonomy)), config.split)
    done.write(out)
    lines = [f"{part}: {report.images[part]} pictures of {report.cases[part]} cases" for part in report.images]
    lines += [
        f"conditions with a single case, kept in training: {report.single_group_conditions}",
        f"cases joined with a look-alike: {report.cases_joined}",
        f"hash: {report.hash}",
    ]
    show(asdict(report), as_json, "\n".join([f"{out}:", *lines]))
