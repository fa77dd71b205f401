from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from hierderm import columns as c
from hierderm.data import checks
from hierderm.data.checks import check_cases, parse_weights, read_cases
from hierderm.data.image_io import ImageError, open_image
from hierderm.data.table import CaseTable
from hierderm.errors import CaseTableError
from hierderm.files import file_hash
from hierderm.taxonomy.tree import Taxonomy, taxonomy_from_paths

TREE = taxonomy_from_paths([("Eczemas", "Eczema"), ("Infections", "Impetigo")], ("category", "condition"), id="t")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, colour in zip("abc", ("white", "red", "blue"), strict=True):
        Image.new("RGB", (8, 8), colour).save(tmp_path / f"{name}.png")
    return tmp_path


def frame(**changes: object) -> pd.DataFrame:
    base = {
        c.IMAGE_PATH: ["a.png", "b.png", "c.png"],
        c.IMAGE_ID: ["a", "b", "c"],
        c.CASE_ID: ["-1000600354148496558", "2", "2"],
        c.CONDITION: ["eczema", "Impetigo", "Impetigo"],
    }
    return pd.DataFrame({**base, **changes})


def faults(table: pd.DataFrame, folder: Path) -> str:
    with pytest.raises(CaseTableError) as caught:
        check_cases(table, TREE, folder, source="cases.csv")
    return str(caught.value)


def test_a_good_table(folder: Path) -> None:
    table = check_cases(frame(monk=["3", "", "10"]), TREE, folder)
    assert table.frame[c.CONDITION].tolist() == ["Eczema", "Impetigo", "Impetigo"]
    assert table.fine.tolist() == [0, 1, 1]
    assert table.labels(0).tolist() == [0, 1, 1]
    assert table.frame["monk"].isna().tolist() == [False, True, False]
    assert table.image_counts() == {"Impetigo": 2, "Eczema": 1}


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_write_and_read_keep_long_ids(folder: Path, tmp_path: Path, suffix: str) -> None:
    table = check_cases(frame(), TREE, folder)
    elsewhere = tmp_path / "elsewhere" / f"cases{suffix}"
    for path in (folder / f"cases{suffix}", elsewhere):
        table.write(path)
        again = read_cases(path, TREE)
        assert again.case_ids[0] == "-1000600354148496558"
        assert [p.resolve() for p in again.paths] == [p.resolve() for p in table.paths]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({c.CONDITION: ["Eczma", "Impetigo", "Impetigo"]}, "row 2: condition 'Eczma' is not in taxonomy 't'. Closest: 'Eczema'."),
        ({c.IMAGE_PATH: ["a.png", "no.png", "c.png"]}, "row 3: image 'no.png': the file does not exist."),
        ({c.IMAGE_ID: ["a", "b", "b"]}, "row 4: image_id 'b' is already that of row 3."),
        ({c.CASE_ID: ["1", "", "2"]}, "row 3: case_id must not be empty."),
        ({c.SPLIT: ["train", "train", "test"]}, "row 4: case '2' is in two splits, 'train' (row 3) and 'test'"),
        ({c.SPLIT: ["train", "tset", "tset"]}, "row 3: split must be one of ['train', 'validation', 'test'], got 'tset'."),
        ({c.MONK: ["11", "", "1"]}, "row 2: monk must be a whole number from 1 to 10 or empty, got '11'."),
        ({c.FITZPATRICK: ["", "III", "1"]}, "row 3: fitzpatrick must be a whole number from 1 to 6 or empty, got 'III'."),
        ({c.WEIGHTS: ["", '{"Eczema": 0.5}', ""]}, "the weights must sum to 1, got 0.500"),
        ({c.WEIGHTS: ["", "{'Eczema': 1}", ""]}, "row 3: weights"),
        ({c.WEIGHTS: ["", '{"Acne": 1}', ""]}, "row 3: weights: condition 'Acne' is not in taxonomy"),
    ],
)  # fmt: skip
def test_each_fault_with_its_row(folder: Path, changes: dict[str, list[str]], message: str) -> None:
    assert f"cases.csv {message}" in faults(frame(**changes), folder) or message in faults(frame(**changes), folder)


def test_all_faults_in_one_report(folder: Path) -> None:
    message = faults(frame(**{c.CONDITION: ["x", "y", "Impetigo"], c.IMAGE_PATH: ["a.png", "b.png", "z.png"]}), folder)
    assert message.startswith("cases.csv has 3 fault(s):")
    assert "--unreadable exclude" in message


