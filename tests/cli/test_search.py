"""index, search and serve as they are typed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from hierderm import columns as c
from hierderm.cli.main import app
from hierderm.data.table import CaseTable
from hierderm.errors import HierdermError, MissingExtraError, SearchError
from tests.cli.commands import fails, refusal, run


@pytest.fixture(scope="module")
def split_table(toy: CaseTable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("split") / "cases.csv"
    toy.write(path)
    return path


@pytest.fixture(scope="module")
def built(split_table: Path, toy_folder: Path, small_siglip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of the training and validation cases."""
    folder = tmp_path_factory.mktemp("built") / "index"
    shown = run(
        "index", "build", split_table, "--model", f"hf:{small_siglip}", "-t", toy_folder / "taxonomy.csv",
        "-o", folder, "--splits", "train,validation",
    )  # fmt: skip
    assert "kind flat: exact" in shown and "condition: recall@1" in shown and "category: recall@1" in shown
    return folder


@pytest.fixture
def made(built: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(built, tmp_path / "index"))


def test_search(made: Path, toy: CaseTable, tmp_path: Path) -> None:
    test = toy.part(c.TEST)
    shown = run("search", test.paths[0], "-i", made, "-k", 3, "--html", tmp_path / "sheet.html")
    assert "condition: " in shown and "not a diagnosis" in shown
    sheet = (tmp_path / "sheet.html").read_text()
    assert sheet.count("data:image/jpeg") == 4 and "not a medical device" in sheet
    run("search", test.paths[0], "-i", made, "-k", 3, "--html", tmp_path / "why.html", "--why")
    sheet = (tmp_path / "why.html").read_text()
    assert sheet.count("data:image/jpeg") == 7 and "A hint, not an explanation" in sheet
    assert "--why draws on the images of --html" in fails("search", test.paths[0], "-i", made, "--why")
    category = toy.taxonomy.names(0)[0]
    tones = "monk=" + ",".join(toy.select(toy.splits != c.TEST).frame["monk"].dropna().astype(int).astype(str).unique())
    content = json.loads(run("search", test.paths[0], "-i", made, "--within", category, "--where", tones, "--json"))
    assert len(content) == 1 and content[0]["hits"]
    assert {hit["path"][0] for hit in content[0]["hits"]} == {category}
    two = json.loads(run("search", *test.paths[:2], "-i", made, "--aggregation", "mean", "--json"))
    assert len(two) == 1 and len(two[0]["hits"]) == 10
    folder = tmp_path / "queries"
    folder.mkdir()
    for number, path in enumerate(test.paths[:3]):
        (folder / f"{number}.jpg").write_bytes(path.read_bytes())
    assert len(json.loads(run("search", folder, "-i", made, "-k", 1, "--json"))) == 3
    image_id = content[0]["hits"][0]["image_id"]
    assert image_id in run("search", "--image-id", image_id, "-i", made)
    assert json.loads(run("search", "--text", "red papule", "-i", made, "--json"))[0]["answer"] is None


def test_an_index_as_a_table(made: Path, tmp_path: Path) -> None:
    out = tmp_path / "index.parquet"
    assert "columns image_path, image_id" in run("index", "export", made, "-o", out, "--map")
    frame = pd.read_parquet(out)
    assert {"split", "category", "vector", "x", "y"} <= set(frame) and frame["x"].std() > 0
    assert all(Path(path).is_file() for path in frame["image_path"])
    assert "must end in .parquet" in fails("index", "export", made, "-o", tmp_path / "index.csv")


def test_a_folder_is_answered_though_some_of_it_can_not_be_read(made: Path, toy: CaseTable, tmp_path: Path) -> None:
    folder = tmp_path / "queries"
    (folder / "sub").mkdir(parents=True)
    for name in ("a.jpg", "sub/b.jfif"):
        (folder / name).write_bytes(toy.paths[0].read_bytes())
    (folder / "cut.jpg").write_bytes(toy.paths[0].read_bytes()[:400])
    (folder / "._a.jpg").write_bytes(b"\0\5\x16\7")
    (folder / "notes.txt").write_text("none")
    result = CliRunner().invoke(app, ["search", str(folder), "-i", str(made), "-k", "1", "--json"])
    assert [found["query"] for found in json.loads(result.stdout)] == [
        str(folder / "a.jpg"),
        str(folder / "sub/b.jfif"),
    ]
    assert "3 images (left out: 1 hidden: ._a.jpg; 1 no image(s): notes.txt)" in result.stderr
    assert isinstance(result.exception, SearchError)
    assert f"1 of 3 images can't be read:\n{folder / 'cut.jpg'}: the image is damaged" in str(result.exception)


