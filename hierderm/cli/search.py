"""The commands that search an index: search and serve."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from hierderm.cli.output import JsonFlag, Replace, say, show_json, show_table
from hierderm.errors import ConfigError, SearchError
from hierderm.files import require_free

if TYPE_CHECKING:
    from hierderm.search.finder import CaseFinder, FinderResult, SearchOptions

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
IndexPlace = Annotated[str, typer.Argument(help="The folder of the index, or an address: postgresql://host/database.")]
MovedModel = Annotated[str, typer.Option("--model", "-m", help="Where the index's model is now, if it was moved.")]
Within = Annotated[
    list[str] | None, typer.Option(help="Only cases under this category or condition; repeat for several.")
]
Where = Annotated[
    list[str] | None,
    typer.Option(help="Only rows with a value, e.g. fitzpatrick=5,6; repeat for columns, or for values with commas."),
]
Partial = Annotated[
    bool, typer.Option("--partial", help="Where a server of the index is down, search the others, and say so.")
]
Aggregated = Annotated[
    Literal["best", "mean"], typer.Option(help="Compare cases by their best pair of images, or by means.")
]


def search(
    images: Annotated[
        list[Path] | None, typer.Argument(help="One to three images of one case, or a folder: each image is a query.")
    ] = None,
    index: Annotated[
        str, typer.Option("--index", "-i", help="The folder of the index, or an address: postgresql://host/database.")
    ] = "index",
    k: Annotated[int, typer.Option("-k", help="Number of cases.")] = 10,
    image_id: Annotated[str, typer.Option(help="Instead: an image that is in the index.")] = "",
    text: Annotated[str, typer.Option(help="Instead: words, where the model has a text tower.")] = "",
    within: Within = None,
    where: Where = None,
    aggregation: Aggregated = "best",
    per_condition: Annotated[int, typer.Option(help="At most so many cases of one condition; 0 any number.")] = 0,
    model: MovedModel = "",
    html: Annotated[Path | None, typer.Option(help="Write a page with the images, too.")] = None,
    why: Annotated[bool, typer.Option("--why", help="On that page, show which places are alike: a hint.")] = False,
    partial: Partial = False,
    replace: Replace = False,
    as_json: JsonFlag = False,
) -> None:
    """Find the nearest cases.

    Shows their diagnoses, and how far to trust them.

    Example: `hierderm search photo.jpg -i index -k 10 --within "Fungal Infections"`
    """
    from hierderm.search.filters import where_of
    from hierderm.search.finder import CaseFinder, SearchOptions

    if sum([bool(images), bool(image_id), bool(text)]) != 1:
        raise ConfigError("give images, or --image-id, or --text: one of them.")
    if why and (html is None or text):
        raise ConfigError("--why draws on the images of --html, so it takes that and a query of images.")
    if html is not None:
        require_free(html, replace=replace, suffixes=(".html", ".htm"), inputs=images or [])
    finder = CaseFinder.open(index, model=model, partial=partial)
    options = SearchOptions(
        k, within or [], where_of(where or [], finder.index.gallery.values), aggregation, per_condition
    )
    searched, failed = _search(finder, images or [], image_id, text, options)
    contents = [(title, shown, found.to_dict(paths=True)) for title, shown, found in searched]
    if html is not None:
        from hierderm.report.contact_sheet import write_contact_sheet

        write_contact_sheet(html, contents, str(finder.place), why=finder if why else None, replace=replace)
        say(f"Page: {html.resolve()}")
    if as_json:
        show_json([{"query": title, **content} for title, _, content in contents])
    else:
        for title, _, content in contents:
            _print(title, content)
    if failed:
        raise SearchError(f"{len(failed)} of {len(contents) + len(failed)} images can't be read:\n" + "\n".join(failed))


def _search(
    finder: CaseFinder, paths: list[Path], image_id: str, text: str, options: SearchOptions
) -> tuple[list[tuple[str, list[Any], FinderResult]], list[str]]:
    """For each query its title, its images and what was found; and which images of a folder can't be read."""
    from hierderm.data.image_files import find_images
    from hierderm.data.image_io import ImageError, open_image

    if text:
        return [(f"'{text}'", [], finder.search_text(text, options))], []
    if image_id:
        gallery = finder.index.gallery
        (path,) = gallery.image_paths([gallery.image_row(image_id)])
        images = [open_image(path)] if path.is_file() else []
        return [(image_id, images, finder.search_image_id(image_id, options))], []
    if not any(path.is_dir() for path in paths):
        images = [open_image(path) for path in paths]
        return [(", ".join(map(str, paths)), images, finder.search(images, options))], []
    if len(paths) > 1:
        raise ConfigError("give one folder, or images of one case, not both.")
    found = find_images(paths[0])
    if not found.images:
        raise ConfigError(f"{paths[0]} must hold images, it has none{found.in_words()}.")
    if found.left_out:
        say(f"{paths[0]}: {len(found.images)} images{found.in_words()}")
    results, failed = [], []
    for path in found.images:
        try:
            image = open_image(path)
        except ImageError as error:
            failed.append(str(error))
        else:
            results.append((str(path), [image], finder.search([image], options)))
    return results, failed


