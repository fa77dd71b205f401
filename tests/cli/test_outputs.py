"""No command overwrites or deletes what hierderm did not write, and each says so before its work begins."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from hierderm.artifacts import claim_folder
from hierderm.cli.main import app
from hierderm.errors import OutputError
from tests.cli.commands import fails, refusal, run
from tests.test_artifacts import snapshot

NOWHERE = "nowhere.csv"  # an input that does not exist: the refusal of the output must come first
# Every command that writes, as it is typed, up to the path it writes to.
FILES = {
    "taxonomy from-csv": [NOWHERE, "--levels", "a,b", "-o"],
    "data csv": [NOWHERE, "-t", "scin", "-o"],
    "data folder": ["nowhere", "-o"],
    "data scin": ["nowhere", "-o"],
    "data fitzpatrick17k": [NOWHERE, "--images", "nowhere", "-o"],
    **{
        f"data {name}": ["nowhere", "-o"]
        for name in ("ham10000", "isic", "isic_challenge", "pad_ufes", "ddi", "derm7pt")
    },
    "data huggingface": ["nowhere", "-t", "scin", "--write-images", "images", "-o"],
    "split": [NOWHERE, "-t", "scin", "-o"],
    "evaluate": ["nowhere.npy", "-t", "scin", "--cases", NOWHERE, "--out"],
    "bench table": ["nowhere", "--format", "csv", "-o"],
    "export": ["nowhere", "-o"],
    "index export": ["nowhere", "-o"],
    "search": ["nowhere.jpg", "-i", "nowhere", "--html"],
}
REPLACEABLE_FOLDERS = {
    "data synthetic": ["--preset", "toy"],
    "embed": [NOWHERE, "--model", "hierderm:tiny", "-t", "scin", "-o"],
    "truncate": ["nowhere", "nowhere", "--dim", "8", "-o"],
    "index build": [NOWHERE, "-m", "hierderm:tiny", "-t", "scin", "-o"],
}
DATA = ["--data.cases", NOWHERE, "--data.taxonomy", "scin"]
GROWING_FOLDERS = {
    "train": [*DATA, "-o"],
    "compare": ["three_way", *DATA, "-o"],
    "inflation": [*DATA, "-o"],
    "tune": [*DATA, "--range", "training.strengths=1,5", "--trials", "1", "-o"],
    "demo": ["-o"],
    "bench run": ["-m", "colour", *DATA, "-o"],
}
FOLDERS = REPLACEABLE_FOLDERS | GROWING_FOLDERS
KINDS = {
    "data synthetic": "synthetic data",
    "embed": "embeddings",
    "truncate": "model",
    "index build": "case index",
    "train": "run",
    "compare": "comparison",
    "inflation": "inflation",
    "tune": "tuning",
    "demo": "comparison",
    "bench run": "benchmark",
}
JOINED = {"bench run": ["comparison"]}  # other kinds that a command adds to


def commands(group: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    for part, command in getattr(group, "commands", {}).items():
        yield from commands(command, f"{name} {part}".strip())
    if not hasattr(group, "commands"):
        yield name, group


def options(command: Any) -> set[str]:
    return {option for parameter in command.params for option in parameter.opts}


def test_every_command_that_writes_is_listed() -> None:
    found = dict(commands(typer.main.get_command(app)))
    del found["index load"]  # into a database alone
    writing = {name for name, command in found.items() if options(command) & {"--out", "--html"}}
    assert writing | {"data synthetic"} == set(FILES) | set(FOLDERS)  # its folder is an argument
    replacing = {name for name, command in found.items() if "--replace" in options(command)}
    assert replacing == set(FILES) | set(REPLACEABLE_FOLDERS)


def replaceable(name: str) -> list[str]:
    return [] if name in GROWING_FOLDERS else ["--replace"]


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """What a user has at an output path: a folder of images, and a file."""
    (tmp_path / "images" / "below").mkdir(parents=True)
    for image in ("a.jpg", "below/b.jpg", "cases.csv"):
        (tmp_path / "images" / image).write_bytes(b"mine")
    (tmp_path / "thesis").write_bytes(b"mine")
    return tmp_path


@pytest.mark.parametrize("name", FOLDERS)
@pytest.mark.parametrize("replace", [False, True])
def test_a_users_folder_or_file_is_no_place_for_a_folder(name: str, replace: bool, mine: Path) -> None:
    before, flags = snapshot(mine), replaceable(name) if replace else []
    message = r"images holds files that hierderm did not write \(a.jpg, below, cases.csv\). Choose another path"
    with pytest.raises(OutputError, match=message):
        run(*name.split(), *flags, *FOLDERS[name], mine / "images")
    with pytest.raises(OutputError, match=r"thesis must be a folder to write, it is a file. Choose another path"):
        run(*name.split(), *flags, *FOLDERS[name], mine / "thesis")
    with pytest.raises(OutputError, match=r"deep can't be written: .*thesis is not a folder. Choose another path"):
        run(*name.split(), *flags, *FOLDERS[name], mine / "thesis" / "deep")
    assert snapshot(mine) == before


@pytest.mark.parametrize("name", FILES)
def test_a_users_file_or_folder_is_no_place_for_a_file(name: str, mine: Path) -> None:
    before = snapshot(mine)
    with pytest.raises(OutputError, match=r"thesis exists and would be overwritten. .*replace it \(--replace\)"):
        run(*name.split(), *FILES[name], mine / "thesis")
    for flags in ([], ["--replace"]):
        with pytest.raises(OutputError, match="images must be a file to write, it is a folder. Choose another path"):
            run(*name.split(), *flags, *FILES[name], mine / "images")
        with pytest.raises(OutputError, match=r"deep can't be written: .*thesis is not a folder. Choose another path"):
            run(*name.split(), *flags, *FILES[name], mine / "thesis" / "deep")
    assert snapshot(mine) == before


def test_the_tree_of_folders_is_an_output_too(mine: Path) -> None:
    (mine / "cases-taxonomy.csv").write_bytes(b"mine")
    before = snapshot(mine)
    assert "cases-taxonomy.csv exists and would be overwritten" in fails(
        "data", "folder", mine / "images", "-o", mine / "cases.csv"
    )
    assert snapshot(mine) == before


def test_a_fault_of_the_images_leaves_no_output(tmp_path: Path) -> None:
    (tmp_path / "photos" / "A" / "x").mkdir(parents=True)
    (tmp_path / "photos" / "A" / "x" / "a.jpg").write_bytes(b"cut")
    before = snapshot(tmp_path)
    assert "a.jpg" in fails("data", "folder", tmp_path / "photos", "-o", tmp_path / "cases.csv")
    assert snapshot(tmp_path) == before  # so the same command is not refused the next time


def test_the_process_ends_with_1_and_the_message(mine: Path) -> None:
    before = snapshot(mine)
    message = refusal("embed", NOWHERE, "--model", "hierderm:tiny", "-t", "scin", "--replace", "-o", mine / "images")
    assert (
        message.startswith("Error: ")
        and "images holds files that hierderm did not write (a.jpg, below, cases.csv)" in message
    )
    assert snapshot(mine) == before


def test_what_hierderm_wrote_is_replaced_when_asked(toy_folder: Path, small_siglip: Path, tmp_path: Path) -> None:
    table, tree, model = toy_folder / "cases.csv", toy_folder / "taxonomy.csv", f"hf:{small_siglip}"
    for command in (
        ["split", table, "-t", tree, "-o", tmp_path / "split.csv"],
        ["data", "csv", table, "-t", tree, "-o", tmp_path / "cases.parquet"],
        ["embed", table, "-t", tree, "--model", model, "-o", tmp_path / "embeddings"],
        ["index", "build", table, "-t", tree, "-m", model, "-o", tmp_path / "index"],
        ["search", "--image-id", "s00000-0", "-i", tmp_path / "index", "--html", tmp_path / "page.html"],
        [
            "evaluate",
            tmp_path / "embeddings",
            "-t",
            tree,
            "--evaluation.bootstrap_rounds",
            10,
            "--evaluation.tasks",
            "retrieval",
            "-o",
            tmp_path / "scores.json",
        ],
    ):
        run(*command)
        before = snapshot(tmp_path)
        assert "replace it (--replace)" in fails(*command)
        assert snapshot(tmp_path) == before
        run(*command, "--replace")


@pytest.mark.parametrize("kind", ["embeddings", "index"])
def test_a_users_file_among_ours_is_not_lost(kind: str, toy_folder: Path, small_siglip: Path, tmp_path: Path) -> None:
    out, tree, model = tmp_path / "out", toy_folder / "taxonomy.csv", f"hf:{small_siglip}"
    command: list[object] = {
        "embeddings": ["embed", toy_folder / "cases.csv", "-t", tree, "--model", model, "-o", out],
        "index": ["index", "build", toy_folder / "cases.csv", "-t", tree, "-m", model, "-o", out],
    }[kind]
    run(*command)
    (out / "cases-notes.txt").write_text("mine")
    before = snapshot(tmp_path)
    assert "holds files besides those of its" in fails(*command, "--replace")
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("name", FOLDERS)
def test_one_kind_of_folder_does_not_become_another(name: str, tmp_path: Path) -> None:
    """Every command against the folder of every other, whose header alone says what it is."""
    for kind in {*KINDS.values(), "images"}:
        claim_folder(tmp_path / kind, kind)
    before, flags = snapshot(tmp_path), replaceable(name)
    for kind in {*KINDS.values(), "images"} - {KINDS[name], *JOINED.get(name, ())}:
        message = fails(*name.split(), *flags, *FOLDERS[name], tmp_path / kind)
        assert f"must be a hierderm {' or '.join([KINDS[name], *JOINED.get(name, ())])} folder" in message
        assert f"folder, it is a {kind} folder. Give another path" in message
    assert snapshot(tmp_path) == before
    for kind in [KINDS[name], *JOINED.get(name, ())] if name in GROWING_FOLDERS and name != "demo" else []:
        assert "a hierderm" not in fails(
            *name.split(), *FOLDERS[name], tmp_path / kind
        )  # it is taken, the table is not
