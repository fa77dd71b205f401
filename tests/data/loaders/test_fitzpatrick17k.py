from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from hierderm import columns as c
from hierderm.data.checks import check_cases
from hierderm.data.loaders.fitzpatrick17k import read_fitzpatrick17k
from hierderm.errors import CaseTableError

HEAD = "md5hash,fitzpatrick_scale,fitzpatrick_centaur,label,nine_partition_label,three_partition_label,qc,url,url_alphanum\n"


def test_rows(tmp_path: Path) -> None:
    table = tmp_path / "fitzpatrick17k.csv"
    table.write_text(
        HEAD
        + "aa,3,2,psoriasis,inflammatory,non-neoplastic,,u,u\n"
        + "bb,-1,2,melanoma,malignant melanoma,malignant,1 Diagnostic,u,u\n"
        + "cc,5,5,acne,inflammatory,non-neoplastic,3 Wrongly labelled,u,u\n"
    )
    found = read_fitzpatrick17k(table, images=tmp_path)
    frame = found.frame
    assert frame[c.IMAGE_PATH].tolist() == ["aa.jpg", "bb.jpg"]
    assert frame[c.FITZPATRICK].tolist() == ["3", ""]
    assert found.left_out == {"image(s) that the authors mark as wrongly labelled": ["cc"]}
    assert len(read_fitzpatrick17k(table, images=tmp_path, keep_wrong=True).frame) == 3
    table.write_text("a,b\n1,2\n")
    with pytest.raises(CaseTableError, match="must be the published fitzpatrick17k.csv"):
        read_fitzpatrick17k(table, images=tmp_path)


@pytest.mark.parametrize("code", ["3 Wrongly labelled", "3 wrongly labeled ", "3"])
def test_the_review_counts_by_its_code_and_rows_keep_their_numbers(tmp_path: Path, code: str) -> None:
    table = tmp_path / "fitzpatrick17k.csv"
    table.write_text(HEAD + f"aa,3,2,acne,,,{code},u,u\nbb,9,2,acne,,,,u,u\n", encoding="utf-8")
    found = read_fitzpatrick17k(table, images=tmp_path)
    Image.new("RGB", (4, 4)).save(tmp_path / "bb.jpg")
    with pytest.raises(CaseTableError, match=r"fitzpatrick17k.csv row 3: fitzpatrick must be .* got '9'"):
        check_cases(found.frame, found.taxonomy, found.root, source=found.source)


def test_other_kinds_of_the_file_are_read_the_same(tmp_path: Path) -> None:
    import pandas as pd

    table = tmp_path / "f.parquet"
    frame = pd.DataFrame(
        {"md5hash": ["aa", "bb"], "fitzpatrick_scale": [3, -1], "label": ["acne", "acne"], "qc": [None, "3 Wrongly"]}
    )
    frame.to_parquet(table)
    found = read_fitzpatrick17k(table, images=tmp_path, keep_wrong=True)
    assert found.frame[c.FITZPATRICK].tolist() == ["3", ""]
    assert read_fitzpatrick17k(table, images=tmp_path).frame[c.IMAGE_ID].tolist() == ["aa"]
    frame.assign(qc=None).to_parquet(table)
    assert len(read_fitzpatrick17k(table, images=tmp_path).frame) == 2


def test_a_table_without_a_row_to_take(tmp_path: Path) -> None:
    table = tmp_path / "f.csv"
    table.write_text(HEAD, encoding="utf-8")
    with pytest.raises(CaseTableError, match=r"f.csv must have a row an image, it has none to take: all 0 are marked"):
        read_fitzpatrick17k(table, images=tmp_path)
    table.write_text(HEAD + "aa,3,2,acne,,,3 Wrongly labelled,u,u\n", encoding="utf-8")
    with pytest.raises(CaseTableError, match=r"none to take: all 1 are marked as wrongly labelled \(--keep-wrong\)"):
        read_fitzpatrick17k(table, images=tmp_path)
