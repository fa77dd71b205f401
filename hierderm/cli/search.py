"""The commands of the case index: index build, add, remove, info and verify; search; serve."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from hierderm.artifacts import require_free
from hierderm.cli.output import JsonFlag, Replace, Workers, say, show, show_json, show_table
from hierderm.errors import ConfigError, SearchError

if TYPE_CHECKING:
    from hierderm.search.case_index import CaseIndex
    from hierderm.search.filters import Filter
    from hierderm.search.finder import CaseFinder, Found, Wanted
    from hierderm.taxonomy.tree import Taxonomy

index_app = typer.Typer(help="Make and keep a searchable index of cases.", no_args_is_help=True, rich_markup_mode=None)

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
IndexFolder = Annotated[Path, typer.Argument(help="The folder of the index.")]
ModelName = Annotated[
    str, typer.Option("--model", "-m", help="Model folder of a run, or a backbone by name such as hierderm:tiny.")
]


def tree_of(model: str, taxonomy: str) -> Taxonomy:
    """The tree a table's conditions belong to: the one that is named, or the trained model's own."""
    from hierderm.model.checkpoint import tree_of_model
    from hierderm.model.encoder import model_folder
    from hierderm.taxonomy.file import load_taxonomy

    named = load_taxonomy(taxonomy) if taxonomy else None
    folder = model_folder(model)
    tree = (tree_of_model(folder, named) if folder else None) or named
    if tree is None:
        raise ConfigError("a backbone without labels needs --taxonomy: the tree that the table's conditions belong to.")
    return tree


@index_app.command("build")
def index_build(
    cases: Annotated[Path, typer.Argument(help="A table of cases.")],
    model: ModelName,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the index to write.")],
    taxonomy: Annotated[
        str, typer.Option("--taxonomy", "-t", help="The table's tree; a trained model's own by default.")
    ] = "",
    kind: Annotated[
        Literal["auto", "flat", "hnsw", "ivf", "ivfpq"], typer.Option(help="flat is exact; auto chooses by size.")
    ] = "auto",
    splits: Annotated[str, typer.Option(help="Splits to take in, e.g. train,validation; all by default.")] = "",
    accuracy: Annotated[float, typer.Option(help="How often answers must be right, on validation cases.")] = 0.8,
    embeddings: Annotated[
        Path | None, typer.Option(help="Folder of `hierderm embed` for this table and model, to save the time.")
    ] = None,
    replace: Replace = False,
    workers: Workers = 0,
) -> None:
    """Index the pictures of a table.

    Where the table has validation cases, answers are calibrated on them.

    Example: `hierderm index build runs/first/cases.csv --model runs/first/model -o index`
    """
    chosen = [name.strip() for name in splits.split(",") if name.strip()]
    lines = build_index(
        cases, model, out, taxonomy=taxonomy, kind=kind, splits=chosen, accuracy=accuracy, embeddings=embeddings,
        replace=replace, workers=workers,
    )  # fmt: skip
    typer.echo("\n".join([f"{out}:", *lines]))


def build_index(
    cases: Path,
    model: str,
    out: Path,
    *,
    taxonomy: str = "",
    kind: Literal["auto", "flat", "hnsw", "ivf", "ivfpq"] = "auto",
    splits: Sequence[str] = (),
    accuracy: float = 0.8,
    embeddings: Path | None = None,
    replace: bool = False,
    workers: int = 0,
) -> list[str]:
    """Embed a table, index it and write the folder; what the index is, in lines of text."""
    from hierderm import columns as c
    from hierderm.data.checks import read_cases
    from hierderm.embeddings import EmbeddingTable
    from hierderm.model.encoder import load
    from hierderm.search.finder import make_index
    from hierderm.search.persistence import require_free_index, save_index

    require_free_index(out, replace=replace)  # before minutes of embedding
    if unknown := sorted(set(splits) - set(c.SPLITS)):
        raise ConfigError(f"--splits must be of {list(c.SPLITS)}, got {unknown}.")
    table = read_cases(cases, tree_of(model, taxonomy), decode=False)
    embedded = EmbeddingTable.load(embeddings) if embeddings else load(model).embed(table, workers=workers)
    if list(embedded.frame[c.IMAGE_ID]) != list(table.frame[c.IMAGE_ID]):
        raise SearchError(f"{embeddings} must hold the pictures of {cases}, in its order. Embed the table again.")
    index, why_not = make_index(table, embedded, model=model, kind=kind, splits=splits, wanted_accuracy=accuracy)
    if embeddings:
        index.require_same_model(load(model).provenance)  # else no query could ever be compared with it
    save_index(index, out, replace=replace)
    return _about(index, why_not)


@index_app.command("add")
def index_add(
    folder: IndexFolder,
    cases: Annotated[Path, typer.Argument(help="A table of the cases to add.")],
    model: Annotated[str, typer.Option("--model", "-m", help="Where the index's model is now, if it was moved.")] = "",
    workers: Workers = 0,
) -> None:
    """Add the cases of a table to an index.

    They are embedded with the index's own model. Nothing is built anew.

    Example: `hierderm index add index new.csv`
    """
    from hierderm import columns as c
    from hierderm.data.checks import read_cases
    from hierderm.embeddings import EmbeddingTable
    from hierderm.model.encoder import load
    from hierderm.search.persistence import open_index, updating

    index = open_index(folder)
    table = read_cases(cases, index.taxonomy)
    embedded = load(model or index.about.model).embed(table, workers=workers)
    root = Path(index.about.image_root)
    paths = [str(p.relative_to(root) if p.is_relative_to(root) else p) for p in (q.absolute() for q in table.paths)]
    frame = embedded.frame.assign(**{c.IMAGE_PATH: paths})
    if c.SPLIT in frame:
        frame[c.SPLIT] = ""  # of another table: its validation cases are not those the index was calibrated on
    with updating(folder) as index:
        index.add(EmbeddingTable(embedded.embeddings, frame, embedded.provenance))
    typer.echo(f"{folder}: {len(table)} pictures added, now {len(index)} of {index.n_cases} cases")


@index_app.command("remove")
def index_remove(
    folder: IndexFolder, case_ids: Annotated[list[str], typer.Argument(help="Ids of the cases to take out.")]
) -> None:
    """Take cases out of an index.

    Example: `hierderm index remove index case-0012 case-0048`
    """
    from hierderm.search.persistence import updating

    with updating(folder) as index:
        before = len(index)
        index.remove(case_ids)
    typer.echo(f"{folder}: {before - len(index)} pictures removed, now {len(index)} of {index.n_cases} cases")
    if index.about.removed:
        typer.echo(
            f"The graph still holds vectors of {index.about.removed} removed pictures. Build again to be rid of them."
        )


@index_app.command("info")
def index_info(folder: IndexFolder, as_json: JsonFlag = False) -> None:
    """What an index holds, and what made it.

    Example: `hierderm index info index`
    """
    from dataclasses import asdict

    from hierderm.search.persistence import open_index

    index = open_index(folder)
    content = {
        "pictures": len(index),
        "cases": index.n_cases,
        "dim": index.vectors.shape[1],
        "columns": list(index.frame.columns),
        "taxonomy": index.taxonomy.summary(),
        **asdict(index.about),
        "provenance": asdict(index.provenance),
        "calibration": index.calibration.to_dict() if index.calibration else None,
    }
    show(content, as_json, "\n".join(_about(index, "it was built so")))


@index_app.command("verify")
def index_verify(folder: IndexFolder) -> None:
    """Check an index: checksums, pictures, recall.

    Every file against its checksum, that every picture is where the index says, and the recall of its search against
    an exact one.

    Example: `hierderm index verify index`
    """
    from hierderm.data.image_io import unreadable_images
    from hierderm.search.persistence import open_index

    index = open_index(folder)
    typer.echo("checksums: all files are whole")
    typer.echo(f"recall@10 against exact search: {index.measure_recall():.3f}")
    faults = unreadable_images([index.hit(row, 1.0).file for row in range(len(index))])
    if faults:
        first = min(faults)
        raise SearchError(
            f"{len(faults)} of {len(index)} pictures can't be read, the first is {index.hit(first, 1.0).file}: "
            f"{faults[first]}. Searches work, but their pictures can't be shown."
        )
    typer.echo(f"pictures: all {len(index)} can be read")


def _about(index: CaseIndex, why_not_calibrated: str) -> list[str]:
    from hierderm.search.finder import validation_scores

    about, lines = index.about, []
    lines.append(f"{len(index)} pictures of {index.n_cases} cases, vectors of length {index.vectors.shape[1]}")
    lines.append(f"taxonomy {index.taxonomy.summary()}")
    lines.append(f"model {about.model or 'unknown'} (weights {index.provenance.weights_hash or 'unknown'})")
    exact = "exact" if about.kind == "flat" else f"recall@10 against exact search {about.recall_at_10:.3f}"
    lines.append(f"kind {about.kind}: {exact}")
    if index.calibration is None:
        lines.append(f"answers are not calibrated: {why_not_calibrated}")
        return lines
    scores = validation_scores(index)
    for name, learnt, figures in zip(index.taxonomy.level_names, index.calibration.levels, scores, strict=True):
        means = f"recall@1 {figures['recall_at_1']:.3f}, 5-NN accuracy {figures['knn_accuracy']:.3f}"
        if learnt.threshold is None:
            said = f"never answered, no share of votes was right in {index.calibration.wanted:.0%}"
        else:
            said = (
                f"answered from {learnt.threshold:.0%} of the votes on: {learnt.answered} of {learnt.n_queries} "
                f"validation cases, {learnt.right} right"
            )
        lines.append(f"{name}: {means}; {said}")
    return lines


def search(
    pictures: Annotated[
        list[Path] | None, typer.Argument(help="One to three pictures of one case, or a folder: each picture a query.")
    ] = None,
    index: Annotated[Path, typer.Option("--index", "-i", help="The folder of the index.")] = Path("index"),
    k: Annotated[int, typer.Option("-k", help="How many cases.")] = 10,
    image_id: Annotated[str, typer.Option(help="Instead: a picture that is in the index.")] = "",
    text: Annotated[str, typer.Option(help="Instead: words, where the model has a text side.")] = "",
    within: Annotated[
        list[str] | None, typer.Option(help="Only cases under this category or condition; repeat for several.")
    ] = None,
    where: Annotated[
        list[str] | None, typer.Option(help="Only rows with a value, e.g. fitzpatrick=5,6; repeat for columns.")
    ] = None,
    aggregation: Annotated[
        Literal["best", "mean"], typer.Option(help="Compare cases by their best pair of pictures, or by means.")
    ] = "best",
    per_condition: Annotated[int, typer.Option(help="At most so many cases of one condition; 0 any number.")] = 0,
    model: Annotated[str, typer.Option("--model", "-m", help="Where the index's model is now, if it was moved.")] = "",
    html: Annotated[Path | None, typer.Option(help="Write a page with the pictures, too.")] = None,
    replace: Replace = False,
    as_json: JsonFlag = False,
) -> None:
    """Find the nearest cases.

    With what they were diagnosed as, and how far to trust that.

    Example: `hierderm search photo.jpg -i index -k 10 --within "Fungal Infections"`
    """
    from hierderm.search.finder import CaseFinder, Wanted

    if sum([bool(pictures), bool(image_id), bool(text)]) != 1:
        raise ConfigError("give pictures, or --image-id, or --text: one of them.")
    if html is not None:
        require_free(html, replace=replace)
    wanted = Wanted(k, aggregation, _filter(within or [], where or []), per_condition)
    finder = CaseFinder.open(index, model=model)
    searched = _search(finder, pictures or [], image_id, text, wanted)
    contents = [(title, shown, finder.describe(found, files=True)) for title, shown, found in searched]
    if html is not None:
        from hierderm.report.contact_sheet import write_contact_sheet

        write_contact_sheet(html, contents, str(index), replace=replace)
        say(f"Page: {html.resolve()}")
    if as_json:
        show_json([{"query": title, **content} for title, _, content in contents])
        return
    for title, _, content in contents:
        _print(title, content)


def _search(
    finder: CaseFinder, paths: list[Path], image_id: str, text: str, wanted: Wanted
) -> list[tuple[str, list[Any], Found]]:
    """For each query its title, its pictures and what was found."""
    from hierderm.data.image_io import SUFFIXES, open_image

    if text:
        return [(f"'{text}'", [], finder.by_text(text, wanted))]
    if image_id:
        file = finder.index.hit(finder.index.row_of_image(image_id), 1.0).file
        return [(image_id, [open_image(file)] if file.is_file() else [], finder.by_image(image_id, wanted))]
    if any(path.is_dir() for path in paths):
        if len(paths) > 1:
            raise ConfigError("give one folder, or pictures of one case, not both.")
        found = sorted(path for path in paths[0].rglob("*") if path.suffix.lower() in SUFFIXES)
        if not found:
            raise ConfigError(f"{paths[0]} must hold pictures ({', '.join(SUFFIXES)}), it has none.")
        groups = [[path] for path in found]
    else:
        groups = [paths]
    results = []
    for group in groups:
        pictures = [open_image(path) for path in group]
        results.append((", ".join(map(str, group)), pictures, finder.by_pictures(pictures, wanted)))
    return results


def _filter(within: list[str], where: list[str]) -> Filter:
    from hierderm.search.filters import Filter

    pairs = [pair.partition("=") for pair in where]
    if any(not sign or not column for column, sign, _ in pairs):
        raise ConfigError(f"--where must look like fitzpatrick=5,6, got {where}.")
    return Filter(within, {column: values.split(",") for column, _, values in pairs})


def _print(title: str, content: dict[str, Any]) -> None:
    from rich.markup import escape
    from rich.table import Table

    shown = Table(title=f"Nearest cases of {escape(title)}", title_justify="left")
    shown.add_column("", justify="right")
    for name in ("case", "condition", "category", "similarity", "file"):
        shown.add_column(name, justify="right" if name == "similarity" else "left", overflow="fold")
    for place, hit in enumerate(content["hits"], start=1):
        above = " > ".join(hit["path"][:-1])
        cells = (hit["case_id"], hit["condition"], above, f"{hit['similarity']:.3f}", hit["file"])
        shown.add_row(str(place), *(escape(cell) for cell in cells))
    show_table(shown)
    said = content["answer"]
    if said is None:
        return
    for level, nodes in zip(content["levels"], said["differential"], strict=True):
        typer.echo(f"{level}: " + ", ".join(f"{node['name']} {node['share']:.0%}" for node in nodes[:5]))
    if said["node"]:
        typer.echo(
            f"Answer: {said['node']} ({said['level']}), right in {said['confidence']:.0%} of such validation cases"
        )
    elif said["confidence"] is not None:
        typer.echo("Answer: none")
    typer.echo(said["reason"])
    typer.echo("This is a research tool, not a diagnosis.")


def serve(
    index: Annotated[Path, typer.Argument(help="The folder of the index.")],
    host: Annotated[str, typer.Option(help="Address to listen on; the default is reached from this machine only.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8000,
    model: Annotated[str, typer.Option("--model", "-m", help="Where the index's model is now, if it was moved.")] = "",
    max_megabytes: Annotated[float, typer.Option(help="Size of one uploaded picture, at most.")] = 15,
    max_megapixels: Annotated[float, typer.Option(help="Pixels of one uploaded picture, at most.")] = 50,
) -> None:
    """Open the page to search with pictures.

    Upload or photograph a picture and look at the nearest cases. Nothing is kept of what is uploaded.

    Example: `hierderm serve index --port 8000`
    """
    from hierderm.errors import MissingExtraError
    from hierderm.search.finder import CaseFinder

    try:
        import uvicorn

        from hierderm.app.server import create_app
        from hierderm.app.uploads import Limits
    except ImportError:
        raise MissingExtraError("the page", "app") from None
    limits = Limits(picture_bytes=round(max_megabytes * 1e6), picture_pixels=round(max_megapixels * 1e6))
    local = host in ("127.0.0.1", "localhost", "::1")
    app = create_app(CaseFinder.open(index, model=model), limits=limits, hosts=LOOPBACK if local else ("*",))
    if not local:
        say("Anybody who reaches this address can search and see the pictures of the index.")
    say(f"Open http://{f'[{host}]' if ':' in host else host}:{port} (Ctrl-C ends it)")
    uvicorn.run(app, host=host, port=port, log_level="warning")