def test_a_truncated_image_is_named_or_left_out_but_never_replaced(folder: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "cut.jpg")
    whole = (folder / "cut.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    broken = frame(**{c.IMAGE_PATH: ["a.png", "cut.jpg", "c.png"]})
    assert "row 3: image 'cut.jpg': the image is damaged (image file is truncated" in faults(broken, folder)
    with pytest.raises(ImageError, match=r"cut\.jpg: the image is damaged"):
        open_image(folder / "cut.jpg")
    table = check_cases(broken, TREE, folder, unreadable="exclude")
    assert table.frame[c.IMAGE_ID].tolist() == ["a", "c"]
    assert [str(fault).startswith("cases row 3: image 'cut.jpg'") for fault in table.excluded] == [True]


def test_a_text_file_is_no_image(folder: Path) -> None:
    (folder / "a.png").write_text("hello")
    assert "row 2: image 'a.png': not an image that can be read (5 bytes)." in faults(frame(), folder)


def test_unknown_conditions_are_left_out_by_choice_only(folder: Path) -> None:
    table = check_cases(frame(**{c.CONDITION: ["Acne", "Impetigo", "Impetigo"]}), TREE, folder, unknown="exclude")
    assert len(table) == 2
    assert "condition 'Acne'" in str(table.excluded[0])
    with pytest.raises(CaseTableError, match="no row is left"):
        check_cases(frame(**{c.CONDITION: ["x", "y", "z"]}), TREE, folder, unknown="exclude")


def test_tables_that_are_none(tmp_path: Path) -> None:
    for name, content, message in (
        ("none.csv", None, "the file does not exist"),
        ("empty.csv", "", "there is no table; it must have a header row"),
        ("head.csv", "image_path,image_id,case_id,condition\n", "head.csv has no rows"),
        ("other.csv", "image_path,image_id,case_id,conditions\nx,x,x,x\n", "condition missing.*Closest: 'conditions'"),
        ("not.parquet", "text", "not a readable Parquet file"),
    ):
        if content is not None:
            (tmp_path / name).write_text(content)
        with pytest.raises(CaseTableError, match=message):
            read_cases(tmp_path / name, TREE)


def test_a_users_own_column_names(folder: Path) -> None:
    frame().rename(columns={c.CONDITION: "diagnosis"}).to_csv(folder / "mine.csv", index=False)
    assert len(read_cases(folder / "mine.csv", TREE, rename={"condition": "diagnosis"})) == 3
    with pytest.raises(CaseTableError, match=r"no column \['diagnose'\].*Closest: 'diagnosis'"):
        read_cases(folder / "mine.csv", TREE, rename={"condition": "diagnose"})


def test_ids_that_became_floats_are_refused(folder: Path) -> None:
    with pytest.raises(CaseTableError, match="floating point numbers, which corrupt long ids"):
        check_cases(frame(**{c.CASE_ID: [1.0, 2.0, 2.0]}), TREE, folder)


def test_weights() -> None:
    assert parse_weights(json.dumps({"a": 0.69, "b": 0.11, "c": 0.11, "d": 0.08})) == {
        "a": 0.69,
        "b": 0.11,
        "c": 0.11,
        "d": 0.08,
    }
    for text in ("[1]", "{}", '{"a": 2}', '{"a": "x"}'):
        with pytest.raises(ValueError, match="weight"):
            parse_weights(text)


def test_another_tree_lists_what_it_lacks(folder: Path) -> None:
    smaller: Taxonomy = TREE.keep(["Impetigo"])
    table: CaseTable = check_cases(frame(), TREE, folder).with_taxonomy(smaller)
    assert table.fine.tolist() == [0, 0]
    assert "a: condition 'Eczema' is not in taxonomy 't'" in str(table.excluded[0])


def test_differentials_follow_the_tree(folder: Path) -> None:
    texts = ['{"eczema": 0.5, "IMPETIGO": 0.5}', '{"Impetigo": 0.75, "Eczema": 0.25}', ""]
    table = check_cases(frame(**{c.WEIGHTS: texts}), TREE, folder)
    assert json.loads(table.frame[c.WEIGHTS][0]) == {"Eczema": 0.5, "Impetigo": 0.5}
    smaller = table.with_taxonomy(TREE.keep(["Impetigo"]))
    assert smaller.frame[c.WEIGHTS].tolist() == ['{"Impetigo": 1.0}', ""]
    check_cases(smaller.frame, smaller.taxonomy, folder)  # what is written can be read again


def test_a_table_without_split_says_how_to_make_one(folder: Path) -> None:
    with pytest.raises(CaseTableError, match="Make one with: hierderm split"):
        _ = check_cases(frame(), TREE, folder).splits


# --- what tables of other people bring ---------------------------------------------------------------------------


def test_a_column_may_serve_twice_and_image_ids_are_the_files_names(folder: Path) -> None:
    plain = frame().drop(columns=c.IMAGE_ID).rename(columns={c.IMAGE_PATH: "img"})
    plain.to_csv(folder / "t.csv", index=False)
    both = read_cases(folder / "t.csv", TREE, rename={c.IMAGE_PATH: "img", c.IMAGE_ID: "img"})
    assert both.frame[c.IMAGE_ID].tolist() == both.frame[c.IMAGE_PATH].tolist() == ["a.png", "b.png", "c.png"]
    named = read_cases(str(folder / "t.csv"), TREE, rename={c.IMAGE_PATH: "img"}, image_root=str(folder))
    assert named.frame[c.IMAGE_ID].tolist() == ["a", "b", "c"]
    assert named.notes[0] == "image_id is the name of each file, as the table has none."


def test_the_column_that_is_named_wins(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    frame(diagnosis=["Impetigo"] * 3).to_csv(folder / "t.csv", index=False)
    assert read_cases(folder / "t.csv", TREE, rename={c.CONDITION: "diagnosis"}).fine.tolist() == [1, 1, 1]
    assert "its own column 'condition' is not used, 'diagnosis' is taken for it" in caplog.text
    with pytest.raises(
        CaseTableError, match=r"columns can be named as one of .*, got \['conditon'\]\. Closest: 'condition'"
    ):
        read_cases(folder / "t.csv", TREE, rename={"conditon": "diagnosis"})


def test_numbers_and_empty_cells_of_a_parquet_file(folder: Path) -> None:
    tree = taxonomy_from_paths([("A", "0"), ("B", "1")], ("c", "f"), id="t")
    numbers = frame(
        condition=[0, 1, 1],
        split=pd.Categorical(["train", None, None]),
        caption=[b"it", None, b"\xff"],
        source=[1.0, None, 2.5],
    )
    numbers.to_parquet(folder / "t.parquet")
    found = read_cases(folder / "t.parquet", tree).frame
    assert found[c.CONDITION].tolist() == ["0", "1", "1"]
    assert found[c.CAPTION].tolist() == ["it", "", "\\xff"] and found[c.SOURCE].tolist() == ["1", "", "2.5"]
    frame(condition=[0, None, 1]).set_index(c.IMAGE_ID).to_parquet(folder / "t.parquet")
    with pytest.raises(CaseTableError, match=r"1 fault\(s\):\n  t\.parquet row 3: condition must not be empty"):
        read_cases(folder / "t.parquet", tree)
    (folder / "t.parquet").rename(folder / "named.csv")
    with pytest.raises(CaseTableError, match="row 3: condition must not be empty"):
        read_cases(folder / "named.csv", tree)


def test_paths_that_are_spelt_another_way_are_found_and_said(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "a.png").rename(folder / "sub" / "a.png")
    table = check_cases(frame(image_path=["sub\\a", "B.PNG", "c.png"]), TREE, folder)
    assert table.frame[c.IMAGE_PATH].tolist() == ["sub/a.png", "b.png", "c.png"]
    assert (
        table.notes[0]
        == "2 image path(s) were found under another spelling: 'sub\\a' as 'sub/a.png', 'B.PNG' as 'b.png'."
    )
    assert "row 3: image 'b.jpg': the file does not exist. There is b.png." in faults(
        frame(image_path=["sub/a.png", "b.jpg", "c.png"]), folder
    )


def test_damaged_ids_and_unseen_characters_are_refused(folder: Path) -> None:
    message = faults(frame(case_id=["1.57398E+17", "NA", "NA"], image_id=["a\u202eb", "b\x07", "c"]), folder)
    assert (
        "row 2: case_id '1.57398E+17' is a number that a spreadsheet has damaged. Take it from the original" in message
    )
    assert r"row 2: image_id 'a\u202eb' has characters that can't be seen. Remove them." in message
    assert r"row 3: image_id 'b\x07' has characters" in message


def test_what_is_doubtful_is_said_and_kept(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    checks.SAID.clear()
    changed = frame(case_id=["NA", "NA", "x"], condition=["ECZEMA", "Impetigo", "Impetigo"])
    table = check_cases(changed, TREE, folder, source="doubtful.csv")
    assert [note.split(":")[0] for note in table.notes] == [
        "1 condition(s) read by the tree's spelling or synonyms",
        "case_id(s) that may stand for an unknown one",
        "1 case(s) have images of several conditions",
    ]
    assert all(f"doubtful.csv: {note}" in caplog.text for note in table.notes)
    caplog.clear()
    check_cases(changed, TREE, folder, source="copy.csv")
    assert caplog.text == ""  # a note is said once
    assert table.with_taxonomy(TREE).notes == table.select(np.array([0])).notes == table.notes


def test_a_file_under_several_ids_is_said(folder: Path) -> None:
    for copied, changes, of in (
        ("b.png", {}, "several conditions: 'a' = 'b'"),
        ("b.png", {c.CONDITION: ["Impetigo"] * 3}, "several cases: 'a' = 'b'"),
        ("b.png", {c.CONDITION: ["Impetigo"] * 3, c.CASE_ID: ["1", "1", "2"]}, "one case: 'a' = 'b'"),
    ):
        (folder / copied).write_bytes((folder / "a.png").read_bytes())
        for decode in (True, False):
            notes = check_cases(frame(**changes), TREE, folder, decode=decode).notes
            assert [note for note in notes if f"1 image file(s) have several image ids, of {of}. One" in note], notes
    twice = frame(image_path=["a.png", "c.png", "c.png"], condition=["Impetigo"] * 3)
    assert any("of one case: 'b' = 'c'" in note for note in check_cases(twice, TREE, folder).notes)


def test_a_file_in_two_splits_is_a_leak(folder: Path) -> None:
    (folder / "b.png").write_bytes((folder / "a.png").read_bytes())
    assert (
        "row 3: image 'b' (test) has the file of image 'a' (train, row 2); a photograph must be in one split."
        in faults(frame(split=["train", "test", "test"]), folder)
    )
    check_cases(frame(split=["test", "test", "test"]), TREE, folder)
    check_cases(frame(split=["train", "", ""], case_id=["1", "2", "3"]), TREE, folder)


def test_a_replaced_image_is_noticed(folder: Path) -> None:
    check_cases(frame(), TREE, folder).write(folder / "cases.csv")
    hashes = read_cases(folder / "cases.csv", TREE).frame[c.IMAGE_HASH]
    assert hashes.tolist() == [file_hash(folder / name) for name in ("a.png", "b.png", "c.png")]
    status = (folder / "b.png").stat()
    Image.new("RGB", (8, 8), "green").save(folder / "b.png")
    os.utime(folder / "b.png", ns=(status.st_atime_ns, status.st_mtime_ns))  # what a copying tool leaves
    message = f"row 3: image 'b' was replaced since the table was made: its image_hash is '{hashes[1]}', that of the"
    with pytest.raises(CaseTableError, match=message):
        read_cases(folder / "cases.csv", TREE, decode=False, unreadable="exclude")


def test_the_table_hash_follows_labels_splits_and_files(folder: Path) -> None:
    weights = ['{"Eczema": 0.7, "Impetigo": 0.3}', "", ""]
    base = frame(split=["train", "test", "test"], weights=weights)
    first = check_cases(base, TREE, folder)
    first.write(folder / "t.parquet")
    assert read_cases(folder / "t.parquet", TREE).table_hash == first.table_hash
    other = [
        check_cases(base.assign(**{name: values}), TREE, folder).table_hash
        for name, values in (
            (c.CONDITION, ["Impetigo"] * 3),
            (c.SPLIT, ["test"] * 3),
            (c.CASE_ID, ["1", "2", "2"]),
            (c.WEIGHTS, [weights[0].replace("7", "6").replace("3", "4"), "", ""]),
            (c.IMAGE_ID, ["a", "b", "d"]),
        )
    ]
    Image.new("RGB", (8, 8), "green").save(folder / "b.png")
    other.append(check_cases(base, TREE, folder).table_hash)
    assert len({first.table_hash, *other}) == 7


def test_cells_of_any_text_survive_writing(folder: Path) -> None:
    captions = ['a "lone quote', "line\r\nbreak\rand \u2028", " =1+1;|\t"]
    check_cases(frame(caption=captions, note=captions), TREE, folder).write(str(folder / "t.csv"))
    again = read_cases(folder / "t.csv", TREE).frame
    assert again["note"].tolist() == captions and again[c.CAPTION].tolist() == [text.strip() for text in captions]


CELLS = st.one_of(
    st.sampled_from(["", "a.png", "Eczema", "eczema ", "NA", "1E+17", "train", '{"Eczema": 1}', "1", "7", "a\\b", "..", "/", "\u202e", "\0"]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    st.none(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.booleans(),
    st.binary(max_size=3),
)  # fmt: skip
COLUMN_NAMES = (*c.TEXT, c.FITZPATRICK, c.MONK, "other")


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.fixed_dictionaries(dict.fromkeys(COLUMN_NAMES, CELLS)), max_size=4),
    st.sets(st.sampled_from([c.WEIGHTS, c.SPLIT, c.MONK, c.IMAGE_ID])),
)
def test_any_cells_are_a_table_or_a_list_of_faults(folder: Path, rows: list[dict[str, Any]], without: set[str]) -> None:
    columns = [name for name in COLUMN_NAMES if name not in without]
    table = pd.DataFrame({name: pd.Series([row[name] for row in rows], dtype=object) for name in columns})
    for options in ({}, {"unreadable": "exclude", "unknown": "exclude"}, {"check_images": False}):
        try:
            made = check_cases(table, TREE, folder, **options)
        except CaseTableError:
            continue
        made.write(folder / "again.csv", replace=True)
        again = read_cases(folder / "again.csv", TREE, unreadable="exclude") if not options else made
        assert again.case_ids.tolist() == made.case_ids.tolist() and (again.fine == made.fine).all()


@pytest.mark.parametrize("column", [c.CASE_ID, c.CONDITION, c.IMAGE_PATH])
@pytest.mark.parametrize("cell", [["x"], {"x": 1}])
def test_cells_of_several_values_are_refused(folder: Path, column: str, cell: Any) -> None:
    table = frame()
    table[column] = [cell, "b", cell]
    with pytest.raises(
        CaseTableError, match=rf"column '{column}' must have one value in each cell, got .* and 1 other"
    ):
        check_cases(table, TREE, folder)


def test_image_ids_of_files_that_differ_in_their_suffix(folder: Path) -> None:
    Image.new("RGB", (8, 8)).save(folder / "a.jpg")
    table = frame(image_path=["a.png", "a.jpg", "c.png"]).drop(columns=c.IMAGE_ID)
    assert check_cases(table, TREE, folder).frame[c.IMAGE_ID].tolist() == ["a.png", "a.jpg", "c.png"]


def test_only_what_can_be_left_out_is_offered(folder: Path) -> None:
    assert "--unknown exclude" not in faults(frame(case_id=["", "2", "2"]), folder)
    assert "--unknown exclude" in faults(frame(condition=["nothing", "Impetigo", "Impetigo"]), folder)


def test_images_anywhere_and_names_that_mean_several(folder: Path) -> None:
    for place, colour in (("one/d.png", "red"), ("two/d.png", "blue"), ("two/deep/e.png", "red"), ("two/g.png", "red")):
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), colour).save(folder / place)
    found = check_cases(frame(image_path=["a", "e", "elsewhere/g.png"]), TREE, folder, anywhere=True)
    assert found.frame[c.IMAGE_PATH].tolist() == ["a.png", "two/deep/e.png", "two/g.png"]
    assert (
        "3 image path(s) were found under another spelling: 'a' as 'a.png', 'e' as 'two/deep/e.png'" in found.notes[0]
    )
    with pytest.raises(CaseTableError) as caught:
        check_cases(frame(image_path=["d", "d.png", "z"]), TREE, folder, source="t.csv", anywhere=True)
    message = str(caught.value)
    assert message.startswith("t.csv has 3 fault(s):")
    for row, name in ((2, "d"), (3, "d.png")):
        assert (
            f"t.csv row {row}: image '{name}' may be any of 2 files: one/d.png, two/d.png. Name its folder" in message
        )
    assert "t.csv row 4: image 'z': the file does not exist" in message
    assert "image 'e': the file does not exist" in faults(frame(image_path=["e", "b.png", "c.png"]), folder)
