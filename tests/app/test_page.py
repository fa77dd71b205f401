"""The page in a real browser (Debian's chromium): upload, look, filter, open a case, with the mouse and the keyboard."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright

from hierderm import columns as c
from hierderm.app.server import create_app
from hierderm.data.table import CaseTable
from hierderm.search.case_index import CaseIndex
from hierderm.search.finder import CaseFinder
from tests.app.conftest import serving

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), "")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
expect.set_options(timeout=20_000)  # CI machines are slow and shared
pytestmark = [
    pytest.mark.skipif(not CHROMIUM, reason="needs a browser: apt-get install chromium"),
    pytest.mark.together("browser"),
]


@pytest.fixture(scope="module")
def address(finder: CaseFinder) -> Iterator[str]:
    with serving(create_app(finder)) as started:
        yield started


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield started
        started.close()


DESKTOP, PHONE = (1280, 900), (390, 800)
on_both = pytest.mark.parametrize("page", [DESKTOP, PHONE], ids=["desktop", "phone"], indirect=True)


@pytest.fixture(scope="module")
def tab(browser: Browser) -> Iterator[Page]:
    opened = browser.new_page()
    yield opened
    opened.close()


@contextmanager
def opening(tab: Page, address: str, request: pytest.FixtureRequest, own: tuple[str, ...]) -> Iterator[Page]:
    """A page opened anew, on a desktop where a test does not say more, without errors and without what is not `own`."""
    width, height = getattr(request, "param", DESKTOP)
    troubles: list[str] = []
    listeners: dict[Any, Callable[[Any], None]] = {
        "console": lambda message: troubles.append(message.text) if message.type == "error" else None,
        "pageerror": lambda error: troubles.append(str(error)),
        "request": lambda r: None if r.url.startswith(own) else troubles.append(r.url),
    }
    for event, listener in listeners.items():
        tab.on(event, listener)
    tab.set_viewport_size({"width": width, "height": height})
    tab.emulate_media(media="null", color_scheme="null")
    tab.goto(address)
    yield tab
    for event, listener in listeners.items():
        tab.remove_listener(event, listener)
    assert troubles == []


@pytest.fixture
def page(address: str, tab: Page, request: pytest.FixtureRequest) -> Iterator[Page]:
    with opening(tab, address, request, (address, "blob:", "data:")) as opened:
        yield opened


def settled(page: Page) -> None:
    """Wait for the answer to the search that a change of a filter has begun."""
    expect(page.locator("#status")).to_contain_text("case")


@on_both
def test_from_upload_to_case(page: Page, toy: CaseTable, finder: CaseFinder) -> None:
    image = toy.part(c.TEST).paths[0]
    expect(page.locator("#disclaimer")).to_contain_text("not a medical device")
    page.set_input_files("#files", image)
    hits = page.locator("#hits button")
    expect(hits).to_have_count(10)
    expect(page.locator("#chosen img")).to_have_count(1)
    expect(page.locator("#status")).to_have_text("10 cases found.")
    assert page.locator("#tree .node").count() >= 2
    expect(page.locator("#tree .node .percent").first).to_contain_text("%")
    expect(hits.first).to_contain_text("% of pairs")
    assert page.locator("#nodes option").count() == len(finder.index.taxonomy.names(0)) + len(
        set(finder.index.gallery.fine_at())
    )
    expect(page.locator("#map svg .mark").last).to_be_attached(timeout=20_000)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")  # nothing runs off a phone

    name = finder.index.taxonomy.names(0)[1]
    page.fill("#within", name[:3])  # no search before it is a name
    page.fill("#within", name)
    settled(page)
    expect(hits.filter(has_not_text=name)).to_have_count(0)
    expect(page.locator("#tree .node").first).to_contain_text("only")
    expect(page.locator("#reason")).to_contain_text(f"than '{name}' could come")
    expect(hits.first).to_be_visible()
    page.select_option("#filters select[name=fitzpatrick]", "3")
    settled(page)
    expect(page.locator("#hits")).not_to_contain_text("Fitzpatrick type 1")
    page.select_option("#filters select[name=fitzpatrick]", "")
    settled(page)
    expect(hits.nth(1)).to_be_visible()

    hits.first.focus()
    page.keyboard.press("Enter")
    dialog = page.locator("#case")
    expect(dialog).to_be_visible()
    expect(dialog.locator("#case-query img")).to_have_count(1)
    before = dialog.locator("#case-images img").first.get_attribute("src")
    dialog.locator("#why").click()
    expect(dialog.locator("#hint")).to_contain_text("A hint, not an explanation")
    expect(dialog.locator("#case-images img").first).not_to_have_attribute("src", str(before))
    assert dialog.locator("#case-query img").first.evaluate("image => image.decode().then(() => image.naturalWidth)")
    first = dialog.locator("#case-facts").inner_text()
    page.keyboard.press("ArrowRight")
    expect(dialog.locator("#case-facts")).not_to_have_text(first)
    page.keyboard.press("Escape")
    expect(dialog).not_to_be_visible()


def test_an_image_chosen_before_the_server_has_answered_is_not_lost(page: Page, toy: CaseTable) -> None:
    held: list[Route] = []
    page.route("**/api/info", lambda route: held.append(route), times=1)
    page.reload()
    page.set_input_files("#files", toy.part(c.TEST).paths[0])
    expect(page.locator("#hits button")).to_have_count(0)
    while not held:
        page.wait_for_timeout(50)
    held[0].continue_()
    expect(page.locator("#hits button")).to_have_count(10)


def test_an_image_unlike_the_index_is_refused(
    page: Page, finder: CaseFinder, toy: CaseTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    learnt = finder.index.calibration
    assert learnt is not None and learnt.likeness is not None
    many = replace(learnt.likeness, embedding=(), look=tuple(k / 1000 for k in range(19)), n_cases=19)
    monkeypatch.setattr(finder.index, "calibration", replace(learnt, likeness=many))
    page.reload()
    page.set_input_files("#files", toy.part(c.TEST).paths[0])
    expect(page.locator("#answer")).to_have_text("No answer: unlike the images of the index.")
    expect(page.locator("#reason")).to_contain_text(
        "This image is unlike the images of the index, most of all in colours"
    )
    expect(page.locator("#unlike")).to_contain_text("are refused, and at most 5% of those like the validation cases")
    expect(page.locator("#hits button")).to_have_count(10)
    expect(page.locator("#tree .node")).to_have_count(0)


@on_both
def test_words_and_images_of_the_gallery(page: Page) -> None:
    page.fill("#text", "red papule")
    page.keyboard.press("Enter")
    expect(page.locator("#answer")).to_contain_text("A search by words finds cases")
    page.locator("#hits button").first.click()
    page.click("#use")
    expect(page.locator("#chosen img")).to_have_count(1)
    expect(page.locator("#answer")).not_to_contain_text("A search by words finds cases")
    page.click("#clear")
    expect(page.locator("#results")).to_be_hidden()


def test_a_file_that_is_no_image_is_refused(page: Page, tmp_path: Path) -> None:
    note = tmp_path / "note.txt"
    note.write_text("no image")
    page.set_input_files("#files", note)
    expect(page.locator("#status.error")).to_contain_text("Choose an image file")
    page.click("#go")
    expect(page.locator("#status.error")).to_contain_text("Choose an image or type words first")


def test_an_open_page_follows_its_index_and_sends_the_token(
    finder: CaseFinder, toy_index: Path, toy: CaseTable, browser: Browser, tmp_path: Path
) -> None:
    folder, token = Path(shutil.copytree(toy_index, tmp_path / "index")), "kHb0-2c9s_lnQ4xTz"
    app = create_app(CaseFinder.open(folder, model=finder.encoder), token=token)
    with serving(app) as address:
        page = browser.new_page(http_credentials={"username": "anybody", "password": token})
        page.goto(address)
        page.set_input_files("#files", toy.part(c.TEST).paths[0])
        first = page.locator("#hits button img").first
        expect(first).to_have_js_property("complete", True)
        assert first.evaluate("image => image.naturalWidth") > 0  # images are sent with the token, too
        expect(page.locator("#map svg")).to_be_attached()
        image_id = parse_qs(urlsplit(str(first.get_attribute("src"))).query)["image_id"][0]
        drawn = page.locator("#map svg > *:not(.mark)").count()
        with CaseIndex.updating(folder) as index:
            index.remove([str(index.frame.loc[index.frame[c.IMAGE_ID] == image_id, c.CASE_ID].iloc[0])])
        for _ in range(100):
            page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")  # somebody comes back to the tab
            if page.locator("#holdings").inner_text().startswith(f"{len(index)} images"):
                break
            page.wait_for_timeout(100)
        expect(page.locator(f'#hits img[src*="image_id={image_id}&"]')).to_have_count(0)
        expect(page.locator("#hits button")).to_have_count(10)
        expect(page.locator("#map svg > *:not(.mark)")).not_to_have_count(drawn)
        expect(page.locator("#holdings")).to_contain_text(f"{len(index)} images of {index.n_cases} cases")
        page.close()


def test_an_index_in_a_database(tab: Page, reader: CaseFinder, toy: CaseTable) -> None:
    with serving(create_app(reader)) as address:
        tab.goto(address)
        tab.set_input_files("#files", toy.part(c.TEST).paths[0])
        expect(tab.locator("#hits button")).to_have_count(10)
        expect(tab.locator("#status")).to_have_text("10 cases found.")
        tab.locator("#hits button").first.click()
        expect(tab.locator("dialog img").first).to_be_visible()
        tab.goto("about:blank")
