"""The commands that make and keep an index: index build, load, add, remove, info, verify and export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from hierderm.cli.output import EngineName, JsonFlag, ModelName, Replace, show
from hierderm.cli.search import IndexPlace, MovedModel
from hierderm.cli.taxonomy import OwnTaxonomy, tree_for
from hierderm.errors import ConfigError, EmbeddingError, SearchError
from hierderm.files import require_free

index_app = typer.Typer(help="Make and keep a searchable index of cases.", no_args_is_help=True, rich_markup_mode=None)
OutPlace = Annotated[
    str, typer.Option("--out", "-o", help="Folder to write, or an address: postgresql://host/database.")
]
Half = Annotated[bool, typer.Option("--half", help="In a database: two bytes a number instead of four.")]


@index_app.command("build")
def index_build(
    cases: Annotated[Path, typer.Argument(help="A table of cases.")],
    out: OutPlace,
    model: ModelName = "",
    taxonomy: OwnTaxonomy = "",
    kind: Annotated[
        Literal["auto", "flat", "hnsw", "ivf", "ivfpq"], typer.Option(help="flat is exact; auto chooses by size.")
    ] = "auto",
    splits: Annotated[str, typer.Option(help="Splits to index, e.g. train,validation; all by default.")] = "",
    accuracy: Annotated[float, typer.Option(help="Accuracy that answers must keep to on validation cases.")] = 0.8,
    embeddings: Annotated[
        Path | None, typer.Option(help="Known embeddings of the table: a folder of `hierderm embed`, or an .npy file.")
    ] = None,
    half: Half = False,
    replace: Replace = False,
    engine: EngineName = "auto",
) -> None:
    """Index the images of a table.

    Where the table has validation cases, answers are calibrated on them. Many images are embedded first, with
    `hierderm embed`, which goes on after an interruption; give them as --embeddings.

    Example: `hierderm index build runs/first/cases.csv --model runs/first/model -o index`
    """
    from hierderm.data.checks import read_cases
    from hierderm.search.building import describe_index
    from hierderm.search.case_index import CaseIndex
    from hierderm.search.places import is_address, place_of, postgres_place

    if half and not is_address(out):
        raise ConfigError("--half goes with -o postgresql://...")
    if not model and embeddings is None:
        raise ConfigError("give --model, or --embeddings, or both.")
    place = place_of(out)
    place.require_free(replace=replace)  # before minutes of embedding
    chosen = [name.strip() for name in splits.split(",") if name.strip()]
    table = read_cases(cases, tree_for(model, taxonomy), decode=False)
    index = CaseIndex.build(
        table, model or None, embeddings=embeddings, kind="flat" if is_address(out) else kind, splits=chosen,
        accuracy=accuracy, engine=engine,
    )  # fmt: skip
    if is_address(out):
        postgres_place(out).save(index, replace=replace, kind=kind, precision="half" if half else "single")
        index = place.opened()
    else:
        index.save(out, replace=replace)
    typer.echo("\n".join([f"{place}:", *describe_index(index)]))


@index_app.command("load")
def index_load(
    embeddings: Annotated[Path, typer.Argument(help="A folder of `hierderm embed`.")],
    out: OutPlace,
    model: ModelName = "",
    taxonomy: OwnTaxonomy = "",
    kind: Annotated[
        Literal["auto", "flat", "hnsw"], typer.Option(help="flat is exact; auto chooses by size.")
    ] = "auto",
    accuracy: Annotated[float, typer.Option(help="Accuracy that answers must keep to on validation cases.")] = 0.8,
    image_root: Annotated[Path, typer.Option(help="Folder that relative image paths start at.")] = Path(),
    half: Half = False,
    replace: Replace = False,
) -> None:
    """Stream embeddings into a database, and index them.

    They need not fit into memory. A load that was broken off goes on where it stopped when the command is given again.

    Example: `hierderm index load embeddings -o postgresql://host/gallery --model runs/first/model`
    """
    from hierderm.artifacts import read_header
    from hierderm.embeddings import KIND
    from hierderm.search.building import describe_index
    from hierderm.search.places import is_address, postgres_place

    if not is_address(out):
        raise ConfigError("embeddings are streamed into a database: -o postgresql://... For a folder: index build.")
    place = postgres_place(out)
    read_header(embeddings, KIND, error=EmbeddingError)  # a slip is said before anything slow
    place.require_free(replace=replace)
    index = place.load(
        embeddings, tree_for(model, taxonomy), model=model, image_root=image_root.absolute(), kind=kind,
        precision="half" if half else "single", accuracy=accuracy, replace=replace,
    )  # fmt: skip
    typer.echo("\n".join([f"{place}:", *describe_index(index)]))


@index_app.command("add")
def index_add(
    index: IndexPlace,
    cases: Annotated[Path, typer.Argument(help="A table of the cases to add.")],
    model: MovedModel = "",
    engine: EngineName = "auto",
) -> None:
    """Add the cases of a table to an index.

    They are embedded with the index's own model. Nothing is built anew.

    Example: `hierderm index add index new.csv`
    """
    from hierderm.data.checks import read_cases
    from hierderm.search.building import embed_for
    from hierderm.search.places import place_of

    place = place_of(index)
    now = place.opened()
    table = embed_for(now, read_cases(cases, now.taxonomy), model or None, engine=engine)
    with place.updating() as now:  # only now: others may write while images are embedded
        now.add(table)
    typer.echo(f"{place}: {len(table)} images added, now {len(now)} of {now.n_cases} cases")


@index_app.command("remove", context_settings={"ignore_unknown_options": True})  # ids may begin with a minus
def index_remove(
    index: IndexPlace,
    case_ids: Annotated[list[str], typer.Argument(help="Ids of the cases to take out.")],
    prove: Annotated[
        bool, typer.Option("--prove", help="Show that they are gone from every table, file and structure.")
    ] = False,
) -> None:
    """Take cases out of an index.

    With --prove the space that they took is given up, too, and each place is looked at where they could still be. It
    can be asked again of cases that have been removed.

    Example: `hierderm index remove index case-0012 case-0048 --prove`
    """
    from hierderm.search.places import place_of
    from hierderm.search.proof import remove_and_prove

    place = place_of(index)
    if prove:
        typer.echo("\n".join(remove_and_prove(place, case_ids)))
        return
    with place.updating() as now:
        before = len(now)
        now.remove(case_ids)
    typer.echo(f"{place}: {before - len(now)} images removed, now {len(now)} of {now.n_cases} cases")
    if removed := now.gallery.n_removed:
        typer.echo(f"The graph still holds the vectors of {removed} removed images; --prove deletes them.")


@index_app.command("info")
def index_info(index: IndexPlace, as_json: JsonFlag = False) -> None:
    """What an index holds, and what made it.

    Example: `hierderm index info index`
    """
    from dataclasses import asdict

    from hierderm.search.building import describe_index
    from hierderm.search.case_index import CaseIndex

    now = CaseIndex.open(index)
    content = {
        "images": len(now),
        "cases": now.n_cases,
        "dim": now.gallery.dim,
        "columns": now.gallery.columns,
        "taxonomy": now.taxonomy.summary(),
        **asdict(now.about),
        "provenance": asdict(now.provenance),
        "calibration": asdict(now.calibration) if now.calibration else None,
    }
    show(content, as_json, "\n".join(describe_index(now)))


@index_app.command("verify")
def index_verify(index: IndexPlace) -> None:
    """Check an index: checksums, images, recall.

    Compares every file with its checksum, or the tables of a database with each other, opens every image where the
    index says it is, sees that it is still the one that was indexed, and measures the recall of the search against an
    exact one.

    Example: `hierderm index verify index`
    """
    from hierderm.columns import IMAGE_HASH, IMAGE_ID
    from hierderm.data.image_files import file_hashes
    from hierderm.data.image_io import unreadable_images
    from hierderm.errors import some_of
    from hierderm.search.places import place_of

    place = place_of(index)
    now = place.opened()
    typer.echo(place.check())
    typer.echo(f"recall@10 against exact search: {now.measure_recall():.3f}")
    frame, paths = now.frame, now.gallery.image_paths()
    if faults := unreadable_images(paths):
        first = min(faults)
        raise SearchError(
            f"{len(faults)} of {len(now)} images can't be read, the first is {paths[first]}: {faults[first]}. "
            "Searches work, but their images can't be shown."
        )
    indexed = frame[IMAGE_HASH] if IMAGE_HASH in frame else [""] * len(frame)
    rows = zip(frame[IMAGE_ID], indexed, file_hashes(paths), strict=True)
    if replaced := [f"'{image}'" for image, before, now in rows if before and before != now]:
        raise SearchError(
            f"{len(replaced)} image(s) were replaced since they were indexed: {some_of(replaced)}. Build it again."
        )
    typer.echo(f"images: all {len(now)} can be read, and are those that were indexed")


@index_app.command("export")
def index_export(
    index: IndexPlace,
    out: Annotated[Path, typer.Option("--out", "-o", help="Parquet file to write.")],
    projected: Annotated[
        bool, typer.Option("--map", help="Add x and y: a t-SNE of all images, a minute for each 10,000.")
    ] = False,
    replace: Replace = False,
) -> None:
    """Write an index as one Parquet table.

    For Embedding Atlas, Spotlight, FiftyOne: a row an image with its ids, path, split, node on each level and vector.

    Example: `hierderm index export index -o index.parquet`
    """
    require_free(out, replace=replace, suffixes=(".parquet",))
    if out.suffix != ".parquet":
        raise ConfigError(f"{out} must end in .parquet.")
    from hierderm.files import replacing
    from hierderm.plots import project
    from hierderm.search.case_index import CaseIndex
    from hierderm.search.export import export

    gallery = CaseIndex.open(index).gallery
    with replacing(out, replace=replace) as temporary:
        columns = export(gallery, temporary, project(gallery.vectors_at(), 0) if projected else None)
    typer.echo(f"{out}: {len(gallery)} images, columns {', '.join(columns)}")
