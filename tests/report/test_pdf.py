"""One page of the report by a browser: by one that writes down what it was told, and by Chromium where it is."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from hierderm.errors import ConfigError, OutputError
from hierderm.report.page import is_ours
from hierderm.report.pdf import NAMES, VARIABLE, find_browser, print_pdf
from tests.app.test_page import CHROMIUM


def browser(folder: Path, does: str) -> str:
    """A program that notes its arguments, a line each, and then does something."""
    folder.mkdir(exist_ok=True)
    program = folder / "chromium"
    target = 'target=$(printf "%s\\n" "$@" | sed -n "s/^--print-to-pdf=//p")'
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {folder}/told\n{target}\n{does}\n')
    program.chmod(0o755)
    return str(program)


def test_the_command_line(tmp_path: Path) -> None:
    fake = browser(tmp_path / "fake", 'printf "%%PDF-1.4 hierderm" > "$target"')
    print_pdf("<p>text</p>", tmp_path / "report.pdf", fake)
    assert (tmp_path / "report.pdf").read_bytes() == b"%PDF-1.4 hierderm"
    told = (tmp_path / "fake" / "told").read_text().splitlines()
    assert told[0] == "--headless" and "--no-pdf-header-footer" in told
    assert re.fullmatch(r"file:///.*/page\.html", told[-1])  # a file, so that nothing is loaded
    (profile,) = [word for word in told if word.startswith("--user-data-dir=")]
    assert not Path(profile.partition("=")[2]).exists()  # its own, not the user's, and gone
    (printed,) = [word for word in told if word.startswith("--print-to-pdf=")]
    assert Path(printed.partition("=")[2]).parent == tmp_path  # whole, or not at all
    assert ("--no-sandbox" in told) == (os.geteuid() == 0)
    assert {path.name for path in tmp_path.iterdir()} == {"fake", "report.pdf"}


@pytest.mark.parametrize(
    ("does", "reason"),
    [
        ("echo no display >&2; exit 3", r"\(exit code 3: no display\)"),
        ("exit 0", r"\(exit code 0: it wrote no PDF\)"),
        ('echo error > "$target"', r"\(exit code 0: it wrote no PDF\)"),
    ],
)
def test_a_browser_that_does_not_print(tmp_path: Path, does: str, reason: str) -> None:
    fake = browser(tmp_path / "fake", does)
    with pytest.raises(OutputError, match=rf"report\.pdf could not be printed by .*chromium {reason}\. Give another"):
        print_pdf("", tmp_path / "report.pdf", fake)
    assert not (tmp_path / "report.pdf").exists()


def test_which_browser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = browser(tmp_path / "fake", "exit 0")
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    monkeypatch.setattr("hierderm.report.pdf.PLACES", ())
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(ConfigError, match=f"none of {', '.join(NAMES)} is here.*variable {VARIABLE}"):
        find_browser()
    monkeypatch.setenv(VARIABLE, fake)
    assert find_browser() == fake
    monkeypatch.setenv(VARIABLE, str(tmp_path / "none"))
    with pytest.raises(ConfigError, match=rf"{VARIABLE} must name a browser that can be started, got '.*none'"):
        find_browser()
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setenv("PATH", str(tmp_path / "fake"))
    assert find_browser() == fake


@pytest.mark.skipif(not CHROMIUM, reason="needs a browser: apt-get install chromium")
def test_chromium_prints_a_page_that_is_ours(tmp_path: Path) -> None:
    html = "<!doctype html><meta charset='utf-8'><title>2 models on ä.csv - hierderm</title><p>text</p>"
    print_pdf(html, tmp_path / "a.pdf", CHROMIUM)  # a title of ASCII: see test_page.py
    assert is_ours((tmp_path / "a.pdf").read_bytes())
    assert not is_ours(b"%PDF-1.4 mine") and not is_ours(b"mine")
