"""Text tables (CSV and its relatives): one strict reader that says what it found, and the writer that it always reads.

What a file leaves open is refused with what to do, and so is a row whose cells do not match the header.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from hierderm.errors import Fault, HierdermError, describe_faults, some_of

SEPARATORS = {",": "','", ";": "';'", "\t": "tabs", "|": "'|'"}
_MARKS = (  # byte order marks, the longer ones first
    (codecs.BOM_UTF32_LE, "utf-32", "UTF-32"),
    (codecs.BOM_UTF32_BE, "utf-32", "UTF-32"),
    (codecs.BOM_UTF8, "utf-8-sig", "UTF-8 with a byte order mark"),
    (codecs.BOM_UTF16_LE, "utf-16", "UTF-16"),
    (codecs.BOM_UTF16_BE, "utf-16", "UTF-16"),
)
PLAIN = ("UTF-8", "UTF-8 with a byte order mark")  # what spreadsheets and programs write: nothing to say about it
# Signs of Western texts in Windows-1252 besides letters, without those that are letters in other Windows encodings.
_WESTERN = frozenset("€‚„…‘’“”•–—™\xa0§©«®°±²µ·»×÷")
_GIVEN = re.compile(r"sep=([^\r\n])[^\r\n]*(?:\r\n|\n|\r|\Z)", re.IGNORECASE)  # Excel's own way to say it
_OTHER_KINDS = (
    (b"PK\x03\x04", "an Excel or OpenDocument workbook. Save its sheet as 'CSV UTF-8'"),
    (b"\xd0\xcf\x11\xe0", "an Excel workbook. Save its sheet as 'CSV UTF-8'"),
    *((start, "compressed. Unpack it") for start in (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")),
    (b"%PDF-", "a PDF. Export its table as CSV"),
    (b"SQLite format 3", "a database. Export its table as CSV"),
)


class Record(NamedTuple):
    """A row: its number as a spreadsheet shows it, its first line in the file, and its cells."""

    row: int
    line: int
    cells: list[str]


@dataclass(frozen=True)
class Sheet:
    """A text table. `separator`: in words; `notes`: what was found that is unusual, or left out, in words."""

    header: list[str]
    records: list[Record]
    separator: str
    notes: list[str]


def decode_text(content: bytes, source: str, error: type[HierdermError], *, encoding: str = "") -> tuple[str, str]:
    """The text of a file, and its encoding in words, one of `PLAIN` where there is nothing to say about it.

    It is found by its byte order mark, as UTF-8, or as Windows-1252, where the file holds letters and signs of Western
    languages in that. `encoding`: one of Python's names, for a file that leaves it open.

    Raises:
        error: The file is no text, is not in `encoding`, or leaves its encoding open.
    """
    for start, what in _OTHER_KINDS:
        if content.startswith(start):
            raise error(f"{source} must be a text table (CSV), it is {what}.")
    if encoding:
        try:
            return content.decode(encoding).removeprefix("\ufeff"), encoding
        except (UnicodeDecodeError, LookupError) as fault:
            raise error(f"{source} is not in the encoding '{encoding}': {fault}. Give another one.") from None
    for mark, codec, name in _MARKS:
        if content.startswith(mark):
            try:
                return content.decode(codec), name
            except UnicodeDecodeError as fault:
                raise error(f"{source} begins as {name} and is not: {fault}.") from None
    if b"\0" in content:
        raise error(f"{source} must be UTF-8 text, it holds zero bytes. Save it as 'CSV UTF-8'.")
    try:
        return content.decode("utf-8"), "UTF-8"
    except UnicodeDecodeError as fault:
        number, line = _line_of(content, fault.start)
        text = content.decode("cp1252", errors="replace")
        if _is_western(text):
            return text, f"Windows-1252, line {number} is read as: {line}"
        raise error(
            f"{source} must be UTF-8 text, line {number} is not. In Windows-1252 it would be: {line}\n"
            f"Save it as 'CSV UTF-8', or name its encoding: hierderm data csv --encoding ENCODING"
        ) from None


def _line_of(content: bytes, place: int) -> tuple[int, str]:
    before, after = content.rfind(b"\n", 0, place) + 1, content.find(b"\n", place)
    line = content[before : after if after >= 0 else None].decode("cp1252", errors="replace").strip()[:80]
    return content[:place].count(b"\n") + 1, line


def _is_western(text: str) -> bool:
    """Whether a text looks right: its letters beyond ASCII stand alone or in twos among others, as in Western words."""
    signs = {sign for sign in text if sign > "\x7f"}
    known = all(sign in _WESTERN or unicodedata.name(sign, "").startswith("LATIN") for sign in signs)
    return known and re.search(r"[^\x00-\x7f\W\d]{3}", text) is None


def parse_delimited(text: str, source: str, error: type[HierdermError], *, first_line: int = 1) -> Sheet:
    """The table in a text; `error` with all rows that do not fit its header.

    `first_line`: where the table begins in its file; rows are counted from there.
    """
    notes: list[str] = []
    given = _GIVEN.match(text)
    text = text[given.end() :] if given else text
    separator = given[1] if given else _separator(text, source, error)
    in_words = SEPARATORS.get(separator, repr(separator))
    if separator != ",":
        notes.append(f"cells are separated by {in_words}")
    records = list(_records(text, separator, source, error, first_line))
    if not records:
        raise error(f"{source}: there is no table; it must have a header row and rows below it.")
    header, rows = [name.strip() for name in records[0].cells], records[1:]
    while rows and not any(rows[-1].cells):
        rows.pop()  # the end of the file
    empty = [str(record.row) for record in rows if not any(cell.strip() for cell in record.cells)]
    if empty:
        notes.append(f"{len(empty)} empty row(s) left out: {some_of(empty)}")
    rows = [record for record in rows if any(cell.strip() for cell in record.cells)]
    faults = [
        Fault(
            f"{source} row {record.row}",
            f"{len(record.cells)} cells, the header has {len(header)}. {_what_to_do(record, header)}",
        )
        for record in rows
        if len(record.cells) != len(header)
    ]
    if faults:
        raise error(describe_faults(f"{source} has {len(faults)} fault(s):", faults))
    nameless = [number for number, name in enumerate(header) if not name]
    if 0 in nameless and [record.cells[0].strip() for record in rows] in (_counted(rows, 0), _counted(rows, 1)):
        notes.append("the first column, which has no name and counts the rows, is left out")
        nameless.remove(0)
    if filled := [number + 1 for number in nameless if any(record.cells[number].strip() for record in rows)]:
        raise error(f"{source}: column(s) {filled} have cells and no name in the header row. Name them.")
    if repeated := sorted({name for name in header if name and header.count(name) > 1}):
        raise error(f"{source} must have each column once, {repeated} come(s) several times. Rename or remove them.")
    if nameless:
        notes.append(f"{len(nameless)} column(s) without name and content left out")
    kept = [number for number, name in enumerate(header) if name]
    rows = [Record(row, line, [cells[number] for number in kept]) for row, line, cells in rows]
    return Sheet([header[number] for number in kept], rows, in_words, notes)


def _counted(rows: Sequence[Record], start: int) -> list[str]:
    """What a column that counts the rows holds, as programs write it that keep their own row numbers."""
    return [str(number) for number in range(start, start + len(rows))]


def format_delimited(rows: Iterable[Sequence[str]]) -> str:
    """Rows as CSV that `parse_delimited` reads back cell by cell."""
    return "".join(",".join(_quoted(cell, len(row)) for cell in row) + "\n" for row in rows)


def shielded(cell: object) -> object:
    """A text that a spreadsheet would compute, with an apostrophe before it, so that it shows it; else the cell."""
    return f"'{cell}" if isinstance(cell, str) and cell[:1] in ("=", "+", "-", "@", "\t", "\r") else cell


def _quoted(cell: str, n_cells: int) -> str:
    plain = cell == cell.strip() and not any(sign in cell for sign in ',;|"\t\r\n') and (cell or n_cells > 1)
    return cell if plain and not cell.lower().startswith("sep=") else '"' + cell.replace('"', '""') + '"'


def _separator(text: str, source: str, error: type[HierdermError]) -> str:
    """The one separator under which the header has several cells, or, of several, the one that all rows fit."""
    lengths: dict[str, list[int]] = {}
    for separator in SEPARATORS:
        try:
            found = [len(cells) for cells in csv.reader(io.StringIO(text, newline=""), delimiter=separator) if cells]
        except csv.Error:
            continue
        if found and found[0] > 1:
            lengths[separator] = found
    if len(lengths) <= 1:
        return next(iter(lengths), ",")
    fit = [separator for separator, found in lengths.items() if len(set(found)) == 1]
    if len(fit) != 1:
        names = " or ".join(SEPARATORS[separator] for separator in lengths)
        raise error(f"{source}: cells may be separated by {names}, and the rows do not decide it. Save it with commas.")
    return fit[0]


def _records(text: str, separator: str, source: str, error: type[HierdermError], first_line: int) -> Iterator[Record]:
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    row, line, n_cells = first_line - 1, 0, 0
    try:
        for cells in reader:
            row, start, line = row + 1, line, reader.line_num
            n_cells = n_cells or len(cells)
            if line - start > 1 and _swallows(lines[start:line], separator, n_cells):
                raise error(
                    f"{source} row {row}: a quote opens in line {start + first_line} and ends in line "
                    f"{line + first_line - 1}, and the lines between look like rows of their own, which would be lost. "
                    'Double a quote that belongs to the text (""), or take the line breaks out of the cell.'
                )
            if n_cells:  # not a blank line above the header
                yield Record(row, start + first_line, cells)
    except csv.Error as fault:
        raise error(
            f"{source} row {row + 1}, which begins in line {line + first_line}: {fault}. A cell that begins with a "
            'quote must end with one, a quote within it must be doubled (""), and no cell may have more than '
            f"{csv.field_size_limit()} characters."
        ) from None


def _swallows(lines: Sequence[str], separator: str, n_cells: int) -> bool:
    """Whether the lines of one record look like several rows that a lone quote has joined."""
    between = re.compile(re.escape(separator) + "(?! )")  # in sentences a space follows
    whole = sum(len(between.findall(line)) == n_cells - 1 for line in lines)
    return n_cells > 2 and (whole == len(lines) or whole > max(2, len(lines) / 2))


def _what_to_do(record: Record, header: Sequence[str]) -> str:
    if len(record.cells) < len(header):
        return "Fill the row up with separators, also for empty cells."
    if not any(cell.strip() for cell in record.cells[len(header) :]):
        return "Take the separator at the end of the row away, or name the column."
    return "A cell that holds a separator must be quoted."
