"""A page printed as PDF by a browser of this machine, without a window and without the network."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

from hierderm.errors import ConfigError, OutputError
from hierderm.files import replacing

VARIABLE = "HIERDERM_BROWSER"
NAMES = (
    "chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "microsoft-edge", "msedge",
)  # fmt: skip
PLACES = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Microsoft Edge.app/Contents/MacOS/Microsoft Edge",
)
PATIENCE = 120  # seconds for one page
_ANOTHER = f"Give another browser in the environment variable {VARIABLE}."


def find_browser() -> str:
    """The program that prints pages: that of HIERDERM_BROWSER, or the first of Chromium, Chrome and Edge.

    ConfigError where there is none.
    """
    if wanted := os.environ.get(VARIABLE, ""):
        if found := shutil.which(wanted):
            return found
        raise ConfigError(f"{VARIABLE} must name a browser that can be started, got '{wanted}'. Give its path.")
    if found := next(filter(None, map(shutil.which, (*NAMES, *PLACES))), None):
        return found
    raise ConfigError(
        f"a PDF is printed by Chromium, Chrome or Edge; none of {', '.join(NAMES)} is here. Install one (Debian: "
        f"apt-get install chromium), or give the path of one in the environment variable {VARIABLE}."
    )


def working_browser() -> str:
    """As `find_browser`, once it has printed a page; OutputError where it does not."""
    browser = find_browser()
    with TemporaryDirectory(prefix="hierderm-pdf-") as place:
        print_pdf("<!doctype html><title>trial</title><p>trial</p>", Path(place) / "trial.pdf", browser)
    return browser


def print_pdf(html: str, path: Path, browser: str) -> None:
    """Print a self-contained page to `path`; OutputError where the browser does not do it."""
    with TemporaryDirectory(prefix="hierderm-pdf-") as place, replacing(path) as temporary:
        page = Path(place) / "page.html"
        page.write_text(html, encoding="utf-8")
        command = [
            browser, "--headless", "--disable-gpu", "--no-first-run", "--disable-extensions",
            f"--user-data-dir={place}/profile", "--no-pdf-header-footer", f"--print-to-pdf={temporary.absolute()}",
        ]  # fmt: skip
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            command.append("--no-sandbox")  # which the browser does not have for root; the page is our own
        try:
            done = subprocess.run([*command, page.as_uri()], capture_output=True, text=True, timeout=PATIENCE)
        except (OSError, subprocess.TimeoutExpired) as fault:
            raise OutputError(f"{path} could not be printed by {browser}: {fault}. {_ANOTHER}") from None
        if done.returncode or not temporary.is_file() or not temporary.read_bytes().startswith(b"%PDF"):
            said = done.stderr.strip().splitlines()[-1:] or ["it wrote no PDF"]
            raise OutputError(
                f"{path} could not be printed by {browser} (exit code {done.returncode}: {said[0][:300]}). {_ANOTHER}"
            )
