"""The site of mkdocs.yml: pages are the repository's own files, at their own places.

So nothing is copied, and a relative link is right on the site as in the repository. Notebooks are committed without
outputs and executed here. Whatever a page would load from another server is a warning, which `strict` makes an error.
"""

from __future__ import annotations

import logging
import os
import re
from html.parser import HTMLParser
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from nbclient import NotebookClient
from nbconvert import MarkdownExporter

ROOT = Path(__file__).parents[1]
SOURCES = (
    "*.md", "LICENSE", "CITATION.cff", "docs/**/*.md", "docs/*.png", "docs/*.css", "experiments/*.*",
    "experiments/history/*.md", "taxonomy/README.md", "benchmarks/README.md", "benchmarks/supcon.py",
    "hierderm/weights/siglip-tiny/README.md",
)  # fmt: skip
SECONDS = 120  # of one cell, at most
ARGUMENTS = ["--log-level=ERROR"]  # of a kernel, which would warn that it listens on 127.0.0.1
LOADS = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}
HARMLESS = {"canonical", "next", "prev", "alternate"}  # relations of <link> that nothing is loaded for
logger = logging.getLogger("mkdocs.hooks.hierderm")


class Notebook(File):
    """A notebook that is a page."""

    def is_documentation_page(self) -> bool:
        return True


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """The theme's files, and ours in place of those below `docs_dir`."""
    found = [file for file in files if file.src_dir != config.docs_dir]
    for path in sorted(path for pattern in SOURCES for path in ROOT.glob(pattern) if path.is_file()):
        name = path.relative_to(ROOT).as_posix()
        found.append(File(name, str(ROOT), config.site_dir, config.use_directory_urls))
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        text, images = as_markdown(executed(nbformat.read(path, as_version=4)), path.stem)
        found.append(Notebook.generated(config, f"notebooks/{path.name}", content=text))
        found += [File.generated(config, f"notebooks/{name}", content=image) for name, image in images.items()]
    return Files(found)


def on_post_page(output: str, *, page: Page, config: MkDocsConfig) -> str:
    """Warn of what the page would load from another server."""
    for address in loaded_from_elsewhere(output):
        logger.warning("%s would load %s", page.file.src_uri, address)
    return output


def executed(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook with its outputs, run in an empty folder; CellExecutionError where a cell fails."""
    with TemporaryDirectory() as folder:
        resources = {"metadata": {"path": folder}}
        client = NotebookClient(notebook, timeout=SECONDS, extra_arguments=ARGUMENTS, resources=resources)
        client.execute(env={**os.environ, "PYTHONWARNINGS": "ignore:IProgress not found"})  # no widgets on the site
    return notebook


def as_markdown(notebook: nbformat.NotebookNode, name: str) -> tuple[str, dict[str, bytes]]:
    """A notebook as Markdown, and its images by file name."""
    exporter = MarkdownExporter()
    text, resources = exporter.from_notebook_node(notebook, {"unique_key": name, "output_files_dir": name})
    text = re.sub(r"<style scoped>.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r"<(table|tr) [^>]*>", r"<\1>", text)  # the site's own tables, which scroll on a phone
    return text, dict(resources["outputs"])


class _Loads(HTMLParser):
    """The addresses that a page loads without being asked to."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        if tag in LOADS and not (tag == "link" and given.get("rel") in HARMLESS):
            self.addresses.append(given.get(LOADS[tag]) or "")
        self.addresses += re.findall(r"url\(['\"]?([^'\")]+)", given.get("style") or "")


def loaded_from_elsewhere(html: str) -> list[str]:
    """The addresses of other servers that a page loads: of scripts, styles, images and fonts."""
    parser = _Loads()
    parser.feed(html)
    styles = "".join(re.findall(r"<style.*?</style>", html, re.DOTALL))
    inside = re.findall(r"(?:@import\s+|url\()['\"]?([^'\")\s;]+)", styles)
    return [address for address in [*parser.addresses, *inside] if re.match(r"(https?:)?//", address)]
