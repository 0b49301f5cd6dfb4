"""Read tables of text, such as CSV files, and the paths in an exclude list.

The encoding of a table, its delimiter and whether it has a header are found from its content.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from catordog.errors import CatordogError
from catordog.escaping import printable
from catordog.photos.listing import is_photo_name

TABLE_SUFFIXES = (".csv", ".tsv", ".txt")

PATH_COLUMNS = (
    "path", "filepath", "file", "filename", "imagepath", "imagefile", "imagefilename", "imagename",
    "image", "img", "imgpath", "imgname", "photo", "picture", "imageid", "imgid", "fileid", "id",
    "fname", "name",
)  # fmt: skip
LABEL_COLUMNS = (
    "label", "labels", "class", "classname", "classlabel", "category", "target", "breed", "species",
    "animal", "tag", "type", "y", "classid", "labelid",
)  # fmt: skip
SPLIT_COLUMNS = ("split", "set", "subset", "partition", "datasplit", "dataset")
"""Usual names of columns without spaces and underscores, the most usual first."""

_DELIMITERS = (",", ";", "\t", "|")


@dataclass(frozen=True, slots=True)
class Table:
    """A table of text.

    Attributes:
        columns: their names; empty if it has no header.
        rows: cells of each row, at least one; rows may differ in length.
        lines: of the text, whole, without the header and blank ones.
    """

    columns: tuple[str, ...]
    rows: list[list[str]]
    lines: Sequence[str] = ()

    def column(self, index: int) -> list[str]:
        """The cells of one column; empty where a row is too short."""
        return [row[index].strip() if index < len(row) else "" for row in self.rows]

    def find(self, names: Sequence[str]) -> list[int]:
        """The indices of the columns that have one of these names, the most usual first."""
        found = [re.sub(r"[\W_]+", "", name).casefold() for name in self.columns]
        return [found.index(name) for name in names if name in found]

    @property
    def width(self) -> int:
        """The number of columns."""
        return max([len(self.columns), *map(len, self.rows)])

    def name(self, index: int) -> str:
        """A column's name, or its number if it has no name."""
        return repr(printable(self.columns[index])) if self.columns else str(index + 1)


def parse_table(data: bytes) -> Table:
    r"""Parse a table.

    Args:
        data: text in UTF-8, UTF-16 or Windows-1252, delimited by comma, semicolon, tab or bar; or
            in two columns, delimited by spaces.

    Raises:
        ValueError: it is no text, or has no rows.
        csv.Error: a cell is larger than `csv.field_size_limit`.

    >>> table = parse_table(b"id;breed\n1;beagle\n2;boxer\n")
    >>> table.columns, table.rows
    (('id', 'breed'), [['1', 'beagle'], ['2', 'boxer']])
    """
    text = _decode(data)
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        raise ValueError("it is empty")
    rows = [row for row in _split(text, lines) if any(cell.strip() for cell in row)]
    if _is_header(rows):
        return Table(tuple(cell.strip() for cell in rows[0]), rows[1:], lines[1:])
    return Table((), rows, lines)


def _decode(data: bytes) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16")
    if data[:512].count(0) > len(data[:512]) // 4:  # UTF-16 without a byte order mark
        return data.decode("utf-16-be" if data[0] == 0 else "utf-16-le")
    if b"\0" in data:
        raise ValueError("it is no text")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252")  # Excel's "CSV"


def _split(text: str, lines: Sequence[str]) -> list[list[str]]:
    best, delimiter = 1, ","
    for candidate in _DELIMITERS:
        widths = Counter(map(len, csv.reader(lines[:50], delimiter=candidate)))
        width, count = widths.most_common(1)[0]
        if width > best and 2 * count > len(lines[:50]):
            best, delimiter = width, candidate
    if best == 1 and all(len(line.rsplit(maxsplit=1)) == 2 for line in lines[:50]):
        last = [line.rsplit(maxsplit=1) for line in lines]
        if len({cells[-1] for cells in last}) < len(last) and not any(
            is_photo_name(cells[-1]) for cells in last[:50]
        ):
            return last
    return list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))


def _is_header(rows: Sequence[Sequence[str]]) -> bool:
    """Whether the first row has the names of columns: usual ones, or names unlike the values."""
    first = [cell.strip() for cell in rows[0]]
    table = Table(tuple(first), [])
    if any(is_photo_name(cell) or "/" in cell for cell in first):
        return False
    if table.find((*PATH_COLUMNS, *LABEL_COLUMNS)):
        return True
    second = rows[1] if len(rows) > 1 else []
    return any(map(is_photo_name, second)) or (
        not any(cell.isdigit() for cell in first)
        and (any(cell.strip().isdigit() for cell in second))
    )


def read_table(file: Path, option: str) -> Table:
    """Parse a file.

    Args:
        file: a table; see `parse_table`.
        option: names it in errors.

    Raises:
        CatordogError: it can't be read, or is no table.
    """
    try:
        return parse_table(file.read_bytes())
    except OSError as error:
        raise CatordogError(f"{option}: {error.strerror or error}") from None
    except csv.Error as error:
        reason = str(error)
        if reason.startswith("field larger"):
            most = f"{csv.field_size_limit():,}"
            reason = f"a cell has over {most} characters: is it a table, and is each quote closed?"
        raise CatordogError(f"{option}: {reason}") from None
    except ValueError as error:  # UnicodeDecodeError is one
        reason = "it is no text" if isinstance(error, UnicodeError) else str(error)
        raise CatordogError(f"{option}: {reason}, but should be a CSV file in UTF-8") from None


def path_column(table: Table, option: str) -> int:
    """The index of the column of paths in a list of photos.

    Raises:
        CatordogError: the table has several columns but none of paths.
    """
    found = table.find(("path", *PATH_COLUMNS))
    if not found and table.width > 1:
        found = [index for index in range(table.width)
                 if sum(map(is_photo_name, table.column(index))) * 2 > len(table.rows)]  # fmt: skip
        if not found:
            columns = ", ".join(repr(printable(cell)) for cell in table.columns or table.rows[0])
            raise CatordogError(
                f"{option}: it has no column 'path', but {columns}: name the column of paths 'path'"
            )
    return found[0] if found else 0