def test_add_remove_info_verify(made: Path, toy: CaseTable, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    test = toy.part(c.TEST)
    new = tmp_path / "new.csv"
    test.write(new)
    before = json.loads(run("index", "info", made, "--json"))
    assert before["images"] == len(toy) - len(test) and before["calibration"]["k"] == 10
    assert f"{len(test)} images added, now {len(toy)}" in run("index", "add", made, new)
    assert "would be in the index twice" in fails("index", "add", made, new)
    found = json.loads(run("search", test.paths[0], "-i", made, "-k", 1, "--json"))[0]["hits"][0]
    assert found["image_id"] == test.frame[c.IMAGE_ID].iloc[0] and Path(found["image_path"]).is_file()
    shown = run("index", "verify", made)
    assert "all files are whole" in shown and f"all {len(toy)} can be read" in shown
    spelt = tmp_path / "spelt.csv"  # the same files under other ids
    frame = pd.read_csv(new, dtype=str)
    frame.assign(image_id="again-" + frame["image_id"], case_id="again-" + frame["case_id"]).to_csv(spelt, index=False)
    first = frame["image_id"][0]
    run("index", "add", made, spelt)
    assert f"in the index under another id: 'again-{first}' = '{first}'" in caplog.text
    run("index", "remove", made, *sorted(set("again-" + frame["case_id"])))
    case = found["case_id"]
    assert "removed, now" in run("index", "remove", made, case)
    assert case not in {
        hit["case_id"] for hit in json.loads(run("search", test.paths[0], "-i", made, "--json"))[0]["hits"]
    }
    assert "not in the index: ['nobody']" in fails("index", "remove", made, "nobody")
    assert "not in the index: ['-17']" in fails("index", "remove", made, "-17")  # an id, not an option
    run("index", "remove", made, *left_validation(made))
    assert "validation cases that it was calibrated on were removed" in run("index", "info", made)


def test_an_image_unlike_the_index_is_refused(
    toy: CaseTable, toy_folder: Path, small_siglip: Path, tmp_path: Path
) -> None:
    """The toy has too few validation cases for that, and its index says so; with all of them for validation it can."""
    toy.write(tmp_path / "few.csv")
    CaseTable(toy.frame.assign(split=c.VALIDATION), toy.taxonomy, toy.root).write(tmp_path / "many.csv")
    Image.new("RGB", (80, 60), "white").save(tmp_path / "white.png")
    for name, said in (
        ("few", "never refused: 10 validation cases are too few"),
        ("many", "are refused, and at most 5%"),
    ):
        shown = run(
            "index", "build", tmp_path / f"{name}.csv", "--model", f"hf:{small_siglip}", "-t", toy_folder / "taxonomy.csv",
            "-o", tmp_path / name,
        )  # fmt: skip
        assert said in shown and said in run("index", "info", tmp_path / name)
    sheet = tmp_path / "sheet.html"
    shown = run("search", tmp_path / "white.png", "-i", tmp_path / "many", "-k", 2, "--html", sheet)
    reason = "This image is unlike the images of the index"
    assert f"Answer: none\n{reason}" in shown.replace("\n\n", "\n") and "condition:" not in shown
    assert f"<strong>No answer.</strong> {reason}" in sheet.read_text() and "Votes of" not in sheet.read_text()
    (found,) = json.loads(run("search", tmp_path / "white.png", "-i", tmp_path / "many", "-k", 2, "--json"))
    read = found["answer"]
    assert read["unlike"] and read["likeness"] <= 0.05 and read["differential"] == [[], []] and len(found["hits"]) == 2
    content = json.loads(run("index", "info", tmp_path / "many", "--json"))["calibration"]["likeness"]
    assert content["wanted"] == 0.05 and content["n_cases"] == 48 == len(content["look"])
    shown = run("evaluate", "--index", tmp_path / "many")
    assert "Share refused as unlike the index" in shown


def left_validation(index: Path) -> list[str]:
    frame = pd.read_parquet(next(index.glob("cases-*")))
    return sorted(set(frame.loc[frame[c.SPLIT] == c.VALIDATION, c.CASE_ID]))


def test_moved_images_are_named_by_verify(made: Path, toy: CaseTable, tmp_path: Path) -> None:
    frame = pd.read_parquet(next(made.glob("cases-*")))
    assert not Path(frame[c.IMAGE_PATH][0]).is_absolute() or Path(frame[c.IMAGE_PATH][0]).is_file()
    from hierderm.search.case_index import CaseIndex

    with CaseIndex.updating(made) as index:
        index.frame.loc[0, c.IMAGE_PATH] = "moved.png"
    assert "1 of" in fails("index", "verify", made) and "moved.png" in fails("index", "verify", made)


def test_replaced_images_are_named_by_verify(made: Path) -> None:
    from hierderm.search.case_index import CaseIndex

    with CaseIndex.updating(made) as index:
        index.frame.loc[0, c.IMAGE_PATH] = str(index.gallery.image_paths([1])[0])
    assert f"1 image(s) were replaced since they were indexed: '{index.frame[c.IMAGE_ID][0]}'" in fails(
        "index", "verify", made
    )


def test_refusals(made: Path, split_table: Path, small_siglip: Path, toy_folder: Path, tmp_path: Path) -> None:
    model, tree = f"hf:{small_siglip}", toy_folder / "taxonomy.csv"
    build = ("index", "build", split_table, "--model", model, "-t", tree)
    assert "holds a hierderm case index folder" in fails(*build, "-o", made)
    assert "replace it (--replace)" in refusal(*build, "-o", made)
    assert "kind flat" in run(*build, "-o", made, "--replace")
    assert "must be of ['train', 'validation', 'test'], got ['tset']" in fails(
        *build, "-o", tmp_path / "x", "--splits", "tset"
    )
    assert "give --model, or --embeddings, or both" in fails("index", "build", split_table, "-o", tmp_path / "x")
    assert "needs --taxonomy" in fails("index", "build", split_table, "--model", model, "-o", tmp_path / "x")
    assert "give images, or --image-id, or --text" in fails("search", "-i", made)
    assert "a filter must look like" in fails("search", "x.png", "-i", made, "--where", "tone")
    assert "the file does not exist" in fails("search", "x.png", "-i", made)
    assert "must be a hierderm case index folder" in fails("search", "x.png", "-i", tmp_path)
    (tmp_path / "empty").mkdir()
    assert "must hold images" in fails("search", tmp_path / "empty", "-i", made)


def test_serve_without_its_extra(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(
        MissingExtraError, match=r"the page needs an optional package. Install it with: pip install 'hierderm\[app\]'"
    ):
        from hierderm.cli.search import serve

        serve(str(made))
    assert issubclass(MissingExtraError, HierdermError)
