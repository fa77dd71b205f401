"""The command line. Heavy imports happen inside commands, so that help answers at once."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from hierderm import __version__
from hierderm.cli.benchmark import bench_app
from hierderm.cli.evaluate import evaluate, show_inflation
from hierderm.cli.search import build_index, index_app, search, serve
from hierderm.errors import ConfigError, HierdermError

if TYPE_CHECKING:
    from hierderm.config.settings import Config
    from hierderm.data.table import CaseTable
    from hierderm.taxonomy.tree import Taxonomy

app = typer.Typer(
    help="Hierarchical image embeddings for dermatology research. Not a medical device.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
taxonomy_app = typer.Typer(help="Look at, check and make taxonomies.", no_args_is_help=True, rich_markup_mode=None)
data_app = typer.Typer(
    help="Make a checked table of cases from your data.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(taxonomy_app, name="taxonomy")
app.add_typer(data_app, name="data")
app.add_typer(index_app, name="index")
app.add_typer(bench_app, name="bench")
app.command()(search)
app.command()(serve)
app.command()(evaluate)

PASS_ON = {"ignore_unknown_options": True}  # settings are flags that `_config` reads
JsonFlag = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]
OutFile = Annotated[Path, typer.Option("--out", "-o", help="CSV or Parquet file to write.")]
TaxonomyName = Annotated[str, typer.Option("--taxonomy", "-t", help="A shipped taxonomy's id, or a file.")]
Settings = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[CONFIG.toml] [--section.setting VALUE]...", help="A TOML file, and settings laid over it."
    ),
]
Unreadable = Annotated[
    Literal["error", "exclude"], typer.Option(help="Pictures that can't be read: stop, or leave out and list.")
]
Unknown = Annotated[
    Literal["error", "exclude"], typer.Option(help="Conditions the taxonomy lacks: stop, or leave out and list.")
]


def main() -> None:
    """Run the command line; faults of the input end with their message and exit code 1, without a traceback."""
    try:
        app()
    except HierdermError as error:
        typer.secho(f"Error: {error}", fg="red" if sys.stderr.isatty() else None, err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        typer.echo("Stopped. The same command goes on from here.", err=True)
        sys.exit(130)


def _say(text: str) -> None:
    typer.echo(text, err=True)


def _show(result: dict[str, Any], as_json: bool, text: str) -> None:
    typer.echo(json.dumps(result, indent=2, ensure_ascii=False) if as_json else text)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"hierderm {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None: ...


# --- taxonomy ----------------------------------------------------------------------------------------------------


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
        for level, of_level in enumerate(tree.levels)
        for node in of_level
    ]
    _show({"summary": tree.summary(), "nodes": nodes}, as_json, f"{tree.summary()}\n\n{tree.render()}")


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
) -> None:
    """A taxonomy from the columns of your own CSV.

    Example: `hierderm taxonomy from-csv mine.csv --levels category,condition -o tree.csv`
    """
    from hierderm.data.table import read_frame
    from hierderm.errors import CaseTableError, suggest
    from hierderm.taxonomy.file import write_taxonomy
    from hierderm.taxonomy.tree import taxonomy_from_paths

    frame, columns = read_frame(table), [name.strip() for name in levels.split(",")]
    for name in columns:
        if name not in frame:
            raise CaseTableError(
                f"{table.name} has no column '{name}'.{suggest(name, frame.columns)} It has {list(frame)}."
            )
    cells = frame[columns].apply(lambda column: column.str.strip())
    empty = (cells == "").any(axis=1)
    if empty.any() or cells.empty:
        rows = [str(position + 2) for position in empty.to_numpy().nonzero()[0]]
        where = f"row(s) {', '.join(rows[:10])} have an empty one" if rows else "the table has no rows"
        raise CaseTableError(f"{table.name}: every row must have a name in {columns}; {where}.")
    tree = taxonomy_from_paths(cells.to_numpy().tolist(), columns, id=taxonomy_id or out.stem)
    write_taxonomy(tree, out)
    typer.echo(f"{out}: {tree.summary()}")


# --- data --------------------------------------------------------------------------------------------------------


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
        _say(f"left out: {fault}")
    if len(table.excluded) > 20:
        _say(f"... and {len(table.excluded) - 20} more left out")
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
    _show(result, as_json, f"{out}: {len(table)} pictures of {n_cases} cases, {n_conditions} conditions{extra}")


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
        _say(f"{path}: {tree.summary()}")
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


@app.command()
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
    _show(asdict(report), as_json, "\n".join([f"{out}:", *lines]))


# --- models ------------------------------------------------------------------------------------------------------


def _config(arguments: list[str], *, file_needed: bool = False) -> Config:
    """The configuration of `[CONFIG.toml] [--section.setting VALUE]...`: flags are laid over the file."""
    from hierderm.config.loading import describe_fields, load_config, parse_value
    from hierderm.errors import suggest

    path: Path | None = None
    overrides: dict[str, Any] = {}
    rest = list(arguments)
    known = [name for name, *_ in describe_fields()]
    while rest:
        flag, equals, value = rest.pop(0).partition("=")
        name = flag.removeprefix("--").replace("-", "_")
        if not flag.startswith("-") and path is None:
            path = Path(flag + equals + value)
            continue
        if not flag.startswith("--") or name not in known:
            raise ConfigError(f"unknown argument '{flag}'.{suggest(name, known)} List them with: hierderm config")
        if not equals:
            if not rest:
                raise ConfigError(f"'{flag}' must be followed by a value.")
            value = rest.pop(0)
        overrides[name] = parse_value(value)
    if path is None and file_needed:
        raise ConfigError("a comparison needs a TOML file with [[models]], such as experiments/three_way.toml.")
    return load_config(path, overrides)


@app.command(context_settings=PASS_ON)
def train(
    arguments: Settings = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Run folder; runs/NAME by default.")] = None,
) -> None:
    """Train one model.

    A killed run goes on when the command is given again. Every setting is a flag too
    (list them with `hierderm config`).

    Example: `hierderm train --data.cases cases.csv --data.taxonomy scin --training.epochs 20 -o runs/first`
    """
    settings = _config(arguments or [])
    from hierderm.experiment.run import prepare_cases, train_run

    folder = out or Path("runs") / settings.name
    table, _ = prepare_cases(settings, folder, _say)
    run = train_run(settings, table, folder, _say)
    best = run.history[settings.training.monitor].iloc[run.chosen]
    typer.echo(f"{folder / 'model'}: {len(run.history)} epochs, best validation {settings.training.monitor} {best:.3f}")


@app.command()
def embed(
    table: Annotated[Path, typer.Argument(help="A table of cases.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of embeddings to write.")],
    model: Annotated[
        Path | None, typer.Option("--model", "-m", help="Model folder of a run, e.g. runs/first/model.")
    ] = None,
    backbone: Annotated[str, typer.Option(help="Or a backbone by name, untrained: the vanilla baseline.")] = "",
    taxonomy: Annotated[
        str, typer.Option("--taxonomy", "-t", help="The table's tree; the model's own by default.")
    ] = "",
    unreadable: Unreadable = "error",
    unknown: Unknown = "error",
    workers: Annotated[int, typer.Option(help="Processes that load pictures.")] = 0,
) -> None:
    """Embed pictures with a model or a backbone.

    Example: `hierderm embed cases.csv --model runs/first/model -o embeddings`
    """
    from hierderm.cli.search import tree_of
    from hierderm.data.checks import read_cases
    from hierderm.model.embed import embed_by_name

    if (model is None) == (not backbone):
        raise ConfigError("give either --model or --backbone, and not both.")
    name = backbone or str(model)
    cases = read_cases(table, tree_of(name, taxonomy), unreadable=unreadable, unknown=unknown)
    done = embed_by_name(name, cases, workers=workers)
    done.save(out)
    typer.echo(f"{out}: {len(done)} embeddings of length {done.embeddings.shape[1]}")


def _compare(settings: Config, folder: Path, as_json: bool) -> None:
    from hierderm.experiment.compare import compare as run_comparison

    page = run_comparison(settings, folder, _say)
    report = json.loads((folder / "report.json").read_text())
    if as_json:
        typer.echo(json.dumps(report, indent=2, ensure_ascii=False))
        return
    _print_table(report)
    for sentence in report["summary"]:
        typer.echo(f"- {sentence}")
    typer.echo(f"\nReport: {page.resolve()}")


def _print_table(report: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    from hierderm.evaluation.catalogue import HEADLINES, metric_name

    values = {
        model["model"]: {(m["level"], m["name"]): m["value"] for m in model["metrics"]} for model in report["models"]
    }
    shown = Table(title=f"{report['name']}: held-out cases, higher is better, best in bold")
    shown.add_column("model", no_wrap=True)
    for key in HEADLINES:
        shown.add_column(metric_name(*key), justify="right")
    for model, figures in values.items():
        cells = []
        for key in HEADLINES:
            best = max((of_model.get(key) or -1.0) for of_model in values.values())
            value = figures.get(key)
            text = "–" if value is None else f"{value:.3f}"
            cells.append(f"[bold]{text}[/bold]" if value is not None and round(value, 3) == round(best, 3) else text)
        shown.add_row(model, *cells)
    Console(width=None if sys.stdout.isatty() else 120).print(shown)


@app.command(context_settings=PASS_ON)
def compare(
    arguments: Settings = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder of results; runs/NAME by default.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Train and compare models; write a report.

    All on one split; the report is report.html and report.json.
    Finished parts are not done again. Every setting is a flag too (list them with `hierderm config`).

    Example: `hierderm compare experiments/three_way.toml --data.cases cases.csv --data.taxonomy tree.csv -o runs/mine`
    """
    settings = _config(arguments or [], file_needed=True)
    _compare(settings, out or Path("runs") / settings.name, as_json)


