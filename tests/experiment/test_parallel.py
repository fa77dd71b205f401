"""Several models at once: who decides how many, what a process may use, and what a fault in one does."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import pytest

from hierderm.config.loading import with_overrides
from hierderm.config.settings import Comparison
from hierderm.data.checks import say_once
from hierderm.errors import HierdermError
from hierderm.experiment import compare, parallel
from hierderm.experiment.parallel import at_once, processes_for
from hierderm.experiment.results import Results
from tests.experiment.note import leave_a_note


@pytest.fixture
def four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "n_threads", lambda: 4)


@pytest.mark.usefixtures("four_cores")
def test_as_many_models_as_cores_and_memory_have_room_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """16 MiB of features are enough work; a fit holds eight times as much, of half of the memory."""
    features = tmp_path / "features" / "part"
    features.mkdir(parents=True)

    def of(n_bytes: int, n_models: int = 6) -> int:
        with (features / "x.npy").open("wb") as file:
            file.truncate(n_bytes)
        return processes_for(n_models, tmp_path / "features")

    memory = 2**30
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 2, "SC_PHYS_PAGES": memory}.__getitem__)
    monkeypatch.setattr(parallel, "LIMIT", limit := tmp_path / "memory.max")
    limit.write_text(f"{memory}\n")
    assert of(2**24 - 1) == 1
    assert of(2**24) == 4
    assert of(2**24, n_models=3) == 3
    assert of(memory // 2 // 8 // 3) == 3
    assert of(memory) == 1
    limit.write_text("max\n")
    assert of(memory // 8 // 3) == 3


def test_one_process_is_this_one() -> None:
    done: list[str] = []
    works = {name: partial(done.append, name) for name in "ba"}
    assert list(at_once(works, 1)) == done == ["b", "a"]


@pytest.mark.usefixtures("four_cores")
def test_processes_share_the_cores_and_a_fault_comes_back(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    works = {name: partial(leave_a_note, tmp_path, name) for name in ("a", "b", "c")}
    say_once("t.csv", "known note")
    capfd.readouterr()
    assert sorted(at_once(works, 2)) == ["a", "b", "c"]
    notes = [(tmp_path / name).read_text().split() for name in works]
    assert {threads for _, threads in notes} == {"2"}
    assert str(os.getpid()) not in {process for process, _ in notes}
    said = capfd.readouterr().err
    assert "b is done" in said and "note of b" in said and "known note" not in said  # this process has said it
    with pytest.raises(HierdermError, match=r"this needs an optional package.*pip install 'hierderm\[extra\]'"):
        list(at_once({"bad": partial(leave_a_note, tmp_path, "bad"), **works}, 2))


def test_a_comparison_gives_processes_what_is_left(
    toy_comparison: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Models on frozen features go to processes, the fine-tuned one does not; done ones are not begun again."""
    given: list[list[str]] = []

    def fake(works: Mapping[str, Callable[[], None]], n_processes: int) -> Iterator[str]:
        if works:
            given.append([str(n_processes), *works])
        for name, work in works.items():
            pickle.loads(pickle.dumps(work))()  # noqa: S301 - our own
            yield name

    monkeypatch.setattr(compare, "at_once", fake)
    monkeypatch.setattr(compare, "processes_for", lambda n_models, _: n_models)
    models = [
        {"name": "vanilla", "method": "vanilla"},
        {"name": "tuned", "set": {"training.epochs": 1}},
        {"name": "lda", "method": "lda", "set": {"training.views": 0, "training.shrinkages": [0.5]}},
    ]
    comparison = with_overrides(toy_comparison, {"models": models, "evaluation.tasks": ["retrieval", "clustering"]})
    caplog.set_level("INFO")
    compare.compare(comparison, tmp_path)
    assert given == [["2", "vanilla", "lda"], ["1", "tuned"]]
    assert "To do: 3 models, 3 fits, 6 tasks, on 104 images." in caplog.messages
    assert sorted(Results.open(tmp_path).models) == ["lda", "tuned", "vanilla"]
    given.clear()
    (tmp_path / "results" / "lda" / "clustering.json").unlink()
    compare.compare(comparison, tmp_path)
    assert given == [["1", "lda"]]
