"""What is shown while work goes on: a bar on a terminal, lines in a log file, nothing of what is quick."""

from __future__ import annotations

import io
import logging
import sys
import time

import pytest

from hierderm import progress
from hierderm.progress import Progress, clock, lines_of, show_messages, track


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DELAY", "REFRESH", "LINES"):
        monkeypatch.setattr(progress, name, 0.05)


def wait_until(condition: object, stream: io.StringIO) -> str:
    """What the stream holds once it holds `condition`, waiting for the thread that shows it."""
    for _ in range(200):
        if str(condition) in stream.getvalue():
            break
        time.sleep(0.02)
    return stream.getvalue()


def test_a_line_says_what_how_far_and_how_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quarter took 20 seconds, so the other three take a minute."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    step = Progress("Embedding", 400, unit="images")
    assert str(step) == "Embedding: 0 of 400 images, 0:00 so far"
    step.update(100)
    now[0] += 20
    assert str(step) == "Embedding: 100 of 400 images, 0:20 so far, about 1:00 left"
    endless = Progress("Colours", unit="images")
    endless.update(3)
    assert str(endless) == "Colours: 3 images, 0:00 so far"
    assert str(Progress("Fitting")) == "Fitting: 0:00 so far"


def test_durations() -> None:
    assert [clock(s) for s in (0.4, 59.6, 65, 3599, 7265)] == ["0:00", "1:00", "1:05", "59:59", "2:01:05"]


@pytest.mark.usefixtures("soon")
def test_a_log_file_gets_lines_while_a_single_call_runs(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    with Progress("Fitting", 8, unit="settings") as step:
        step.update(3)
        while len(caplog.messages) < 2:
            time.sleep(0.02)
    assert caplog.messages[0].startswith("Fitting: 3 of 8 settings, 0:0")


@pytest.mark.usefixtures("soon")
def test_a_terminal_gets_a_bar_that_goes_away(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Progress("Fitting", 8, unit="settings") as step:
        step.update(2)
        assert "25%" in wait_until("Fitting", terminal)
        step.what = "Choosing"
        wait_until("Choosing", terminal)
    assert terminal.getvalue().endswith("\r") and not caplog.messages


def test_what_is_quick_shows_nothing(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    for stream in (terminal := Terminal(), log := io.StringIO()):
        monkeypatch.setattr(sys, "stderr", stream)
        assert list(track("abc", "Letters")) == ["a", "b", "c"]
    assert terminal.getvalue() == log.getvalue() == "" and not caplog.messages


@pytest.mark.usefixtures("soon")
def test_items_are_counted_when_they_are_done(caplog: pytest.LogCaptureFixture) -> None:
    """While the third of four is in work, two are done; what has no length has no total."""
    caplog.set_level("INFO")

    def slow(item: int) -> None:
        while item == 2 and not caplog.messages:
            time.sleep(0.02)

    for item in track(range(4), "Numbers", unit="numbers"):
        slow(item)
    assert caplog.messages[0].startswith("Numbers: 2 of 4 numbers, ")
    caplog.clear()
    for item in track(iter(range(4)), "Numbers"):
        slow(item)
    assert caplog.messages[0].startswith("Numbers: 2, ")


@pytest.mark.usefixtures("soon")
def test_a_process_without_the_terminal_shows_lines_that_say_of_what(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(progress, "_lines_of", [])
    monkeypatch.setattr(logging.getLogger("hierderm"), "handlers", [])  # a command before may have left one
    lines_of("lda")
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    with Progress("Fitting", 8, unit="settings"):
        while not caplog.messages:
            time.sleep(0.02)
    assert caplog.messages[0].startswith("lda: Fitting: 0 of 8 settings, 0:0") and not terminal.getvalue()


@pytest.mark.usefixtures("soon")
def test_a_fault_ends_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    with pytest.raises(ValueError, match="x"), Progress("Fitting", shown=True):
        raise ValueError("x")
    shown = terminal.getvalue()
    time.sleep(0.1)
    assert "Fitting" in shown and terminal.getvalue() == shown


def test_messages_are_shown_once(capsys: pytest.CaptureFixture[str]) -> None:
    package = logging.getLogger("hierderm")
    before, level = list(package.handlers), package.level
    try:
        show_messages()
        show_messages()
        logging.getLogger("hierderm.some.part").info("Reading ...")
        assert capsys.readouterr().err == "Reading ...\n"
    finally:
        package.handlers, package.level = before, level