@app.command(context_settings=PASS_ON)
def inflation(
    arguments: Settings = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder of results; runs/NAME-inflation.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """What a split by image would have claimed.

    Trains the same model on a split by case and on a split by image, where pictures of one case are on both sides, and
    shows the figures side by side. With [[models]] in the file: each of them.

    Example: `hierderm inflation --data.cases cases.csv --data.taxonomy tree.csv -o runs/inflation`
    """
    settings = _config(arguments or [])
    show_inflation(settings, out or Path("runs") / f"{settings.name}-inflation", as_json)


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of results.")] = Path("runs/demo"),
    as_json: JsonFlag = False,
) -> None:
    """Compare on the built-in data, and index it.

    Offline, in a few minutes: what hierderm does, in one command.
    """
    from hierderm.artifacts import shipped
    from hierderm.config.loading import load_config
    from hierderm.search.storage import HEADER

    config = load_config(shipped("experiments") / "three_way.toml")
    _compare(config, out, as_json)
    index = out / "index"
    if not (index / HEADER).is_file():
        _say("Indexing the training and validation cases ...")
        model = str(out / "models" / config.focus / "model")
        # 96 validation cases are too few to promise more than this; at 0.75 it would never name a condition.
        build_index(out / "cases.csv", model, index, splits=("train", "validation"), accuracy=0.65)
    _say(f"Index:  {index.resolve()}\nOpen the page on it with: {Path(sys.argv[0])} serve {index}")


@app.command("config")
def show_config(
    file: Annotated[Path | None, typer.Argument(help="A TOML file to check and complete.")] = None,
) -> None:
    """List all settings, or check a file.

    With a file: the file checked and completed with the defaults.

    Example: `hierderm config > run.toml`
    """
    from hierderm.config.loading import describe_fields, dump_config, load_config

    if file is not None:
        typer.echo(dump_config(load_config(file)))
        return
    typer.echo(_default_toml(list(describe_fields())))


def _default_toml(settings: list[tuple[str, str, Any, str]]) -> str:
    import tomli_w

    lines: list[str] = []
    for name, kind, default, text in sorted(settings, key=lambda s: "." in s[0]):
        section, dot, key = name.rpartition(".")
        if dot and f"[{section}]" not in lines:
            lines += ["", f"[{section}]"]
        choices = f" ({kind})" if "|" in kind else ""
        if isinstance(default, dict):  # in one line, so that its comment can follow
            inside = ", ".join(tomli_w.dumps({inner: value}).strip() for inner, value in default.items())
            shown = f"{key} = {{ {inside} }}" if inside else f"{key} = {{}}"
        else:
            shown = tomli_w.dumps({key: default}).strip()
        lines.append(f"{shown}  # {text}{choices}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
