"""The report in a real browser: tables sort, points show their image, nothing is loaded, nothing overflows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, sync_playwright

from hierderm.config.loading import with_overrides
from hierderm.config.settings import Comparison
from hierderm.experiment.compare import compare
from tests.app.test_page import CHROMIUM, FLAGS, pytestmark  # noqa: F401


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
    return compare(with_overrides(Comparison(), settings), tmp_path_factory.mktemp("report"))


@pytest.fixture(params=[(1280, 900), (390, 800)], ids=["desktop", "phone"])
def page(report: Path, request: pytest.FixtureRequest) -> Iterator[Page]:
    width, height = request.param
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        opened = browser.new_page(viewport={"width": width, "height": height})
        problems: list[str] = []
        opened.on("pageerror", lambda error: problems.append(str(error)))
        opened.on("request", lambda r: problems.append(r.url) if not r.url.startswith(("file:", "data:")) else None)
        opened.goto(report.as_uri())
        yield opened
        assert problems == []
        browser.close()


def test_tables_sort_both_ways_by_a_click(page: Page) -> None:
    table = page.locator("h3:text-is('Coarse level') + .scroll table.sortable")
    heading = table.locator("th button").nth(1)

    def column() -> list[float]:
        texts = table.locator("tbody tr td:nth-child(2)").all_inner_texts()
        return [float(text.split()[0]) for text in texts if not text.startswith("–")]

    heading.click()
    assert column() == sorted(column(), reverse=True)
    heading.click()
    assert column() == sorted(column()) and len(column()) > 5


def test_a_point_shows_its_image(page: Page) -> None:
    point = page.locator("figure.map svg [data-t]").first
    point.scroll_into_view_if_needed()
    point.dispatch_event("pointerover")  # points may lie on each other
    tip = page.locator("figure.map .tip")
    assert tip.is_visible()
    assert tip.locator("img").evaluate("image => image.complete && image.naturalWidth > 0")
    assert tip.inner_text().strip() == point.get_attribute("data-t")


def test_the_first_screen_is_the_outcome_and_the_main_metrics(page: Page) -> None:
    assert " has the best value in " in page.locator("h2:text-is('Result') + p").inner_text()
    main = page.locator("table.sortable").first
    assert main.locator("tbody tr").count() == 2 and main.locator("td.best").count() >= 6
    assert not page.get_by_text("The best model of each metric").is_visible()
    page.get_by_text("All comparisons in words").click()
    assert page.get_by_text("The best model of each metric").is_visible()


def test_nothing_overflows_the_page(page: Page) -> None:
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
