"""Escape text for messages, JSON and CSV: what UTF-8 can't hold, or a spreadsheet would run."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Iterable
from typing import Any

AnyPath = str | os.PathLike[str]


def json_text(value: Any, indent: int | None = None) -> str:
    r"""Return JSON that UTF-8 can hold, whatever the names in it; see `encodable`.

    >>> print(json_text({"path": "caf\udce9.jpg"}))
    {"path": "caf\\xe9.jpg"}
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent)
    # A surrogate is always within a string, where JSON doubles a backslash.
    return re.sub("[\ud800-\udfff]", lambda found: f"\\{encodable(found[0])}", text)


def encodable(path: AnyPath) -> str:
    r"""Escape what is no Unicode in a path, so that it can be written in UTF-8.

    A byte of a file name that is not UTF-8 becomes `\xNN`, as in Python's source code. Line breaks
    and other control characters stay; see `printable`.

    >>> print(encodable("caf\udce9.jpg"))
    caf\xe9.jpg
    """
    text = os.fspath(path)
    return _SURROGATE.sub(_escape, text)


def printable(text: AnyPath) -> str:
    r"""Escape a path or other text for a message: as `encodable`, and on one line.

    >>> print(printable("two\nlines, caf\udce9"))
    two\nlines, caf\xe9
    """
    return _CONTROL.sub(_escape, encodable(text))


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:  # what Python decodes a stray byte to
        return f"\\x{code - 0xDC00:02x}"
    return match[0].encode("unicode_escape", "backslashreplace").decode("ascii")


_SURROGATE = re.compile("[\ud800-\udfff]")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def csv_row(cells: Iterable[object]) -> str:
    r"""Return a row of a CSV file, with its line end; cells with a line break are quoted.

    With `lineterminator="\n"`, Python before 3.13 writes a carriage return without quotes, and what
    follows would be another row.

    >>> csv_row(["a\r=1.jpg", 0.5])
    '"a\r=1.jpg",0.5\n'
    """
    text = io.StringIO()
    csv.writer(text).writerow(cells)
    return text.getvalue().removesuffix("\r\n") + "\n"


def path_cell(path: str) -> str:
    """Make a path safe for CSV files: spreadsheets would run `=1.jpg`, but not `./=1.jpg`."""
    return f"./{path}" if path.startswith(_FORMULA) else path


def text_cell(text: str) -> str:
    """Make other text safe for CSV files: an apostrophe before what starts like a formula."""
    return f"'{text}" if text.startswith(_FORMULA) else text


_FORMULA = ("=", "+", "-", "@", "\t", "\r")
