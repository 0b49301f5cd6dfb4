from __future__ import annotations

import csv
import json

import pytest

from catordog.confidence.verdict import judge
from catordog.errors import CatordogError, PhotoError
from catordog.report.rows import Rows

CLASSES = ("cat", "dog")
RESULTS = {
    "a.jpg": judge([3.0, -1.5], CLASSES),
    'a "quoted",\nname.jpg': judge([0.7, 1.0], CLASSES),
    "=SUM(A1).jpg": PhotoError("=SUM(A1).jpg", "truncated file"),
    "übung.jpg": judge([-4.0, 9.0], CLASSES),
}


def write(path, style, *, resume=False, classes=CLASSES):
    """Write a row for every photo that has none. Returns the number of rows there were."""
    with Rows(path, style, classes, resume=resume) as rows:
        for photo, result in RESULTS.items():
            if not rows.has(photo):
                rows.write(photo, result)
    return rows.resumed


@pytest.mark.parametrize("style", ["jsonl", "csv"])
def test_a_file_cut_off_at_any_byte_is_resumed_without_a_lost_or_doubled_row(tmp_path, style):
    out, partial = tmp_path / f"r.{style}", tmp_path / f"r.{style}.partial"
    write(out, style)
    complete = out.read_bytes()
    resumed = set()
    for size in range(len(complete) + 1):
        out.unlink(missing_ok=True)
        partial.write_bytes(complete[:size])
        resumed.add(write(out, style, resume=True))
        assert out.read_bytes() == complete, size
        assert not partial.exists()
    assert resumed == set(range(len(RESULTS) + 1))


def test_a_complete_file_is_resumed_too(tmp_path):
    write(tmp_path / "r.csv", "csv")
    complete = (tmp_path / "r.csv").read_bytes()
    assert write(tmp_path / "r.csv", "csv", resume=True) == len(RESULTS)
    assert (tmp_path / "r.csv").read_bytes() == complete


@pytest.mark.parametrize(
    ("style", "classes"),
    [("csv", ("cat", "fox")), ("jsonl", ("cat", "fox")), ("jsonl", CLASSES), ("csv", CLASSES)],
)
def test_rows_in_another_format_or_of_other_classes_are_refused(tmp_path, style, classes):
    path = tmp_path / "r"
    other = {"csv": "jsonl", "jsonl": "csv"}[style]
    write(path, other if classes == CLASSES else style)
    complete = path.read_bytes()
    with pytest.raises(CatordogError, match="another format or of other classes: move it away"):
        Rows(path, style, classes, resume=True)
    assert (tmp_path / "r.partial").read_bytes() == complete


@pytest.mark.parametrize("style", ["jsonl", "csv"])
def test_rows_can_be_read_back(tmp_path, style):
    path = tmp_path / f"r.{style}"
    write(path, style)
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file)) if style == "csv" else list(map(json.loads, file))
    photos = ["./=SUM(A1).jpg" if style == "csv" and name[0] == "=" else name for name in RESULTS]
    assert [row["path"] for row in rows] == photos
    assert [row["label"] or "" for row in rows] == ["cat", "dog", "", "dog"]
    assert [row["error"] or "" for row in rows] == ["", "", "truncated file", ""]
    assert float(rows[0]["confidence"]) == RESULTS["a.jpg"].confidence
