"""The reader of text tables: what it reads, what it says, and what it refuses rather than guess."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hierderm.data.table import read_described, read_frame
from hierderm.delimited import decode_text, format_delimited, parse_delimited, shielded
from hierderm.errors import CaseTableError


def parsed(text: str) -> tuple[list[str], list[list[str]], list[str]]:
    sheet = parse_delimited(text, "t.csv", CaseTableError)
    return sheet.header, [record.cells for record in sheet.records], sheet.notes


def refused(text: str) -> str:
    with pytest.raises(CaseTableError) as caught:
        parse_delimited(text, "t.csv", CaseTableError)
    return str(caught.value)


CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6)


@example([["a", "b"], ["x\r\ny", 'say "so"'], ["=1", "-2"], [" x ", "a;b|c\td"], ["\u2028", "\x0b"]])
@given(st.integers(1, 4).flatmap(lambda n: st.lists(st.lists(CELLS, min_size=n, max_size=n), min_size=1, max_size=5)))
def test_what_is_written_is_read(rows: list[list[str]]) -> None:
    header = [f"c{number}" for number in range(len(rows[0]))]
    found_header, found, notes = parsed(format_delimited([header, *rows]))
    filled = [row for row in rows if any(cell.strip() for cell in row)]
    assert (found_header, found) == (header, filled)
    assert all("empty row" in note for note in notes)


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_each_separator_line_end_and_encoding(
    tmp_path: Path, separator: str, end: str, encoding: str, caplog: pytest.LogCaptureFixture
) -> None:
    text = (
        end.join([separator.join(row) for row in (["id", "name"], ["007", "Ekzem (süß)"], ["1E5", '"a, b; c"'])]) + end
    )
    (tmp_path / "t.csv").write_bytes(text.encode(encoding))
    frame = read_frame(tmp_path / "t.csv")
    assert frame.to_dict("list") == {"id": ["007", "1E5"], "name": ["Ekzem (süß)", "a, b; c"]}
    assert ("cells are separated by" in caplog.text) == (separator != ",")
    assert ("the file is UTF-" in caplog.text) == encoding.startswith(("utf-16", "utf-32"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2,\n", "t.csv row 2: 3 cells, the header has 2. Take the separator at the end of the row away"),
        ("a,b\n1,2\n3\n", "t.csv row 3: 1 cells, the header has 2. Fill the row up"),
        ("a,b\n1,2,3\n", "t.csv row 2: 3 cells, the header has 2. A cell that holds a separator must be quoted"),
        ("a,b,\n1,2,x\n", "t.csv: column(s) [3] have cells and no name in the header row"),
        ("a,a\n1,2\n", "t.csv must have each column once, ['a'] come(s) several times"),
        ('a,b\n1,"2\n3,4\n', 't.csv row 2, which begins in line 2: unexpected end of data. A cell that begins with a quote'),
        ('a,b\n"1"x,2\n', "t.csv row 2, which begins in line 2: ',' expected after '\"'"),
        ("a,b;c\n1,2;3\n", "t.csv: cells may be separated by ',' or ';', and the rows do not decide it"),
        ("\n\n", "t.csv: there is no table"),
    ],
)  # fmt: skip
def test_refusals(text: str, message: str) -> None:
    assert message in refused(text)


def test_all_rows_at_once() -> None:
    message = refused("a,b\n" + "1,2,\n" * 3)
    assert message.startswith("t.csv has 3 fault(s):") and "row 2" in message and "row 4" in message


@given(st.integers(3, 6), st.integers(1, 12), st.integers(0, 3), st.integers(0, 5))
def test_a_lone_quote_never_swallows_rows(n_columns: int, n_swallowed: int, before: int, column: int) -> None:
    """A row whose cell opens a quote, and a later row whose cell happens to end with one."""
    column %= n_columns
    rows = [[f"r{row}c{number}" for number in range(n_columns)] for row in range(before + n_swallowed + 1)]
    rows[before][column] = '"5 mm'
    rows[before + n_swallowed][column] = 'say "so"' if column else 'x"'
    text = "\n".join(",".join(row) for row in [[f"c{number}" for number in range(n_columns)], *rows]) + "\n"
    assert re.search(r"t\.csv row \d+(: a quote opens in line|, which begins in line)", refused(text))


def test_line_breaks_within_quotes_are_text() -> None:
    assert parsed('a,b,c\n1,"itchy,\nred, dry",2\n')[1] == [["1", "itchy,\nred, dry", "2"]]


def test_rows_keep_the_numbers_that_a_spreadsheet_shows(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('a,b\n\n1,"x\ny"\n,\n2,z\n\n', encoding="utf-8")
    assert read_frame(tmp_path / "t.csv").index.tolist() == [3, 5]
    assert parsed('a,b\n\n1,"x\ny"\n,\n2,z\n\n')[2] == ["2 empty row(s) left out: 2, 4"]
    assert parsed("sep=;\na;b;\n1,5;2;\n")[1:] == (
        [["1,5", "2"]], ["cells are separated by ';'", "1 column(s) without name and content left out"]
    )  # fmt: skip


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"PK\x03\x04...",
            "t.csv must be a text table (CSV), it is an Excel or OpenDocument workbook. Save its sheet as",
        ),
        (b"\xd0\xcf\x11\xe0...", "it is an Excel workbook"),
        (b"\x1f\x8b...", "it is compressed. Unpack it"),
        (
            "a,b\n1,皮膚炎\n".encode("gbk"),
            "t.csv must be UTF-8 text, line 2 is not. In Windows-1252 it would be: 1,Æ¤Äw",
        ),
        (
            "a,b\n1,łuszczyca\n".encode("cp1250"),
            "t.csv must be UTF-8 text, line 2 is not. In Windows-1252 it would be: 1,³u",
        ),
        (b"a,b\n1,S\x81\n", "t.csv must be UTF-8 text, line 2 is not"),
        (b"a\0,\0b\0", "t.csv must be UTF-8 text, it holds zero bytes"),
        (b"\xff\xfea\0b", "t.csv begins as UTF-16 and is not"),
    ],
)
def test_files_of_other_kinds(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(CaseTableError, match=re.escape(message)):
        read_frame(tmp_path / "t.csv")


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    try:
        text, _ = decode_text(content, "t.csv", CaseTableError)
        sheet = parse_delimited(text, "t.csv", CaseTableError)
    except CaseTableError:
        return
    assert all(len(record.cells) == len(sheet.header) for record in sheet.records)
    assert io.StringIO(text).read() is not None


def test_what_a_spreadsheet_would_compute_is_shielded() -> None:
    cells = ["=1+1", "+1", "-x", "@SUM(A1)", "\tx", "a=b", "", -1.5, None]
    assert [shielded(cell) for cell in cells] == ["'=1+1", "'+1", "'-x", "'@SUM(A1)", "'\tx", "a=b", "", -1.5, None]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_separator_that_the_file_names(end: str) -> None:
    header, cells, notes = parsed(end.join(["sep=;", "a;b", "1;2,5"]) + end)
    assert (header, cells, notes) == (["a", "b"], [["1", "2,5"]], ["cells are separated by ';'"])


def test_very_long_cells() -> None:
    assert parsed(f"a,b\n1,{'x' * 100_000}\n")[1][0][1] == "x" * 100_000
    assert "no cell may have more than 131072 characters" in refused(f"a,b\n1,{'x' * 200_000}\n")


def test_windows_1252_is_found_by_its_words_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = "a,b\n1,plain\n2,„Süß“ – naïve façade 3 µm²\n"
    (tmp_path / "t.csv").write_bytes(text.encode("cp1252"))
    frame, found = read_described(tmp_path / "t.csv")
    assert frame["b"].tolist() == ["plain", "„Süß“ – naïve façade 3 µm²"]
    assert found.startswith("Windows-1252, line 3 is read as: 2,„Süß“") and found.endswith("cells separated by ','")
    assert "the file is Windows-1252, line 3 is read as" in caplog.text


@pytest.mark.parametrize("encoding", ["mac-roman", "gbk", "utf-16-le", "utf-8-sig"])
def test_an_encoding_that_is_named(tmp_path: Path, encoding: str) -> None:
    text = "a;b\n1;Süß\n" if encoding == "mac-roman" else "a;b\n1;皮膚炎\n"
    (tmp_path / "t.csv").write_bytes(text.encode(encoding))
    frame, found = read_described(tmp_path / "t.csv", encoding=encoding)
    assert "\n".join([";".join(frame.columns), *(";".join(row) for row in frame.to_numpy()), ""]) == text
    assert found == f"{encoding}, cells separated by ';'"
    for wrong in ("ascii", "no-such", "hex"):
        with pytest.raises(CaseTableError, match=rf"t\.csv is not in the encoding '{wrong}': .*\. Give another one\."):
            read_described(tmp_path / "t.csv", encoding=wrong)


def test_row_numbers_that_a_program_wrote_are_left_out(tmp_path: Path) -> None:
    assert parsed(",a\n0,x\n1,y\n") == (["a"], [["x"], ["y"]], ["the first column, which has no name and counts the rows, is left out"])  # fmt: skip
    assert parsed(",a\n1,x\n2,y\n")[0] == ["a"]
    for first in ("0,x\n2,y\n", "1,x\n0,y\n", "7,x\n8,y\n", ",x\n1,y\n"):  # it may mean something
        assert "column(s) [1] have cells and no name" in refused(f",a\n{first}")