def _print(title: str, content: dict[str, Any]) -> None:
    from rich.markup import escape
    from rich.table import Table

    shown = Table(title=f"Nearest cases of {escape(title)}", title_justify="left")
    shown.add_column("", justify="right")
    for name in ("case", "condition", "category", "similarity", "closer than", "image"):
        shown.add_column(name, justify="right" if name in ("similarity", "closer than") else "left", overflow="fold")
    for place, hit in enumerate(content["hits"], start=1):
        above = " > ".join(hit["path"][:-1])
        closer = "" if hit["closer_than"] is None else f"{int(1000 * hit['closer_than']) / 1000:.1%}"
        cells = (hit["case_id"], hit["condition"], above, f"{hit['similarity']:.3f}", closer, hit["image_path"])
        shown.add_row(str(place), *(escape(cell) for cell in cells))
    show_table(shown)
    if content["missing"]:
        typer.echo(f"Cases are missing: {content['missing']} server(s) of the index are down.")
    read = content["answer"]
    if read is None:
        return
    typer.echo("closer than: the share of pairs of cases of the index that are less similar")
    for level, nodes in zip(content["levels"], read["differential"], strict=True):
        if nodes:
            shares = ", ".join(f"{node['name']} {node['share']:.0%}" for node in nodes[:5])
            typer.echo(f"{level}: {nodes[0]['name'] + ', no other could come' if level in read['given'] else shares}")
    if read["node"]:
        typer.echo(f"Answer: {read['node']} ({read['level']})")
    elif read["confidence"] is not None or read["unlike"]:
        typer.echo("Answer: none")
    typer.echo(read["reason"])
    typer.echo("This is a research tool, not a diagnosis.")


def serve(
    index: IndexPlace,
    host: Annotated[str, typer.Option(help="Address to listen on; the default is reached from this machine only.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8000,
    model: MovedModel = "",
    max_megabytes: Annotated[float, typer.Option(min=0.001, max=1e6, help="Largest size of an uploaded image.")] = 15,
    max_megapixels: Annotated[
        float, typer.Option(min=0.001, max=1e6, help="Largest number of pixels of an uploaded image.")
    ] = 50,
    token_file: Annotated[
        Path | None,
        typer.Option(help="A file with a token that clients must send; or set HIERDERM_TOKEN. None is asked for else."),
    ] = None,
    partial: Partial = False,
) -> None:
    """Start the page to search with images.

    Upload an image or take a photo, and look at the nearest cases. Uploads are not stored. A change of the index is
    followed within a second.

    Example: `hierderm serve index --port 8000`
    """
    say("Opening the index and loading its model ...")  # before the imports, which take as long
    from hierderm.errors import MissingExtraError
    from hierderm.search.finder import CaseFinder

    try:
        import uvicorn

        from hierderm.app.server import create_app
        from hierderm.app.uploads import Limits
    except ImportError:
        raise MissingExtraError("the page", "app") from None
    limits = Limits(image_bytes=round(max_megabytes * 1e6), image_pixels=round(max_megapixels * 1e6))
    local, token = host in ("127.0.0.1", "localhost", "::1"), _token(token_file)
    hosts = LOOPBACK if local else ("*",)
    app = create_app(CaseFinder.open(index, model=model, partial=partial), limits=limits, hosts=hosts, token=token)
    if token:
        say("Clients must send the token; a browser asks for it as a password, with any user name.")
    elif not local:
        say("Everybody who can reach this address can search the index and see its images. Set a token: --token-file.")
    say(f"Open http://{f'[{host}]' if ':' in host else host}:{port} (Ctrl-C ends it)")
    uvicorn.run(app, host=host, port=port, log_level="warning")


def _token(file: Path | None) -> str:
    """What clients must send: of the file, or else of the environment; '' where neither names a token."""
    import os

    from hierderm.app.guard import check_token
    from hierderm.errors import describe_os_error

    if file is None:
        token = os.environ.get("HIERDERM_TOKEN")
        return "" if token is None else check_token(token)
    try:
        return check_token(file.read_text(encoding="utf-8").strip())
    except (OSError, UnicodeDecodeError) as error:
        reason = describe_os_error(error) if isinstance(error, OSError) else f"{file}: it is not a text file."
        raise ConfigError(f"the token can't be read ({reason})") from None
