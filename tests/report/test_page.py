"""The report in a real browser: what the first screen has, what can be saved, nothing is loaded, nothing overflows."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest
from PIL import Image
from playwright.sync_api import Locator, Page

from hierderm.config.loading import with_overrides
from hierderm.config.settings import Comparison
from hierderm.experiment.compare import compare
from hierderm.report.page import is_ours
from hierderm.report.pdf import find_browser
from tests.app.test_page import browser, on_both, opening, pytestmark, tab  # noqa: F401
from tests.drawing import drawing


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, toy_folder: Path, small_siglip: Path) -> Path:
    settings = {
        "data.cases": str(toy_folder / "cases.csv"),
        "data.taxonomy": str(toy_folder / "taxonomy.csv"),
        "backbone.name": f"hf:{small_siglip}",
        "evaluation.bootstrap_rounds": 20,
        "models": [
            {"name": "vanilla", "method": "vanilla"},
            {"name": "lda", "method": "lda", "set": {"training.views": 0}},
        ],
    }
    with drawing(pngs=False), pytest.MonkeyPatch.context() as patch:
        patch.setattr("hierderm.experiment.compare.working_browser", find_browser)  # without a page on trial
        return compare(with_overrides(Comparison(), settings), tmp_path_factory.mktemp("report"), pdf=True)


@pytest.fixture
def page(report: Path, tab: Page, request: pytest.FixtureRequest) -> Iterator[Page]:  # noqa: F811
    with opening(tab, report.as_uri(), request, ("file:", "data:", "blob:")) as opened:
        yield opened


def unfold(page: Page, title: str) -> None:
    page.locator(f"summary:has-text('{title}')").click()


def saved(page: Page, button: Locator) -> tuple[str, bytes]:
    """Name and content of the file that a button gives."""
    with page.expect_download() as found:
        button.click()
    return found.value.suggested_filename, found.value.path().read_bytes()


@on_both
def test_tables_sort_both_ways_by_a_click(page: Page) -> None:
    unfold(page, "All metrics")
    table = page.locator("h3:text-is('Coarse level') + .scroll table.sortable")
    heading = table.locator("th button").nth(1)

    def column() -> list[float]:
        texts = table.locator("tbody tr td:nth-child(2)").all_inner_texts()
        return [float(text.split()[0]) for text in texts if not text.startswith("–")]

    heading.click()
    assert column() == sorted(column(), reverse=True)
    heading.click()
    assert column() == sorted(column()) and len(column()) > 5


@on_both
def test_a_point_shows_its_image(page: Page) -> None:
    unfold(page, "Maps")
    point = page.locator("figure.map svg [data-t]").first
    point.scroll_into_view_if_needed()
    point.dispatch_event("pointerover")  # points may lie on each other
    tip = page.locator("figure.map .tip")
    assert tip.is_visible()
    assert tip.locator("img").evaluate("image => image.complete && image.naturalWidth > 0")
    assert tip.inner_text().strip() == point.get_attribute("data-t")


@on_both
def test_the_first_screen_is_a_sentence_a_table_and_a_plot(page: Page) -> None:
    assert page.locator("h1").inner_text() == "2 models on cases.csv"
    assert " has the best value in " in page.locator(".outcome").inner_text()
    main = page.locator("table.sortable").first
    assert main.locator("tbody tr").count() == 2 and main.locator("td.best").count() >= 6
    shown = page.locator("svg.plot:visible")
    assert shown.count() == 1 and shown.get_attribute("aria-label") == (
        "forest plot: lda minus each other model in the main metrics, with intervals"
    )
    bottom = main.evaluate("table => table.getBoundingClientRect().bottom")
    assert bottom < shown.evaluate("plot => plot.getBoundingClientRect().top") < page.viewport_size["height"]  # type: ignore[index]
    assert not page.get_by_text("The best model of each metric").is_visible()
    assert page.locator("details[open]").count() == 0
    unfold(page, "lda minus each other model")
    assert page.get_by_text("The best model of each metric").is_visible()


def test_plots_are_in_the_colours_of_the_page(page: Page) -> None:
    for scheme, ink in (("light", "rgb(27, 31, 36)"), ("dark", "rgb(230, 233, 237)")):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        text, axis = (
            page.locator("svg.plot:visible text").first,
            page.locator("svg.plot:visible path[style*=currentColor]"),
        )
        assert text.evaluate("text => getComputedStyle(text).fill") == ink
        assert axis.first.evaluate("axis => getComputedStyle(axis).stroke") == ink
    page.emulate_media(media="print")
    assert not page.locator(".get").first.is_visible()


def test_a_plot_is_saved_as_svg_and_png(page: Page) -> None:
    page.emulate_media(color_scheme="dark")
    line = page.locator(".plot + .get").first
    name, content = saved(page, line.locator("button", has_text="SVG"))
    assert name == "cases.csv-2-models-paired-differences.svg"
    root = ElementTree.fromstring(content)
    assert root.tag == "{http://www.w3.org/2000/svg}svg" and root[0].attrib["fill"] == "#ffffff"
    assert b"currentColor" not in content and b"var(" not in content and b"coarse AMI" in content
    name, content = saved(page, line.locator("button", has_text="PNG"))
    assert name == "cases.csv-2-models-paired-differences.png"
    with Image.open(io.BytesIO(content)) as image:
        assert image.width == 2400 and image.getpixel((0, 0)) == (255, 255, 255, 255)
        assert sum(image.convert("L").histogram()[:64]) > 1000  # black text


def test_a_table_is_saved_as_csv(page: Page) -> None:
    name, content = saved(page, page.locator(".scroll + .get button").first)
    assert name == "cases.csv-2-models-main-metrics.csv"
    table = pd.read_csv(io.BytesIO(content), encoding="utf-8-sig")
    assert list(table)[:4] == ["Model", "coarse AMI", "coarse AMI low", "coarse AMI high"]
    assert list(table["Model"]) == ["vanilla", "lda"]
    assert (table["coarse AMI low"] <= table["coarse AMI"]).all() and table["fine MAP@R"].between(0, 1).all()
    unfold(page, "lda minus each other model")
    _, content = saved(
        page, page.locator("table[data-name=differences]").locator("xpath=../following-sibling::p[1]/button")
    )
    assert list(pd.read_csv(io.BytesIO(content), encoding="utf-8-sig")) == [
        "Metric", "vanilla", "vanilla low", "vanilla high", "vanilla p",
    ]  # fmt: skip


def test_a_cell_that_a_spreadsheet_would_compute_is_shielded(page: Page) -> None:
    page.locator("table.brief td").first.evaluate("(cell, text) => (cell.textContent = text)", '=1+1, "x"')
    _, content = saved(page, page.locator(".scroll + .get button").first)
    assert pd.read_csv(io.BytesIO(content), encoding="utf-8-sig")["Model"][0] == '\'=1+1, "x"'


def test_the_pdf_is_one_page(report: Path) -> None:
    content = report.with_name("report.pdf").read_bytes()
    assert len(re.findall(rb"/Type\s*/Page\b", content)) == 1 and is_ours(content)


def test_on_paper_everything_is_unfolded_and_folded_again(page: Page) -> None:
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details[open]").count() == 0


@on_both
def test_nothing_overflows_the_page(page: Page) -> None:
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
