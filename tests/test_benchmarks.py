"""The guard of the benchmarks: ratios to a kernel, verdicts, its file and its exit code, on rows of our own."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import guard

ROOT = Path(__file__).parents[1]
FAKE = """
from collections.abc import Callable


def rows() -> dict[str, Callable[[], object]]:
    return {"adds": lambda: 1 + 1, "sorts": lambda: sorted(range(9))}
"""


def test_a_row_is_the_ratio_of_medians() -> None:
    times = {"kernel": iter([2.0, 9.0, 2.0]), "work": iter([9.0, 3.0, 3.0])}  # one slow run of each does not count

    def clock(work: Callable[[], object]) -> float:
        return next(times[str(work())])

    assert guard.measured(lambda: "work", lambda: "kernel", clock) == {"seconds": 3.0, "ratio": 1.5}
    assert guard.seconds(lambda: None) >= 0


def test_a_row_fails_from_half_as_long_again() -> None:
    committed = {name: {"seconds": 1.0, "ratio": 2.0} for name in ("a: same", "a: slower", "a: gone")}
    found = {"a: same": 2.9, "a: slower": 3.1, "a: new": 1.0}
    rows = {name: {"seconds": 5.0, "ratio": ratio} for name, ratio in found.items()}
    assert guard.verdicts(rows, committed) == [
        ("a: same", ""),
        ("a: slower", "BEHIND: 1.6 times the committed ratio"),
        ("a: new", "not in bench.json: --update adds it"),
        ("a: gone", "only in bench.json: --update takes it out"),
    ]
    assert guard.as_table(rows, committed).splitlines()[2:4] == [
        "| a: same | 5.0 | 2.90 | 2.00 | ok |",
        "| a: slower | 5.0 | 3.10 | 2.00 | BEHIND: 1.6 times the committed ratio |",
    ]


def test_what_seems_behind_is_measured_once_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fake.py").write_text(FAKE)
    ratios = iter([4.0, 2.0, 9.0])
    monkeypatch.setattr(guard, "measured", lambda *_: {"seconds": 1.0, "ratio": next(ratios)})
    expected = {name: {"seconds": 1.0, "ratio": 2.0} for name in ("fake: adds", "fake: sorts")}
    with pytest.raises(StopIteration):  # 4, then 2, which is in time; 9, and no more numbers
        guard.measured_module(tmp_path / "fake.py", expected)


def test_the_file_is_written_compared_and_kept_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "fake.py").write_text(FAKE)
    (tmp_path / "other.py").write_text("def main() -> None: ...\n")  # measures no seconds
    apart = guard.measured_apart(tmp_path / "fake.py", update=True)
    assert sorted(apart) == ["fake: adds", "fake: sorts"]
    monkeypatch.setattr(guard, "measured_apart", lambda path, update: apart)
    monkeypatch.setattr(guard, "HERE", tmp_path)
    monkeypatch.setattr(guard, "FILE", tmp_path / "bench.json")

    def run(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["guard.py", *arguments])
        return guard.main()

    assert run() == 1 and "| fake: adds | " in capsys.readouterr().out  # rows that the file lacks
    assert run("--update") == 0
    written = json.loads((tmp_path / "bench.json").read_text())
    assert sorted(written) == ["fake: adds", "fake: sorts"] and all(row["ratio"] < 1 for row in written.values())
    committed = {name: {"seconds": 1.0, "ratio": 1.0} for name in [*written, "gone: row"]}
    (tmp_path / "bench.json").write_text(json.dumps(committed))
    assert run("--only", "fake") == 0  # rows of other modules are not asked for
    assert run() == 1 and "only in bench.json" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        run("--only", "other")
    assert "['other'] have no rows; there are ['fake']" in capsys.readouterr().err


def test_every_committed_row_has_its_module() -> None:
    names = {path.stem for path in guard.modules(ROOT / "benchmarks")}
    committed = json.loads((ROOT / "benchmarks" / "bench.json").read_text())
    assert {row.split(":")[0] for row in committed} <= names
